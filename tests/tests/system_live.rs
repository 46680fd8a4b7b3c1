//! Live changes over HTTP: a row and a list are followed, over restarts and switches of builds, by whoever may see them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals_tests::cluster::Cluster;
use annals_tests::follow::Follower;
use annals_tests::{Api, Home, Server, Shared, Shop, unique};
use serde_json::json;

static SERVER: Shared = Shared::new();

#[tokio::test]
async fn a_customer_follows_own_orders_from_placement_to_delivery() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 50).await;
    let (mine, theirs) = (shop.customer().await, shop.customer().await);
    let api = server.api_as("customer", &mine);
    let mut orders = Follower::begin(&api, "/v1/orders", None).await;
    let first = orders.next().await.unwrap();
    assert_eq!(
        (first.kind.as_str(), first.data),
        ("snapshot", json!({"data": []}))
    );
    shop.place(&theirs, "2004-03-02", "tok_ok", &[(&sku, 1, 500)])
        .await;
    let placed = shop.place(&mine, "2004-03-02", "tok_ok", &[(&sku, 1, 500)]).await;
    orders
        .until(|held| {
            held.get(&placed.order)
                .is_some_and(|row| row["data"]["status"] == "confirmed")
        })
        .await;
    let row = &orders.held[&placed.order];
    let read = api.get(&format!("/v1/orders/{}", placed.order)).await;
    assert_eq!(row["data"], read.data(), "the same row as a plain query has");
    assert_eq!(
        Some(row["version"].to_string().as_str()),
        read.header("annals-version")
    );
    // The id's positions are what `Annals-After` takes.
    let (positions, _) = orders.last.as_ref().unwrap().split_once(';').unwrap();
    api.get_after("/v1/orders", positions).await.is(200);
    assert_eq!((orders.held.len(), orders.repeats, orders.snapshots), (1, 0, 1));

    // A list with a filter: what does not match any more is removed.
    let path = format!("/v1/orders?status=confirmed&customer_id={mine}");
    let mut confirmed = Follower::begin(&server.api("clerk"), &path, None).await;
    confirmed.until(|held| held.len() == 1).await;
    let ship = json!({"carrier": "Owl", "tracking": "1"});
    shop.done(&format!("/v1/orders/{}/ship", placed.order), &ship)
        .await;
    confirmed.until(|held| held.is_empty()).await;
    orders
        .until(|held| held[&placed.order]["data"]["status"] == "shipped")
        .await;
    let error = api.call("GET", &format!("/v1/orders/{}", annals_tests::uuid()));
    error
        .header("accept", "text/event-stream")
        .send()
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn a_follower_goes_on_over_restarts_without_loss_or_repeat() {
    let Some(home) = Home::with_database() else { return };
    let server = home.dev();
    let shop = Shop::of(&server);
    let (sku, other) = (shop.product(500, 5).await, shop.product(500, 0).await);
    shop.product_is(&sku, 5, 0).await;
    shop.product_is(&other, 0, 0).await;
    let mut row = Follower::begin(&shop.admin, &format!("/v1/products/{sku}"), None).await;
    let mut list = Follower::begin(&shop.admin, "/v1/products?status=active", None).await;
    row.until(|held| held.len() == 1).await;
    list.until(|held| held.len() == 2).await;
    // A node that is stopped says so, and does not wait for those who follow.
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    for follower in [&mut row, &mut list] {
        follower.to_the_end().await;
        assert_eq!(follower.end.as_ref().unwrap()["code"], "overloaded");
    }
    let server = home.dev();
    let shop = Shop::of(&server);
    let mut row = Follower::begin(&shop.admin, &format!("/v1/products/{sku}"), Some(&row)).await;
    let mut list = Follower::begin(&shop.admin, "/v1/products?status=active", Some(&list)).await;
    let receive = json!({"quantity": 1, "reference": "delivery"});
    shop.done(&format!("/v1/products/{sku}/receive"), &receive).await;
    for follower in [&mut row, &mut list] {
        follower.until(|held| held[&sku]["data"]["on_hand"] == 6).await;
        // Nothing had changed while nobody followed: the change is all that came.
        assert_eq!((follower.snapshots, follower.repeats), (1, 0));
    }
    server.kill();
    row.to_the_end().await;
    list.to_the_end().await;
    let server = home.dev();
    let shop = Shop::of(&server);
    // What happens while nobody follows is not lost.
    shop.done(&format!("/v1/products/{other}/receive"), &receive)
        .await;
    shop.product_is(&other, 1, 0).await;
    let mut list = Follower::begin(&shop.admin, "/v1/products?status=active", Some(&list)).await;
    list.until(|held| held[&other]["data"]["on_hand"] == 1).await;
    let mut row = Follower::begin(&shop.admin, &format!("/v1/products/{sku}"), Some(&row)).await;
    shop.done(&format!("/v1/products/{sku}/receive"), &receive).await;
    row.until(|held| held[&sku]["data"]["on_hand"] == 7).await;
    assert_eq!(
        (row.snapshots, row.repeats),
        (1, 0),
        "of a row every node knows what was missed"
    );
    assert_eq!(list.repeats, 0);
    drop((row, list));
    server.stop();
}

#[tokio::test]
async fn bounds_are_kept_and_said() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__QUERY__LIVE_PER_CALLER", "2");
    home.set("ANNALS__QUERY__LIVE_CONNECTIONS", "3");
    home.set("ANNALS__QUERY__LIVE_ROWS", "1");
    home.set("ANNALS__QUERY__LIVE_HEARTBEAT_MS", "100");
    let server = home.dev();
    let shop = Shop::of(&server);
    for _ in 0..2 {
        let sku = shop.product(500, 1).await;
        shop.product_is(&sku, 1, 0).await;
    }
    let open = |subject: String| {
        let api = server.api_as("admin", &subject);
        async move {
            let call = api.call("GET", "/v1/products?limit=1");
            call.header("accept", "text/event-stream").open().await
        }
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(open("ann".to_owned()).await);
    }
    assert_eq!(open("ann".to_owned()).await.status(), 429);
    held.push(open("bob".to_owned()).await);
    assert_eq!(open("eve".to_owned()).await.status(), 503);
    // It says that it is there.
    let mut text = String::new();
    while !text.contains("\n:\n") {
        let chunk = held[0].chunk().await.unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    drop(held);
    // Places come back when their clients are gone.
    let until = Instant::now() + Duration::from_secs(30);
    while open("ann".to_owned()).await.status() != 200 {
        assert!(Instant::now() < until, "no place came back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let whole = server
        .api_as("admin", &unique("somebody"))
        .call("GET", "/v1/products");
    let refused = whole.header("accept", "text/event-stream").send().await;
    refused.problem(400, "invalid-parameter");
    server.stop();
}

/// What is followed while builds come and go: a product, and all that are on sale.
struct Followers {
    row: Follower,
    list: Follower,
}

const ON_SALE: &str = "/v1/products?status=active";

impl Followers {
    async fn begin(api: &Api, sku: &str, before: Option<&Self>) -> Self {
        Self {
            row: Follower::begin(api, &format!("/v1/products/{sku}"), before.map(|b| &b.row)).await,
            list: Follower::begin(api, ON_SALE, before.map(|b| &b.list)).await,
        }
    }

    /// Receives a piece, and waits until both tell of it: a change that got lost would never come.
    async fn receive(&mut self, commands: &Api, sku: &str, on_hand: &mut u64) {
        *on_hand += 1;
        receive(commands, sku).await;
        for follower in [&mut self.row, &mut self.list] {
            follower
                .until(|held| held[sku]["data"]["on_hand"] == *on_hand)
                .await;
        }
    }
}

async fn receive(commands: &Api, sku: &str) {
    let data = json!({"quantity": 1, "reference": "delivery"});
    let answer = commands.post(&format!("/v1/products/{sku}/receive"), &data).await;
    answer.is(200);
}

/// Asks an operator's route for something about the builds of products; again while the new build is not as far yet.
async fn act(node: &Server, action: &str) {
    let until = Instant::now() + Duration::from_secs(90);
    let path = format!("/admin/projections/products/{action}");
    loop {
        let answer = node.operations(Some("operator")).call("POST", &path).send().await;
        if answer.status == 202 {
            return;
        }
        let refused = answer.problem(409, "rejected");
        assert!(Instant::now() < until, "{action}: {refused}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn live_build(node: &Server) -> i64 {
    let listed = node
        .operations(Some("operator"))
        .get("/admin/projections/products")
        .await;
    let builds = listed.is(200).data();
    let live = builds
        .as_array()
        .unwrap()
        .iter()
        .find(|build| build["live"] == true);
    live.unwrap()["build"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_stay_while_a_build_is_made_switched_to_and_back_and_resume_behind_a_switch() {
    let Some(cluster) = Cluster::prepare("").await else {
        return;
    };
    let cluster = Arc::new(cluster);
    let node = cluster.started("command,process").await;
    let projector = cluster.started("projector").await;
    let queries = cluster.started("query").await;
    let (commands, reads, shop) = (node.api("admin"), queries.api("admin"), Shop::of(&node));
    let (sku, busy, gone) = (
        shop.product(500, 0).await,
        shop.product(500, 0).await,
        shop.product(500, 0).await,
    );
    let row = format!("/v1/products/{sku}");
    reads.wait_until(&row, &format!("product-{sku}"), |_| true).await;
    let mut followers = Followers::begin(&reads, &sku, None).await;
    followers.row.until(|held| held.len() == 1).await;
    followers.list.until(|held| held.len() == 3).await;
    // Somebody else's product changes all the time, whatever builds do.
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (commands, busy, stop) = (commands.clone(), busy.clone(), Arc::clone(&stop));
        async move {
            let mut received = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                receive(&commands, &busy).await;
                received += 1;
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            received
        }
    });
    let mut on_hand = 0;
    followers.receive(&commands, &sku, &mut on_hand).await;
    act(&projector, "rebuild").await;
    for _ in 0..3 {
        followers.receive(&commands, &sku, &mut on_hand).await;
    }
    act(&projector, "switch").await;
    assert_eq!(live_build(&projector).await, 2);
    for _ in 0..3 {
        followers.receive(&commands, &sku, &mut on_hand).await;
    }
    let discontinued = commands
        .post(
            &format!("/v1/products/{gone}/discontinue"),
            &json!({"reason": "sold out"}),
        )
        .await;
    discontinued.is(200);
    followers.list.until(|held| !held.contains_key(&gone)).await;
    act(&projector, "rollback").await;
    assert_eq!(live_build(&projector).await, 1);
    for _ in 0..3 {
        followers.receive(&commands, &sku, &mut on_hand).await;
    }
    let new = shop.product(500, 0).await;
    followers.list.until(|held| held.contains_key(&new)).await;
    for (what, follower) in [("row", &followers.row), ("list", &followers.list)] {
        assert_eq!(
            (follower.snapshots, follower.repeats, follower.went_back),
            (1, 0, 0),
            "{what}"
        );
        assert!(follower.end.is_none(), "{what}: {:?}", follower.end);
    }

    // Its query node is restarted, and while nobody follows a piece comes in and another build goes live.
    tokio::task::spawn_blocking(move || queries.stop()).await.unwrap();
    followers.row.to_the_end().await;
    followers.list.to_the_end().await;
    on_hand += 1;
    receive(&commands, &sku).await;
    // The route takes the newest that was never live; one that was is named.
    let again = ["projections", "switch", "products", "--build", "2"];
    cluster.run(&again).await.exits(0);
    assert_eq!(live_build(&projector).await, 2);
    let queries = cluster.started("query").await;
    let reads = queries.api("admin");
    let mut resumed = Followers::begin(&reads, &sku, Some(&followers)).await;
    for follower in [&mut resumed.row, &mut resumed.list] {
        follower
            .until(|held| held[&sku]["data"]["on_hand"] == on_hand)
            .await;
    }
    resumed.receive(&commands, &sku, &mut on_hand).await;
    act(&projector, "rollback").await;
    resumed.receive(&commands, &sku, &mut on_hand).await;
    let row = &resumed.row;
    assert_eq!((row.snapshots, row.repeats, row.went_back), (1, 0, 0));
    // Of a list with others' changes a new node may not know what was missed: then it begins with all of it.
    let list = &resumed.list;
    assert!(list.snapshots <= 2, "{} snapshots", list.snapshots);
    assert_eq!((list.repeats, list.went_back), (0, 0));

    stop.store(true, Ordering::SeqCst);
    let received = load.await.unwrap();
    resumed
        .list
        .until(|held| held[&busy]["data"]["on_hand"] == received)
        .await;
    let plain = reads.get(ON_SALE).await.data();
    let plain = plain.as_array().unwrap();
    assert_eq!(plain.len(), resumed.list.held.len());
    for row in plain {
        let key = row["sku"].as_str().unwrap();
        assert_eq!(
            resumed.list.held[key]["data"], *row,
            "what is held is what is there"
        );
    }
    drop(resumed);
    tokio::task::spawn_blocking(move || {
        queries.stop();
        projector.stop();
        node.stop();
    })
    .await
    .unwrap();
    Arc::into_inner(cluster).unwrap().end().await;
}

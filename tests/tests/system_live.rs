//! Live changes over HTTP: a row and a list are followed, over restarts, by whoever may see them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::time::{Duration, Instant};

use annals_tests::follow::Follower;
use annals_tests::{Home, Shared, Shop, unique};
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
    assert_eq!((first.kind.as_str(), first.data), ("snapshot", json!({"data": []})));
    shop.place(&theirs, "2004-03-02", "tok_ok", &[(&sku, 1, 500)]).await;
    let placed = shop.place(&mine, "2004-03-02", "tok_ok", &[(&sku, 1, 500)]).await;
    orders
        .until(|held| held.get(&placed.order).is_some_and(|row| row["data"]["status"] == "confirmed"))
        .await;
    let row = &orders.held[&placed.order];
    let read = api.get(&format!("/v1/orders/{}", placed.order)).await;
    assert_eq!(row["data"], read.data(), "the same row as a plain query has");
    assert_eq!(Some(row["version"].to_string().as_str()), read.header("annals-version"));
    // The id's positions are what `Annals-After` takes.
    let (positions, _) = orders.last.as_ref().unwrap().split_once(';').unwrap();
    api.get_after("/v1/orders", positions).await.is(200);
    assert_eq!((orders.held.len(), orders.repeats, orders.snapshots), (1, 0, 1));

    // A list with a filter: what does not match any more is removed.
    let path = format!("/v1/orders?status=confirmed&customer_id={mine}");
    let mut confirmed = Follower::begin(&server.api("clerk"), &path, None).await;
    confirmed.until(|held| held.len() == 1).await;
    let ship = json!({"carrier": "Owl", "tracking": "1"});
    shop.done(&format!("/v1/orders/{}/ship", placed.order), &ship).await;
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
    shop.done(&format!("/v1/products/{other}/receive"), &receive).await;
    shop.product_is(&other, 1, 0).await;
    let mut list = Follower::begin(&shop.admin, "/v1/products?status=active", Some(&list)).await;
    list.until(|held| held[&other]["data"]["on_hand"] == 1).await;
    let mut row = Follower::begin(&shop.admin, &format!("/v1/products/{sku}"), Some(&row)).await;
    shop.done(&format!("/v1/products/{sku}/receive"), &receive).await;
    row.until(|held| held[&sku]["data"]["on_hand"] == 7).await;
    assert_eq!((row.snapshots, row.repeats), (1, 0), "of a row every node knows what was missed");
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
    let whole = server.api_as("admin", &unique("somebody")).call("GET", "/v1/products");
    let refused = whole.header("accept", "text/event-stream").send().await;
    refused.problem(400, "invalid-parameter");
    server.stop();
}

//! Node roles in separate processes that share a database, each with logins that may do its own work only.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::time::{Duration, Instant};

use annals_tests::api::shard_of;
use annals_tests::cluster::Cluster;
use annals_tests::follow::Follower;
use annals_tests::shop::order_data;
use annals_tests::{Api, Shop, unique, uuid};
use serde_json::json;

/// Commands to one address, queries to another, as a load balancer would.
async fn order_lives(commands: &Api, reads: &Shop, day: &str) {
    let (sku, customer, order) = (unique("P"), uuid(), uuid());
    let register = json!({"name": "A thing", "price": {"amount": 500, "currency": "USD"}});
    commands
        .post(&format!("/v1/products/{sku}/register"), &register)
        .await
        .is(201);
    let receive = json!({"quantity": 10, "reference": "delivery"});
    commands
        .post(&format!("/v1/products/{sku}/receive"), &receive)
        .await
        .is(200);
    let person = json!({"name": "Ada", "email": "ada@example.com"});
    commands
        .post(&format!("/v1/customers/{customer}/register"), &person)
        .await
        .is(201);
    let place = order_data(&customer, day, "tok_ok", &[(&sku, 3, 500)]);
    commands
        .post(&format!("/v1/orders/{order}/place"), &place)
        .await
        .is(201);
    let confirmed = reads.order_is(&order, "confirmed").await;
    let sales = reads.row(&format!("/v1/daily_sales/{day},USD"), &confirmed).await;
    assert_eq!(sales["revenue"], 1500);
    let who = reads.row(&format!("/v1/customers/{customer}"), &confirmed).await;
    assert_eq!(
        who["name"], "Ada",
        "decrypted by another process than the one that encrypted it"
    );
    commands
        .post(
            &format!("/v1/orders/{order}/ship"),
            &json!({"carrier": "Owl", "tracking": "1"}),
        )
        .await
        .is(200);
    reads.order_is(&order, "shipped").await;
    reads.product_is(&sku, 7, 0).await;
    let delivered = commands
        .post(&format!("/v1/orders/{order}/deliver"), &json!({}))
        .await;
    assert_eq!(
        reads.row(&format!("/v1/orders/{order}"), &delivered).await["status"],
        "delivered"
    );
}

#[tokio::test]
async fn an_order_lives_across_nodes_with_different_roles_and_each_answers_421_for_the_others() {
    let Some(cluster) = Cluster::prepare("").await else {
        return;
    };
    let commands = cluster.node("command,process");
    let reads = cluster.node("projector,query,audit");
    let (command, query) = (commands.api("admin"), Shop::of(&reads));
    order_lives(&command, &query, "2008-01-02").await;

    let misdirected = command.get("/v1/orders").await;
    assert_eq!(misdirected.problem(421, "misdirected")["role"], "query");
    let misdirected = command.get("/v1/audit/shards").await;
    assert_eq!(misdirected.problem(421, "misdirected")["role"], "audit");
    let misdirected = query
        .admin
        .post(&format!("/v1/orders/{}/cancel", uuid()), &json!({"reason": "x"}))
        .await;
    assert_eq!(misdirected.problem(421, "misdirected")["role"], "command");
    assert_eq!(
        query
            .admin
            .get("/v1/audit/shards")
            .await
            .data()
            .as_array()
            .unwrap()
            .len(),
        16
    );
    for node in [&commands, &reads] {
        node.operations(None).get("/readyz").await.is(200);
    }
    commands.stop();
    reads.stop();
    cluster.end().await;
}

#[tokio::test]
async fn commands_may_be_sent_to_any_command_node_and_one_that_stops_hands_its_shards_over() {
    let Some(cluster) = Cluster::prepare("").await else {
        return;
    };
    let first = cluster.node("command,process");
    let second = cluster.node("command");
    let reads = cluster.node("projector,query,audit");
    let (one, two) = (first.api("admin"), second.api("admin"));
    // One stream in each shard, so that whoever owns what, both ways of asking are met.
    let mut skus: Vec<Option<String>> = vec![None; 16];
    while skus.iter().any(Option::is_none) {
        let sku = unique("P");
        let shard = usize::try_from(shard_of(&format!("product-{sku}"))).unwrap();
        skus[shard].get_or_insert(sku);
    }
    let receive = json!({"quantity": 1, "reference": "delivery"});
    for sku in skus.iter().flatten() {
        let register = json!({"name": "A thing", "price": {"amount": 500, "currency": "USD"}});
        one.post_for_good(&format!("/v1/products/{sku}/register"), &unique("k"), &register)
            .await
            .is(201);
        let (path, key) = (format!("/v1/products/{sku}/receive"), unique("k"));
        let there = two.post_for_good(&path, &key, &receive).await;
        let here = one.post_for_good(&path, &key, &receive).await;
        assert_eq!(
            there.is(200).text(),
            here.is(200).text(),
            "the same key at another node is the same command"
        );
    }
    order_lives(&two, &Shop::of(&reads), "2008-01-03").await;
    second.stop();
    for sku in skus.iter().flatten() {
        let answer = one
            .post_for_good(&format!("/v1/products/{sku}/receive"), &unique("k"), &receive)
            .await;
        assert_eq!(
            answer.is(200).json()["version"],
            3,
            "every shard has an owner again"
        );
    }
    first.stop();
    reads.stop();
    cluster.end().await;
}

#[tokio::test]
async fn outside_dev_a_login_that_may_do_too_much_is_refused() {
    let Some(cluster) = Cluster::prepare("").await else {
        return;
    };
    let superuser = cluster.home.database().url();
    cluster.home.set("ANNALS__DATABASE__COMMAND", &superuser);
    let words = [
        "serve",
        "--roles",
        "command",
        "--config",
        &cluster.config,
        "--listen",
        "127.0.0.1:0",
        "--ops-listen",
        "127.0.0.1:0",
    ];
    let refused = cluster.home.run(&words);
    refused.exits(2);
    assert!(
        refused.stderr.contains("database.command"),
        "says which setting: {}",
        refused.stderr
    );
    cluster.end().await;
}

/// Three query nodes, a client that asks them in turn. With its token it always sees its own write; without, it is
/// told how stale the answer may be.
#[tokio::test]
async fn a_client_with_a_token_sees_its_own_write_on_three_query_nodes() {
    let Some(cluster) = Cluster::prepare("").await else {
        return;
    };
    let writes = cluster.node("command,process,projector");
    let queries = [(); 3].map(|()| cluster.node("query"));
    let commands = writes.api("admin");
    let reads = [0, 1, 2].map(|n: usize| queries[n].api("admin"));
    let sku = unique("P");
    let register = json!({"name": "A thing", "price": {"amount": 500, "currency": "USD"}});
    let path = format!("/v1/products/{sku}");
    let registered = commands.post(&format!("{path}/register"), &register).await;
    reads[0]
        .get_after(&path, registered.is(201).position())
        .await
        .is(200);
    let mut live = Follower::begin(&reads[1], &path, None).await;
    live.until(|held| held.len() == 1).await;
    let receive = json!({"quantity": 1, "reference": "delivery"});
    let (mut stale, mut asked, mut worst) = (0, 0, Duration::ZERO);
    for (turn_of, number) in (1..).zip(1..=60_u64) {
        let written = commands.post(&format!("{path}/receive"), &receive).await;
        let position = written.is(200).position().to_owned();
        let since = Instant::now();
        // Without the token: at once, and as old as it happens to be; never from the future, and it says its position.
        let reader = &reads[turn_of % 3];
        let now = reader.get(&path).await;
        let shown = now.data()["on_hand"].as_u64().unwrap();
        assert!(shown <= number);
        assert!(now.header("annals-lag-ms").unwrap().parse::<u64>().is_ok());
        let (shard, offset) = position.split_once(':').unwrap();
        let (shard, offset): (u32, u64) = (shard.parse().unwrap(), offset.parse().unwrap());
        let folded = now.position_in(shard).unwrap();
        assert_eq!(
            shown == number,
            folded >= offset,
            "rows and positions are of one moment"
        );
        asked += 1;
        stale += u32::from(folded < offset);
        // With it: on every node, whichever is asked first.
        for turn in 0..3 {
            let reader = &reads[(turn_of + turn) % 3];
            let list = "/v1/products?name=A%20thing&fields=sku,on_hand";
            for path in [path.as_str(), list] {
                let answer = reader.get_after(path, &position).await;
                assert!(answer.position_in(shard).unwrap() >= offset);
                let data = answer.data();
                let row = data.as_array().map_or(&data, |rows| &rows[0]);
                assert_eq!(row["on_hand"], number, "own write not seen on node {turn}");
            }
            if turn == 0 {
                worst = worst.max(since.elapsed());
            }
        }
    }
    // How long it takes without the token until each node shows a write by itself.
    let mut shown_after = Vec::new();
    for number in 61..=75_u64 {
        commands.post(&format!("{path}/receive"), &receive).await.is(200);
        let since = Instant::now();
        let reader = &reads[usize::try_from(number % 3).unwrap()];
        while reader.get(&path).await.data()["on_hand"] != number {
            assert!(
                since.elapsed() < Duration::from_secs(30),
                "a write is never shown"
            );
        }
        shown_after.push(since.elapsed());
    }
    shown_after.sort_unstable();
    eprintln!(
        "without a token {stale} of {asked} answers were stale at once, and a write was shown after {:?} (median) to {:?}; \
         with it the own write was seen within {worst:?}",
        shown_after[shown_after.len() / 2],
        shown_after[shown_after.len() - 1]
    );
    live.until(|held| held[&sku]["data"]["on_hand"] == 75).await;
    assert_eq!((live.snapshots, live.repeats), (1, 0));
    // The node that served it goes; another one goes on behind the last event.
    let [first, second, third] = queries;
    second.stop();
    live.to_the_end().await;
    commands.post(&format!("{path}/receive"), &receive).await.is(200);
    let mut live = Follower::begin(&reads[2], &path, Some(&live)).await;
    live.until(|held| held[&sku]["data"]["on_hand"] == 76).await;
    assert_eq!((live.snapshots, live.repeats), (1, 0));
    drop(live);
    for node in [first, third, writes] {
        node.stop();
    }
    cluster.end().await;
}

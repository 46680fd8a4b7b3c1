//! A server that is killed with SIGKILL starts again on the same data, with nothing acknowledged lost or doubled.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use annals_tests::load::survives_a_kill;
use annals_tests::{Home, Shop, unique};
use serde_json::json;

#[tokio::test]
async fn a_server_killed_under_load_has_every_acknowledged_answer_exactly_once() {
    let Some(home) = Home::with_database() else { return };
    survives_a_kill(&home, &[]).await;
}

#[tokio::test]
async fn a_private_cluster_is_found_again_after_a_kill_and_stopped_in_the_end() {
    let home = Home::private();
    let server = home.dev();
    let shop = Shop::of(&server);
    let sku = shop.product(100, 7).await;
    server.kill();
    let server = home.dev();
    let shop = Shop::of(&server);
    assert_eq!(shop.product_is(&sku, 7, 0).await["on_hand"], 7);
    let data = json!({"quantity": 1, "reference": "delivery"});
    shop.done(&format!("/v1/products/{sku}/receive"), &data).await;
    let second = home
        .command(&["dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert!(
        !second.status.success(),
        "a second `dev` on the same data dir is kept out"
    );
    server.stop();
    let running = home.run(&["log", "describe"]);
    assert_ne!(
        running.code,
        Some(0),
        "its PostgreSQL has stopped with it: {}",
        running.stdout
    );
}

#[tokio::test]
async fn a_server_that_is_stopped_finishes_what_is_in_flight() {
    let Some(home) = Home::with_database() else { return };
    let server = home.dev();
    let shop = Shop::of(&server);
    let sku = shop.product(100, 0).await;
    let path = format!("/v1/products/{sku}/receive");
    let clients = (0..16).map(|_| {
        let (admin, path) = (shop.admin.clone(), path.clone());
        async move {
            let mut accepted = 0_u64;
            loop {
                let data = json!({"quantity": 1, "reference": "delivery"});
                let call = admin.call("POST", &path).key(&unique("k")).json(&data);
                match call.try_send().await {
                    Ok(answer) if answer.status == 200 => accepted += 1,
                    // 503 while it is stopping is an answer: nothing happened.
                    Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.text()),
                    Err(_) => return accepted,
                }
            }
        }
    });
    let stop = async {
        shop.admin
            .wait_until(
                &format!("/v1/products/{sku}"),
                &format!("product-{sku}"),
                |body| body["data"]["on_hand"].as_u64().is_some_and(|count| count >= 50),
            )
            .await;
        tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    };
    let (accepted, ()) = tokio::join!(futures_util::future::join_all(clients), stop);
    let server = home.dev();
    let shop = Shop::of(&server);
    let row = shop
        .admin
        .wait_until(&format!("/v1/products/{sku}"), &format!("product-{sku}"), |_| {
            true
        })
        .await;
    let on_hand = row.data()["on_hand"].as_u64().unwrap();
    let answered: u64 = accepted.iter().sum();
    assert!(
        on_hand >= answered,
        "{answered} were acknowledged, {on_hand} are there"
    );
    assert!(
        on_hand <= answered + 16,
        "at most one command a client lost its answer: {answered}, {on_hand}"
    );
    server.stop();
}

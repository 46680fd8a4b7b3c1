//! The same on a real Apache Kafka: the life of an order, and a kill in the middle of a load.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::sync::Arc;

use annals_tests::load::survives_a_kill;
use annals_tests::server::kafka_broker;
use annals_tests::{Home, Shop, unique};
use serde_json::json;

/// A home whose log is a topic of its own, and the broker; `None`: there is none, and that was said.
fn home() -> Option<(Arc<Home>, String)> {
    let broker = kafka_broker()?;
    let home = Home::with_database()?;
    home.set("ANNALS__LOG__TOPIC", &unique("test."));
    Some((home, broker))
}

#[tokio::test]
async fn the_life_of_an_order_is_the_same_on_kafka() {
    let Some((home, broker)) = home() else { return };
    let server = home.dev_with(&["--log", "kafka", "--brokers", &broker]);
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2006-01-02", "tok_ok", &[(&sku, 3, 500)])
        .await;
    let confirmed = shop.order_is(&placed.order, "confirmed").await;
    let sales = shop.row("/v1/daily_sales/2006-01-02,USD", &confirmed).await;
    assert_eq!((&sales["orders"], &sales["revenue"]), (&json!(1), &json!(1500)));
    shop.done(
        &format!("/v1/orders/{}/ship", placed.order),
        &json!({"carrier": "Owl", "tracking": "1"}),
    )
    .await;
    shop.product_is(&sku, 7, 0).await;
    assert_eq!(shop.payment_is(&placed, "captured").await["captured"], 1500);
    shop.done(&format!("/v1/orders/{}/deliver", placed.order), &json!({}))
        .await;
    let all = json!({"reason": "no", "lines": [{"line": 1, "quantity": 3}]});
    let returned = shop
        .done(&format!("/v1/orders/{}/return", placed.order), &all)
        .await;
    assert_eq!(
        shop.row(&format!("/v1/orders/{}", placed.order), &returned).await["status"],
        "returned"
    );
    let declined = shop
        .place(&customer, "2006-01-03", "tok_declined", &[(&sku, 1, 500)])
        .await;
    assert_eq!(shop.order_is_rejected(&declined.order).await, "payment_declined");
    let path = format!("/v1/audit/streams/order-{}", placed.order);
    let history = server.api("auditor").get_after(&path, returned.position()).await;
    assert_eq!(history.data().as_array().unwrap().len(), 5);
    let described = home.run(&["log", "describe"]);
    assert!(
        described.exits(0).to_lowercase().contains("kafka"),
        "{}",
        described.stdout
    );
    server.stop();
}

#[tokio::test]
async fn a_server_killed_under_load_has_every_acknowledged_answer_exactly_once_on_kafka() {
    let Some((home, broker)) = home() else { return };
    survives_a_kill(&home, &["--log", "kafka", "--brokers", &broker]).await;
}

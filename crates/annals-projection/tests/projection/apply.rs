//! Batches: rows and checkpoints together, versions raised, a second projector refused.

use annals_log::Checkpoint;
use annals_projection::ApplyError;
use annals_store::testing::TestDatabase;
use serde_json::json;

use crate::support::{CUSTOMER, Folders, TestLog, column, order, placed, projector};

#[tokio::test]
async fn rows_and_checkpoints_move_together_over_all_shards() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let mut log = TestLog::new().await;
    for n in 0..20 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
    }
    for n in 0..5 {
        log.write(&order(n), 2, "order.rejected", &json!({"reason": "timeout"}))
            .await;
    }
    let orders = projector(&pool, folders.manifest("orders")).await;
    let lines = projector(&pool, folders.manifest("order_lines")).await;
    let all = log.read_all().await;
    assert_eq!(orders.apply(&all).await.unwrap().events, 25);
    lines.apply(&all).await.unwrap();
    let sql = "SELECT status || ' ' || _version || ' ' || count(*) FROM orders_b1.orders GROUP BY status, _version ORDER BY 1";
    assert_eq!(column(&pool, sql).await, ["placed 1 15", "rejected 2 5"]);
    // `order.rejected` has no file in order_lines: the engine raised the versions of its lines.
    let sql =
        "SELECT _version || ' ' || count(*) FROM order_lines_b1.order_lines GROUP BY _version ORDER BY 1";
    assert_eq!(column(&pool, sql).await, ["1 15", "2 5"]);
    let stored = Checkpoint::load_all(&pool, "projection/orders/1").await.unwrap();
    let expected: Vec<_> = all
        .iter()
        .map(|delivery| (delivery.shard, delivery.to.clone()))
        .collect();
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn a_second_projector_of_a_build_changes_nothing() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let mut log = TestLog::new().await;
    log.write(&order(1), 1, "order.placed", &placed(CUSTOMER, 100))
        .await;
    let confirmed = json!({"customer": CUSTOMER, "currency": "USD", "ordered_on": "2026-01-02", "total": 100, "units": 1});
    log.write(&order(1), 2, "order.confirmed", &confirmed).await;
    let first = projector(&pool, folders.manifest("daily_sales")).await;
    let zombie = projector(&pool, folders.manifest("daily_sales")).await;
    let all = log.read_all().await;
    first.apply(&all).await.unwrap();
    let refused = zombie.apply(&all).await;
    assert!(matches!(refused, Err(ApplyError::Zombie(_))), "{refused:?}");
    let sql = "SELECT orders || ' ' || revenue FROM daily_sales_b1.daily_sales";
    assert_eq!(column(&pool, sql).await, ["1 100"]);
}

#[tokio::test]
async fn two_projectors_at_once_apply_a_batch_once() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let mut log = TestLog::new().await;
    let confirmed =
        json!({"customer": CUSTOMER, "currency": "USD", "ordered_on": "2026-01-02", "total": 7, "units": 1});
    for n in 0..50 {
        log.write(&order(n), 1, "order.confirmed", &confirmed).await;
    }
    let one = projector(&pool, folders.manifest("daily_sales")).await;
    let other = projector(&pool, folders.manifest("daily_sales")).await;
    let all = log.read_all().await;
    let (one, other) = tokio::join!(one.apply(&all), other.apply(&all));
    assert_eq!(
        usize::from(one.is_ok()) + usize::from(other.is_ok()),
        1,
        "{one:?} {other:?}"
    );
    let sql = "SELECT orders || ' ' || revenue FROM daily_sales_b1.daily_sales";
    assert_eq!(column(&pool, sql).await, ["50 350"]);
}

#[tokio::test]
async fn personal_fields_are_null_where_no_column_is_private() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    folders.change(
        "customers/projection.toml",
        "private = [\"name\", \"email\"]",
        "private = []",
    );
    folders.change("customers/projection.toml", "build = 1", "build = 2");
    let mut log = TestLog::new().await;
    let data = json!({"name": {"personal": "sealed"}, "email": {"erased": true}});
    log.write(&format!("customer-{CUSTOMER}"), 1, "customer.registered", &data)
        .await;
    let customers = projector(&pool, folders.manifest("customers")).await;
    customers.apply(&log.read_all().await).await.unwrap();
    let sql = "SELECT concat(status, ':', name, ':', email) FROM customers_b2.customers";
    assert_eq!(column(&pool, sql).await, ["active::"]);
}

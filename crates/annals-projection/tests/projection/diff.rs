//! Two builds compared: at equal checkpoints while both are fed, and where their shapes differ.

use std::sync::Arc;
use std::time::Duration;

use annals_projection::diff;
use annals_projection::lifecycle::ask_rebuild;
use annals_store::testing::TestDatabase;

use crate::lifecycle::{at_the_end, live_with, second};
use crate::runner::node;
use crate::support::{CUSTOMER, Folders, TestLog, order, placed, projector};

#[tokio::test]
async fn builds_are_compared_at_equal_checkpoints_while_both_are_fed_and_planted_differences_are_found() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    let running = node(&pool, "a", &log, &first).await;
    live_with(&pool, &mut log, 40).await;
    new.change("orders/projection.toml", "build = 1", "build = 2");
    let live = first.manifest("orders");
    let second = new.manifest("orders");
    ask_rebuild(&pool, &second).await.unwrap();
    at_the_end(&pool, &log, &[1, 2]).await;
    let source = log.source();
    let done = std::sync::atomic::AtomicBool::new(false);
    let writing = async {
        let mut n = 40;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
                .await;
            n += 1;
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    };
    let comparing = async {
        for _ in 0..3 {
            let found = diff::diff(&pool, &source, &live, Arc::clone(&second))
                .await
                .unwrap();
            assert!(found.comparison.equal(), "{found:?}");
            assert!(found.comparison.tables[0].actual_rows >= 40);
        }
        for sql in [
            format!("UPDATE orders_b2.orders SET total = 7 WHERE order_id = '{}'", &order(3)[6..]),
            format!("DELETE FROM orders_b2.orders WHERE order_id = '{}'", &order(4)[6..]),
            format!(
                "INSERT INTO orders_b2.orders SELECT (jsonb_populate_record(o, '{{\"order_id\": \"{CUSTOMER}\"}}')).*
                 FROM orders_b2.orders o WHERE order_id = '{}'",
                &order(5)[6..]
            ),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        }
        let found = diff::diff(&pool, &source, &live, Arc::clone(&second))
            .await
            .unwrap();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        found
    };
    let ((), found) = tokio::join!(writing, comparing);
    assert_eq!(found.comparison.tables[0].differing_rows, 3, "{found:?}");
    let told: Vec<String> = found
        .comparison
        .differences
        .iter()
        .map(ToString::to_string)
        .collect();
    let has = |key: &str, what: &str| told.iter().any(|text| text.contains(key) && text.contains(what));
    assert!(has(&order(3)[6..], "total: expected 100, found 7"), "{told:?}");
    assert!(has(&order(4)[6..], "found nothing"), "{told:?}");
    assert!(has(CUSTOMER, "expected nothing"), "{told:?}");
    // The build that was moved for it is fed on.
    at_the_end(&pool, &log, &[1, 2]).await;
    running.stop().await;
}

#[tokio::test]
async fn what_changes_in_shape_is_told_and_the_rest_compared() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    log.write(&order(1), 1, "order.placed", &placed(CUSTOMER, 100))
        .await;
    new.change("orders/schema.sql", "reason      text ", "why text ");
    for file in ["order.cancelled", "order.rejected", "order.returned"] {
        new.change(&format!("orders/on/{file}.sql"), "reason = ", "why = ");
    }
    let second = second(&new);
    let all = log.read_all().await;
    let live = first.manifest("orders");
    projector(&pool, Arc::clone(&live))
        .await
        .apply(&all)
        .await
        .unwrap();
    projector(&pool, Arc::clone(&second))
        .await
        .apply(&all)
        .await
        .unwrap();
    let found = diff::diff(&pool, &log.source(), &live, second).await.unwrap();
    let table = &found.comparison.tables[0];
    assert_eq!(table.shape, ["column `reason` is missing", "column `why` is new"]);
    assert_eq!(
        found.comparison.differences[0]
            .to_string()
            .split_once(", ")
            .unwrap()
            .1,
        "status: expected \"placed\", found \"open\""
    );
}

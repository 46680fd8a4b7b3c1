//! The records behind a row, and whether they make it.

use annals_log::MemoryStore;
use annals_projection::RefoldError;
use annals_projection::lineage::{Explanation, Question, explain};
use annals_store::testing::TestDatabase;
use serde_json::json;
use sqlx::PgPool;

use crate::support::{CUSTOMER, Folders, TestLog, column, order, placed, projector};

async fn explained(
    pool: &PgPool,
    log: &TestLog,
    folders: &Folders,
    (name, table, key): (&str, &str, &str),
) -> Result<Option<Explanation>, RefoldError> {
    let manifest = folders.manifest(name);
    let journal = MemoryStore::new(log.log.clone());
    let question = Question {
        manifest: &manifest,
        table,
        key,
    };
    explain(pool, &log.source(), &journal, question).await
}

async fn shop(pool: &PgPool, log: &mut TestLog, folders: &Folders) {
    for n in 0..6 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
        let day = if n < 2 { "2026-01-02" } else { "2026-01-03" };
        let confirmed =
            json!({"customer": CUSTOMER, "currency": "USD", "ordered_on": day, "total": 100, "units": 1});
        log.write(&order(n), 2, "order.confirmed", &confirmed).await;
        log.write(&order(n), 3, "order.shipped", &json!({})).await;
    }
    let all = log.read_all().await;
    for name in ["orders", "order_lines", "daily_sales", "customers"] {
        projector(pool, folders.manifest(name))
            .await
            .apply(&all)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_row_of_one_stream_has_its_events_behind_it() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    shop(&pool, &mut log, &folders).await;
    let key = order(1)[6..].to_owned();
    let found = explained(&pool, &log, &folders, ("orders", "orders", &key))
        .await
        .unwrap()
        .unwrap();
    assert!(found.matches, "{found:?}");
    assert_eq!(found.streams, [order(1)]);
    let events: Vec<_> = found
        .steps
        .iter()
        .map(|step| (step.event.as_str(), step.version.as_str()))
        .collect();
    assert_eq!(
        events,
        [
            ("order.placed", "1"),
            ("order.confirmed", "2"),
            ("order.shipped", "3")
        ]
    );
    assert_eq!(
        found.steps[1].changes["status"],
        (json!("placed"), json!("confirmed"))
    );
    // A key of two columns, and an event that only raises the version.
    let found = explained(
        &pool,
        &log,
        &folders,
        ("order_lines", "order_lines", &format!("{key},1")),
    )
    .await
    .unwrap()
    .unwrap();
    assert!(found.matches);
    assert_eq!(found.steps[2].changes.keys().collect::<Vec<_>>(), ["_version"]);
    // What the table holds and the records do not make.
    sqlx::query("UPDATE orders_b1.orders SET total = 5")
        .execute(&pool)
        .await
        .unwrap();
    let found = explained(&pool, &log, &folders, ("orders", "orders", &key))
        .await
        .unwrap()
        .unwrap();
    assert!(!found.matches);
    assert_eq!(
        found.differences[0].to_string(),
        format!("orders {key}, total: expected 100, found 5")
    );
    assert!(
        explained(&pool, &log, &folders, ("orders", "orders", CUSTOMER))
            .await
            .unwrap()
            .is_none()
    );
    for wrong in ["no-uuid", "a,b"] {
        let error = explained(&pool, &log, &folders, ("orders", "orders", wrong))
            .await
            .unwrap_err();
        assert!(matches!(error, RefoldError::Refused(_)), "{error}");
    }
    assert_eq!(
        column(
            &pool,
            "SELECT count(*)::text FROM pg_namespace WHERE nspname LIKE 'explain%'"
        )
        .await,
        ["0"]
    );
}

#[tokio::test]
async fn a_row_of_several_streams_has_those_that_its_lineage_names() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    shop(&pool, &mut log, &folders).await;
    let day = ("daily_sales", "daily_sales", "2026-01-02,USD");
    let found = explained(&pool, &log, &folders, day).await.unwrap().unwrap();
    assert!(found.matches, "{found:?}");
    assert_eq!(found.streams, [order(0), order(1)]);
    assert_eq!(found.steps.len(), 2, "{found:?}");
    assert_eq!(found.steps[1].changes["revenue"], (json!(100), json!(200)));
    let found = explained(&pool, &log, &folders, ("customers", "customers", CUSTOMER))
        .await
        .unwrap()
        .unwrap();
    assert!(found.matches, "{found:?}");
    assert_eq!((found.streams.len(), found.steps.len()), (6, 6));
    std::fs::remove_file(folders.path().join("daily_sales/lineage.sql")).unwrap();
    let error = explained(&pool, &log, &folders, day).await.unwrap_err();
    assert!(error.to_string().contains("lineage.sql"), "{error}");
}

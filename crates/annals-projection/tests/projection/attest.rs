//! Attestation: nothing is found where nothing was changed, and every kind of change is found.

use annals_projection::attest::{Attestation, attest};
use annals_projection::parking::{FromLog, resume};
use annals_store::testing::TestDatabase;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{CUSTOMER, Folders, TestLog, column, order, placed, projector};

async fn attested(pool: &PgPool, log: &TestLog, folders: &Folders, name: &str) -> Attestation {
    let manifest = folders.manifest(name);
    let mut told = (0, 0);
    let mut progress = |done, total| told = (done, total);
    let found = attest(pool, &log.source(), &manifest, &mut progress)
        .await
        .unwrap();
    assert_eq!(told.0, told.1, "progress ends at its end");
    assert_eq!(
        column(
            pool,
            "SELECT count(*)::text FROM pg_namespace WHERE nspname LIKE 'attest%'"
        )
        .await,
        ["0"],
        "nothing is left behind"
    );
    found
}

async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

/// Some orders of two days, all in orders, order_lines and daily_sales.
async fn shop(pool: &PgPool, log: &mut TestLog, folders: &Folders) {
    for n in 0..20 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
        let day = if n % 2 == 0 { "2026-01-02" } else { "2026-01-03" };
        let confirmed =
            json!({"customer": CUSTOMER, "currency": "USD", "ordered_on": day, "total": 100, "units": 1});
        log.write(&order(n), 2, "order.confirmed", &confirmed).await;
    }
    let all = log.read_all().await;
    for name in ["orders", "order_lines", "daily_sales"] {
        projector(pool, folders.manifest(name))
            .await
            .apply(&all)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn tables_that_are_the_fold_of_the_log_are_attested() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    shop(&pool, &mut log, &folders).await;
    for name in ["orders", "order_lines", "daily_sales"] {
        let found = attested(&pool, &log, &folders, name).await;
        assert!(found.attested, "{name}: {found:?}");
        assert_eq!(found.records, 42, "two claims and forty commits");
        assert!(
            found
                .comparison
                .tables
                .iter()
                .all(|table| table.expected_rows > 0)
        );
    }
}

#[tokio::test]
async fn a_changed_cell_a_deleted_row_and_an_added_row_are_found() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    shop(&pool, &mut log, &folders).await;
    let (third, fourth) = (order(3)[6..].to_owned(), order(4)[6..].to_owned());
    for (plant, told, mend) in [
        (
            format!("UPDATE orders_b1.orders SET total = 101 WHERE order_id = '{third}'"),
            format!("orders {third}, total: expected 100, found 101"),
            format!("UPDATE orders_b1.orders SET total = 100 WHERE order_id = '{third}'"),
        ),
        (
            format!("UPDATE orders_b1.orders SET _version = 1 WHERE order_id = '{third}'"),
            format!("orders {third}, _version: expected 2, found 1"),
            format!("UPDATE orders_b1.orders SET _version = 2 WHERE order_id = '{third}'"),
        ),
        (
            format!("CREATE TABLE kept AS SELECT * FROM orders_b1.orders WHERE order_id = '{fourth}';
                     DELETE FROM orders_b1.orders WHERE order_id = '{fourth}'"),
            format!("orders {fourth}: expected {{"),
            "INSERT INTO orders_b1.orders SELECT * FROM kept".to_owned(),
        ),
        (
            format!("INSERT INTO orders_b1.orders SELECT (jsonb_populate_record(o, '{{\"order_id\": \"{CUSTOMER}\"}}')).*
                     FROM orders_b1.orders o WHERE order_id = '{fourth}'"),
            format!("orders {CUSTOMER}: expected nothing"),
            format!("DELETE FROM orders_b1.orders WHERE order_id = '{CUSTOMER}'"),
        ),
    ] {
        sqlx::raw_sql(AssertSqlSafe(plant.clone())).execute(&pool).await.unwrap();
        let found = attested(&pool, &log, &folders, "orders").await;
        assert!(!found.attested, "{plant}");
        let differences: Vec<String> = found.comparison.differences.iter().map(ToString::to_string).collect();
        assert_eq!(differences.len(), 1, "{plant}: {differences:?}");
        assert!(differences[0].starts_with(&told), "{plant}: {differences:?}");
        assert!(found.checkpoints.is_empty() && found.unapplied.is_empty());
        run(&pool, &mend).await;
    }
    assert!(attested(&pool, &log, &folders, "orders").await.attested);
    // A row of several streams.
    run(
        &pool,
        "UPDATE daily_sales_b1.daily_sales SET revenue = revenue + 1 WHERE day = '2026-01-02'",
    )
    .await;
    let found = attested(&pool, &log, &folders, "daily_sales").await;
    assert_eq!(
        found.comparison.differences[0].to_string(),
        "daily_sales 2026-01-02,USD, revenue: expected 1000, found 1001"
    );
}

#[tokio::test]
async fn a_wrong_checkpoint_is_found_whatever_of_it_is_wrong() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    shop(&pool, &mut log, &folders).await;
    run(&pool, "CREATE TABLE kept AS SELECT * FROM annals.checkpoint").await;
    let changes = [
        ("next_offset", "next_offset - 1"),
        ("next_offset", "next_offset + 5"),
        ("accepted", "accepted + 1"),
        ("epoch", "epoch + 1"),
        ("chain", "decode(repeat('ab', 32), 'hex')"),
        ("time_ms", "time_ms + 1"),
        ("closed", "NOT closed"),
        ("last_hash", "decode(repeat('ab', 32), 'hex')"),
        ("last_ghost", "NOT last_ghost"),
    ];
    for (field, to) in changes {
        run(
            &pool,
            &format!(
                "UPDATE annals.checkpoint SET {field} = {to} WHERE reader = 'projection/orders/1' AND shard = 1"
            ),
        )
        .await;
        let found = attested(&pool, &log, &folders, "orders").await;
        assert!(!found.attested, "{field} = {to}");
        assert!(
            found.checkpoints.iter().all(|wrong| wrong.shard.get() == 1),
            "{field}: {found:?}"
        );
        // Moved back, its own fields are wrong there; any other field is told by its name.
        let named = found.checkpoints.iter().any(|wrong| wrong.field == field);
        assert!(
            named || to == "next_offset - 1" && found.checkpoints.len() > 1,
            "{field}: {found:?}"
        );
        run(
            &pool,
            "DELETE FROM annals.checkpoint; INSERT INTO annals.checkpoint SELECT * FROM kept",
        )
        .await;
    }
    assert!(attested(&pool, &log, &folders, "orders").await.attested);
}

#[tokio::test]
async fn what_is_parked_is_left_out_and_what_was_resumed_is_not() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    folders.change(
        "orders/schema.sql",
        "total       bigint      NOT NULL,",
        "total bigint NOT NULL CONSTRAINT small CHECK (total < 1000),",
    );
    let mut log = TestLog::new().await;
    for n in 0..6 {
        let total = if n == 2 { 5_000 } else { 100 };
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, total))
            .await;
        log.write(&order(n), 2, "order.rejected", &json!({"reason": "late"}))
            .await;
    }
    let orders = projector(&pool, folders.manifest("orders")).await;
    orders.apply(&log.read_all().await).await.unwrap();
    let found = attested(&pool, &log, &folders, "orders").await;
    assert!(found.attested, "{found:?}");
    assert_eq!(found.parked_events, 2);
    // Forgetting what is parked does not hide it.
    run(&pool, "CREATE TABLE kept AS SELECT * FROM annals.parked; ").await;
    run(&pool, "DELETE FROM annals.parked").await;
    let found = attested(&pool, &log, &folders, "orders").await;
    assert!(!found.attested);
    assert_eq!(found.unapplied.len(), 1, "{found:?}");
    assert_eq!(found.unapplied[0].stream, order(2));
    run(&pool, "INSERT INTO annals.parked SELECT * FROM kept").await;
    // The scratch tables have the constraint still: the events cannot be applied there, and are not parked.
    run(&pool, "ALTER TABLE orders_b1.orders DROP CONSTRAINT small").await;
    let source = FromLog {
        log: log.log.clone(),
        catalog: log.catalog.clone(),
    };
    resume(&orders, &source, None).await.unwrap();
    let found = attested(&pool, &log, &folders, "orders").await;
    assert!(!found.attested, "the table was changed by hand");
    assert_eq!(found.unapplied.len(), 1, "{found:?}");
}

#[tokio::test]
async fn the_values_of_private_columns_are_not_told() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    log.write(
        &format!("customer-{CUSTOMER}"),
        1,
        "customer.registered",
        &json!({"name": "Ada", "email": "ada@example.com"}),
    )
    .await;
    projector(&pool, folders.manifest("customers"))
        .await
        .apply(&log.read_all().await)
        .await
        .unwrap();
    assert!(attested(&pool, &log, &folders, "customers").await.attested);
    run(&pool, "UPDATE customers_b1.customers SET name = 'Eve'").await;
    let found = attested(&pool, &log, &folders, "customers").await;
    let text = serde_json::to_string(&found).unwrap();
    assert!(!found.attested && text.contains("\"name\""), "{text}");
    assert!(!text.contains("Ada") && !text.contains("Eve"), "{text}");
    run(&pool, "DELETE FROM customers_b1.customers").await;
    let text = serde_json::to_string(&attested(&pool, &log, &folders, "customers").await).unwrap();
    assert!(!text.contains("Ada") && text.contains(CUSTOMER), "{text}");
}

#[tokio::test]
async fn the_auditors_role_is_enough() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    shop(&pool, &mut log, &folders).await;
    let auditor = sqlx::postgres::PgPoolOptions::new()
        .max_connections(4)
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::query("SET ROLE annals_audit")
                    .execute(connection)
                    .await
                    .map(drop)
            })
        })
        .connect_with(database.options())
        .await
        .unwrap();
    for name in ["orders", "daily_sales"] {
        assert!(attested(&auditor, &log, &folders, name).await.attested);
    }
}

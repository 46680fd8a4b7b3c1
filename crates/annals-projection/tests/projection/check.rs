//! `projections check`: passes on commerce's own read models, and fails on each kind of mistake.

use annals_projection::check::{Report, check};
use annals_store::testing::TestDatabase;

use crate::catalog::commerce;
use crate::support::projections;

fn shown(report: &Report) -> String {
    let mut text = String::new();
    for projection in &report.projections {
        for finding in &projection.findings {
            text += &format!("{}: {finding}\n", projection.name);
        }
        for test in &projection.tests {
            for failure in &test.failures {
                text += &format!(
                    "{}: {}: {}: {:?}\n",
                    projection.name, test.name, failure.run, failure.error
                );
                for difference in &failure.differences {
                    text += &format!("    {difference}\n");
                }
            }
        }
    }
    text
}

#[tokio::test]
async fn the_read_models_of_commerce_pass() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let report = check(&pool, &projections(), &commerce(), None).await.unwrap();
    assert!(report.passed(), "{}", shown(&report));
    let tests: usize = report
        .projections
        .iter()
        .map(|projection| projection.tests.len())
        .sum();
    assert_eq!(report.projections.len(), 6);
    assert!(tests >= 25, "{tests}");
    for projection in &report.projections {
        assert!(
            projection.untested.is_empty(),
            "{}: {:?}",
            projection.name,
            projection.untested
        );
    }
    let left: Vec<String> = sqlx::query_scalar(
        "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'check\\_%' OR nspname = 'read'",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(left.is_empty(), "{left:?}");
    let checkpoints: i64 = sqlx::query_scalar("SELECT count(*) FROM annals.checkpoint")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(checkpoints, 0);
}

/// Each change to commerce's folders must be found, in the words given.
#[tokio::test]
async fn every_kind_of_mistake_is_found() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let mistakes: &[(&str, &str, &str, &[&str])] = &[
        // A wrong rule: one row differs, in every run.
        (
            "orders/on/order.shipped.sql",
            "'shipped'",
            "'sent'",
            &[
                "one event at a time",
                "status: expected \"shipped\", found \"sent\"",
            ],
        ),
        // Right one by one, wrong as a set: only the set shows it.
        (
            "products/on/product.stock_reserved.sql",
            "sum((data->>'quantity')::bigint)::bigint",
            "max((data->>'quantity')::bigint)",
            &["as one set", "reserved"],
        ),
        // A version that runs ahead.
        (
            "orders/on/order.delivered.sql",
            "e.version",
            "e.version + 1",
            &["_version"],
        ),
        // An index that is gone.
        (
            "orders/schema.sql",
            "CREATE INDEX orders_status ON orders (status);",
            "",
            &["no index begins with `status`"],
        ),
        // Not commutative: the customer's own stream must not be needed first.
        (
            "customers/on/customer.registered.sql",
            "status = excluded.status",
            "status = excluded.status, orders = 0",
            &["orders: expected 1, found 0"],
        ),
        // SQL that Postgres refuses.
        (
            "daily_sales/on/order.confirmed.sql",
            "d.units + excluded.units",
            "d.unit + excluded.units",
            &["order.confirmed.sql", "unit"],
        ),
        // An event that does not exist, in a test.
        (
            "payments/tests/captured.json",
            "payment.captured",
            "payment.taken",
            &["captured.json", "payment.taken"],
        ),
        // A constraint: the test parks.
        (
            "payments/schema.sql",
            "captured    bigint NOT NULL DEFAULT 0,",
            "captured bigint NOT NULL DEFAULT 0 CHECK (captured = 0),",
            &["was parked", "23514"],
        ),
    ];
    for (file, from, to, said) in mistakes {
        let folders = crate::support::Folders::copy();
        folders.change(file, from, to);
        let name = file.split('/').next().unwrap();
        // One test that shows it is enough.
        let report = check(&pool, folders.path(), &commerce(), Some(name))
            .await
            .unwrap();
        let text = shown(&report);
        assert!(!report.passed(), "{file}: {to}");
        for part in *said {
            assert!(text.contains(part), "{file}: {to}: `{part}` is not in\n{text}");
        }
    }
    let folders = crate::support::Folders::copy();
    folders.write(
        "orders/on/order.vanished.sql",
        "DELETE FROM orders USING events WHERE order_id = key::uuid",
    );
    let report = check(&pool, folders.path(), &commerce(), Some("daily_sales"))
        .await
        .unwrap();
    assert!(
        shown(&report).contains("no event `order.vanished` is registered"),
        "{}",
        shown(&report)
    );
}

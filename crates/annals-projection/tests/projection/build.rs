//! Builds: made once, live when they are the first, refused with other files; manifests say what is wrong.

use annals_projection::build::{BuildError, drop_build, ensure, live_build};
use annals_projection::{Manifest, Projections, describe_columns};
use annals_store::testing::TestDatabase;

use crate::catalog::commerce;
use crate::support::{Folders, column};

#[tokio::test]
async fn the_first_build_is_live_and_a_later_one_is_not() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let first = folders.manifest("orders");
    ensure(&pool, &first).await.unwrap();
    ensure(&pool, &first).await.unwrap();
    folders.change("orders/on/order.shipped.sql", "'shipped'", "'sent'");
    let error = ensure(&pool, &folders.manifest("orders")).await.unwrap_err();
    assert!(matches!(error, BuildError::OtherFiles { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("raise `build` in projection.toml to 2"),
        "{error}"
    );
    folders.change("orders/projection.toml", "build = 1", "build = 2");
    let second = folders.manifest("orders");
    ensure(&pool, &second).await.unwrap();
    let sql = "SELECT build || ' ' || state || ' ' || live FROM annals.projection ORDER BY build";
    assert_eq!(column(&pool, sql).await, ["1 running true", "2 building false"]);
    let columns = describe_columns(&pool, &second).await.unwrap();
    let version = &columns["orders"]["_version"];
    assert_eq!((version.sql_type.as_str(), version.nullable), ("bigint", false));
    assert_eq!(columns["orders"]["order_id"].sql_type, "uuid");
    // The view for people shows the live build.
    assert_eq!(
        column(&pool, "SELECT count(*)::text FROM read.orders").await,
        ["0"]
    );
    let live = live_build(&pool, &first.id.name).await.unwrap();
    assert_eq!(live, Some(first.id.clone()));
    drop_build(&pool, &second.id).await.unwrap();
    assert_eq!(
        column(&pool, "SELECT build::text FROM annals.projection").await,
        ["1"]
    );
}

#[tokio::test]
async fn several_nodes_make_a_build_once() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let manifest = Folders::copy().manifest("daily_sales");
    let (a, b, c) = tokio::join!(
        ensure(&pool, &manifest),
        ensure(&pool, &manifest),
        ensure(&pool, &manifest)
    );
    a.and(b).and(c).unwrap();
}

#[tokio::test]
async fn the_projectors_role_makes_builds_and_the_query_role_only_reads_them() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let folders = Folders::copy();
    let role = |role: &'static str| {
        sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    sqlx::query("SELECT set_config('role', $1, false)")
                        .bind(role)
                        .execute(connection)
                        .await
                        .map(drop)
                })
            })
    };
    let projector = role("annals_projector")
        .connect_with(database.options())
        .await
        .unwrap();
    for name in ["orders", "customers"] {
        ensure(&projector, &folders.manifest(name)).await.unwrap();
    }
    let query = role("annals_query")
        .connect_with(database.options())
        .await
        .unwrap();
    assert_eq!(
        column(&query, "SELECT count(*)::text FROM orders_b1.orders").await,
        ["0"]
    );
    assert!(
        sqlx::query("DELETE FROM orders_b1.orders")
            .execute(&query)
            .await
            .is_err()
    );
}

#[test]
fn what_is_wrong_with_a_manifest_is_said_with_file_and_key() {
    let wrong: &[(&str, &str, &str, &[&str])] = &[
        (
            "orders/projection.toml",
            "rows  = \"stream\"",
            "rows = \"streams\"",
            &["projection.toml", "streams"],
        ),
        (
            "orders/projection.toml",
            "doc   =",
            "dock =",
            &["projection.toml", "dock"],
        ),
        (
            "orders/projection.toml",
            "order-{order_id}",
            "order_{order_id}",
            &["`stream`", "hyphen"],
        ),
        (
            "orders/projection.toml",
            "stream  = \"order-{order_id}\"",
            "",
            &["`stream` is missing"],
        ),
        (
            "orders/projection.toml",
            "build = 1",
            "build = 0",
            &["`build`", "1 or more"],
        ),
        (
            "orders/projection.toml",
            "name  = \"orders\"",
            "name = \"others\"",
            &["`name`", "folder"],
        ),
        (
            "orders/projection.toml",
            "table  = \"orders\"",
            "table = \"order\"",
            &["`table`", "`order`"],
        ),
        (
            "orders/projection.toml",
            "order.returned",
            "order.return",
            &["order.return", "no file"],
        ),
        (
            "orders/on/order.shipped.sql",
            "e.occurred_at",
            "now()",
            &["order.shipped.sql", "now", "occurred_at"],
        ),
        (
            "orders/schema.sql",
            "timestamptz NOT NULL,",
            "timestamptz DEFAULT current_timestamp,",
            &["schema.sql", "current_timestamp"],
        ),
        (
            "customers/projection.toml",
            "filter = [\"status\"",
            "filter = [\"email\"",
            &["`filter`", "private"],
        ),
    ];
    for (file, from, to, said) in wrong {
        let folders = Folders::copy();
        folders.change(file, from, to);
        let name = file.split('/').next().unwrap();
        let error = Manifest::load(&folders.path().join(name))
            .unwrap_err()
            .to_string();
        for part in *said {
            assert!(error.contains(part), "{file}: {to}: {error}");
        }
    }
}

#[test]
fn projections_are_checked_against_each_other_and_the_catalog() {
    let catalog = commerce();
    let all = Projections::load(&crate::support::projections(), &catalog).unwrap();
    assert_eq!(all.iter().count(), 6);
    let (manifest, resource) = all.resource("order_lines").unwrap();
    assert_eq!(
        (manifest.id.to_string().as_str(), resource.table.as_str()),
        ("order_lines/1", "order_lines")
    );

    let folders = Folders::copy();
    std::fs::rename(
        folders.path().join("orders/on/order.shipped.sql"),
        folders.path().join("orders/on/order.sent.sql"),
    )
    .unwrap();
    let error = Projections::load(folders.path(), &catalog)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("order.sent.sql") && error.contains("order.shipped"),
        "{error}"
    );

    let folders = Folders::copy();
    folders.change(
        "orders/projection.toml",
        "customers.customer_id",
        "customers.name",
    );
    let error = Projections::load(folders.path(), &catalog)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("expand.customer") && error.contains("whole key"),
        "{error}"
    );

    let folders = Folders::copy();
    folders.change(
        "orders/projection.toml",
        "[resource.orders]",
        "[resource.products]",
    );
    let error = Projections::load(folders.path(), &catalog)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("resource `products`") && error.contains("rename"),
        "{error}"
    );
}

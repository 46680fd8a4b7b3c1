//! A poison event stops its own stream only, and its stream goes on after a fix.

use annals_projection::parking::{FromLog, count, list, resume};
use annals_store::testing::TestDatabase;
use serde_json::json;

use crate::support::{CUSTOMER, Folders, TestLog, column, order, placed, projector};

fn journal(log: &TestLog) -> FromLog {
    FromLog {
        log: log.log.clone(),
        catalog: log.catalog.clone(),
    }
}

#[tokio::test]
async fn a_poison_event_parks_its_stream_and_a_resume_replays_it_in_order() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    // Two poisoned streams among healthy ones: a check that holds for all but them.
    folders.change(
        "orders/schema.sql",
        "total       bigint      NOT NULL,",
        "total bigint NOT NULL CONSTRAINT small CHECK (total < 1000),",
    );
    let mut log = TestLog::new().await;
    for n in 0..40 {
        let total = if n == 7 || n == 23 { 5000 } else { 100 };
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, total))
            .await;
    }
    for n in 5..10 {
        log.write(&order(n), 2, "order.rejected", &json!({"reason": "timeout"}))
            .await;
    }
    let orders = projector(&pool, folders.manifest("orders")).await;
    let first = log.read_all().await;
    let applied = orders.apply(&first).await.unwrap();
    assert_eq!((applied.events, applied.parked), (42, 3));
    let parked = list(&pool, orders.id(), 10).await.unwrap();
    assert_eq!(parked.len(), 2);
    assert_eq!(count(&pool, orders.id()).await.unwrap(), 2);
    let seventh = parked.iter().find(|parked| parked.stream == order(7)).unwrap();
    assert_eq!((seventh.events, seventh.event_type.as_str()), (2, "order.placed"));
    let error = seventh.error.as_deref().unwrap();
    assert!(
        error.contains("small") && error.contains("23514") && error.contains("on/order.placed.sql"),
        "{error}"
    );
    let sql = "SELECT status || ' ' || count(*) FROM orders_b1.orders GROUP BY status ORDER BY 1";
    assert_eq!(column(&pool, sql).await, ["placed 34", "rejected 4"]);

    // Later events of a parked stream park behind it.
    let shard = log
        .write(&order(23), 2, "order.rejected", &json!({"reason": "late"}))
        .await;
    let before = first
        .iter()
        .find(|delivery| delivery.shard == shard)
        .unwrap()
        .to
        .clone();
    let applied = orders.apply(&[log.read(shard, before).await]).await.unwrap();
    assert_eq!((applied.events, applied.parked), (0, 1));

    let journal = journal(&log);
    let resumed = resume(&orders, &journal, None).await.unwrap();
    assert!(
        resumed
            .iter()
            .all(|stream| stream.replayed == 0 && stream.error.is_some()),
        "{resumed:?}"
    );

    sqlx::query("ALTER TABLE orders_b1.orders DROP CONSTRAINT small")
        .execute(&pool)
        .await
        .unwrap();
    let resumed = resume(&orders, &journal, Some(&order(7).parse().unwrap()))
        .await
        .unwrap();
    assert_eq!(
        (resumed.len(), resumed[0].replayed, &resumed[0].error),
        (1, 2, &None)
    );
    assert_eq!(list(&pool, orders.id(), 10).await.unwrap().len(), 1);
    resume(&orders, &journal, None).await.unwrap();
    assert!(list(&pool, orders.id(), 10).await.unwrap().is_empty());
    let sql = "SELECT concat(status, ' ', reason, ' ', _version) FROM orders_b1.orders WHERE total = 5000 ORDER BY 1";
    assert_eq!(
        column(&pool, sql).await,
        ["rejected late 2", "rejected timeout 2"]
    );
}

#[tokio::test]
async fn the_error_of_a_parked_event_does_not_quote_personal_data() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    folders.change(
        "customers/on/customer.registered.sql",
        "data->>'name'",
        "(data->>'secret')::int::text",
    );
    let mut log = TestLog::new().await;
    log.write(
        &format!("customer-{CUSTOMER}"),
        1,
        "customer.registered",
        &json!({"secret": "Ada"}),
    )
    .await;
    let customers = projector(&pool, folders.manifest("customers")).await;
    customers.apply(&log.read_all().await).await.unwrap();
    let parked = list(&pool, customers.id(), 10).await.unwrap();
    let error = parked[0].error.as_deref().unwrap();
    assert!(error.contains("22P02") && !error.contains("Ada"), "{error}");
}

#[tokio::test]
async fn data_that_do_not_fit_park_their_stream_and_what_follows_it_in_order() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    let mut wrong = placed(CUSTOMER, 100);
    wrong["total"] = json!("a lot"); // no bigint: SQLSTATE 22P02
    for n in 0..20 {
        let data = if n == 5 {
            wrong.clone()
        } else {
            placed(CUSTOMER, 100)
        };
        log.write(&order(n), 1, "order.placed", &data).await;
    }
    let orders = projector(&pool, folders.manifest("orders")).await;
    let mut at = std::collections::BTreeMap::new();
    for delivery in log.read_all().await {
        at.insert(delivery.shard, delivery.to.clone());
        orders.apply(&[delivery]).await.unwrap();
    }
    // Later batches, one event each: they park behind the first, and the others' go on.
    for (version, event) in [
        (2, "order.confirmed"),
        (3, "order.shipped"),
        (4, "order.delivered"),
    ] {
        for n in [5, 6] {
            let shard = log.write(&order(n), version, event, &json!({})).await;
            let delivery = log.read(shard, at[&shard].clone()).await;
            at.insert(shard, delivery.to.clone());
            orders.apply(&[delivery]).await.unwrap();
        }
    }
    let sql = "SELECT type || ' ' || coalesce(left(error, 19), '-') FROM annals.parked ORDER BY log_offset";
    assert_eq!(
        column(&pool, sql).await,
        [
            "order.placed on/order.placed.sql",
            "order.confirmed -",
            "order.shipped -",
            "order.delivered -"
        ]
    );
    let error = list(&pool, orders.id(), 10)
        .await
        .unwrap()
        .remove(0)
        .error
        .unwrap();
    assert!(error.contains("22P02"), "{error}");
    let sql = "SELECT status || ' ' || _version || ' ' || count(*) FROM orders_b1.orders GROUP BY status, _version ORDER BY 1";
    assert_eq!(column(&pool, sql).await, ["delivered 4 1", "placed 1 18"]);
    // A statement that copes is a fix in place: here the column takes text.
    let fixed = Folders::copy();
    fixed.change(
        "orders/on/order.placed.sql",
        "(data->>'total')::bigint",
        "CASE WHEN data->>'total' ~ '^[0-9]+$' THEN (data->>'total')::bigint ELSE 0 END",
    );
    sqlx::query("UPDATE annals.projection SET digest = $1")
        .bind(fixed.manifest("orders").digest.as_ref())
        .execute(&pool)
        .await
        .unwrap();
    let orders = projector(&pool, fixed.manifest("orders")).await;
    let resumed = resume(&orders, &journal(&log), None).await.unwrap();
    assert_eq!(
        (resumed.len(), resumed[0].replayed, &resumed[0].error),
        (1, 4, &None)
    );
    let sql = "SELECT status || ' ' || _version FROM orders_b1.orders WHERE total = 0";
    assert_eq!(column(&pool, sql).await, ["delivered 4"]);
}

#[tokio::test]
async fn a_missing_table_parks_what_needs_it_and_a_resume_replays_all_of_it() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let (pool, folders) = (database.pool().await, Folders::copy());
    let mut log = TestLog::new().await;
    let orders = projector(&pool, folders.manifest("orders")).await;
    sqlx::query("ALTER TABLE orders_b1.orders RENAME TO lost")
        .execute(&pool)
        .await
        .unwrap();
    for n in 0..12 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
    }
    // Its own tables are there: another projection of the same shards goes on.
    let lines = projector(&pool, folders.manifest("order_lines")).await;
    let all = log.read_all().await;
    let applied = orders.apply(&all).await.unwrap();
    assert_eq!((applied.events, applied.parked), (0, 12));
    assert_eq!(lines.apply(&all).await.unwrap().parked, 0);
    assert_eq!(count(&pool, orders.id()).await.unwrap(), 12);
    let error = list(&pool, orders.id(), 1)
        .await
        .unwrap()
        .remove(0)
        .error
        .unwrap();
    assert!(error.contains("42P01"), "{error}");
    sqlx::query("ALTER TABLE orders_b1.lost RENAME TO orders")
        .execute(&pool)
        .await
        .unwrap();
    let resumed = resume(&orders, &journal(&log), None).await.unwrap();
    assert!(
        resumed
            .iter()
            .all(|stream| stream.replayed == 1 && stream.error.is_none())
    );
    assert_eq!(count(&pool, orders.id()).await.unwrap(), 0);
    let sql = "SELECT count(*)::text FROM orders_b1.orders";
    assert_eq!(column(&pool, sql).await, ["12"]);
}

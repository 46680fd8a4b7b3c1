//! A poison event stops its own stream only, and its stream goes on after a fix.

use std::sync::Arc;

use annals_log::{Entry, MemoryStore, StreamStore};
use annals_projection::parking::{FetchEntry, FetchError, count, list, resume};
use annals_record::{Offset, Shard};
use annals_store::testing::TestDatabase;
use async_trait::async_trait;
use serde_json::json;

use crate::support::{CUSTOMER, Folders, TestLog, column, order, placed, projector};

struct Journal {
    store: MemoryStore,
    catalog: annals_domain::Catalog,
}

#[async_trait]
impl FetchEntry for Journal {
    async fn fetch(&self, shard: Shard, offset: Offset) -> Result<Option<Arc<Entry>>, FetchError> {
        let record = self
            .store
            .record_at(shard, offset)
            .await
            .map_err(|error| FetchError(error.to_string()))?;
        let Some(record) = record else { return Ok(None) };
        let entry = annals_log::reader::decode(&self.catalog, &record);
        Ok(entry
            .map_err(|error| FetchError(error.to_string()))?
            .map(Arc::new))
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

    let journal = Journal {
        store: MemoryStore::new(log.log.clone()),
        catalog: log.catalog.clone(),
    };
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

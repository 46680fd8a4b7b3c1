//! Waves on a real Postgres: any history in any batches, its shards in any order, makes the rows of one event at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_log::Log;
use annals_projection::{BuildId, Delivery, Manifest, Projector, compare};
use annals_store::testing::TestDatabase;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::runner::node;
use crate::support::{Folders, TestLog, column, projector};

const NAMES: [&str; 6] = [
    "customers",
    "daily_sales",
    "order_lines",
    "orders",
    "payments",
    "products",
];
const SHARDS: u32 = 8;

/// What happens: to which of the streams of a kind, and which of its events, by a number that is taken as it comes.
type Happening = (u8, u8, u16);

/// A history in which each stream begins as it must and goes on as it likes: streams 0 of each kind are hot.
struct History {
    versions: BTreeMap<String, u64>,
    written: Vec<(String, u64, &'static str, Value)>,
}

impl History {
    fn of(happenings: &[Happening]) -> Self {
        let mut history = Self {
            versions: BTreeMap::new(),
            written: Vec::new(),
        };
        for &(kind, stream, what) in happenings {
            // Half of everything happens to one stream.
            let stream = if stream % 2 == 0 { 0 } else { u32::from(stream % 6) };
            match kind % 4 {
                0 => history.product(stream, what),
                1 => history.order(stream, what),
                2 => history.payment(stream, what),
                _ => history.customer(stream, what),
            }
        }
        history
    }

    fn write(&mut self, stream: String, event: &'static str, data: Value) {
        let version = self.versions.entry(stream.clone()).or_insert(0);
        *version += 1;
        self.written.push((stream, *version, event, data));
    }

    fn product(&mut self, n: u32, what: u16) {
        let stream = format!("product-P{n}");
        let money = json!({"amount": u32::from(what) + 1, "currency": "USD"});
        if !self.versions.contains_key(&stream) {
            return self.write(
                stream,
                "product.registered",
                json!({"name": "Desk", "price": money}),
            );
        }
        let quantity = json!({"quantity": what % 7 + 1});
        let (event, data) = match what % 10 {
            0 => ("product.discontinued", json!({})),
            1 => ("product.reinstated", json!({})),
            2 => ("product.repriced", json!({"price": money})),
            3 | 4 => ("product.stock_received", quantity),
            5 => (
                "product.stock_adjusted",
                json!({"delta": i32::from(what % 9) - 4}),
            ),
            6 | 7 => ("product.stock_reserved", quantity),
            8 => ("product.reservation_released", quantity),
            _ => ("product.stock_shipped", quantity),
        };
        self.write(stream, event, data);
    }

    fn order(&mut self, n: u32, what: u16) {
        let stream = format!("order-0192f000-0001-7000-8000-{n:012x}");
        let customer = customer(n);
        let day = format!("2026-01-0{}", n % 3 + 1);
        if !self.versions.contains_key(&stream) {
            let line = |n| json!({"line": n, "sku": "P1", "quantity": 9, "unit_price": 10, "amount": 90});
            let data = json!({"customer": customer, "currency": "USD", "ordered_on": day, "total": 180, "units": 18,
                              "payment_method": "tok_ok", "lines": [line(1), line(2)]});
            return self.write(stream, "order.placed", data);
        }
        let sums = json!({"customer": customer, "currency": "USD", "ordered_on": day, "total": 180, "units": what % 3 * 6,
                          "reason": format!("r{what}")});
        let (event, data) = match what % 8 {
            0 => ("order.confirmed", sums),
            1 => ("order.cancelled", sums),
            2 => ("order.rejected", json!({"reason": "no"})),
            3 => ("order.shipped", json!({})),
            4 => ("order.delivered", json!({})),
            _ => (
                "order.returned",
                json!({"customer": customer, "currency": "USD", "ordered_on": day, "complete": false, "amount": 10,
                       "units": 1, "reason": format!("r{what}"),
                       "lines": [{"line": what % 2 + 1, "quantity": 1}]}),
            ),
        };
        self.write(stream, event, data);
    }

    fn payment(&mut self, n: u32, what: u16) {
        let stream = format!("payment-0192f000-0001-7000-8000-{n:012x}");
        let amount = json!({"amount": u32::from(what % 50) + 1, "currency": "USD"});
        if !self.versions.contains_key(&stream) {
            let data = json!({"customer": customer(n), "amount": amount, "method": "tok_ok"});
            return self.write(stream, "payment.requested", data);
        }
        let with_amount = json!({"customer": customer(n), "amount": amount});
        let (event, data) = match what % 7 {
            0 => ("payment.authorized", json!({"reference": "a"})),
            1 => ("payment.declined", json!({"reason": "no"})),
            2 => ("payment.captured", with_amount),
            3 => ("payment.voided", json!({})),
            _ => ("payment.refunded", with_amount),
        };
        self.write(stream, event, data);
    }

    fn customer(&mut self, n: u32, what: u16) {
        let stream = format!("customer-{}", customer(n));
        let person = json!({"name": format!("n{what}"), "email": "a@example.com"});
        if !self.versions.contains_key(&stream) {
            return self.write(stream, "customer.registered", person);
        }
        let (event, data) = match what % 5 {
            0 => ("customer.blocked", json!({})),
            1 => ("customer.unblocked", json!({})),
            2 => ("customer.contact_changed", person),
            _ => ("customer.order_admitted", json!({"currency": "USD", "amount": 1})),
        };
        self.write(stream, event, data);
    }
}

fn customer(n: u32) -> String {
    format!("0192f000-0002-7000-8000-{:012x}", n % 3)
}

/// One projection twice: filled one event at a time, and in waves.
struct Pair {
    name: &'static str,
    single: Projector,
    waves: Projector,
}

impl Pair {
    async fn open(pool: &PgPool, folders: &Folders, name: &'static str) -> Self {
        let first = folders.manifest(name);
        let mut second = Manifest::clone(&first);
        second.id = BuildId {
            build: annals_projection::Build::new(2).unwrap(),
            ..second.id
        };
        Self {
            name,
            single: projector(pool, first).await,
            waves: projector(pool, Arc::new(second)).await,
        }
    }

    async fn empty(&self, pool: &PgPool) {
        for projector in [&self.single, &self.waves] {
            let id = projector.id();
            for table in &projector.manifest().tables {
                let sql = format!("DELETE FROM {}.{}", id.schema(), table.name);
                sqlx::query(AssertSqlSafe(sql)).execute(pool).await.unwrap();
            }
        }
        sqlx::query("DELETE FROM annals.checkpoint")
            .execute(pool)
            .await
            .unwrap();
    }
}

/// Batches of one to many records, their shards in any order; each shard's own records in theirs.
fn batches(singles: &[Delivery], cuts: &[u8]) -> Vec<Vec<Delivery>> {
    let mut shards: BTreeMap<u32, Vec<Delivery>> = BTreeMap::new();
    for single in singles {
        shards.entry(single.shard.get()).or_default().push(single.clone());
    }
    let mut left: Vec<std::collections::VecDeque<Delivery>> = shards.into_values().map(Into::into).collect();
    let mut batches = Vec::new();
    let mut cuts = cuts.iter().cycle();
    while left.iter().any(|shard| !shard.is_empty()) {
        let mut batch = Vec::new();
        for shard in &mut left {
            let take = usize::from(cuts.next().unwrap() % 12);
            let mut taken = shard.drain(..take.min(shard.len()));
            if let Some(mut delivery) = taken.next() {
                taken.for_each(|later| delivery.extend(later));
                batch.push(delivery);
            }
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        let turn = usize::from(*cuts.next().unwrap()) % left.len();
        left.rotate_left(turn);
    }
    batches
}

/// Each record as a delivery of its own, in the order in which they were written.
async fn singles(history: &History) -> Vec<Delivery> {
    let mut log = TestLog::with_shards(SHARDS).await;
    let mut at: BTreeMap<u32, annals_log::Checkpoint> = BTreeMap::new();
    let mut all = Vec::new();
    for shard in log.shards() {
        let claim = log.read(shard, log.genesis(shard)).await;
        at.insert(shard.get(), claim.to.clone());
        all.push(claim);
    }
    for (stream, version, event, data) in &history.written {
        let shard = log.write(stream, *version, event, data).await;
        let from = at[&shard.get()].clone();
        let delivery = log.read(shard, from).await;
        at.insert(shard.get(), delivery.to.clone());
        all.push(delivery);
    }
    all
}

async fn same_rows(
    pool: &PgPool,
    pairs: &[Pair],
    happenings: &[Happening],
    cuts: &[u8],
) -> Result<(), TestCaseError> {
    let singles = singles(&History::of(happenings)).await;
    let batches = batches(&singles, cuts);
    for pair in pairs {
        pair.empty(pool).await;
        for single in &singles {
            pair.single.apply(std::slice::from_ref(single)).await.unwrap();
        }
        for batch in &batches {
            pair.waves.apply(batch).await.unwrap();
        }
        let mut connection = pool.acquire().await.unwrap();
        let found = compare::compare(&mut connection, pair.single.manifest(), pair.waves.manifest())
            .await
            .unwrap();
        prop_assert!(found.equal(), "{}: {:?}", pair.name, found);
    }
    let parked = column(
        pool,
        "SELECT projection || ' ' || type || ' ' || coalesce(error, '') FROM annals.parked",
    )
    .await;
    prop_assert!(parked.is_empty(), "parked: {:?}", parked);
    Ok(())
}

#[test]
fn waves_make_the_rows_of_one_event_at_a_time_for_every_projection_in_the_repository() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let Some(database) = runtime.block_on(TestDatabase::create()) else {
        return;
    };
    let folders = Folders::copy();
    let (pool, pairs) = runtime.block_on(async {
        let pool = database.pool().await;
        let mut pairs = Vec::new();
        for name in NAMES {
            pairs.push(Pair::open(&pool, &folders, name).await);
        }
        (pool, pairs)
    });
    let config = Config {
        cases: 12,
        max_shrink_iters: 30,
        failure_persistence: None,
        ..Config::default()
    };
    let histories = prop::collection::vec((any::<u8>(), any::<u8>(), any::<u16>()), 1..90);
    let cuts = prop::collection::vec(any::<u8>(), 1..40);
    TestRunner::new(config)
        .run(&(histories, cuts), |(happenings, cuts)| {
            runtime.block_on(same_rows(&pool, &pairs, &happenings, &cuts))
        })
        .unwrap();
    runtime.block_on(async {
        drop(pairs);
        pool.close().await;
    });
}

#[tokio::test]
async fn shared_tables_beside_eight_shards_under_load_without_a_deadlock() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let mut log = TestLog::with_shards(SHARDS).await;
    // Two nodes: the shards of stream tables are spread over them, a shared one has one worker among both.
    let (a, b) = (
        node(&pool, "a", &log, &folders).await,
        node(&pool, "b", &log, &folders).await,
    );
    let orders = 1_200_u32;
    for n in 0..orders {
        let stream = format!("order-0192f000-0001-7000-8000-{n:012x}");
        let sums = json!({"customer": customer(n), "currency": "USD", "ordered_on": format!("2026-01-0{}", n % 3 + 1),
                          "total": 100, "units": 1});
        let mut placed = crate::support::placed(&customer(n), 100);
        placed["ordered_on"] = sums["ordered_on"].clone();
        log.write(&stream, 1, "order.placed", &placed).await;
        log.write(&stream, 2, "order.confirmed", &sums).await;
        if n % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut records = 0;
    for shard in log.shards() {
        records += log.log.end(shard).await.unwrap().get();
    }
    for name in NAMES {
        let sql = format!(
            "SELECT coalesce(sum(next_offset), 0)::text FROM annals.checkpoint WHERE reader = 'projection/{name}/1'"
        );
        crate::support::becomes(&pool, &sql, &records.to_string()).await;
    }
    a.stop().await;
    b.stop().await;
    let sql = "SELECT sum(orders) || ' ' || sum(revenue) FROM daily_sales_b1.daily_sales";
    assert_eq!(column(&pool, sql).await, ["1200 120000"]);
    let sql = "SELECT sum(orders) || ' ' || sum(lifetime_value) FROM customers_b1.customers";
    assert_eq!(column(&pool, sql).await, ["1200 120000"]);
    // The server counts deadlocks a little later than they happen: sessions tell it when they end.
    let sql = "SELECT pg_stat_force_next_flush()::text";
    column(&pool, sql).await;
    let sql = "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(column(&pool, sql).await, ["0"]);
}

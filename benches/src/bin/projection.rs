//! Events a second of a projection, live and in a rebuild, against the same set-based SQL written by hand.
//!
//! The floor does what a person would write without the engine: one transaction a batch, one prepared statement a
//! type of event with arrays of just the columns that it needs, and one update of the checkpoint. Live applies one
//! shard's batches one after the other; a rebuild applies those of as many shards as there are cores at once. At the end
//! both must have made the same rows. Must reach 0.8 of the floor.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::unwrap_used,
    reason = "a program from outside: what fails ends it"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use annals_benches::args::Args;
use annals_benches::database::{Database, Server};
use annals_benches::report::{self, Must, Pairs};
use annals_log::{Actor, Checkpoint, DecodedEvent, Entry};
use annals_projection::{Closed, Delivery, Limits, Manifest, Projector};
use annals_record::fold::Head;
use annals_record::{EventId, Hash32, Offset, RecordId, Shard, StreamId, Version};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

const BATCH: usize = 2_000;
/// Orders of one shard begin so far behind those of the one before it.
const LANE: usize = 100_000_000;
/// Rounds before those that count: caches fill, and the first orders have no others to follow.
const WARM_UP: usize = 3;

struct Row {
    stream: StreamId,
    version: u64,
    event_type: &'static str,
    data: Value,
}

fn order(n: usize) -> StreamId {
    StreamId::try_from(format!("order-0192f000-0001-7000-8000-{n:012x}")).unwrap()
}

fn sums(n: usize) -> Value {
    json!({"customer": Uuid::from_u128(n as u128 % 5_000), "currency": "USD", "total": 275_300, "units": 4,
           "ordered_on": format!("2026-{:02}-{:02}", n % 12 + 1, n % 28 + 1)})
}

fn row(n: usize, version: u64, event_type: &'static str) -> Row {
    let mut data = match event_type {
        "order.shipped" => json!({"carrier": "Post", "tracking": format!("T{n}")}),
        _ => sums(n),
    };
    if event_type == "order.placed" {
        data["payment_method"] = json!("tok_ok");
        data["lines"] = json!([
            {"line": 1, "sku": "P000001", "quantity": 3, "unit_price": 90_100, "amount": 270_300},
            {"line": 2, "sku": "P000002", "quantity": 1, "unit_price": 5_000, "amount": 5_000}]);
    }
    Row {
        stream: order(n),
        version,
        event_type,
        data,
    }
}

/// A third placed, a third confirmed of the batch before, a third shipped of the one before that.
fn mixed(lane: usize, round: usize) -> Vec<Row> {
    let (third, first) = (BATCH / 3, lane * LANE);
    let of = |back: usize| first + (round + 2 - back) * third..first + (round + 3 - back) * third;
    let mut rows = Vec::new();
    for ((placed, confirmed), shipped) in of(0).zip(of(1)).zip(of(2)) {
        rows.push(row(placed, 1, "order.placed"));
        rows.push(row(confirmed, 2, "order.confirmed"));
        rows.push(row(shipped, 3, "order.shipped"));
    }
    rows
}

fn confirmed(lane: usize, round: usize) -> Vec<Row> {
    let first = lane * LANE + round * BATCH;
    (first..first + BATCH)
        .map(|n| row(n, 2, "order.confirmed"))
        .collect()
}

fn at(offset: usize) -> Checkpoint {
    let head = Head {
        next: Offset::new(offset as u64),
        ..Head::at_genesis(Hash32::new([1; 32]))
    };
    Checkpoint::genesis(head)
}

fn delivery(lane: usize, from: usize, rows: &[Row]) -> Delivery {
    let empty = || RawValue::from_string("{}".to_owned()).unwrap();
    let entry = |(index, row): (usize, &Row)| {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&((lane * LANE + from + index) as u64).to_be_bytes());
        let record = RecordId::from_parts(1_800_000_000_000, random);
        let event = DecodedEvent {
            id: EventId::of(record, 0),
            event_type: row.event_type.into(),
            version: Version::new(row.version),
            schema: 1,
            stored: serde_json::value::to_raw_value(&row.data).unwrap(),
            upcast: None,
        };
        let entry = Entry {
            record,
            stream: row.stream.clone(),
            version: Version::new(row.version),
            time: DateTime::from_timestamp_millis(1_800_000_000_000 + index as i64).unwrap(),
            command: "x".into(),
            data: empty(),
            fingerprint: Hash32::new([0; 32]),
            actor: Actor {
                sub: "someone".into(),
                roles: Box::default(),
            },
            outcome: Ok(vec![event]),
            metadata: empty(),
            correlation: "".into(),
            causation: None,
        };
        (Offset::new((from + index) as u64), Arc::new(entry))
    };
    Delivery {
        shard: Shard::new(u32::try_from(lane).unwrap()),
        from: at(from),
        to: at(from + rows.len()),
        entries: rows.iter().enumerate().map(entry).collect(),
    }
}

/// The statements of the folders, over the columns that they use.
const BY_HAND: &str = "WITH events AS (SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::timestamptz[], $4::jsonb[]) AS e(key, version, occurred_at, data)) ";

struct Floor {
    pool: PgPool,
    schema: String,
    on: Vec<(&'static str, String)>,
}

impl Floor {
    async fn new(pool: &PgPool, manifest: &Manifest) -> Self {
        let schema = format!("floor_{}", manifest.id.name);
        let version = if manifest.rows == annals_projection::Rows::Stream {
            format!(
                "ALTER TABLE {} ADD COLUMN _version bigint NOT NULL;",
                manifest.tables[0].name
            )
        } else {
            String::new()
        };
        let make = format!(
            "CREATE SCHEMA {schema}; SET search_path = {schema}; {} ; {version} SET search_path = public;
             CREATE TABLE {schema}.floor_checkpoint (shard bigint PRIMARY KEY, next bigint NOT NULL);
             INSERT INTO {schema}.floor_checkpoint SELECT n, 0 FROM generate_series(0, 63) n;",
            manifest.schema_sql
        );
        sqlx::raw_sql(AssertSqlSafe(make)).execute(pool).await.unwrap();
        let on = ["order.placed", "order.confirmed", "order.shipped"]
            .into_iter()
            .filter_map(|event| {
                let handler = manifest.on.get(event)?;
                Some((
                    event,
                    format!("/* {schema} */ {BY_HAND}{}", handler.statements[0].sql),
                ))
            });
        Self {
            pool: pool.clone(),
            on: on.collect(),
            schema,
        }
    }

    async fn apply(&self, delivery: &Delivery) {
        let (from, entries) = (delivery.from.head.next.get() as i64, &delivery.entries);
        let mut tx = self.pool.begin().await.unwrap();
        sqlx::query("SELECT set_config('search_path', $1, true)")
            .bind(&self.schema)
            .execute(&mut *tx)
            .await
            .unwrap();
        for (event_type, sql) in &self.on {
            let (mut keys, mut versions, mut times, mut data) =
                (Vec::new(), Vec::new(), Vec::<DateTime<Utc>>::new(), Vec::new());
            for (_, entry) in entries {
                let event = &entry.outcome.as_ref().unwrap()[0];
                if *event.event_type == **event_type {
                    keys.push(entry.stream.key());
                    versions.push(event.version.get() as i64);
                    times.push(entry.time);
                    data.push(Json(event.data()));
                }
            }
            if keys.is_empty() {
                continue;
            }
            let query = sqlx::query(AssertSqlSafe(sql.clone()));
            query
                .bind(keys)
                .bind(versions)
                .bind(times)
                .bind(data)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        let moved = sqlx::query("UPDATE floor_checkpoint SET next = $3 WHERE shard = $1 AND next = $2")
            .bind(i64::from(delivery.shard.get()))
            .bind(from)
            .bind(delivery.to.head.next.get() as i64)
            .execute(&mut *tx)
            .await
            .unwrap();
        assert_eq!(moved.rows_affected(), 1);
        tx.commit().await.unwrap();
    }
}

/// Both sides of one projection, in databases of their own state.
struct Bench {
    engine: Projector,
    floor: Floor,
    pool: PgPool,
    rounds: usize,
}

impl Bench {
    async fn new(database: &Database, name: &str, rounds: usize) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../projections")
            .join(name);
        let manifest = Arc::new(Manifest::load(&dir).unwrap());
        let pool = database.pool(8).await.unwrap();
        let floor = Floor::new(&pool, &manifest).await;
        let opened = Projector::open(pool.clone(), manifest, Arc::new(Closed), Limits::default());
        let engine = opened.await.unwrap();
        Self {
            engine,
            floor,
            pool,
            rounds,
        }
    }

    /// `lanes` shards at once; each its own batches, one after the other.
    async fn measure(&self, title: &str, lanes: usize, make: fn(usize, usize) -> Vec<Row>) {
        let mut pairs = Pairs::default();
        let mut next = vec![0; lanes];
        for round in 0..self.rounds + WARM_UP {
            let deliveries: Vec<Delivery> = next
                .iter_mut()
                .enumerate()
                .map(|(lane, next)| {
                    let rows = make(lane, round);
                    let from = *next;
                    *next += rows.len();
                    delivery(lane, from, &rows)
                })
                .collect();
            let events: usize = deliveries.iter().map(|delivery| delivery.entries.len()).sum();
            let ours = rate(events, &deliveries, async |delivery| {
                let applied = self.engine.apply(std::slice::from_ref(delivery)).await.unwrap();
                assert_eq!(applied.parked, 0, "an event was parked");
            });
            let ours = ours.await;
            let floor = rate(events, &deliveries, async |delivery| {
                self.floor.apply(delivery).await
            });
            let floor = floor.await;
            if round >= WARM_UP {
                pairs.push(ours, floor);
            }
        }
        self.compare().await;
        report::row(title, &pairs, 0, Must::Reach(0.8));
    }

    /// Both sides must have made the same rows.
    async fn compare(&self) {
        let table = &self.engine.manifest().tables[0].name;
        let (ours, floor) = (self.engine.id().schema(), &self.floor.schema);
        let differ = format!(
            "SELECT count(*) FROM ((TABLE {ours}.{table} EXCEPT TABLE {floor}.{table})
             UNION ALL (TABLE {floor}.{table} EXCEPT TABLE {ours}.{table})) d"
        );
        let differ: i64 = sqlx::query_scalar(AssertSqlSafe(differ))
            .fetch_one(&self.pool)
            .await
            .unwrap();
        assert_eq!(differ, 0, "engine and floor made other rows");
    }
}

/// Events a second with all deliveries at once.
async fn rate(events: usize, deliveries: &[Delivery], apply: impl AsyncFn(&Delivery)) -> f64 {
    let began = Instant::now();
    futures_util::future::join_all(deliveries.iter().map(|delivery| apply(delivery))).await;
    events as f64 / began.elapsed().as_secs_f64()
}

async fn run(args: Args) -> anyhow::Result<()> {
    let databases = Server::find().await?;
    let rounds = args.rounds(30, 120);
    let cores = std::thread::available_parallelism()?.get();
    report::head(
        "projections (events/s)",
        &format!("batches of {BATCH} events, {rounds} pairs of batches; rebuild: {cores} shards at once"),
    );
    for (name, make) in [
        ("orders", mixed as fn(usize, usize) -> Vec<Row>),
        ("daily_sales", confirmed),
    ] {
        let live = Bench::new(&databases.database().await?, name, rounds).await;
        live.measure(&format!("{name}, live"), 1, make).await;
        live.pool.close().await;
        // Rows shared by streams are one unit of ownership: such a build has one worker.
        if live.engine.manifest().rows == annals_projection::Rows::Stream {
            let rebuild = Bench::new(&databases.database().await?, name, rounds).await;
            rebuild.measure(&format!("{name}, rebuild"), cores, make).await;
            rebuild.pool.close().await;
        }
    }
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, run(Args::parse()))
}

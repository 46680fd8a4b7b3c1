//! Events a second: the engine against the same set-based SQL written by hand, same batches, same run.
//!
//! `ANNALS_TEST_DATABASE_URL=… cargo run --release -p annals-projection --example apply_speed [rounds]`
//!
//! The floor does what a person would write without the engine: one transaction a batch, one prepared statement a
//! type of event with arrays of just the columns that it needs, and one update of the checkpoint. Rounds of engine and
//! floor take turns, so that a noisy machine is noisy for both.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::as_conversions
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_log::{Actor, Checkpoint, DecodedEvent, Entry};
use annals_projection::{Closed, Delivery, Limits, Manifest, Projector};
use annals_record::fold::Head;
use annals_record::{EventId, Hash32, Offset, RecordId, Shard, StreamId, Version};
use annals_store::testing::TestDatabase;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

const BATCH: usize = 2_000;

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
fn mixed(round: usize) -> Vec<Row> {
    let third = BATCH / 3;
    let of = |back: usize| (round + 2 - back) * third..(round + 3 - back) * third;
    let mut rows = Vec::new();
    for ((placed, confirmed), shipped) in of(0).zip(of(1)).zip(of(2)) {
        rows.push(row(placed, 1, "order.placed"));
        rows.push(row(confirmed, 2, "order.confirmed"));
        rows.push(row(shipped, 3, "order.shipped"));
    }
    rows
}

fn confirmed(round: usize) -> Vec<Row> {
    (round * BATCH..(round + 1) * BATCH)
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

fn delivery(round: usize, rows: &[Row]) -> Delivery {
    let empty = || RawValue::from_string("{}".to_owned()).unwrap();
    let from = round * BATCH;
    let entry = |(index, row): (usize, &Row)| {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&((from + index) as u64).to_be_bytes());
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
        shard: Shard::new(0),
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
             CREATE TABLE IF NOT EXISTS public.floor_checkpoint (name text PRIMARY KEY, next bigint NOT NULL);
             INSERT INTO public.floor_checkpoint VALUES ('{schema}', 0);",
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

    async fn apply(&self, from: usize, entries: &[(Offset, Arc<Entry>)]) {
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
        let moved = sqlx::query("UPDATE public.floor_checkpoint SET next = $3 WHERE name = $1 AND next = $2")
            .bind(&self.schema)
            .bind(from as i64)
            .bind((from + entries.len()) as i64)
            .execute(&mut *tx)
            .await
            .unwrap();
        assert_eq!(moved.rows_affected(), 1);
        tx.commit().await.unwrap();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

async fn measure(pool: &PgPool, name: &str, rounds: usize, make: fn(usize) -> Vec<Row>) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../projections")
        .join(name);
    let manifest = Arc::new(Manifest::load(&dir).unwrap());
    let floor = Floor::new(pool, &manifest).await;
    let engine = Projector::open(pool.clone(), manifest, Arc::new(Closed), Limits::default())
        .await
        .unwrap();
    let (mut by_engine, mut by_hand) = (Vec::new(), Vec::new());
    let mut next = 0;
    for round in 0..rounds + 3 {
        let rows = make(round);
        let mut delivery = delivery(round, &rows);
        (delivery.from, delivery.to) = (at(next), at(next + rows.len()));
        let deliveries = [delivery];
        let began = Instant::now();
        let applied = engine.apply(&deliveries).await.unwrap();
        let engine_took = began.elapsed();
        assert_eq!((applied.events, applied.parked), (rows.len(), 0));
        let began = Instant::now();
        floor.apply(next, &deliveries[0].entries).await;
        let floor_took = began.elapsed();
        next += rows.len();
        if round >= 3 {
            by_engine.push(engine_took);
            by_hand.push(floor_took);
        }
    }
    let table = &engine.manifest().tables[0].name;
    let differ = format!(
        "SELECT count(*) FROM ((TABLE {}.{table} EXCEPT TABLE {}.{table}) UNION ALL (TABLE {}.{table} EXCEPT TABLE {}.{table})) d",
        engine.id().schema(),
        floor.schema,
        floor.schema,
        engine.id().schema()
    );
    let differ: i64 = sqlx::query_scalar(AssertSqlSafe(differ))
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(differ, 0, "engine and floor made other rows");
    let events = (next / (rounds + 3)) as f64;
    let (engine, floor) = (median(by_engine), median(by_hand));
    println!(
        "{name:12} {rounds} rounds of {events} events: engine {:7.0}/s, by hand {:7.0}/s, ratio {:.2}",
        events / engine.as_secs_f64(),
        events / floor.as_secs_f64(),
        floor.as_secs_f64() / engine.as_secs_f64()
    );
}

#[tokio::main]
async fn main() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let rounds = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(30);
    measure(&pool, "orders", rounds, mixed).await;
    measure(&pool, "daily_sales", rounds, confirmed).await;
    pool.close().await;
}

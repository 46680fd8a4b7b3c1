//! A rebuild written by hand: the journal read in batches, parsed, and applied by the folder's own statements.
//!
//! What a person would write to fill a table anew: a worker a core, each with a shard at a time, one transaction a batch,
//! one prepared statement a type of event with arrays of just the columns that it needs, one update of a checkpoint. No
//! fold, no chain, no check of anything; and it relies on what is known of orders: they are placed, then confirmed, then
//! shipped, so the types of a batch may go in that order.

use std::sync::Mutex;
use std::time::Instant;

use annals_projection::{Manifest, Rows};
use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgPool};

/// Events of a batch, as a build beside the live one has them.
const BATCH: i64 = 10_000;
/// In the order in which they can happen to an order.
const TYPES: [&str; 3] = ["order.placed", "order.confirmed", "order.shipped"];
const EVENTS: &str = "WITH events AS (SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::timestamptz[], $4::jsonb[]) AS e(key, version, occurred_at, data)) ";

#[derive(Deserialize)]
struct Value<'a> {
    #[serde(borrow)]
    events: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    name: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

type Record = (i64, i64, i64, String, Vec<u8>);

/// Fills a table of its own from the first `events` events of the journal; events a second.
///
/// # Errors
/// Of the database.
pub async fn rebuild(
    pool: &PgPool,
    manifest: &Manifest,
    shards: u32,
    workers: usize,
    events: u64,
) -> anyhow::Result<f64> {
    let schema = format!("by_hand_{}", manifest.id.name);
    let table = &manifest.tables.first().context("a projection has a table")?.name;
    let version = match manifest.rows {
        Rows::Stream => format!("ALTER TABLE {table} ADD COLUMN _version bigint NOT NULL;"),
        Rows::Shared => String::new(),
    };
    let make = format!(
        "CREATE SCHEMA {schema}; SET search_path = {schema}; {}; {version} SET search_path = public;
         CREATE TABLE {schema}.by_hand_checkpoint (shard int PRIMARY KEY, next bigint NOT NULL);
         INSERT INTO {schema}.by_hand_checkpoint SELECT n, 0 FROM generate_series(0, {shards} - 1) n;",
        manifest.schema_sql
    );
    sqlx::raw_sql(AssertSqlSafe(make)).execute(pool).await?;
    let statements = TYPES.map(|event| {
        let handler = manifest.on.get(event)?;
        Some(format!(
            "/* {schema} */ {EVENTS}{}",
            handler.statements.first()?.sql
        ))
    });
    let (left, each) = (Mutex::new(0..shards), events / u64::from(shards));
    let began = Instant::now();
    let worker = async || {
        let mut done = 0;
        loop {
            let next = left.lock().ok().and_then(|mut left| left.next());
            let Some(shard) = next else {
                return anyhow::Ok(done);
            };
            done += of_shard(pool, &schema, &statements, i32::try_from(shard)?, each).await?;
        }
    };
    let done = futures_util::future::try_join_all((0..workers).map(|_| worker())).await?;
    Ok(done.iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64())
}

async fn of_shard(
    pool: &PgPool,
    schema: &str,
    statements: &[Option<String>; 3],
    shard: i32,
    most: u64,
) -> anyhow::Result<u64> {
    let (mut next, mut done) = (0, 0);
    while done < most {
        let records: Vec<Record> = sqlx::query_as(
            "SELECT log_offset, time_ms, version, stream, value FROM annals.journal
             WHERE shard = $1 AND log_offset >= $2 AND kind = 1 ORDER BY log_offset LIMIT $3",
        )
        .bind(shard)
        .bind(next)
        .bind(BATCH)
        .fetch_all(pool)
        .await?;
        let Some((last, ..)) = records.last() else {
            return Ok(done);
        };
        let moved = *last + 1;
        let mut tx = pool.begin().await?;
        sqlx::query("SELECT set_config('search_path', $1, true)")
            .bind(schema)
            .execute(&mut *tx)
            .await?;
        let mut parsed = Vec::with_capacity(records.len());
        for (_, time, version, stream, value) in &records {
            let value: Value<'_> = serde_json::from_slice(value)?;
            let (_, key) = stream.split_once('-').context("a stream has a category")?;
            let time = DateTime::from_timestamp_millis(*time).context("a time")?;
            let numbered = (*version..).zip(value.events);
            parsed.extend(numbered.map(|(version, event)| (event, version, key, time)));
        }
        done += parsed.len() as u64;
        for (name, statement) in TYPES.iter().zip(statements) {
            let Some(statement) = statement else { continue };
            let of_type = parsed.iter().filter(|(event, ..)| event.name == *name);
            let (mut keys, mut versions, mut times, mut data) =
                (Vec::new(), Vec::new(), Vec::<DateTime<Utc>>::new(), Vec::new());
            for (event, version, key, time) in of_type {
                keys.push(*key);
                versions.push(*version);
                times.push(*time);
                data.push(Json(event.data));
            }
            if keys.is_empty() {
                continue;
            }
            let query = sqlx::query(AssertSqlSafe(statement.clone()));
            let query = query.bind(keys).bind(versions).bind(times).bind(data);
            query.execute(&mut *tx).await?;
        }
        sqlx::query("UPDATE by_hand_checkpoint SET next = $3 WHERE shard = $1 AND next = $2")
            .bind(shard)
            .bind(next)
            .bind(moved)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        next = moved;
    }
    Ok(done)
}

//! What processes keep in Postgres: instances, the outbox, timers. Set-based, in the runner's transactions.
//!
//! *Invariant:* whoever locks rows of the outbox and instances locks the outbox first, and instances by their ids; rows
//! of what waits are put down under the lock of their instance, and taken up before it.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_record::{KeyHash, StreamId};
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, Row};

use crate::react::{Instance, NO_STATE, NewTimer};

mod due;
mod held;
mod keep;

pub(crate) use due::{
    Late, due_effects, due_timers, effect_failed, effects_done, forget, late, look_later, park, put_off,
    send_again, timers_wait,
};
pub(crate) use held::{HeldRow, resumed, unpark};
pub(crate) use keep::keep;

/// A command that is to go out now.
#[derive(Debug, Clone)]
pub(crate) struct CommandRow {
    pub(crate) instance: String,
    pub(crate) seq: i64,
    pub(crate) resource: String,
    pub(crate) stream: String,
    pub(crate) command: String,
    pub(crate) payload: Box<RawValue>,
    pub(crate) key: String,
}

/// An effect that is due.
#[derive(Debug, Clone)]
pub(crate) struct EffectRow {
    pub(crate) instance: String,
    pub(crate) seq: i64,
    pub(crate) effect: String,
    pub(crate) payload: Box<RawValue>,
    pub(crate) key: String,
    pub(crate) attempts: i32,
}

/// A timer that has fallen due, and how far each shard must be read before it fires.
#[derive(Debug, Clone)]
pub(crate) struct DueTimer {
    pub(crate) timer: NewTimer,
    pub(crate) waits: Option<BTreeMap<u32, u64>>,
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval {
        months: 0,
        days: 0,
        microseconds,
    }
}

fn raw(bytes: &[u8]) -> Result<Box<RawValue>, sqlx::Error> {
    serde_json::from_slice(bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn command_row(row: &PgRow) -> Result<CommandRow, sqlx::Error> {
    Ok(CommandRow {
        instance: row.try_get("instance")?,
        seq: row.try_get("seq")?,
        resource: row.try_get("resource")?,
        stream: row.try_get("stream")?,
        command: row.try_get("command")?,
        payload: raw(row.try_get("payload")?)?,
        key: row.try_get("idempotency_key")?,
    })
}

/// Marks the commands that these records answer as done. Gives instance and stream of each, by stream and key.
pub(crate) async fn answered(
    connection: &mut PgConnection,
    process: &str,
    records: &[(&StreamId, KeyHash)],
) -> Result<Vec<(String, String, Vec<u8>)>, sqlx::Error> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let streams: Vec<&str> = records.iter().map(|(stream, _)| stream.as_str()).collect();
    let keys: Vec<&[u8]> = records.iter().map(|(_, key)| key.as_bytes().as_slice()).collect();
    let rows = sqlx::query(
        "UPDATE annals.process_outbox o SET state = 'done', last_error = NULL, sent_until = NULL
         FROM UNNEST($2::text[], $3::bytea[]) AS a(stream, key_hash)
         WHERE o.process = $1 AND o.kind = 'command' AND o.stream = a.stream AND o.key_hash = a.key_hash
         RETURNING o.instance, o.stream, o.key_hash",
    )
    .bind(process)
    .bind(streams)
    .bind(keys)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .collect()
}

/// Lets the next command of each instance and stream go, where none before it is open any more.
pub(crate) async fn release(
    connection: &mut PgConnection,
    process: &str,
    after: &[(String, String, Vec<u8>)],
    deadline: Duration,
) -> Result<Vec<CommandRow>, sqlx::Error> {
    if after.is_empty() {
        return Ok(Vec::new());
    }
    let (instances, streams): (Vec<&str>, Vec<&str>) =
        after.iter().map(|(i, s, _)| (i.as_str(), s.as_str())).unzip();
    let rows = sqlx::query(
        "WITH a AS (SELECT DISTINCT * FROM UNNEST($2::text[], $3::text[]) AS a(instance, stream)),
              first AS (
                  SELECT DISTINCT ON (o.instance, o.stream) o.instance, o.seq, o.state
                  FROM a JOIN annals.process_outbox o
                    ON o.process = $1 AND o.instance = a.instance AND o.stream = a.stream
                  WHERE o.kind = 'command' AND o.state IN ('pending', 'sent', 'parked')
                  ORDER BY o.instance, o.stream, o.seq)
         UPDATE annals.process_outbox o
         SET state = 'sent', attempts = o.attempts + 1, deadline_at = now() + $4, sent_until = NULL
         FROM first f
         WHERE o.process = $1 AND o.instance = f.instance AND o.seq = f.seq AND f.state = 'pending'
         RETURNING o.*",
    )
    .bind(process)
    .bind(instances)
    .bind(streams)
    .bind(interval(deadline))
    .fetch_all(connection)
    .await?;
    rows.iter().map(command_row).collect()
}

/// Loads and locks instances in the order of their ids, with what the outbox and the timers say of them.
pub(crate) async fn load(
    connection: &mut PgConnection,
    process: &str,
    ids: &[String],
) -> Result<BTreeMap<String, Instance>, sqlx::Error> {
    let mut instances: BTreeMap<String, Instance> =
        ids.iter().map(|id| (id.clone(), Instance::default())).collect();
    if ids.is_empty() {
        return Ok(instances);
    }
    let rows = sqlx::query(
        "SELECT instance, state, step, stuck, parked, last_seq, timers_set FROM annals.process_instance
         WHERE process = $1 AND instance = ANY($2) ORDER BY instance FOR UPDATE",
    )
    .bind(process)
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        if let Some(instance) = instances.get_mut(row.try_get::<&str, _>("instance")?) {
            let state: Vec<u8> = row.try_get("state")?;
            instance.parked = row.try_get("parked")?;
            instance.state = Some(state).filter(|state| state != NO_STATE);
            instance.step = row.try_get("step")?;
            instance.stuck = row.try_get("stuck")?;
            instance.last_seq = row.try_get("last_seq")?;
            instance.timers_set = row.try_get("timers_set")?;
        }
    }
    let rows = sqlx::query(
        "SELECT i.instance, b.streams, t.names, t.ns
         FROM UNNEST($2::text[]) AS i(instance)
         LEFT JOIN LATERAL (SELECT array_agg(DISTINCT o.stream) AS streams FROM annals.process_outbox o
                            WHERE o.process = $1 AND o.instance = i.instance AND o.kind = 'command'
                              AND o.state IN ('pending', 'sent', 'parked')) b ON true
         LEFT JOIN LATERAL (SELECT array_agg(name ORDER BY name) AS names, array_agg(n ORDER BY name) AS ns
                            FROM annals.timer t WHERE t.process = $1 AND t.instance = i.instance) t ON true",
    )
    .bind(process)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    for row in &rows {
        let Some(instance) = instances.get_mut(row.try_get::<&str, _>("instance")?) else {
            continue;
        };
        let streams: Option<Vec<String>> = row.try_get("streams")?;
        instance.busy = streams.unwrap_or_default().into_iter().collect();
        let names: Option<Vec<String>> = row.try_get("names")?;
        let ns: Option<Vec<i64>> = row.try_get("ns")?;
        instance.timers = names
            .unwrap_or_default()
            .into_iter()
            .zip(ns.unwrap_or_default())
            .collect();
    }
    Ok(instances)
}

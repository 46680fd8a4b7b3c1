//! What processes keep in Postgres: instances, the outbox, timers. Set-based, in the runner's transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_record::{KeyHash, StreamId};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::postgres::PgRow;
use sqlx::postgres::types::PgInterval;
use sqlx::{PgConnection, PgPool, Row};

use crate::react::{Instance, NewTimer};

mod keep;

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
        "SELECT instance, state, step, stuck FROM annals.process_instance
         WHERE process = $1 AND instance = ANY($2) ORDER BY instance FOR UPDATE",
    )
    .bind(process)
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        if let Some(instance) = instances.get_mut(row.try_get::<&str, _>("instance")?) {
            instance.state = Some(row.try_get("state")?);
            instance.step = row.try_get("step")?;
            instance.stuck = row.try_get("stuck")?;
        }
    }
    let rows = sqlx::query(
        "SELECT i.instance, m.seq, b.streams, t.names, t.ns
         FROM UNNEST($2::text[]) AS i(instance)
         LEFT JOIN LATERAL (SELECT max(seq) AS seq FROM annals.process_outbox o
                            WHERE o.process = $1 AND o.instance = i.instance) m ON true
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
        instance.last_seq = row.try_get::<Option<i64>, _>("seq")?.unwrap_or(0);
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

/// Timers that are due, those that wait for a shard included.
pub(crate) async fn due_timers(
    pool: &PgPool,
    process: &str,
    most: i64,
) -> Result<Vec<DueTimer>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT instance, name, due_at, n, waits::text AS waits FROM annals.timer
         WHERE process = $1 AND due_at <= now() ORDER BY due_at LIMIT $2",
    )
    .bind(process)
    .bind(most)
    .fetch_all(pool)
    .await?;
    let read = |row: &PgRow| {
        let timer = NewTimer {
            instance: row.try_get("instance")?,
            name: row.try_get("name")?,
            due: row.try_get::<DateTime<Utc>, _>("due_at")?,
            n: row.try_get("n")?,
        };
        Ok(DueTimer {
            timer,
            waits: ends(row.try_get("waits")?)?,
        })
    };
    rows.iter().map(read).collect()
}

fn ends(json: Option<&str>) -> Result<Option<BTreeMap<u32, u64>>, sqlx::Error> {
    json.map(serde_json::from_str)
        .transpose()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Notes up to where each shard must be read before these timers fire.
pub(crate) async fn timers_wait(
    pool: &PgPool,
    process: &str,
    timers: &[&NewTimer],
    ends: &BTreeMap<u32, u64>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE annals.timer t SET waits = $4::jsonb
         FROM UNNEST($2::text[], $3::text[], $5::bigint[]) AS w(instance, name, n)
         WHERE t.process = $1 AND t.instance = w.instance AND t.name = w.name AND t.n = w.n",
    )
    .bind(process)
    .bind(
        timers
            .iter()
            .map(|timer| timer.instance.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(timers.iter().map(|timer| timer.name.as_str()).collect::<Vec<_>>())
    .bind(sqlx::types::Json(ends))
    .bind(timers.iter().map(|timer| timer.n).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// A command whose deadline has passed, and up to where its shard must be read before it is sent again.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) row: CommandRow,
    pub(crate) until: Option<BTreeMap<u32, u64>>,
}

/// Commands whose deadline has passed.
pub(crate) async fn late(pool: &PgPool, process: &str, most: i64) -> Result<Vec<Late>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT *, sent_until::text AS until FROM annals.process_outbox
         WHERE process = $1 AND state = 'sent' AND kind = 'command' AND deadline_at < now()
         ORDER BY deadline_at LIMIT $2",
    )
    .bind(process)
    .bind(most)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Late {
                row: command_row(row)?,
                until: ends(row.try_get("until")?)?,
            })
        })
        .collect()
}

/// Notes up to where the shard must be read before these are sent again.
pub(crate) async fn wait_for(
    pool: &PgPool,
    process: &str,
    rows: &[(&CommandRow, BTreeMap<u32, u64>)],
) -> Result<(), sqlx::Error> {
    for (row, ends) in rows {
        sqlx::query(
            "UPDATE annals.process_outbox SET sent_until = $4::jsonb
             WHERE process = $1 AND instance = $2 AND seq = $3 AND state = 'sent'",
        )
        .bind(process)
        .bind(&row.instance)
        .bind(row.seq)
        .bind(sqlx::types::Json(ends))
        .execute(pool)
        .await?;
    }
    Ok(())
}

/// Marks commands as sent once more; those that were answered meanwhile are left out.
pub(crate) async fn send_again(
    pool: &PgPool,
    process: &str,
    rows: &[&CommandRow],
    deadline: Duration,
) -> Result<Vec<CommandRow>, sqlx::Error> {
    let rows = sqlx::query(
        "UPDATE annals.process_outbox o
         SET attempts = o.attempts + 1, deadline_at = now() + $4, sent_until = NULL
         FROM UNNEST($2::text[], $3::bigint[]) AS a(instance, seq)
         WHERE o.process = $1 AND o.instance = a.instance AND o.seq = a.seq AND o.state = 'sent'
         RETURNING o.*",
    )
    .bind(process)
    .bind(rows.iter().map(|row| row.instance.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.seq).collect::<Vec<_>>())
    .bind(interval(deadline))
    .fetch_all(pool)
    .await?;
    rows.iter().map(command_row).collect()
}

/// Parks a command or an effect, and lists its instance as stuck.
pub(crate) async fn park(
    pool: &PgPool,
    process: &str,
    instance: &str,
    seq: i64,
    why: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH parked AS (
             UPDATE annals.process_outbox SET state = 'parked', last_error = $4, sent_until = NULL
             WHERE process = $1 AND instance = $2 AND seq = $3 AND state IN ('pending', 'sent')
             RETURNING 1)
         UPDATE annals.process_instance SET stuck = $4, error = $4, updated_at = now()
         WHERE process = $1 AND instance = $2 AND EXISTS (SELECT 1 FROM parked)",
    )
    .bind(process)
    .bind(instance)
    .bind(seq)
    .bind(why)
    .execute(pool)
    .await?;
    Ok(())
}

/// Effects that are due, those under way included.
pub(crate) async fn due_effects(
    pool: &PgPool,
    process: &str,
    most: i64,
) -> Result<Vec<EffectRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT instance, seq, effect, payload, idempotency_key, attempts FROM annals.process_outbox
         WHERE process = $1 AND state = 'pending' AND kind = 'effect' AND due_at <= now()
         ORDER BY due_at LIMIT $2",
    )
    .bind(process)
    .bind(most)
    .fetch_all(pool)
    .await?;
    let read = |row: &PgRow| {
        Ok(EffectRow {
            instance: row.try_get("instance")?,
            seq: row.try_get("seq")?,
            effect: row.try_get("effect")?,
            payload: raw(row.try_get("payload")?)?,
            key: row.try_get("idempotency_key")?,
            attempts: row.try_get("attempts")?,
        })
    };
    rows.iter().map(read).collect()
}

/// An effect is done, unless it was withdrawn: then its answer does not count.
pub(crate) async fn effect_done(
    connection: &mut PgConnection,
    process: &str,
    row: &EffectRow,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE annals.process_outbox SET state = 'done', attempts = attempts + 1, last_error = NULL
         WHERE process = $1 AND instance = $2 AND seq = $3 AND state = 'pending'",
    )
    .bind(process)
    .bind(&row.instance)
    .bind(row.seq)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An effect failed: when it is tried again.
pub(crate) async fn effect_failed(
    pool: &PgPool,
    process: &str,
    row: &EffectRow,
    why: &str,
    after: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE annals.process_outbox SET attempts = attempts + 1, last_error = $4, due_at = now() + $5
         WHERE process = $1 AND instance = $2 AND seq = $3 AND state = 'pending'",
    )
    .bind(process)
    .bind(&row.instance)
    .bind(row.seq)
    .bind(why)
    .bind(interval(after))
    .execute(pool)
    .await?;
    Ok(())
}

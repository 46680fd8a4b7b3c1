//! What time asks for: due timers, commands without an answer, due effects, and rows that nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};

use super::{CommandRow, DueTimer, EffectRow, command_row, interval, raw};
use crate::react::NewTimer;

/// Timers that are due, those that wait for a shard included.
pub(crate) async fn due_timers(
    pool: &PgPool,
    process: &str,
    most: i64,
) -> Result<Vec<DueTimer>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT instance, name, due_at, n, waits::text AS waits FROM annals.timer t
         WHERE process = $1 AND due_at <= now()
           AND NOT EXISTS (SELECT FROM annals.process_instance i
                           WHERE i.process = t.process AND i.instance = t.instance AND i.parked)
         ORDER BY due_at LIMIT $2",
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
    let instances: Vec<_> = timers.iter().map(|timer| timer.instance.as_str()).collect();
    let names: Vec<_> = timers.iter().map(|timer| timer.name.as_str()).collect();
    sqlx::query(
        "UPDATE annals.timer t SET waits = $4::jsonb
         FROM UNNEST($2::text[], $3::text[], $5::bigint[]) AS w(instance, name, n)
         WHERE t.process = $1 AND t.instance = w.instance AND t.name = w.name AND t.n = w.n",
    )
    .bind(process)
    .bind(instances)
    .bind(names)
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
         WHERE process = $1 AND kind = 'command' AND state = 'sent' AND COALESCE(deadline_at, due_at) < now()
         ORDER BY COALESCE(deadline_at, due_at) LIMIT $2",
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

/// Late commands that cannot be sent again yet are looked at again after `pause`, behind all others: a shard that
/// stands still must not hide the late commands of the rest. Notes, where it is given, up to where the shard must be
/// read before.
pub(crate) async fn look_later(
    pool: &PgPool,
    process: &str,
    rows: &[(&CommandRow, Option<BTreeMap<u32, u64>>)],
    pause: Duration,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let text = |ends: &Option<BTreeMap<u32, u64>>| ends.as_ref().map(serde_json::to_string).transpose();
    let ends: Result<Vec<_>, _> = rows.iter().map(|(_, ends)| text(ends)).collect();
    let ends = ends.map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query(
        "UPDATE annals.process_outbox o
         SET deadline_at = now() + $5, sent_until = COALESCE(a.ends::jsonb, o.sent_until)
         FROM UNNEST($2::text[], $3::bigint[], $4::text[]) AS a(instance, seq, ends)
         WHERE o.process = $1 AND o.instance = a.instance AND o.seq = a.seq AND o.state = 'sent'",
    )
    .bind(process)
    .bind(
        rows.iter()
            .map(|(row, _)| row.instance.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(rows.iter().map(|(row, _)| row.seq).collect::<Vec<_>>())
    .bind(ends)
    .bind(interval(pause))
    .execute(pool)
    .await?;
    Ok(())
}

/// Nobody knows whether this attempt happened: from now on it has `deadline` to show up in the log.
pub(crate) async fn put_off(
    pool: &PgPool,
    process: &str,
    row: &CommandRow,
    deadline: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE annals.process_outbox SET deadline_at = now() + $4, sent_until = NULL
         WHERE process = $1 AND instance = $2 AND seq = $3 AND state = 'sent'",
    )
    .bind(process)
    .bind(&row.instance)
    .bind(row.seq)
    .bind(interval(deadline))
    .execute(pool)
    .await?;
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
        "WITH taken AS (
             UPDATE annals.process_outbox SET state = 'parked', last_error = $4, sent_until = NULL
             WHERE process = $1 AND instance = $2 AND seq = $3 AND state IN ('pending', 'sent')
             RETURNING 1)
         UPDATE annals.process_instance SET stuck = $4, error = $4, updated_at = now()
         WHERE process = $1 AND instance = $2 AND EXISTS (SELECT 1 FROM taken)",
    )
    .bind(process)
    .bind(instance)
    .bind(seq)
    .bind(why)
    .execute(pool)
    .await?;
    Ok(())
}

/// Effects that are due, but for those under way: many that hang must not hide the rest.
pub(crate) async fn due_effects(
    pool: &PgPool,
    process: &str,
    under_way: (Vec<&str>, Vec<i64>),
    most: i64,
) -> Result<Vec<EffectRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT instance, seq, effect, payload, idempotency_key, attempts FROM annals.process_outbox
         WHERE process = $1 AND kind = 'effect' AND state = 'pending' AND COALESCE(deadline_at, due_at) <= now()
           AND (instance, seq) NOT IN (SELECT * FROM UNNEST($3::text[], $4::bigint[]))
         ORDER BY COALESCE(deadline_at, due_at) LIMIT $2",
    )
    .bind(process)
    .bind(most)
    .bind(under_way.0)
    .bind(under_way.1)
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

/// Effects are done. Gives those whose answer counts: not those that were withdrawn, or that another runner kept.
pub(crate) async fn effects_done(
    connection: &mut PgConnection,
    process: &str,
    rows: &[&EffectRow],
) -> Result<BTreeSet<(String, i64)>, sqlx::Error> {
    if rows.is_empty() {
        return Ok(BTreeSet::new());
    }
    let done = sqlx::query(
        "UPDATE annals.process_outbox o SET state = 'done', attempts = o.attempts + 1, last_error = NULL
         FROM UNNEST($2::text[], $3::bigint[]) AS a(instance, seq)
         WHERE o.process = $1 AND o.instance = a.instance AND o.seq = a.seq AND o.state = 'pending'
         RETURNING o.instance, o.seq",
    )
    .bind(process)
    .bind(rows.iter().map(|row| row.instance.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.seq).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    done.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
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

/// Deletes rows that are over and older than `age`; gives how many.
///
/// Safe at any age: a row is done only in the transaction that read its answer from the log, is never sent again,
/// and its number is never given again (`process_instance.last_seq`). The age is for people who look back.
pub(crate) async fn forget(
    pool: &PgPool,
    process: &str,
    age: Duration,
    most: i64,
) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query(
        "DELETE FROM annals.process_outbox WHERE ctid = ANY(ARRAY(
             SELECT ctid FROM annals.process_outbox
             WHERE created_at < now() - $2 AND process = $1 AND state IN ('done', 'withdrawn') LIMIT $3))",
    )
    .bind(process)
    .bind(interval(age))
    .bind(most)
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}

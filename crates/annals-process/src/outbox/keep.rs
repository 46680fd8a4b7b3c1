//! Keeping what a batch led to: states, withdrawn effects, timers, new rows.

use std::time::Duration;

use sqlx::PgConnection;

use super::{CommandRow, EffectRow, held, interval};
use crate::react::{Changes, What};

/// Keeps everything that a batch led to. Gives the commands and effects that go out at once.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    process: &str,
    changes: &Changes,
    deadline: Duration,
) -> Result<(Vec<CommandRow>, Vec<EffectRow>), sqlx::Error> {
    keep_instances(connection, process, changes).await?;
    withdraw(connection, process, changes).await?;
    keep_timers(connection, process, changes).await?;
    held::keep(connection, process, changes).await?;
    keep_rows(connection, process, changes, deadline).await
}

async fn keep_instances(
    connection: &mut PgConnection,
    process: &str,
    changes: &Changes,
) -> Result<(), sqlx::Error> {
    let kept: Vec<_> = changes
        .instances
        .iter()
        .filter(|(_, instance)| instance.state.is_some())
        .collect();
    if kept.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO annals.process_instance AS i (process, instance, state, step, stuck, last_seq, timers_set,
                                                   parked)
         SELECT $1, n.* FROM UNNEST($2::text[], $3::bytea[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
                                    $8::bool[])
                             AS n(instance, state, step, stuck, last_seq, timers_set, parked)
         ON CONFLICT (process, instance) DO UPDATE
         SET state = EXCLUDED.state, step = EXCLUDED.step, stuck = EXCLUDED.stuck, updated_at = now(),
             last_seq = EXCLUDED.last_seq, timers_set = EXCLUDED.timers_set, parked = EXCLUDED.parked",
    )
    .bind(process)
    .bind(kept.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, i)| i.state.as_deref()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, i)| i.step.as_str()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, i)| i.stuck.as_deref()).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, i)| i.last_seq).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, i)| i.timers_set).collect::<Vec<_>>())
    .bind(kept.iter().map(|(_, i)| i.parked).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn withdraw(
    connection: &mut PgConnection,
    process: &str,
    changes: &Changes,
) -> Result<(), sqlx::Error> {
    if changes.withdrawn.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE annals.process_outbox o SET state = 'withdrawn'
         FROM UNNEST($2::text[], $3::text[], $4::bigint[]) AS w(instance, effect, below)
         WHERE o.process = $1 AND o.kind = 'effect' AND o.state IN ('pending', 'parked')
           AND o.instance = w.instance AND o.effect = w.effect AND o.seq < w.below",
    )
    .bind(process)
    .bind(
        changes
            .withdrawn
            .iter()
            .map(|(instance, ..)| instance.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        changes
            .withdrawn
            .iter()
            .map(|(_, effect, _)| *effect)
            .collect::<Vec<_>>(),
    )
    .bind(
        changes
            .withdrawn
            .iter()
            .map(|(.., below)| *below)
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn keep_timers(
    connection: &mut PgConnection,
    process: &str,
    changes: &Changes,
) -> Result<(), sqlx::Error> {
    let gone: Vec<_> = changes
        .timers
        .iter()
        .filter(|(_, timer)| timer.is_none())
        .map(|(id, _)| id)
        .collect();
    if !gone.is_empty() {
        sqlx::query(
            "DELETE FROM annals.timer t USING UNNEST($2::text[], $3::text[]) AS g(instance, name)
             WHERE t.process = $1 AND t.instance = g.instance AND t.name = g.name",
        )
        .bind(process)
        .bind(
            gone.iter()
                .map(|(instance, _)| instance.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(gone.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    let set: Vec<_> = changes.timers.values().flatten().collect();
    if !set.is_empty() {
        sqlx::query(
            "INSERT INTO annals.timer (process, instance, name, due_at, n)
             SELECT $1, s.* FROM UNNEST($2::text[], $3::text[], $4::timestamptz[], $5::bigint[])
                                 AS s(instance, name, due_at, n)
             ON CONFLICT (process, instance, name) DO UPDATE
             SET due_at = EXCLUDED.due_at, n = EXCLUDED.n, waits = NULL",
        )
        .bind(process)
        .bind(
            set.iter()
                .map(|timer| timer.instance.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(set.iter().map(|timer| timer.name.as_str()).collect::<Vec<_>>())
        .bind(set.iter().map(|timer| timer.due).collect::<Vec<_>>())
        .bind(set.iter().map(|timer| timer.n).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

#[derive(Default)]
struct NewRows {
    instances: Vec<String>,
    seqs: Vec<i64>,
    kinds: Vec<&'static str>,
    resources: Vec<Option<&'static str>>,
    categories: Vec<Option<&'static str>>,
    streams: Vec<Option<String>>,
    commands: Vec<Option<&'static str>>,
    effects: Vec<Option<&'static str>>,
    payloads: Vec<Vec<u8>>,
    keys: Vec<String>,
    hashes: Vec<Vec<u8>>,
    states: Vec<&'static str>,
}

impl NewRows {
    fn of(changes: &Changes) -> Self {
        let mut rows = Self::default();
        for row in &changes.rows {
            rows.instances.push(row.instance.clone());
            rows.seqs.push(row.seq);
            rows.streams.push(row.stream());
            rows.keys.push(row.key.clone());
            rows.hashes.push(row.key_hash().as_bytes().to_vec());
            let sent = matches!(row.what, What::Command(_)) && row.now;
            rows.states.push(if sent { "sent" } else { "pending" });
            let (kind, command, effect, payload) = match &row.what {
                What::Command(command) => ("command", Some(command), None, &command.data),
                What::Effect { name, payload } => ("effect", None, Some(*name), payload),
            };
            rows.kinds.push(kind);
            rows.resources.push(command.map(|command| command.resource));
            rows.categories.push(command.map(|command| command.category));
            rows.commands.push(command.map(|command| command.command));
            rows.effects.push(effect);
            rows.payloads.push(payload.get().as_bytes().to_vec());
        }
        rows
    }
}

async fn keep_rows(
    connection: &mut PgConnection,
    process: &str,
    changes: &Changes,
    deadline: Duration,
) -> Result<(Vec<CommandRow>, Vec<EffectRow>), sqlx::Error> {
    if changes.rows.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let rows = NewRows::of(changes);
    sqlx::query(
        "INSERT INTO annals.process_outbox
            (process, instance, seq, kind, resource, category, stream, command, effect, payload, idempotency_key,
             key_hash, state, attempts, deadline_at)
         SELECT $1, n.*, CASE n.state WHEN 'sent' THEN 1 ELSE 0 END,
                CASE n.state WHEN 'sent' THEN now() + $14 END
         FROM UNNEST($2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::bytea[], $11::text[], $12::bytea[], $13::text[])
              AS n(instance, seq, kind, resource, category, stream, command, effect, payload, idempotency_key,
                   key_hash, state)",
    )
    .bind(process)
    .bind(&rows.instances)
    .bind(&rows.seqs)
    .bind(&rows.kinds)
    .bind(&rows.resources)
    .bind(&rows.categories)
    .bind(&rows.streams)
    .bind(&rows.commands)
    .bind(&rows.effects)
    .bind(&rows.payloads)
    .bind(&rows.keys)
    .bind(&rows.hashes)
    .bind(&rows.states)
    .bind(interval(deadline))
    .execute(connection)
    .await?;
    let (mut commands, mut effects) = (Vec::new(), Vec::new());
    for row in &changes.rows {
        match &row.what {
            What::Command(command) if row.now => commands.push(CommandRow {
                instance: row.instance.clone(),
                seq: row.seq,
                resource: command.resource.to_owned(),
                stream: row.stream().unwrap_or_default(),
                command: command.command.to_owned(),
                payload: command.data.clone(),
                key: row.key.clone(),
            }),
            What::Command(_) => {}
            What::Effect { name, payload } => effects.push(EffectRow {
                instance: row.instance.clone(),
                seq: row.seq,
                effect: (*name).to_owned(),
                payload: payload.clone(),
                key: row.key.clone(),
                attempts: 0,
            }),
        }
    }
    Ok((commands, effects))
}

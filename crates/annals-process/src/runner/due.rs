//! What time brings: effects that are due, timers, commands whose deadline has passed.

use std::collections::BTreeMap;

use annals_log::reader::decode;
use annals_log::{LogError, ReadLimits};
use annals_record::{Shard, StreamId};
use chrono::DateTime;

use super::{Intake, ROUND, Round, RunnerError};
use crate::metrics;
use crate::outbox::{self, DueTimer, HeldRow, Late};
use crate::react::{Cause, Place, Stimulus};

/// Records that waited and are read again in one round.
const RESUMED: i64 = 64;
/// Rows that are deleted at once, at most.
const FORGET: i64 = 10_000;

/// The shards of late commands, and where those end that were asked.
#[derive(Default)]
struct Ends {
    shards: Vec<Shard>,
    ends: BTreeMap<Shard, Option<BTreeMap<u32, u64>>>,
}

impl Ends {
    fn of(&self, shard: Shard) -> Option<BTreeMap<u32, u64>> {
        self.ends.get(&shard).cloned().flatten()
    }
}

impl Round<'_> {
    pub(super) async fn tick(&mut self) -> Result<(), RunnerError> {
        self.sender.reap();
        let under_way = self.sender.performing();
        let due = outbox::due_effects(&self.runner.pool, self.process(), under_way, ROUND).await?;
        self.sender.perform(due);
        self.resumed().await?;
        self.timers().await?;
        self.late_commands().await?;
        self.store_due().await
    }

    /// What waited for instances that an operator has resumed is reacted to, in order.
    async fn resumed(&mut self) -> Result<(), RunnerError> {
        if !outbox::unpark(&self.runner.pool, self.process()).await? {
            self.away.clear();
            return Ok(());
        }
        let mut transaction = self.runner.pool.begin().await?;
        let away: Vec<String> = self.away.iter().cloned().collect();
        let rows = outbox::resumed(&mut transaction, self.process(), &away, RESUMED).await?;
        if rows.is_empty() {
            // Everybody else had a turn.
            self.away.clear();
            return Ok(());
        }
        let mut intake = Intake::default();
        for row in &rows {
            match self.waited(row).await {
                Ok(found) => intake.stimuli.push(found),
                // One failure a tick: each may take as long as the log waits. It is read again after all others had
                // their turn, and nothing behind it overtakes it.
                Err(error) => {
                    let (instance, process) = (&row.waited.instance, self.process());
                    tracing::warn!(process, instance, %error, "a record that a resumed instance waits for cannot be read");
                    self.away.insert(instance.clone());
                    break;
                }
            }
        }
        self.keep(transaction, intake, Vec::new()).await
    }

    /// Reads a record again that waited for its instance.
    async fn waited(&self, row: &HeldRow) -> Result<Stimulus, LogError> {
        let Place { shard, offset, .. } = row.place;
        let limits = ReadLimits {
            records: 1,
            ..ReadLimits::default()
        };
        let read = self.runner.log.read(shard, offset, limits).await?;
        let placed = read.first().filter(|placed| placed.offset == offset);
        let record = placed.and_then(|placed| placed.slot.known());
        let record =
            record.ok_or_else(|| LogError::Unavailable(format!("nothing is read at {shard}:{offset}")))?;
        let nothing = |cause, unreadable| Stimulus {
            instance: row.waited.instance.clone(),
            input: None,
            time: DateTime::from_timestamp_millis(record.timestamp_ms).unwrap_or_default(),
            cause,
            place: Some(row.place),
            unreadable,
            waited: None,
        };
        let found = match decode(&self.runner.catalog, record) {
            Ok(entry) => entry.and_then(|entry| self.react_to(&entry, row.place)),
            Err(error) => Some(nothing(
                Cause::Record(record.id().to_string()),
                Some(error.to_string()),
            )),
        };
        // Another release may find that the record concerns nobody: then it has waited for nothing.
        let mut found = found.unwrap_or_else(|| nothing(Cause::Nothing, None));
        if found.unreadable.is_some() {
            // It keeps its place, and what is behind it waits.
            found.instance.clone_from(&row.waited.instance);
        }
        found.waited = Some(row.waited.clone());
        Ok(found)
    }

    /// Deletes rows of the outbox that have been over for long.
    pub(super) async fn forget(&mut self) -> Result<(), RunnerError> {
        let age = self.runner.settings.keep_done;
        outbox::forget(&self.runner.pool, self.process(), age, FORGET).await?;
        Ok(())
    }

    /// A timer fires once every shard has been read up to the end that it had when the timer fell due.
    async fn timers(&mut self) -> Result<(), RunnerError> {
        let due = outbox::due_timers(&self.runner.pool, self.process(), ROUND).await?;
        let new: Vec<_> = due
            .iter()
            .filter(|timer| timer.waits.is_none())
            .map(|due| &due.timer)
            .collect();
        // A shard whose end cannot be learnt is waited for.
        if !new.is_empty()
            && let Some(ends) = self.ends(self.runner.shards.shards()).await
        {
            outbox::timers_wait(&self.runner.pool, self.process(), &new, &ends).await?;
        }
        let ready: Vec<DueTimer> = due
            .into_iter()
            .filter(|timer| timer.waits.as_ref().is_some_and(|ends| self.has_read(ends)))
            .collect();
        if ready.is_empty() {
            return Ok(());
        }
        let mut intake = Intake::default();
        for DueTimer { timer, .. } in ready {
            let input = self.runner.process.of_timer(&timer.name, &timer.instance);
            if input.is_none() {
                tracing::error!(process = self.process(), timer = %timer.name, "the process does not know this timer");
            }
            let cause = Cause::Timer {
                name: timer.name,
                due_ms: timer.due.timestamp_millis(),
                n: timer.n,
            };
            intake.stimuli.push(Stimulus {
                instance: timer.instance,
                input,
                time: timer.due,
                cause,
                place: None,
                unreadable: None,
                waited: None,
            });
        }
        metrics::timers(self.process(), intake.stimuli.len());
        let transaction = self.begin(&[]).await?;
        self.keep(transaction, intake, Vec::new()).await?;
        self.passed.stored();
        Ok(())
    }

    /// A command that was not answered by its deadline is sent again only after its shard was read to the end.
    async fn late_commands(&mut self) -> Result<(), RunnerError> {
        let (pool, process) = (self.runner.pool.clone(), self.process());
        let late = outbox::late(&pool, process, ROUND).await?;
        let ends = self.ends_of(&late).await?;
        let (mut again, mut waiting) = (Vec::new(), Vec::new());
        for (Late { row, until }, shard) in late.iter().zip(&ends.shards) {
            match until {
                // Its task may be waiting for a shard that is away, or for its turn.
                _ if self.sender.is_sending(row) => waiting.push((row, None)),
                Some(until) if self.has_read(until) => again.push(row),
                Some(_) => waiting.push((row, None)),
                None => waiting.push((row, ends.of(*shard))),
            }
        }
        let (pause, deadline) = (self.runner.settings.tick, self.runner.settings.send_deadline());
        outbox::look_later(&pool, process, &waiting, pause).await?;
        if !again.is_empty() {
            let rows = outbox::send_again(&pool, process, &again, deadline).await?;
            metrics::sent_again(process, rows.len());
            self.sender.send(rows);
        }
        Ok(())
    }

    /// The shard of each late command, and the ends of those of which none has been noted yet.
    async fn ends_of(&self, late: &[Late]) -> Result<Ends, RunnerError> {
        let mut ends = Ends::default();
        for Late { row, until } in late {
            let stream = StreamId::try_from(row.stream.as_str());
            let stream = stream.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            let shard = self.runner.shards.shard_of(&stream);
            ends.shards.push(shard);
            if until.is_none() && !ends.ends.contains_key(&shard) {
                let end = self.ends(std::iter::once(shard)).await;
                ends.ends.insert(shard, end);
            }
        }
        Ok(ends)
    }

    /// Where these shards end now; those that halted are left out. `None` if one of them does not say.
    async fn ends(&self, shards: impl Iterator<Item = Shard>) -> Option<BTreeMap<u32, u64>> {
        let mut ends = BTreeMap::new();
        for shard in shards.filter(|shard| !self.halted.contains(shard)) {
            match self.runner.log.end(shard).await {
                Ok(end) => {
                    ends.insert(shard.get(), end.get());
                }
                Err(error) => {
                    tracing::warn!(process = self.process(), %shard, %error, "where a shard ends is not known");
                    return None;
                }
            }
        }
        Some(ends)
    }

    fn has_read(&self, ends: &BTreeMap<u32, u64>) -> bool {
        ends.iter().all(|(shard, end)| {
            let shard = Shard::new(*shard);
            self.halted.contains(&shard) || self.read.get(&shard).is_some_and(|next| next.get() >= *end)
        })
    }
}

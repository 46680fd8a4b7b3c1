//! What time brings: effects that are due, timers, commands whose deadline has passed.

use std::collections::BTreeMap;

use annals_log::LogError;
use annals_record::{Shard, StreamId};

use super::{Intake, ROUND, Round, RunnerError};
use crate::metrics;
use crate::outbox::{self, DueTimer};
use crate::react::{Cause, Stimulus};

impl Round<'_> {
    pub(super) async fn tick(&mut self) -> Result<(), RunnerError> {
        let due = outbox::due_effects(&self.runner.pool, self.process(), ROUND).await?;
        self.sender.perform(due);
        self.timers().await?;
        self.late_commands().await
    }

    /// A timer fires once every shard has been read up to the end that it had when the timer fell due.
    async fn timers(&mut self) -> Result<(), RunnerError> {
        let due = outbox::due_timers(&self.runner.pool, self.process(), ROUND).await?;
        let new: Vec<_> = due
            .iter()
            .filter(|timer| timer.waits.is_none())
            .map(|due| &due.timer)
            .collect();
        if !new.is_empty() {
            let ends = self.ends(self.runner.shards.shards()).await?;
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
            if let Some(input) = self.runner.process.of_timer(&timer.name, &timer.instance) {
                let cause = Cause::Timer {
                    name: timer.name.clone(),
                    due_ms: timer.due.timestamp_millis(),
                    n: timer.n,
                };
                intake.stimuli.push(Stimulus {
                    instance: timer.instance.clone(),
                    input,
                    time: timer.due,
                    cause,
                });
            } else {
                tracing::error!(process = self.process(), timer = %timer.name, "a timer that the process does not know is dropped");
            }
            intake.fired.push((timer.instance, timer.name));
        }
        metrics::timers(self.process(), intake.fired.len());
        let transaction = self.runner.pool.begin().await?;
        self.keep(transaction, intake, Vec::new()).await
    }

    /// A command that was not answered by its deadline is sent again only after its shard was read to the end.
    async fn late_commands(&mut self) -> Result<(), RunnerError> {
        let late = outbox::late(&self.runner.pool, self.process(), ROUND).await?;
        let mut again = Vec::new();
        let mut wait = Vec::new();
        for late in &late {
            match &late.until {
                Some(ends) if self.has_read(ends) => again.push(&late.row),
                Some(_) => {}
                None => {
                    let stream = StreamId::try_from(late.row.stream.as_str());
                    let stream = stream.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
                    let shard = self.runner.shards.shard_of(&stream);
                    wait.push((&late.row, self.ends(std::iter::once(shard)).await?));
                }
            }
        }
        outbox::wait_for(&self.runner.pool, self.process(), &wait).await?;
        if !again.is_empty() {
            let deadline = self.send_deadline();
            let rows = outbox::send_again(&self.runner.pool, self.process(), &again, deadline).await?;
            metrics::sent_again(self.process(), rows.len());
            self.sender.send(rows);
        }
        Ok(())
    }

    async fn ends(&self, shards: impl Iterator<Item = Shard>) -> Result<BTreeMap<u32, u64>, LogError> {
        let mut ends = BTreeMap::new();
        for shard in shards.filter(|shard| !self.halted.contains(shard)) {
            ends.insert(shard.get(), self.runner.log.end(shard).await?.get());
        }
        Ok(ends)
    }

    fn has_read(&self, ends: &BTreeMap<u32, u64>) -> bool {
        ends.iter().all(|(shard, end)| {
            let shard = Shard::new(*shard);
            self.halted.contains(&shard) || self.committed.get(&shard).is_some_and(|next| next.get() >= *end)
        })
    }
}

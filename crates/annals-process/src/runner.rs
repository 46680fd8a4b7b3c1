//! The loop of one process: read, react, keep, send. One runner a process, by lease; a second one fails at its
//! first checkpoint.

mod concern;
mod due;
mod ended;
mod feed;
mod passed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_domain::{Ambient, Catalog, Retry};
use annals_log::{Accepted, Batch, Checkpoint, Entry, Log, ReaderSettings};
use annals_record::{KeyHash, Offset, Shard, ShardCount, StreamId};
use annals_store::lease::{LeaseKey, LeaseKind, Leases};
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::effects::Effects;
use crate::erased::AnyProcess;
use crate::outbox::{self, CommandRow, EffectRow};
use crate::react::{Cause, Place, Stimulus, react};
use crate::sender::{Performed, Sender};
use crate::{CommandSender, ProcessSettings, metrics};
use concern::view;
pub use ended::RunnerError;
use ended::{LONGEST_ROUND, Turned};
use feed::{Fed, Feed};
use passed::Passed;

/// Runs one process on this node.
#[derive(Clone)]
pub struct ProcessRunner {
    /// The process.
    pub process: AnyProcess,
    /// Its effects.
    pub effects: Effects,
    /// The way of its commands.
    pub sender: Arc<dyn CommandSender>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The aggregates.
    pub catalog: Catalog,
    /// The process role's database.
    pub pool: PgPool,
    /// Who runs it.
    pub leases: Arc<dyn Leases>,
    /// How many shards there are.
    pub shards: ShardCount,
    /// Time and randomness.
    pub ambient: Ambient,
    /// How its readers read.
    pub reader: ReaderSettings,
    /// Limits.
    pub settings: ProcessSettings,
}

/// Batches and results that are taken off a queue at once, at most.
const BATCHES: usize = 64;
/// Between two looks for rows that nobody needs any more.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Timers and late commands that are looked at in one round.
const ROUND: i64 = 500;
/// How long an orderly stop may take to store how far was read.
const LAST: Duration = Duration::from_secs(1);
/// Between two attempts to run.
const RETRY: Duration = Duration::from_secs(1);

impl ProcessRunner {
    /// Runs until `stop` is cancelled, whenever the lease is this node's.
    pub async fn run(self, stop: CancellationToken) {
        let name = self.process.name();
        let key = [LeaseKey::new(LeaseKind::Process, name, 0)];
        while !stop.is_cancelled() {
            match self.leases.acquire(&key).await {
                Ok(mine) if !mine.is_empty() => {
                    metrics::running(name, true);
                    let ended = self.work(&key, &stop).await;
                    metrics::running(name, false);
                    match ended {
                        Err(RunnerError::Superseded) => {
                            tracing::info!(process = name, "another node runs the process")
                        }
                        Err(error) => {
                            tracing::error!(process = name, %error, "the process stopped; it goes on from its checkpoint")
                        }
                        Ok(()) => {}
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(process = name, %error, "the process's lease cannot be had"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        if let Err(error) = self.leases.release(&key).await {
            tracing::debug!(process = name, %error, "the lease could not be given back; it expires");
        }
    }

    fn reader_name(&self) -> String {
        format!("process/{}", self.process.name())
    }

    /// Works until `stop` is cancelled, or it can go no further.
    async fn work(&self, key: &[LeaseKey; 1], stop: &CancellationToken) -> Result<(), RunnerError> {
        let reader = self.reader_name();
        let Some(feed) = stop.run_until_cancelled(Feed::open(self, &reader)).await else {
            return Ok(());
        };
        let mut feed = feed?;
        let (sender, performed) = Sender::new(
            self.process.name(),
            Arc::clone(&self.sender),
            self.effects.clone(),
            self.pool.clone(),
            self.ambient.clone(),
            self.settings.clone(),
        );
        let mut round = Round {
            runner: self,
            read: feed.positions(),
            passed: Passed::new(self.settings.passed_records, self.settings.passed_every),
            opened: Instant::now(),
            halted: BTreeSet::new(),
            away: BTreeSet::new(),
            sender,
        };
        let turned = Turned::default();
        let turns = self.turns(&mut feed, &mut round, performed, &turned);
        // Beside the rounds: on a busy database one of them takes longer than a lease lasts, and two nodes would take the
        // process from each other without ever getting anywhere.
        let ended = async {
            tokio::select! {
                ended = turns => ended,
                ended = self.keep_lease(key, &turned) => ended,
            }
        };
        if let Some(ended) = stop.run_until_cancelled(ended).await {
            return ended;
        }
        // What was under way is rolled back; what was passed over before it stays passed.
        match timeout(LAST, round.store_passed()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(process = self.process.name(), %error, "what was passed over is read again")
            }
            Err(_) => {
                tracing::debug!(
                    process = self.process.name(),
                    "what was passed over is read again: no time"
                )
            }
        }
        Ok(())
    }

    /// Renews the lease until it is another's, or a round does not end.
    async fn keep_lease(&self, key: &[LeaseKey; 1], turned: &Turned) -> Result<(), RunnerError> {
        let mut renew = tokio::time::interval((self.leases.ttl() / 3).max(Duration::from_millis(100)));
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            renew.tick().await;
            if turned.elapsed() > LONGEST_ROUND {
                return Err(RunnerError::Stuck);
            }
            if self.leases.renew(key).await?.is_empty() {
                return Err(RunnerError::Superseded);
            }
        }
    }

    /// Round after round; `turned` is when the last one ended.
    async fn turns(
        &self,
        feed: &mut Feed,
        round: &mut Round<'_>,
        mut performed: mpsc::UnboundedReceiver<Performed>,
        turned: &Turned,
    ) -> Result<(), RunnerError> {
        let mut tick = tokio::time::interval(self.settings.tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let (mut fed, mut results) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                _ = feed.receiver.recv_many(&mut fed, BATCHES) => round.batches(fed.drain(..)).await?,
                _ = performed.recv_many(&mut results, BATCHES) => round.performed(std::mem::take(&mut results)).await?,
                _ = tick.tick() => {
                    feed.reap();
                    round.tick().await?;
                }
                _ = housekeeping.tick() => round.forget().await?,
            }
            turned.now();
        }
    }
}

/// The state of one run: how far each shard has been read, and what is on its way.
struct Round<'r> {
    runner: &'r ProcessRunner,
    /// Everything below that concerns the process is kept.
    read: BTreeMap<Shard, Offset>,
    passed: Passed,
    opened: Instant,
    halted: BTreeSet<Shard>,
    /// Resumed instances for which the log did not give what waits.
    away: BTreeSet<String>,
    sender: Sender,
}

/// What one transaction takes in beside timers and effects: batches, or nothing.
#[derive(Default)]
struct Intake {
    stimuli: Vec<Stimulus>,
    released: Vec<CommandRow>,
}

impl Round<'_> {
    fn process(&self) -> &'static str {
        self.runner.process.name()
    }

    async fn batches(&mut self, fed: impl Iterator<Item = Fed>) -> Result<(), RunnerError> {
        let (mut batches, mut records): (Vec<Batch>, _) = (Vec::new(), 0);
        for fed in fed {
            match fed {
                Fed::Batch(batch) => {
                    records += batch.records.len();
                    batches.push(*batch);
                    if records >= self.runner.settings.batch {
                        self.take(&std::mem::take(&mut batches)).await?;
                        records = 0;
                    }
                }
                Fed::Halted(shard, error) => {
                    metrics::halted(self.process());
                    tracing::error!(process = self.process(), %shard, %error, "the process's reader of a shard has halted");
                    self.halted.insert(shard);
                }
                Fed::Reopened(shard) => {
                    tracing::info!(process = self.process(), %shard, "the process's reader of a shard reads again");
                    self.halted.remove(&shard);
                }
            }
        }
        self.take(&batches).await
    }

    /// One transaction, if any of these concerns the process. The checkpoints are moved first: a second runner fails
    /// before it has done anything.
    async fn take(&mut self, batches: &[Batch]) -> Result<(), RunnerError> {
        if batches.iter().all(|batch| batch.records.is_empty()) {
            let now = self.opened.elapsed();
            batches.iter().for_each(|batch| self.passed.pass(now, batch));
            self.have_read(batches);
            return self.store_due().await;
        }
        let mut transaction = self.begin(batches).await?;
        let intake = self.intake(&mut transaction, batches).await?;
        self.keep(transaction, intake, Vec::new()).await?;
        self.passed.stored();
        self.have_read(batches);
        Ok(())
    }

    fn have_read(&mut self, batches: &[Batch]) {
        self.read
            .extend(batches.iter().map(|batch| (batch.shard, batch.to.head.next)));
    }

    /// A transaction that moves the checkpoints over what was passed, and over these batches.
    async fn begin(
        &self,
        batches: &[Batch],
    ) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, RunnerError> {
        let mut transaction = self.runner.pool.begin().await?;
        let moves = self.passed.moves_with(batches);
        let moves: Vec<_> = moves
            .iter()
            .map(|(shard, (from, to))| (*shard, from, to))
            .collect();
        if !moves.is_empty() {
            Checkpoint::advance_all(&mut transaction, &self.runner.reader_name(), &moves).await?;
        }
        Ok(transaction)
    }

    /// Stores how far was read over records that do not concern the process.
    async fn store_passed(&mut self) -> Result<(), RunnerError> {
        if !self.passed.is_empty() {
            self.begin(&[]).await?.commit().await?;
            self.passed.stored();
        }
        Ok(())
    }

    /// The same, if it is time.
    async fn store_due(&mut self) -> Result<(), RunnerError> {
        if self.passed.is_due(self.opened.elapsed()) {
            self.store_passed().await?;
        }
        Ok(())
    }

    /// What of these batches concerns the process, with the commands that their answers release.
    async fn intake(&self, connection: &mut PgConnection, batches: &[Batch]) -> Result<Intake, RunnerError> {
        let mut intake = Intake::default();
        let actor = format!("process:{}", self.process());
        let mut own: Vec<(&StreamId, KeyHash)> = Vec::new();
        for accepted in batches.iter().flat_map(|batch| &batch.records) {
            if let (Some(entry), Some(header)) = (accepted.entry(), accepted.record().entry())
                && *entry.actor.sub == *actor
            {
                own.push((&entry.stream, header.idempotency_key));
            }
        }
        let answered = outbox::answered(connection, self.process(), &own).await?;
        let deadline = self.runner.settings.send_deadline();
        intake.released = outbox::release(connection, self.process(), &answered, deadline).await?;
        let answered: BTreeSet<(&str, &[u8])> = answered
            .iter()
            .map(|(_, stream, key)| (stream.as_str(), key.as_slice()))
            .collect();
        for batch in batches {
            for accepted in &batch.records {
                intake
                    .stimuli
                    .extend(self.stimulus(batch.shard, accepted, &answered));
            }
        }
        Ok(intake)
    }

    fn stimulus(
        &self,
        shard: Shard,
        accepted: &Accepted,
        answered: &BTreeSet<(&str, &[u8])>,
    ) -> Option<Stimulus> {
        let (entry, header) = (accepted.entry()?, accepted.record().entry()?);
        let key = header.idempotency_key;
        let own = answered.contains(&(entry.stream.as_str(), key.as_bytes().as_slice()));
        let place = Place {
            shard,
            offset: accepted.offset(),
            own,
        };
        self.react_to(entry, place)
    }

    /// What a record is to the process, if it concerns it. One that does not read stands for itself, and waits.
    fn react_to(&self, entry: &Entry, place: Place) -> Option<Stimulus> {
        if !self
            .runner
            .process
            .categories()
            .contains(&entry.stream.category())
        {
            return None;
        }
        let own = place.own;
        let has_events = entry.outcome.as_ref().is_ok_and(|events| !events.is_empty());
        if !own && !has_events {
            return None;
        }
        let found = self.runner.process.of_record(&view(entry, own));
        let (instance, input, unreadable) = match found {
            Ok(found) => {
                let (instance, input) = found?;
                (instance, Some(input), None)
            }
            Err(error) => {
                let Place { shard, offset, .. } = place;
                let why = format!("the record at {shard}:{offset} does not read: {error}");
                (format!("record:{shard}:{offset}"), None, Some(why))
            }
        };
        Some(Stimulus {
            instance,
            input,
            time: entry.time,
            cause: Cause::Record(entry.record.to_string()),
            place: Some(place),
            unreadable,
            waited: None,
        })
    }

    /// Reacts and keeps everything in one transaction; what goes out goes out after it.
    async fn keep(
        &mut self,
        mut transaction: sqlx::Transaction<'static, sqlx::Postgres>,
        intake: Intake,
        performed: Vec<Performed>,
    ) -> Result<(), RunnerError> {
        let process = self.process();
        let mut ids: BTreeSet<String> = intake.stimuli.iter().map(|s| s.instance.clone()).collect();
        ids.extend(performed.iter().map(|done| done.row.instance.clone()));
        let ids: Vec<String> = ids.into_iter().collect();
        let instances = outbox::load(&mut transaction, process, &ids).await?;
        let inputs = intake.stimuli.len();
        let mut changes = react(&*self.runner.process, instances, intake.stimuli);
        for (instance, parked) in changes.instances.iter().filter(|(_, one)| one.parked_now) {
            let why = parked.stuck.as_deref().unwrap_or_default();
            metrics::parked(process);
            tracing::error!(
                process,
                instance,
                why,
                "an instance cannot react, or a record does not read: it is parked, and all others go on"
            );
        }
        let rows: Vec<&EffectRow> = performed.iter().map(|done| &done.row).collect();
        let counts = outbox::effects_done(&mut transaction, process, &rows).await?;
        for Performed { row, result } in &performed {
            if let Ok(Some(answer)) = result
                && counts.contains(&(row.instance.clone(), row.seq))
            {
                changes.answer(&row.instance, answer.clone(), &row.key);
            }
        }
        let deadline = self.runner.settings.send_deadline();
        let (commands, effects) = outbox::keep(&mut transaction, process, &changes, deadline).await?;
        transaction.commit().await?;
        metrics::reacted(process, inputs);
        for (instance, effect, below) in &changes.withdrawn {
            self.sender.withdraw(instance, effect, *below);
        }
        self.sender.send(intake.released);
        self.sender.send(commands);
        self.sender.perform(effects);
        Ok(())
    }

    async fn performed(&mut self, results: Vec<Performed>) -> Result<(), RunnerError> {
        let (done, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(|one| one.result.is_ok());
        let process = self.process();
        for one in &failed {
            metrics::performed(process, false);
            self.effect_failed(one).await?;
            self.sender.kept(&one.row);
        }
        if done.is_empty() {
            return Ok(());
        }
        let rows: Vec<EffectRow> = done.iter().map(|one| one.row.clone()).collect();
        let transaction = self.begin(&[]).await?;
        self.keep(transaction, Intake::default(), done).await?;
        self.passed.stored();
        for row in &rows {
            metrics::performed(process, true);
            self.sender.kept(row);
        }
        Ok(())
    }

    async fn effect_failed(&self, one: &Performed) -> Result<(), RunnerError> {
        let Err(error) = &one.result else { return Ok(()) };
        let (pool, process, row) = (&self.runner.pool, self.process(), &one.row);
        tracing::warn!(process, instance = %row.instance, effect = %row.effect, %error, "an effect failed");
        if error.retry == Retry::Never {
            metrics::parked(process);
            outbox::park(pool, process, &row.instance, row.seq, &error.message).await?;
        } else {
            let [jitter] = self.runner.ambient.random();
            let attempts = u32::try_from(row.attempts).unwrap_or(0) + 1;
            let after = Sender::backoff(&self.runner.settings).after(attempts, jitter);
            outbox::effect_failed(pool, process, row, &error.message, after).await?;
        }
        Ok(())
    }
}

type FeedSender = mpsc::Sender<Fed>;

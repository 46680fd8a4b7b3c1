//! One projection on one node: leases, readers, batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_log::{Checkpoint, CheckpointError};
use annals_record::fold::Head;
use annals_record::{AppName, Shard, ShardCount};
use annals_store::lease::{LeaseKey, LeaseKind, balance};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::reading::{Message, QUEUE, Reading, Rounds, Sent};
use super::{BatchSize, CHANNEL, NODE_ROLE, Parts, Progress};
use crate::apply::{ApplyError, Delivery, Projector};
use crate::manifest::{Manifest, Rows};
use crate::metrics as names;

/// Shards are looked at so many times an interval: what is read late in one is not late for the next.
const READS: u32 = 2;
/// Checkpoints that only pass by what does not concern a build wait for so many intervals: a transaction each would cost
/// more than all that is written.
const PASSING: u32 = 4;

/// What a worker is started with.
pub(super) struct Work {
    pub(super) parts: Arc<Parts>,
    pub(super) manifest: Arc<Manifest>,
    pub(super) batch: BatchSize,
    pub(super) progress: Progress,
    pub(super) stop: CancellationToken,
}

struct Worker {
    work: Work,
    projector: Projector,
    app: AppName,
    shards: ShardCount,
    held: Vec<LeaseKey>,
    /// When leases are to be looked after again.
    lease_due: Instant,
    readers: BTreeMap<Shard, Reader>,
    tasks: JoinSet<()>,
    sessions: u64,
    queue: (mpsc::Sender<Sent>, mpsc::Receiver<Sent>),
    /// When the last transaction began.
    began: Option<Instant>,
    /// What moves checkpoints and nothing else, until something comes along or it is time.
    passing: Vec<Delivery>,
    rounds: Rounds,
}

/// A reading task; it ends when this is dropped.
struct Reader {
    session: u64,
    _stop: DropGuard,
}

impl Work {
    pub(super) async fn run(self) {
        let stop = self.stop.clone();
        let opened = tokio::select! {
            () = stop.cancelled() => return,
            opened = self.open() => opened,
        };
        opened.run().await;
    }

    /// Looks at the build's tables and learns what log it is of; tries until both have worked.
    async fn open(self) -> Worker {
        let mut attempts = 0;
        loop {
            match self.try_open().await {
                Ok((projector, app, shards)) => {
                    return Worker {
                        projector,
                        app,
                        shards,
                        held: Vec::new(),
                        lease_due: Instant::now(),
                        readers: BTreeMap::new(),
                        tasks: JoinSet::new(),
                        sessions: 0,
                        queue: mpsc::channel(QUEUE),
                        began: None,
                        passing: Vec::new(),
                        rounds: Rounds {
                            began: Instant::now(),
                            every: self.parts.settings.batch_interval / READS,
                        },
                        work: self,
                    };
                }
                Err(error) => {
                    attempts += 1;
                    self.trouble(&error, attempts);
                    sleep(self.parts.pause(attempts)).await;
                }
            }
        }
    }

    async fn try_open(&self) -> Result<(Projector, AppName, ShardCount), String> {
        let parts = &self.parts;
        let log = parts.log.describe().await.map_err(|error| error.to_string())?;
        let projector = Projector::of_made(
            parts.pool.clone(),
            Arc::clone(&self.manifest),
            Arc::clone(&parts.opener),
            parts.settings.limits,
        );
        let projector = projector.await.map_err(|error| error.to_string())?;
        Ok((projector, log.app, log.shards))
    }

    fn trouble(&self, error: &str, attempts: u32) {
        let id = &self.manifest.id;
        // The first is news, the rest is repetition: the status shows it.
        if attempts == 1 {
            tracing::warn!(build = %id, error, "a projection cannot go on; trying again");
        }
        metrics::counter!(names::RETRIES, "projection" => id.to_string()).increment(1);
        self.progress
            .change(id, |progress| progress.error = Some(error.to_owned()));
    }
}

impl Worker {
    async fn run(mut self) {
        let stop = self.work.stop.clone();
        loop {
            let passing_due = self.passing_due();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(self.lease_due) => self.look_after_leases().await,
                ended = self.tasks.join_next(), if !self.tasks.is_empty() => raise(ended),
                Some((session, message)) = self.queue.1.recv() => self.take(session, message).await,
                () = sleep_until(passing_due), if !self.passing.is_empty() => {
                    let passing = std::mem::take(&mut self.passing);
                    self.apply(passing).await;
                }
            }
        }
        self.readers.clear();
        if let Err(error) = self.work.parts.leases.release(&self.held).await {
            tracing::debug!(build = %self.work.manifest.id, %error, "leases end by themselves");
        }
    }

    /// Renews, takes and gives back leases, and reads exactly the shards that they stand for.
    async fn look_after_leases(&mut self) {
        let leases = Arc::clone(&self.work.parts.leases);
        self.lease_due = Instant::now() + leases.ttl() / 3;
        match self.balanced().await {
            Ok(held) => self.held = held,
            Err(error) => {
                // Leases are liveness only: go on with what one has, the checkpoints keep it safe.
                tracing::warn!(build = %self.work.manifest.id, %error, "leases cannot be looked after");
            }
        }
        if let Err(error) = self.read_what_is_held().await {
            self.work.trouble(&error.to_string(), 1);
        }
    }

    async fn balanced(&self) -> Result<Vec<LeaseKey>, annals_store::Error> {
        let leases = &self.work.parts.leases;
        let name = self.work.manifest.id.to_string();
        let shards = match self.work.manifest.rows {
            Rows::Stream => self.shards.get(),
            Rows::Shared => 1,
        };
        let keys: Vec<LeaseKey> = (0..shards)
            .map(|shard| LeaseKey::new(LeaseKind::Projection, name.as_str(), shard))
            .collect();
        let nodes: Vec<_> = leases
            .nodes()
            .await?
            .into_iter()
            .filter(|node| node.roles.iter().any(|role| role == NODE_ROLE))
            .map(|node| node.id)
            .collect();
        let table = leases.list(LeaseKind::Projection, &name).await?;
        let plan = balance(leases.node(), &nodes, &keys, &table);
        leases.release(&plan.release).await?;
        let mut held = leases.renew(&plan.keep).await?;
        held.extend(leases.acquire(&plan.acquire).await?);
        Ok(held)
    }

    /// Shards are read from the stored checkpoints: whoever had them before may have moved them.
    async fn read_what_is_held(&mut self) -> Result<(), CheckpointError> {
        let held: Vec<Shard> = match self.work.manifest.rows {
            Rows::Stream => self.held.iter().map(|key| Shard::new(key.shard)).collect(),
            Rows::Shared if self.held.is_empty() => Vec::new(),
            Rows::Shared => self.shards.shards().collect(),
        };
        self.readers.retain(|shard, _| held.contains(shard));
        self.passing.retain(|passing| held.contains(&passing.shard));
        let missing: Vec<Shard> = held
            .into_iter()
            .filter(|shard| !self.readers.contains_key(shard))
            .collect();
        if !missing.is_empty() {
            let stored = Checkpoint::load_all(&self.work.parts.pool, &self.work.manifest.id.reader()).await?;
            let stored: BTreeMap<Shard, Checkpoint> = stored.into_iter().collect();
            for shard in missing {
                let at = stored.get(&shard).cloned();
                self.read(shard, at.unwrap_or_else(|| self.beginning(shard)));
            }
        }
        let id = &self.work.manifest.id;
        let count = u32::try_from(self.readers.len()).unwrap_or(u32::MAX);
        metrics::gauge!(names::SHARDS, "projection" => id.to_string()).set(f64::from(count));
        let readers = &self.readers;
        self.work.progress.change(id, |progress| {
            progress.halted.retain(|shard, _| readers.contains_key(shard))
        });
        Ok(())
    }

    /// Everything is read again from the stored checkpoints.
    fn forget(&mut self) {
        self.readers.clear();
        self.passing.clear();
    }

    fn beginning(&self, shard: Shard) -> Checkpoint {
        Checkpoint::genesis(Head::genesis(&self.app, shard, self.shards))
    }

    fn read(&mut self, shard: Shard, at: Checkpoint) {
        self.sessions += 1;
        let stop = CancellationToken::new();
        self.passing.retain(|passing| passing.shard != shard);
        let reading = Reading {
            parts: Arc::clone(&self.work.parts),
            plan: Arc::clone(&self.projector.plan),
            batch: self.work.batch.share(self.shards.shards().len()),
            rounds: self.rounds,
            shard,
            session: self.sessions,
            at,
            queue: self.queue.0.clone(),
            stop: stop.clone(),
        };
        self.tasks.spawn(reading.run());
        let reader = Reader {
            session: self.sessions,
            _stop: stop.drop_guard(),
        };
        self.readers.insert(shard, reader);
    }

    /// Takes a message, gathers what else is there, and applies it.
    async fn take(&mut self, session: u64, message: Message) {
        let mut batch = std::mem::take(&mut self.passing);
        self.add(&mut batch, session, message);
        let settings = &self.work.parts.settings;
        let (most, until) = (
            self.work.batch.events,
            self.began.map(|began| began + settings.batch_interval),
        );
        while size(&batch) < most {
            let next = match until {
                Some(until) => timeout_at(until, self.queue.1.recv()).await.ok().flatten(),
                None => None,
            };
            let Some((session, message)) = next.or_else(|| self.queue.1.try_recv().ok()) else {
                break;
            };
            self.add(&mut batch, session, message);
        }
        if size(&batch) == 0 && Instant::now() < self.passing_due() {
            self.passing = batch;
        } else if !batch.is_empty() {
            self.apply(batch).await;
        }
    }

    /// When checkpoints move although nothing else does. After a rest that is at once.
    fn passing_due(&self) -> Instant {
        let interval = self.work.parts.settings.batch_interval;
        self.began
            .map_or_else(Instant::now, |began| began + PASSING * interval)
    }

    fn add(&mut self, batch: &mut Vec<Delivery>, session: u64, message: Message) {
        match message {
            Message::Read(delivery) => {
                // A task of the past: its shard was given up, or is read anew from its checkpoint.
                if self
                    .readers
                    .get(&delivery.shard)
                    .is_none_or(|reader| reader.session != session)
                {
                    return;
                }
                match batch.iter_mut().find(|earlier| earlier.shard == delivery.shard) {
                    Some(earlier) => earlier.extend(*delivery),
                    None => batch.push(*delivery),
                }
            }
            Message::Halted(shard, error) => {
                if self
                    .readers
                    .get(&shard)
                    .is_some_and(|reader| reader.session == session)
                {
                    let id = &self.work.manifest.id;
                    tracing::error!(build = %id, shard = shard.get(), %error, "a shard of a projection halted");
                    metrics::counter!(names::HALTS, "projection" => id.to_string()).increment(1);
                    self.work.progress.change(id, |progress| {
                        progress.halted.insert(shard, error.to_string());
                    });
                }
            }
        }
    }

    /// Tries until the batch is in, somebody else has moved a checkpoint, or it is time to stop.
    async fn apply(&mut self, batch: Vec<Delivery>) {
        let mut attempts = 0;
        loop {
            let began = Instant::now();
            self.began = Some(began);
            match self.projector.apply(&batch).await {
                Ok(_) => {
                    self.committed(&batch, began);
                    return;
                }
                Err(ApplyError::Zombie(error)) => {
                    self.give_up(&error).await;
                    return;
                }
                Err(error) => {
                    attempts += 1;
                    self.work.trouble(&error.to_string(), attempts);
                }
            }
            let pause = self.work.parts.pause(attempts);
            tokio::select! {
                () = self.work.stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            if Instant::now() >= self.lease_due {
                self.look_after_leases().await;
                if batch
                    .iter()
                    .any(|delivery| !self.readers.contains_key(&delivery.shard))
                {
                    // A part of it is another node's now: read the rest again, from the checkpoints.
                    self.forget();
                    self.lease_due = Instant::now();
                    return;
                }
            }
        }
    }

    fn committed(&self, batch: &[Delivery], began: Instant) {
        let id = &self.work.manifest.id;
        metrics::histogram!(names::BATCH_SECONDS, "projection" => id.to_string())
            .record(began.elapsed().as_secs_f64());
        self.work.progress.change(id, |progress| {
            progress.error = None;
            for delivery in batch {
                progress.next.insert(delivery.shard, delivery.to.head.next);
            }
        });
        if let Some(notifier) = &self.work.parts.notifier
            && let Err(error) = notifier.notify(CHANNEL, &id.to_string(), "")
        {
            tracing::debug!(build = %id, %error, "nobody is told of a checkpoint");
        }
    }

    /// Another projector is at work, or this one's last commit was done although its answer was lost. Either way the
    /// stored checkpoints are right: the lease goes back, and everything is read again from them.
    async fn give_up(&mut self, error: &CheckpointError) {
        let id = self.work.manifest.id.clone();
        tracing::warn!(build = %id, %error, "giving up a lease");
        metrics::counter!(names::ZOMBIES, "projection" => id.to_string()).increment(1);
        let moved = match (error, self.work.manifest.rows) {
            (
                CheckpointError::Moved { shard, .. } | CheckpointError::Backwards { shard, .. },
                Rows::Stream,
            ) => Some(shard.get()),
            _ => None,
        };
        let (gone, kept): (Vec<_>, Vec<_>) = self
            .held
            .drain(..)
            .partition(|key| moved.is_none_or(|shard| key.shard == shard));
        self.held = kept;
        self.forget();
        if let Err(error) = self.work.parts.leases.release(&gone).await {
            tracing::debug!(build = %id, %error, "the lease ends by itself");
        }
        // Soon again: where nobody else took it, the build would else stand still for a third of a lease.
        self.lease_due = Instant::now() + self.work.parts.pause(1);
        if let Err(error) = self.read_what_is_held().await {
            self.work.trouble(&error.to_string(), 1);
        }
    }
}

fn size(batch: &[Delivery]) -> usize {
    batch.iter().map(|delivery| delivery.entries.len()).sum()
}

/// A reading task's panic is its worker's.
fn raise(ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

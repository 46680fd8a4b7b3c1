//! One shard, read ahead into a worker's queue.

use std::sync::Arc;
use std::time::Duration;

use annals_log::{Checkpoint, ReadLimits, ReaderError, ReaderSettings, ShardReader};
use annals_record::Shard;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{BatchSize, Parts};
use crate::apply::{Delivery, Plan};

/// How many batches wait in a worker's queue, each a quarter of a transaction at most.
pub(super) const QUEUE: usize = 4;
/// Of how many streams a reader remembers the version, to see gaps (L2): some 180 bytes each, for every shard and build. The
/// log's own readers remember more.
const STREAMS: usize = 4_096;

/// A message, and the session of the task that sent it.
pub(super) type Sent = (u64, Message);

/// What a reading task tells its worker.
pub(super) enum Message {
    /// The next records of its shard.
    Read(Box<Delivery>),
    /// It will never go on.
    Halted(Shard, ReaderError),
}

/// When the shards of a build are looked at again: all at the same instants, so that one transaction gets what is new in
/// them, and no oftener, so that a record does not cost a wake-up of each of its readers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounds {
    /// When they began.
    pub(super) began: Instant,
    /// From one to the next.
    pub(super) every: Duration,
}

impl Rounds {
    /// The first one after `now`.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let every = self.every.as_nanos().max(1);
        let into = now.saturating_duration_since(self.began).as_nanos() % every;
        now + Duration::from_nanos(u64::try_from(every - into).unwrap_or(u64::MAX))
    }
}

/// One reading task. `session` tells its messages from those of an earlier task of the same shard.
pub(super) struct Reading {
    pub(super) parts: Arc<Parts>,
    pub(super) plan: Arc<Plan>,
    /// What it takes at a time.
    pub(super) batch: BatchSize,
    pub(super) rounds: Rounds,
    pub(super) shard: Shard,
    pub(super) session: u64,
    pub(super) at: Checkpoint,
    pub(super) queue: mpsc::Sender<Sent>,
    pub(super) stop: CancellationToken,
}

impl Reading {
    pub(super) async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.read() => {}
        }
    }

    /// Ends when the reader halts or the worker is gone. May be dropped at any time: what was not applied is read
    /// again from the checkpoint.
    async fn read(self) {
        let Some(mut reader) = self.open().await else {
            return;
        };
        let mut attempts = 0;
        let full = self.settings().limits.records;
        loop {
            let mut more = true;
            let message = match reader.next().await {
                Ok(Some(batch)) => {
                    // Large records fill a read before they are many.
                    more = batch.records.len() >= full / 8;
                    Message::Read(Box::new(Delivery::concerning(&batch, &self.plan)))
                }
                Ok(None) => continue,
                Err(ReaderError::Log(error)) => {
                    attempts += 1;
                    tracing::debug!(shard = self.shard.get(), %error, "the log does not answer");
                    sleep(self.parts.pause(attempts)).await;
                    continue;
                }
                Err(error) => Message::Halted(self.shard, error),
            };
            attempts = 0;
            let halted = matches!(message, Message::Halted(..));
            if self.queue.send((self.session, message)).await.is_err() || halted {
                return;
            }
            if !more {
                sleep_until(self.rounds.next(Instant::now())).await;
            }
        }
    }

    async fn open(&self) -> Option<ShardReader> {
        let mut attempts = 0;
        loop {
            let (log, catalog) = (Arc::clone(&self.parts.log), self.parts.catalog.clone());
            match ShardReader::open(log, catalog, self.shard, self.at.clone(), self.settings()).await {
                Ok(reader) => return Some(reader),
                Err(ReaderError::Log(error)) => {
                    attempts += 1;
                    tracing::debug!(shard = self.shard.get(), %error, "the log does not answer");
                    sleep(self.parts.pause(attempts)).await;
                }
                Err(error) => {
                    let halted = Message::Halted(self.shard, error);
                    self.queue.send((self.session, halted)).await.ok();
                    return None;
                }
            }
        }
    }

    fn settings(&self) -> ReaderSettings {
        ReaderSettings {
            limits: ReadLimits {
                records: self.batch.events,
                bytes: self.batch.bytes,
                wait: Duration::from_millis(500),
            },
            streams: STREAMS,
            ..ReaderSettings::default()
        }
    }
}

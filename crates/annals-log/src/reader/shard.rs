//! [`ShardReader`]: resume check, fold, decode, upcast.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_record::fold::{Fold, Ghost, Halt, Head, Verdict};
use annals_record::{Hash32, Offset, Shard};
use tokio::time::{Instant, sleep};

use super::versions::{VersionBreak, Versions};
use super::{Accepted, Batch, DecodeError, decode};
use crate::metrics::{self, Invariant};
use crate::{Checkpoint, Log, LogError, Placed, ReadLimits};

/// How a reader reads.
#[derive(Debug, Clone, Copy)]
pub struct ReaderSettings {
    /// How much one batch may hold, and how long [`ShardReader::next`] waits for a first record.
    pub limits: ReadLimits,
    /// How long a log may end below the checkpoint before the reader halts: failovers do that for a while.
    pub short_log: Duration,
    /// How many streams' versions are watched (L2); about 150 bytes each.
    pub streams: usize,
}

impl Default for ReaderSettings {
    fn default() -> Self {
        Self {
            limits: ReadLimits::default(),
            short_log: Duration::from_secs(30),
            streams: 65_536,
        }
    }
}

/// Why a reader gives no batch. All but [`ReaderError::Log`] are for good: the reader stays where it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReaderError {
    /// The fold, or the resume check, says that going on would be wrong.
    #[error(transparent)]
    Halted(Box<Halted>),
    /// The log does not answer; try again.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An accepted record whose value this program cannot read.
    #[error("the record at {shard}:{offset} does not read: {source}")]
    Read {
        /// The shard.
        shard: Shard,
        /// The record's offset.
        offset: Offset,
        /// What is wrong with it.
        source: Arc<DecodeError>,
    },
    /// A stream's versions have a gap or a repeat (L2).
    #[error("the record at {shard}:{offset} breaks its stream: {source}")]
    Version {
        /// The shard.
        shard: Shard,
        /// The record's offset.
        offset: Offset,
        /// Which stream, and how.
        source: Box<VersionBreak>,
    },
}

/// Where and why a reader stopped in front of a record. Printed by `log check`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shard {shard} halted at offset {offset}: {reason}")]
pub struct Halted {
    /// The shard.
    pub shard: Shard,
    /// The record that it stopped in front of, or that is not what it was.
    pub offset: Offset,
    /// Why.
    pub reason: HaltReason,
}

/// Why a reader stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// The fold says so.
    #[error(transparent)]
    Fold(Halt),
    /// The record before the checkpoint is another one than was folded.
    #[error("the record was replaced: its hash was {expected} and is {found}")]
    RecordReplaced {
        /// What the checkpoint knows.
        expected: Hash32,
        /// What the log holds.
        found: Hash32,
    },
    /// The log ended below the checkpoint for longer than a failover takes.
    #[error("the log ends at {end}, below what was folded already")]
    LogShortened {
        /// Where it ends.
        end: Offset,
    },
    /// The checkpoint is at the beginning of another log.
    #[error("the checkpoint begins another log: its chain is {expected}, this log's {found}")]
    OtherLog {
        /// The checkpoint's chain.
        expected: Hash32,
        /// c(0) of this log.
        found: Hash32,
    },
}

impl HaltReason {
    /// A short name for counters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fold(Halt::UnknownFormat { .. }) => "unknown-format",
            Self::Fold(Halt::HistoryReplaced { .. }) => "history-replaced",
            Self::RecordReplaced { .. } => "record-replaced",
            Self::LogShortened { .. } => "log-shortened",
            Self::OtherLog { .. } => "other-log",
        }
    }
}

/// Reads one shard from a checkpoint on: accepted records only, decoded and upcast once for all readers of a node.
///
/// It moves nothing but itself: the caller commits what follows from a [`Batch`] and advances the stored checkpoint
/// from `from` to `to` in the same transaction.
pub struct ShardReader {
    log: Arc<dyn Log>,
    catalog: Catalog,
    shard: Shard,
    settings: ReaderSettings,
    fold: Fold,
    at: Checkpoint,
    versions: Versions,
    /// Since when the log has ended below the checkpoint.
    short_since: Option<Instant>,
    /// Why it will never go on.
    stopped: Option<ReaderError>,
}

impl fmt::Debug for ShardReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardReader")
            .field("shard", &self.shard)
            .field("at", &self.at)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

impl ShardReader {
    /// Opens a shard behind `at`, after reading the record before it again: another hash means that the log was
    /// replaced.
    ///
    /// # Errors
    /// [`ReaderError::Halted`] if the log is not the one that the checkpoint is of; [`ReaderError::Log`] if it does
    /// not answer.
    pub async fn open(
        log: Arc<dyn Log>,
        catalog: Catalog,
        shard: Shard,
        at: Checkpoint,
        settings: ReaderSettings,
    ) -> Result<Self, ReaderError> {
        let description = log.describe().await?;
        let genesis = Head::genesis(&description.app, shard, description.shards);
        let mut reader = Self {
            log,
            catalog,
            shard,
            settings,
            fold: Fold::new(genesis.chain, at.head),
            versions: Versions::new(settings.streams, at.head.next.get() == 0),
            at,
            short_since: None,
            stopped: None,
        };
        reader.resume(genesis.chain).await?;
        Ok(reader)
    }

    /// The next accepted records; `None` if there was nothing within the wait.
    ///
    /// A batch without records still moves the checkpoint: ghosts were passed over.
    ///
    /// Cancel safe: nothing is lost if this is dropped.
    ///
    /// # Errors
    /// [`ReaderError`]; records in front of the one that is wrong are given out first.
    pub async fn next(&mut self) -> Result<Option<Batch>, ReaderError> {
        self.read(self.settings.limits).await
    }

    /// The same, stopping in front of `end`: once the checkpoint is there, the answer is `None` at once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`ShardReader::next`].
    pub async fn next_below(&mut self, end: Offset) -> Result<Option<Batch>, ReaderError> {
        let left = end.get().saturating_sub(self.at.head.next.get());
        if left == 0 {
            return Ok(None);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let mut limits = self.settings.limits;
        limits.records = limits.records.min(most);
        self.read(limits).await
    }

    async fn read(&mut self, limits: ReadLimits) -> Result<Option<Batch>, ReaderError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        let from = self.at.head.next;
        match self.log.read(self.shard, from, limits).await {
            Ok(placed) => {
                self.short_since = None;
                self.take(&placed)
            }
            Err(LogError::BeyondEnd { end, .. }) => {
                self.wait_for_end(from, end).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where the reader is: behind the last batch that it gave out.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.at
    }

    /// The shard that it reads.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Where the log ends now.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn end(&self) -> Result<Offset, LogError> {
        self.log.end(self.shard).await
    }

    /// Where and why it halted, if it has.
    pub fn halted(&self) -> Option<&Halted> {
        match &self.stopped {
            Some(ReaderError::Halted(halted)) => Some(halted),
            _ => None,
        }
    }

    async fn resume(&mut self, genesis: Hash32) -> Result<(), ReaderError> {
        let next = self.at.head.next;
        let Some(before) = next.get().checked_sub(1).map(Offset::new) else {
            let expected = self.at.head.chain;
            if self.at.head == Head::at_genesis(genesis) {
                return Ok(());
            }
            let found = genesis;
            return Err(self.halt(next, HaltReason::OtherLog { expected, found }));
        };
        let limits = ReadLimits {
            records: 1,
            ..self.settings.limits
        };
        loop {
            match self.log.read(self.shard, before, limits).await {
                Ok(placed) => match placed.first() {
                    Some(placed) if placed.hash == self.at.last_hash => {
                        self.short_since = None;
                        return Ok(());
                    }
                    Some(placed) => {
                        let (expected, found) = (self.at.last_hash, placed.hash);
                        Invariant::L9.broken();
                        return Err(self.halt(before, HaltReason::RecordReplaced { expected, found }));
                    }
                    None => {
                        let end = self.log.end(self.shard).await?;
                        if end <= before {
                            self.wait_for_end(before, end).await?;
                        }
                    }
                },
                Err(LogError::BeyondEnd { end, .. }) => self.wait_for_end(before, end).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The log ends at or below what was folded: waits for a while, and halts when that has lasted too long.
    async fn wait_for_end(&mut self, wanted: Offset, end: Offset) -> Result<(), ReaderError> {
        let since = *self.short_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.settings.short_log {
            return Err(self.halt(wanted, HaltReason::LogShortened { end }));
        }
        // A twentieth of the patience, so that a short one is tried some times as well.
        sleep((self.settings.short_log / 20).min(self.settings.limits.wait)).await;
        Ok(())
    }

    /// Folds and decodes; stops in front of the first record that is wrong.
    fn take(&mut self, placed: &[Arc<Placed>]) -> Result<Option<Batch>, ReaderError> {
        let from = self.at.clone();
        let mut records = Vec::with_capacity(placed.len());
        for placed in placed {
            match self.step(placed) {
                Ok(true) => records.push(Accepted {
                    placed: Arc::clone(placed),
                }),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(shard = self.shard.get(), %error, "reader stopped");
                    self.stopped = Some(error);
                    break;
                }
            }
        }
        if self.at.head.next > from.head.next {
            return Ok(Some(Batch {
                shard: self.shard,
                from,
                to: self.at.clone(),
                records,
            }));
        }
        self.stopped.clone().map_or(Ok(None), Err)
    }

    /// Whether the record counts. The checkpoint moves only if it could be read.
    fn step(&mut self, placed: &Placed) -> Result<bool, ReaderError> {
        let before = self.fold.head().time_ms;
        let verdict = self.fold.step(&placed.slot, placed.hash);
        match verdict {
            Verdict::Accept => {
                self.decode(placed)?;
                if self.fold.head().time_ms < before {
                    Invariant::L7.broken();
                }
            }
            Verdict::Ghost(kind) => self.pass(placed, kind),
            Verdict::Halt(halt) => return Err(self.halt(placed.offset, HaltReason::Fold(halt))),
        }
        self.at = Checkpoint {
            head: *self.fold.head(),
            last_hash: placed.hash,
            last_ghost: !verdict.is_accept(),
        };
        Ok(verdict.is_accept())
    }

    fn decode(&mut self, placed: &Placed) -> Result<(), ReaderError> {
        let Some(record) = placed.slot.known() else {
            return Ok(());
        };
        let (shard, offset) = (self.shard, placed.offset);
        self.versions.see(record).map_err(|source| {
            Invariant::L2.broken();
            ReaderError::Version {
                shard,
                offset,
                source: Box::new(source),
            }
        })?;
        if placed.entry.get().is_some() {
            return Ok(());
        }
        let decoded = decode(&self.catalog, record).map_err(|source| {
            ::metrics::counter!(metrics::UNREADABLE).increment(1);
            ReaderError::Read {
                shard,
                offset,
                source: Arc::new(source),
            }
        })?;
        if let Some(entry) = decoded {
            // Another reader may have been faster; its entry says the same.
            placed.entry.set(Arc::new(entry)).ok();
        }
        Ok(())
    }

    fn pass(&self, placed: &Placed, kind: Ghost) {
        metrics::ghost(kind);
        let (shard, offset) = (self.shard.get(), placed.offset.get());
        match kind {
            Ghost::Foreign | Ghost::Unchained => {
                tracing::warn!(shard, offset, kind = kind.as_str(), "ghost");
            }
            Ghost::Closed | Ghost::LostClaim | Ghost::Superseded => {
                tracing::debug!(shard, offset, kind = kind.as_str(), "ghost");
            }
        }
    }

    fn halt(&mut self, offset: Offset, reason: HaltReason) -> ReaderError {
        ::metrics::counter!(metrics::HALTS, "reason" => reason.as_str()).increment(1);
        let halted = ReaderError::Halted(Box::new(Halted {
            shard: self.shard,
            offset,
            reason,
        }));
        self.stopped = Some(halted.clone());
        halted
    }
}

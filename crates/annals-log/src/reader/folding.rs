//! [`Folding`]: what a reader decides. Resume check, fold, decode, upcast; no I/O, no clock.
//!
//! [`ShardReader`](super::ShardReader) is its shell over a log; simulations drive it directly.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_record::fold::{Fold, Ghost, Halt, Head, Verdict};
use annals_record::{Hash32, Offset, Shard};

use super::versions::{VersionBreak, Versions};
use super::{Accepted, Batch, DecodeError, decode};
use crate::metrics::{self, Invariant};
use crate::{Checkpoint, LogError, Placed, ReadLimits};

/// How a reader reads.
#[derive(Debug, Clone, Copy)]
pub struct ReaderSettings {
    /// How much one batch may hold, and how long [`ShardReader::next`](super::ShardReader::next) waits for a first record.
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

/// What follows from one answer of the log.
#[derive(Debug)]
pub enum Took {
    /// Records, or passed ghosts: the checkpoint has moved.
    Batch(Box<Batch>),
    /// Nothing new.
    Nothing,
    /// The record before the checkpoint is what it was: records follow.
    Resumed,
    /// Nothing stands where something must: ask for the log's end, then [`Folding::ends`].
    AskEnd,
    /// The log ends below what was folded: read again after this pause.
    Short(Duration),
}

/// One reader's state machine: says what to read, and takes in what was read.
///
/// It first reads the record before the checkpoint again: another one means that the log was replaced.
pub struct Folding {
    catalog: Catalog,
    shard: Shard,
    settings: ReaderSettings,
    fold: Fold,
    at: Checkpoint,
    versions: Versions,
    /// The record before the checkpoint, until it was found to be what it was.
    verify: Option<Offset>,
    /// Since when the log has ended below the checkpoint.
    short_since: Option<Duration>,
    /// Why it will never go on.
    stopped: Option<ReaderError>,
}

impl fmt::Debug for Folding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folding")
            .field("shard", &self.shard)
            .field("at", &self.at)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

impl Folding {
    /// Goes on behind `at` in the shard whose c(0) is `genesis`.
    pub fn new(
        catalog: Catalog,
        shard: Shard,
        genesis: Hash32,
        at: Checkpoint,
        settings: ReaderSettings,
    ) -> Self {
        let next = at.head.next;
        let verify = next.get().checked_sub(1).map(Offset::new);
        let begins_another = verify.is_none() && at.head != Head::at_genesis(genesis);
        let mut folding = Self {
            catalog,
            shard,
            settings,
            fold: Fold::new(genesis, at.head),
            versions: Versions::new(settings.streams, next.get() == 0),
            verify,
            at,
            short_since: None,
            stopped: None,
        };
        if begins_another {
            let expected = folding.at.head.chain;
            folding.halt(
                next,
                HaltReason::OtherLog {
                    expected,
                    found: genesis,
                },
            );
        }
        folding
    }

    /// Where to read next, and how much.
    ///
    /// # Errors
    /// Why it never goes on.
    pub fn wants(&self) -> Result<(Offset, ReadLimits), ReaderError> {
        if let Some(stopped) = &self.stopped {
            return Err(stopped.clone());
        }
        let limits = self.settings.limits;
        Ok(match self.verify {
            Some(before) => (before, ReadLimits { records: 1, ..limits }),
            None => (self.at.head.next, limits),
        })
    }

    /// Takes in what the log answered to [`Self::wants`]; `now` counts from any fixed moment.
    ///
    /// # Errors
    /// [`ReaderError`]; records in front of the one that is wrong are given out first.
    pub fn took(
        &mut self,
        now: Duration,
        read: Result<Vec<Arc<Placed>>, LogError>,
    ) -> Result<Took, ReaderError> {
        let (from, _) = self.wants()?;
        match (read, self.verify) {
            (Ok(placed), None) => {
                self.short_since = None;
                self.fold_all(&placed)
            }
            (Ok(placed), Some(before)) => match placed.first() {
                Some(placed) => self.resume(before, placed.hash),
                None => Ok(Took::AskEnd),
            },
            (Err(LogError::BeyondEnd { end, .. }), _) => self.short(now, from, end),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Takes in where the log ends, the answer to [`Took::AskEnd`].
    ///
    /// # Errors
    /// [`ReaderError::Halted`] if it has ended below what was folded for too long.
    pub fn ends(&mut self, now: Duration, end: Offset) -> Result<Took, ReaderError> {
        match self.verify {
            Some(before) if end <= before => self.short(now, before, end),
            Some(_) | None => Ok(Took::Nothing),
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

    /// Where and why it halted, if it has.
    pub fn halted(&self) -> Option<&Halted> {
        match &self.stopped {
            Some(ReaderError::Halted(halted)) => Some(halted),
            _ => None,
        }
    }

    fn resume(&mut self, before: Offset, found: Hash32) -> Result<Took, ReaderError> {
        let expected = self.at.last_hash;
        if found != expected {
            Invariant::L9.broken();
            return Err(self.halt(before, HaltReason::RecordReplaced { expected, found }));
        }
        self.short_since = None;
        self.verify = None;
        Ok(Took::Resumed)
    }

    /// The log ends at or below what was folded: waits for a while, and halts when that has lasted too long.
    fn short(&mut self, now: Duration, wanted: Offset, end: Offset) -> Result<Took, ReaderError> {
        let since = *self.short_since.get_or_insert(now);
        let patience = self.settings.short_log;
        if now.saturating_sub(since) >= patience {
            return Err(self.halt(wanted, HaltReason::LogShortened { end }));
        }
        // A twentieth of the patience, so that a short one is tried some times as well.
        Ok(Took::Short((patience / 20).min(self.settings.limits.wait)))
    }

    /// Folds and decodes; stops in front of the first record that is wrong.
    fn fold_all(&mut self, placed: &[Arc<Placed>]) -> Result<Took, ReaderError> {
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
            return Ok(Took::Batch(Box::new(Batch {
                shard: self.shard,
                from,
                to: self.at.clone(),
                records,
            })));
        }
        self.stopped.clone().map_or(Ok(Took::Nothing), Err)
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

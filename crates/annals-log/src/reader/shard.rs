//! [`ShardReader`]: the shell of [`Folding`] over a log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_record::fold::Head;
use annals_record::{Offset, Shard};
use tokio::time::{Instant, sleep};

use super::Batch;
use super::folding::{Folding, Halted, ReaderError, ReaderSettings, Took};
use crate::{Checkpoint, Log, LogError};

/// Reads one shard from a checkpoint on: accepted records only, decoded and upcast once for all readers of a node.
///
/// It moves nothing but itself: the caller commits what follows from a [`Batch`] and advances the stored checkpoint
/// from `from` to `to` in the same transaction.
pub struct ShardReader {
    log: Arc<dyn Log>,
    folding: Folding,
    opened: Instant,
}

impl fmt::Debug for ShardReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardReader")
            .field("folding", &self.folding)
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
        let genesis = Head::genesis(&description.app, shard, description.shards).chain;
        let begins = at.head.next == Offset::new(0);
        let mut reader = Self {
            log,
            folding: Folding::new(catalog, shard, genesis, at, settings),
            opened: Instant::now(),
        };
        if begins {
            reader.folding.wants()?;
            return Ok(reader);
        }
        while !matches!(reader.turn(usize::MAX).await?, Took::Resumed) {}
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
        self.read(usize::MAX).await
    }

    /// The same, stopping in front of `end`: once the checkpoint is there, the answer is `None` at once.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`ShardReader::next`].
    pub async fn next_below(&mut self, end: Offset) -> Result<Option<Batch>, ReaderError> {
        let left = end.get().saturating_sub(self.checkpoint().head.next.get());
        if left == 0 {
            return Ok(None);
        }
        self.read(usize::try_from(left).unwrap_or(usize::MAX)).await
    }

    async fn read(&mut self, most: usize) -> Result<Option<Batch>, ReaderError> {
        match self.turn(most).await? {
            Took::Batch(batch) => Ok(Some(*batch)),
            Took::Nothing | Took::Resumed | Took::AskEnd | Took::Short(_) => Ok(None),
        }
    }

    /// Where the reader is: behind the last batch that it gave out.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.folding.checkpoint()
    }

    /// The shard that it reads.
    pub fn shard(&self) -> Shard {
        self.folding.shard()
    }

    /// Where the log ends now.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn end(&self) -> Result<Offset, LogError> {
        self.log.end(self.shard()).await
    }

    /// Where and why it halted, if it has.
    pub fn halted(&self) -> Option<&Halted> {
        self.folding.halted()
    }

    /// One read of at most so many records, and what it asks for beside.
    async fn turn(&mut self, most: usize) -> Result<Took, ReaderError> {
        let (from, mut limits) = self.folding.wants()?;
        limits.records = limits.records.min(most);
        let read = self.log.read(self.shard(), from, limits).await;
        let mut took = self.folding.took(self.now(), read)?;
        if let Took::AskEnd = took {
            let end = self.log.end(self.shard()).await?;
            took = self.folding.ends(self.now(), end)?;
        }
        if let Took::Short(pause) = took {
            sleep(pause).await;
        }
        Ok(took)
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }
}

//! [`Keeper`]: one task that reads this node's shards and keeps what they read, a transaction for all of them a round.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use annals_log::{Batch, Checkpoint, CheckpointError, ReaderError, ReaderSettings, ShardReader};
use annals_record::Shard;
use annals_record::fold::Head;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::rounds::{Ended, Load, Rounds};
use super::rows::{Rows, Shapes};
use super::{AuditIndexer, READER};
use crate::metrics;

/// Between two attempts after something failed.
const RETRY: Duration = Duration::from_secs(1);

/// Why a shard's reader stopped, or a round came to nothing.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Reader(#[from] ReaderError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Stopped {
    /// Whether Postgres refused what a row says: no row of that kind gets in at the next attempt either.
    fn is_refusal(&self) -> bool {
        let (Self::Database(error) | Self::Checkpoint(CheckpointError::Database(error))) = self else {
            return false;
        };
        let code = error.as_database_error().and_then(|answer| answer.code());
        code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    }
}

/// What became of one read of a shard.
struct Read {
    shard: Shard,
    result: Result<(ShardReader, Option<Batch>), Stopped>,
}

/// A read under way; `None` if its shard is not this node's any more.
type Reading = Pin<Box<dyn Future<Output = Option<Read>> + Send>>;

/// Reads and keeps the shards that it is told are this node's.
pub(super) struct Keeper {
    indexer: Arc<AuditIndexer>,
    settings: ReaderSettings,
    rounds: Rounds,
    shapes: Shapes,
    /// The shards that are this node's; cancelled, a shard is read no more.
    mine: BTreeMap<Shard, CancellationToken>,
    reading: FuturesUnordered<Reading>,
    /// What was read and is not kept yet, with its reader.
    read: BTreeMap<Shard, (ShardReader, Batch)>,
    /// Readers whose last batch is kept.
    resting: Vec<ShardReader>,
}

impl Keeper {
    pub(super) fn new(indexer: Arc<AuditIndexer>) -> Self {
        let mut settings = indexer.reader;
        settings.limits.records = settings.limits.records.min(indexer.rounds.records);
        settings.limits.bytes = settings.limits.bytes.min(indexer.rounds.bytes);
        Self {
            rounds: Rounds::new(indexer.rounds),
            shapes: Shapes::default(),
            indexer,
            settings,
            mine: BTreeMap::new(),
            reading: FuturesUnordered::new(),
            read: BTreeMap::new(),
            resting: Vec::new(),
        }
    }

    /// Runs until nobody says any more which shards are this node's. May be dropped at any time: what was not kept is
    /// read again from the checkpoint.
    pub(super) async fn run(mut self, mut mine: watch::Receiver<BTreeSet<Shard>>) {
        let opened = Instant::now();
        loop {
            if let Some(rest) = self.rounds.rest(opened.elapsed()) {
                // Nobody reads meanwhile: a shard is woken once a round, not once an append.
                tokio::select! {
                    () = sleep(rest) => {}
                    changed = mine.changed() => match changed {
                        Ok(()) => self.follow(&mine.borrow_and_update().clone()),
                        Err(_) => return,
                    },
                }
                continue;
            }
            self.gather();
            let shards = self.rounds.begin(opened.elapsed());
            if shards.is_empty() {
                tokio::select! {
                    Some(read) = self.reading.next(), if !self.reading.is_empty() => self.took(read),
                    changed = mine.changed() => match changed {
                        Ok(()) => self.follow(&mine.borrow_and_update().clone()),
                        Err(_) => return,
                    },
                }
            } else {
                self.round(&shards).await;
            }
        }
    }

    /// Begins to read the shards that have become this node's, and forgets those that are no more.
    fn follow(&mut self, mine: &BTreeSet<Shard>) {
        let lost: Vec<Shard> = self
            .mine
            .keys()
            .filter(|shard| !mine.contains(shard))
            .copied()
            .collect();
        for shard in lost {
            if let Some(token) = self.mine.remove(&shard) {
                token.cancel();
            }
            self.read.remove(&shard);
            self.resting.retain(|reader| reader.shard() != shard);
            self.rounds.lost(shard);
        }
        for shard in mine {
            if !self.mine.contains_key(shard) {
                self.mine.insert(*shard, CancellationToken::new());
                self.open(*shard, Duration::ZERO);
            }
        }
    }

    /// Reads everything that is there without waiting, as far as the next round has room.
    fn gather(&mut self) {
        for reader in std::mem::take(&mut self.resting) {
            self.read_on(reader);
        }
        while self.rounds.has_room()
            && let Some(Some(read)) = self.reading.next().now_or_never()
        {
            self.took(read);
        }
    }

    fn took(&mut self, read: Option<Read>) {
        let Some(Read { shard, result }) = read else {
            return;
        };
        match result {
            Ok((reader, Some(batch))) => {
                self.rounds.offer(self.load(&batch));
                self.read.insert(shard, (reader, batch));
            }
            Ok((reader, None)) => self.read_on(reader),
            Err(Stopped::Reader(error @ (ReaderError::Halted(_) | ReaderError::Version { .. }))) => {
                // It stays where it is for as long as the shard is this node's.
                metrics::halted();
                tracing::error!(%shard, %error, "the audit reader of a shard has halted");
            }
            Err(error) => self.anew(shard, &error),
        }
    }

    fn load(&self, batch: &Batch) -> Load {
        let bytes = batch.records.iter().map(|one| one.record().stored_bytes()).sum();
        let passed = batch
            .to
            .head
            .next
            .get()
            .saturating_sub(batch.from.head.next.get());
        let limits = &self.settings.limits;
        Load {
            shard: batch.shard,
            records: batch.records.len(),
            bytes,
            more: usize::try_from(passed).is_ok_and(|passed| passed >= limits.records)
                || bytes >= limits.bytes,
        }
    }

    fn anew(&mut self, shard: Shard, error: &Stopped) {
        tracing::warn!(%shard, %error, "the audit reader goes on from its checkpoint");
        self.read.remove(&shard);
        self.open(shard, RETRY);
    }

    /// Opens a shard at its stored checkpoint, `after` a while, and reads.
    fn open(&mut self, shard: Shard, after: Duration) {
        let (indexer, settings) = (Arc::clone(&self.indexer), self.settings);
        self.push(shard, async move {
            sleep(after).await;
            let at = match Checkpoint::load(&indexer.pool, READER, shard).await? {
                Some(checkpoint) => checkpoint,
                None => Checkpoint::genesis(Head::genesis(indexer.catalog.app(), shard, indexer.shards)),
            };
            let (log, catalog) = (Arc::clone(&indexer.log), indexer.catalog.clone());
            let reader = ShardReader::open(log, catalog, shard, at, settings).await?;
            Ok((reader, None))
        });
    }

    fn read_on(&mut self, mut reader: ShardReader) {
        self.push(reader.shard(), async move {
            let batch = reader.next().await?;
            Ok((reader, batch))
        });
    }

    fn push<F>(&mut self, shard: Shard, read: F)
    where
        F: Future<Output = Result<(ShardReader, Option<Batch>), Stopped>> + Send + 'static,
    {
        let Some(token) = self.mine.get(&shard).cloned() else {
            return;
        };
        self.reading.push(Box::pin(async move {
            let result = token.run_until_cancelled(read).await?;
            Some(Read { shard, result })
        }));
    }

    /// Keeps what these shards have read. One that cannot be kept is left out, and the others go again.
    async fn round(&mut self, shards: &[Shard]) {
        let batches: Vec<&Batch> = shards
            .iter()
            .filter_map(|shard| self.read.get(shard).map(|(_, batch)| batch))
            .collect();
        let kept = self.indexer.keep(&mut self.shapes, &batches).await;
        let ended = match &kept {
            Ok(()) => Ended::Kept,
            Err(Stopped::Checkpoint(
                CheckpointError::Moved { shard, .. } | CheckpointError::Backwards { shard, .. },
            )) => Ended::Moved(*shard),
            Err(error) if error.is_refusal() => Ended::Refused,
            Err(_) => Ended::Failed,
        };
        let after = self.rounds.ended(ended);
        for shard in after.kept {
            if let Some((reader, _)) = self.read.remove(&shard) {
                self.resting.push(reader);
            }
        }
        if let Err(error) = kept {
            for shard in after.anew {
                self.anew(shard, &error);
            }
        }
    }
}

impl AuditIndexer {
    /// Rows and checkpoints of all these shards in one transaction (L8). The checkpoints move first: who was overtaken
    /// fails before it has written anything.
    async fn keep(&self, shapes: &mut Shapes, batches: &[&Batch]) -> Result<(), Stopped> {
        let rows = Rows::of(&self.pool, shapes, batches).await?;
        let records = rows.len();
        let moves: Vec<_> = batches
            .iter()
            .map(|batch| (batch.shard, &batch.from, &batch.to))
            .collect();
        let mut transaction = self.pool.begin().await?;
        Checkpoint::advance_all(&mut transaction, READER, &moves).await?;
        rows.insert(&mut transaction).await?;
        transaction.commit().await?;
        metrics::indexed(records);
        Ok(())
    }
}

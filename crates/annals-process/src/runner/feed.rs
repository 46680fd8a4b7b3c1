//! One reader a shard, feeding one bounded channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_log::{Batch, Checkpoint, Log, LogError, ReaderError, ReaderSettings, ShardReader};
use annals_record::fold::Head;
use annals_record::{Offset, Shard};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::concern::Concern;
use super::{FeedSender, ProcessRunner, RunnerError};

/// Between two attempts at a log that does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// What a reader gives.
pub(super) enum Fed {
    /// With the records that concern the process; often none.
    Batch(Box<Batch>),
    /// It gives nothing more for now.
    Halted(Shard, ReaderError),
    /// It gives something again, or stands at the end.
    Reopened(Shard),
}

/// The readers of every shard.
pub(super) struct Feed {
    pub(super) receiver: mpsc::Receiver<Fed>,
    positions: BTreeMap<Shard, Offset>,
    /// End with this.
    readers: JoinSet<()>,
    /// Keeps the channel open when every reader has halted: time goes on.
    _open: FeedSender,
}

impl Feed {
    /// Opens a reader a shard where `reader` has left it.
    pub(super) async fn open(runner: &ProcessRunner, reader: &str) -> Result<Self, RunnerError> {
        let known: BTreeMap<Shard, Checkpoint> = Checkpoint::load_all(&runner.pool, reader)
            .await?
            .into_iter()
            .collect();
        let (feed, receiver) = mpsc::channel(runner.shards.shards().len().max(16));
        let (mut readers, mut positions) = (JoinSet::new(), BTreeMap::new());
        for shard in runner.shards.shards() {
            let genesis = || Checkpoint::genesis(Head::genesis(runner.catalog.app(), shard, runner.shards));
            let at = known.get(&shard).cloned().unwrap_or_else(genesis);
            positions.insert(shard, at.head.next);
            let (log, catalog) = (Arc::clone(&runner.log), runner.catalog.clone());
            let (mut settings, feed) = (runner.reader, feed.clone());
            settings.limits.records = settings.limits.records.min(runner.settings.batch);
            let source = Source {
                log,
                catalog,
                shard,
                settings,
                reopen: runner.settings.reopen,
                gather: runner.settings.gather,
                concern: Concern::of(&runner.process),
            };
            readers.spawn(source.feed(at, feed));
        }
        Ok(Self {
            receiver,
            positions,
            readers,
            _open: feed,
        })
    }

    /// Takes note of readers that have ended.
    ///
    /// # Panics
    /// With the panic of a reader: its shard would otherwise stand still unseen.
    pub(super) fn reap(&mut self) {
        while let Some(ended) = self.readers.try_join_next() {
            if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// Where each shard is.
    pub(super) fn positions(&self) -> BTreeMap<Shard, Offset> {
        self.positions.clone()
    }
}

/// One shard as a process reads it.
struct Source {
    log: Arc<dyn Log>,
    catalog: Catalog,
    shard: Shard,
    settings: ReaderSettings,
    reopen: Duration,
    gather: Duration,
    concern: Concern,
}

impl Source {
    /// Reads until the channel is closed. A reader that halts is said once, and tried again now and then: an operator
    /// may have mended the log, or it was a log that came back.
    async fn feed(self, mut at: Checkpoint, feed: FeedSender) {
        let mut halted = false;
        loop {
            let Some(error) = self.read(&mut at, &feed, &mut halted).await else {
                return;
            };
            if !halted && feed.send(Fed::Halted(self.shard, error)).await.is_err() {
                return;
            }
            halted = true;
            tokio::time::sleep(self.reopen).await;
        }
    }

    /// Reads on until the channel is closed (`None`) or the reader can go no further.
    async fn read(&self, at: &mut Checkpoint, feed: &FeedSender, halted: &mut bool) -> Option<ReaderError> {
        let mut reader = loop {
            let (log, catalog) = (Arc::clone(&self.log), self.catalog.clone());
            let opened = ShardReader::open(log, catalog, self.shard, at.clone(), self.settings);
            match opened.await {
                Ok(reader) => break reader,
                Err(ReaderError::Log(error)) => pause(self.shard, &error).await,
                Err(error) => return Some(error),
            }
        };
        loop {
            match reader.next().await {
                Ok(Some(mut batch)) => {
                    let read = Instant::now();
                    if std::mem::take(halted) {
                        feed.send(Fed::Reopened(self.shard)).await.ok()?;
                    }
                    *at = batch.to.clone();
                    let full = batch.records.len() >= self.settings.limits.records;
                    batch.records.retain(|accepted| self.concern.has(accepted));
                    let nothing = batch.records.is_empty();
                    feed.send(Fed::Batch(Box::new(batch))).await.ok()?;
                    if nothing && !full {
                        // The reader would else wake for every append of others.
                        sleep_until(read + self.gather).await;
                    }
                }
                Ok(None) => {
                    if *halted && reader.end().await.is_ok_and(|end| end == at.head.next) {
                        *halted = false;
                        feed.send(Fed::Reopened(self.shard)).await.ok()?;
                    }
                }
                Err(ReaderError::Log(error)) => {
                    pause(reader.shard(), &error).await;
                }
                Err(error) => return Some(error),
            }
        }
    }
}

async fn pause(shard: Shard, error: &LogError) {
    tracing::warn!(%shard, %error, "a process's reader tries again");
    tokio::time::sleep(RETRY).await;
}

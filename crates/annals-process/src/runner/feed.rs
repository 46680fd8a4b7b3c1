//! One reader a shard, feeding one bounded channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_log::{Batch, Checkpoint, LogError, ReaderError, ShardReader};
use annals_record::fold::Head;
use annals_record::{Offset, Shard};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{FeedSender, ProcessRunner, RunnerError};

/// Between two attempts at a log that does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// What a reader gives.
pub(super) enum Fed {
    Batch(Box<Batch>),
    /// It gives nothing more.
    Halted(Shard, ReaderError),
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
            readers.spawn(async move {
                let opened = loop {
                    let opened =
                        ShardReader::open(Arc::clone(&log), catalog.clone(), shard, at.clone(), settings);
                    match opened.await {
                        Err(ReaderError::Log(error)) => pause(shard, &error).await,
                        opened => break opened,
                    }
                };
                let ended = match opened {
                    Ok(reader) => read(reader, &feed).await,
                    Err(error) => Some(error),
                };
                if let Some(error) = ended {
                    feed.send(Fed::Halted(shard, error)).await.ok();
                }
            });
        }
        Ok(Self {
            receiver,
            positions,
            readers,
            _open: feed,
        })
    }

    /// Takes note of readers that have ended; each has said why.
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

/// Reads until the channel is closed (`None`) or the reader can go no further.
async fn read(mut reader: ShardReader, feed: &FeedSender) -> Option<ReaderError> {
    loop {
        match reader.next().await {
            Ok(Some(batch)) => feed.send(Fed::Batch(Box::new(batch))).await.ok()?,
            Ok(None) => {}
            Err(ReaderError::Log(error)) => {
                pause(reader.shard(), &error).await;
            }
            Err(error) => return Some(error),
        }
    }
}

async fn pause(shard: Shard, error: &LogError) {
    tracing::warn!(%shard, %error, "a process's reader tries again");
    tokio::time::sleep(RETRY).await;
}

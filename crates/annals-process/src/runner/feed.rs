//! One reader a shard, feeding one bounded channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_log::{Batch, Checkpoint, ReaderError, ShardReader};
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
    /// Ends with this.
    _readers: JoinSet<()>,
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
                let opened = ShardReader::open(log, catalog, shard, at, settings).await;
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
            _readers: readers,
        })
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
                tracing::warn!(shard = %reader.shard(), %error, "a process's reader tries again");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Some(error),
        }
    }
}

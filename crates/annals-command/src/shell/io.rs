//! What an engine waits for: reads, appends, loads. Each ends in an input for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use annals_log::writer::{self, Output};
use annals_log::{LoadRequest, Log, LogError, ReadLimits, Snapshot, StreamStore};
use annals_record::{Offset, Shard};
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::engine::{FetchId, Input, LoadId};

type Done = Pin<Box<dyn Future<Output = Input> + Send>>;

/// A log that ends below what was folded may be in the middle of a failover; this long it is asked again.
const TRUNCATED_AFTER: Duration = Duration::from_secs(15);
/// Between two attempts at something that must be answered.
const RETRY: Duration = Duration::from_millis(200);
/// Snapshots that wait to be written; what comes beyond it replaces nothing and is taken again later.
const SNAPSHOTS: usize = 10_000;

pub(super) struct Io {
    log: Arc<dyn Log>,
    store: Arc<dyn StreamStore>,
    pub(super) open: FuturesUnordered<Done>,
    snapshots: Vec<Snapshot>,
    savers: tokio::task::JoinSet<()>,
}

impl Io {
    pub(super) fn new(log: Arc<dyn Log>, store: Arc<dyn StreamStore>) -> Self {
        Self {
            log,
            store,
            open: FuturesUnordered::new(),
            snapshots: Vec::new(),
            savers: tokio::task::JoinSet::new(),
        }
    }

    pub(super) fn log(&mut self, shard: Shard, output: Output) {
        match output {
            Output::Append { append, at, records } => {
                // The call hands over; awaiting only learns of it.
                let appending = self.log.append_hashed(shard, at, records);
                self.open.push(Box::pin(async move {
                    Input::Writer(
                        shard,
                        writer::Input::Appended {
                            append,
                            result: appending.await,
                        },
                    )
                }));
            }
            Output::Read(from) => {
                let log = Arc::clone(&self.log);
                self.open.push(Box::pin(async move {
                    Input::Writer(shard, read(&*log, shard, from).await)
                }));
            }
            Output::End => {
                let log = Arc::clone(&self.log);
                self.open.push(Box::pin(
                    async move { Input::Writer(shard, end(&*log, shard).await) },
                ));
            }
            Output::Owner
            | Output::Accepted { .. }
            | Output::NeverHappened(_)
            | Output::OtherAccepted { .. }
            | Output::Stopped(_)
            | Output::Lost(_)
            | Output::Closed
            | Output::Ghost { .. }
            | Output::Halted(_) => {}
        }
    }

    pub(super) fn bounds(&mut self, shard: Shard) {
        let log = Arc::clone(&self.log);
        self.open.push(Box::pin(async move {
            let bounds = log.bounds(shard).await;
            if let Err(error) = &bounds {
                tracing::debug!(%shard, %error, "where the log begins and ends is not known");
            }
            Input::Bounds(shard, bounds.ok())
        }));
    }

    pub(super) fn journal(&mut self, shard: Shard) {
        let store = Arc::clone(&self.store);
        self.open.push(Box::pin(async move {
            loop {
                match store.checkpoint(shard).await {
                    Ok(checkpoint) => return Input::Journal(shard, checkpoint),
                    Err(error) => {
                        tracing::warn!(%shard, %error, "the journal's end cannot be read; trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }));
    }

    pub(super) fn load(&mut self, load: LoadId, requests: Vec<LoadRequest>) {
        let store = Arc::clone(&self.store);
        self.open.push(Box::pin(async move {
            Input::Loaded(load, store.load(&requests).await)
        }));
    }

    pub(super) fn fetch(&mut self, fetch: FetchId, shard: Shard, offset: Offset) {
        let store = Arc::clone(&self.store);
        self.open.push(Box::pin(async move {
            Input::Fetched {
                fetch,
                shard,
                result: store.record_at(shard, offset).await,
            }
        }));
    }

    pub(super) fn snapshot(&mut self, snapshot: Snapshot) {
        if self.snapshots.len() < SNAPSHOTS {
            self.snapshots.push(snapshot);
        }
    }

    /// Writes the snapshots that have gathered, unless some are being written.
    pub(super) fn keep_snapshots(&mut self) {
        while self.savers.try_join_next().is_some() {}
        if self.snapshots.is_empty() || !self.savers.is_empty() {
            return;
        }
        let snapshots = std::mem::take(&mut self.snapshots);
        let store = Arc::clone(&self.store);
        self.savers.spawn(async move {
            if let Err(error) = store.save_snapshots(snapshots).await {
                tracing::warn!(%error, "snapshots were not kept; they will be taken again");
            }
        });
    }

    pub(super) fn drop_snapshots(&mut self, category: String) {
        let store = Arc::clone(&self.store);
        self.savers.spawn(async move {
            if let Err(error) = store.drop_snapshots(&category).await {
                tracing::error!(%category, %error, "wrong snapshots could not be dropped");
            }
        });
    }
}

async fn read(log: &dyn Log, shard: Shard, from: Offset) -> writer::Input {
    let began = Instant::now();
    loop {
        match log.read(shard, from, ReadLimits::default()).await {
            Ok(slots) => return writer::Input::Read(slots),
            Err(LogError::BeyondEnd { end, .. }) if began.elapsed() > TRUNCATED_AFTER => {
                return writer::Input::Truncated(end);
            }
            Err(error) => {
                tracing::warn!(%shard, %from, %error, "the log cannot be read; trying again");
                if matches!(error, LogError::Refused(_))
                    && let Ok((begin, _)) = log.bounds(shard).await
                    && begin > from
                {
                    return writer::Input::Deleted(begin);
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn end(log: &dyn Log, shard: Shard) -> writer::Input {
    loop {
        match log.end(shard).await {
            Ok(end) => return writer::Input::End(end),
            Err(error) => {
                tracing::warn!(%shard, %error, "the log's end cannot be read; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

//! What an engine waits for: reads, appends, loads. Each ends in an input for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_log::writer::{self, Output};
use annals_log::{LoadRequest, Log, LogError, ReadLimits, Snapshot, StreamStore};
use annals_record::{Offset, Shard};
use futures_util::FutureExt;
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
    /// Shards whose journal's end is to be read.
    journals: Vec<Shard>,
    appended: Arc<Appended>,
    snapshots: Vec<Snapshot>,
    savers: tokio::task::JoinSet<()>,
}

impl Io {
    pub(super) fn new(log: Arc<dyn Log>, store: Arc<dyn StreamStore>) -> Self {
        Self {
            log,
            store,
            open: FuturesUnordered::new(),
            journals: Vec::new(),
            appended: Arc::default(),
            snapshots: Vec::new(),
            savers: tokio::task::JoinSet::new(),
        }
    }

    pub(super) fn log(&mut self, shard: Shard, output: Output) {
        match output {
            Output::Append { append, at, records } => {
                // The call hands over; awaiting only learns of it.
                let appending = self.log.append_hashed(shard, at, records);
                let (appended, began) = (Arc::clone(&self.appended), Instant::now());
                self.open.push(Box::pin(async move {
                    let result = appending.await;
                    appended.took(began.elapsed());
                    Input::Writer(shard, writer::Input::Appended { append, result })
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
        self.journals.push(shard);
    }

    /// Asks for the ends of all shards together: whoever takes over many would open a connection for each.
    pub(super) fn ask_for_journals(&mut self) {
        if self.journals.is_empty() {
            return;
        }
        let (store, shards) = (Arc::clone(&self.store), std::mem::take(&mut self.journals));
        let asked = shards.clone();
        let all = async move {
            loop {
                match store.checkpoints(&asked).await {
                    Ok(checkpoints) => return Arc::new(checkpoints),
                    Err(error) => {
                        tracing::warn!(shards = asked.len(), %error, "the journal's end cannot be read; trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        };
        let all = all.boxed().shared();
        for (index, shard) in shards.into_iter().enumerate() {
            let all = all.clone();
            self.open.push(Box::pin(async move {
                Input::Journal(shard, all.await[index].clone())
            }));
        }
    }

    /// How long the fastest of the appends that have ended since the last time took, ms.
    pub(super) fn append_ms(&self) -> Option<u64> {
        self.appended.take()
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

/// The fastest append that has ended, µs.
struct Appended(AtomicU64);

impl Appended {
    fn took(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_min(us, Ordering::Relaxed);
    }

    fn take(&self) -> Option<u64> {
        let us = self.0.swap(u64::MAX, Ordering::Relaxed);
        (us < u64::MAX).then_some(us / 1_000)
    }
}

impl Default for Appended {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
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

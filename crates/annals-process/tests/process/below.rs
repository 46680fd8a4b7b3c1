//! What the runner stands on: leases, a log that can be held, an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_command::engine::Claimant;
use annals_command::{Commands, EngineSettings, Ownership, Parts, Standing, start};
use annals_domain::Catalog;
use annals_log::{Appending, Description, Log, LogError, MemoryLog, MemoryStore, Placed, ReadLimits};
use annals_record::fold::Head;
use annals_record::record::Record;
use annals_record::{Generation, Offset, Shard, ShardCount};
use annals_store::lease::{Lease, LeaseKey, LeaseKind, Leases, Node as LeaseNode, NodeId};
use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::world::ambient;

/// Every lease is everybody's: what keeps two apart must be something else.
pub struct AllMine {
    node: NodeId,
    /// How often one was renewed.
    pub renewed: Arc<AtomicU64>,
}

impl AllMine {
    pub fn new(renewed: &Arc<AtomicU64>) -> Self {
        Self {
            node: NodeId::new("a"),
            renewed: Arc::clone(renewed),
        }
    }
}

#[async_trait]
impl Leases for AllMine {
    fn node(&self) -> &NodeId {
        &self.node
    }
    fn ttl(&self) -> Duration {
        Duration::from_secs(1)
    }
    async fn keep_node(&self, _: &[String]) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn drop_node(&self) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn nodes(&self) -> Result<Vec<LeaseNode>, annals_store::Error> {
        Ok(vec![])
    }
    async fn list(&self, kind: LeaseKind, name: &str) -> Result<Vec<Lease>, annals_store::Error> {
        let lease = |shard| Lease {
            key: LeaseKey::new(kind, name, shard),
            node: self.node.clone(),
            url: "http://a".to_owned(),
            epoch_hint: 0,
            expires_at: None,
            live: true,
            remaining: Duration::from_millis(300),
        };
        Ok((0..64).map(lease).collect())
    }
    async fn acquire(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, annals_store::Error> {
        Ok(keys.to_vec())
    }
    async fn renew(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, annals_store::Error> {
        self.renewed.fetch_add(1, Ordering::SeqCst);
        Ok(keys.to_vec())
    }
    async fn release(&self, _: &[LeaseKey]) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn hint_epoch(&self, _: &LeaseKey, _: u64) -> Result<bool, annals_store::Error> {
        Ok(true)
    }
}

/// The log as the runner sees it: shards can be held, so that they are not read, and made silent about their end.
#[derive(Debug)]
pub struct Gated {
    inner: Arc<MemoryLog>,
    held: tokio::sync::watch::Sender<BTreeSet<Shard>>,
    pub endless: AtomicBool,
    /// Shards that are not read.
    pub away: Mutex<BTreeSet<Shard>>,
    /// The highest offset that was asked for.
    asked: Mutex<BTreeMap<Shard, u64>>,
}

impl Gated {
    pub fn new(inner: &Arc<MemoryLog>) -> Self {
        Self {
            inner: Arc::clone(inner),
            held: tokio::sync::watch::Sender::new(BTreeSet::new()),
            endless: AtomicBool::new(false),
            away: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    /// The highest offset of each shard that was asked for.
    pub fn asked(&self) -> Vec<(Shard, u64)> {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .map(|(shard, from)| (*shard, *from))
            .collect()
    }

    pub fn hold(&self, shard: Shard) {
        self.held.send_modify(|held| {
            held.insert(shard);
        });
    }
    pub fn open(&self) {
        self.held.send_modify(BTreeSet::clear);
    }
}

#[async_trait]
impl Log for Gated {
    fn append(&self, shard: Shard, at: Head, records: Vec<Arc<Record>>) -> Appending {
        self.inner.append(shard, at, records)
    }
    async fn read(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        if self.away.lock().unwrap().contains(&shard) {
            return Err(LogError::Unavailable("away by a test".to_owned()));
        }
        self.asked
            .lock()
            .unwrap()
            .entry(shard)
            .and_modify(|asked| *asked = from.get().max(*asked))
            .or_insert(from.get());
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held.contains(&shard)).await.unwrap();
        let read = self.inner.read(shard, from, limits).await;
        // What was on its way when the shard was held stays away too.
        held.wait_for(|held| !held.contains(&shard)).await.unwrap();
        read
    }
    async fn end(&self, shard: Shard) -> Result<Offset, LogError> {
        if self.endless.load(Ordering::Relaxed) {
            return Err(LogError::Unavailable("switched off by a test".to_owned()));
        }
        self.inner.end(shard).await
    }
    async fn describe(&self) -> Result<Description, LogError> {
        self.inner.describe().await
    }
}

pub fn engine(log: &Arc<MemoryLog>, catalog: &Catalog, shards: ShardCount) -> (Commands, JoinSet<()>) {
    let claimant = Claimant {
        node: "a".to_owned(),
        url: "http://a".to_owned(),
        generation: Generation::default(),
        shards,
    };
    let store = Arc::new(MemoryStore::new(Arc::clone(log)));
    let (settings, ambient) = (EngineSettings::default(), ambient());
    let parts = Parts {
        log: log.clone(),
        store,
        catalog: catalog.clone(),
        ambient: ambient.clone(),
        settings,
        claimant,
        tasks: 1,
    };
    let (asks, asked) = tokio::sync::mpsc::unbounded_channel();
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let commands = start(&parts, asks, &stop, &mut tasks);
    let ownership = Ownership {
        leases: Arc::new(AllMine::new(&Arc::default())),
        commands: commands.clone(),
        shards,
        asks: asked,
        clock: None,
        ambient,
        standing: Standing::new(true),
        notifier: None,
        listener: None,
    };
    tasks.spawn(ownership.run(stop));
    (commands, tasks)
}

//! Which shards are this node's to claim: leases, balanced over the nodes with the role `command`.
//!
//! *Invariant:* a lease is liveness only. Whoever acts on a stale one meets the fold, not another's records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Ambient;
use annals_record::{Shard, ShardCount};
use annals_store::lease::{LeaseKey, LeaseKind, Leases, NodeId, balance};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::Lease;
use crate::shell::Commands;

/// Says whether this node's clock is near enough to the database's; an error says nothing.
pub type ClockProbe = Arc<dyn Fn() -> BoxFuture<'static, Result<bool, annals_store::Error>> + Send + Sync>;

/// The longest pause before a lost shard is asked for again, ms: two nodes must not claim in step.
const PAUSE_MS: u64 = 100;

/// Keeps this node's leases on shards and tells the engine what they say.
pub struct Ownership {
    /// Leases as this node sees them.
    pub leases: Arc<dyn Leases>,
    /// The engine.
    pub commands: Commands,
    /// How many shards there are.
    pub shards: ShardCount,
    /// Shards that the engine asks about.
    pub asks: mpsc::UnboundedReceiver<Shard>,
    /// Compares the clocks.
    pub clock: Option<ClockProbe>,
    /// For the pause.
    pub ambient: Ambient,
}

impl Ownership {
    /// Runs until `stop` is cancelled, then gives every lease back.
    pub async fn run(mut self, stop: CancellationToken) {
        let third = self.leases.ttl() / 3;
        let mut round = tokio::time::interval(third.max(Duration::from_millis(100)));
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut known = BTreeMap::new();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => break,
                _ = round.tick() => None,
                Some(shard) = self.asks.recv() => Some(shard),
            };
            let mut asked: BTreeSet<Shard> = asked.into_iter().collect();
            if !asked.is_empty() {
                self.pause().await;
                while let Ok(shard) = self.asks.try_recv() {
                    asked.insert(shard);
                }
            }
            self.compare_clocks().await;
            let leases = self.round().await.unwrap_or_else(|error| {
                // Owners go on until someone fences them; who asked is told what was known last.
                tracing::warn!(%error, "leases cannot be read or renewed");
                known.clone()
            });
            self.tell(leases, &asked, &mut known).await;
        }
        let mine = self.keys();
        if let Err(error) = self.leases.release(&mine).await {
            tracing::warn!(%error, "leases could not be given back; they expire");
        }
    }

    fn keys(&self) -> Vec<LeaseKey> {
        self.shards
            .shards()
            .map(|shard| LeaseKey::new(LeaseKind::Command, "", shard.get()))
            .collect()
    }

    async fn compare_clocks(&self) {
        let Some(probe) = &self.clock else { return };
        // In Kafka mode with Postgres down the last comparison goes on to count.
        if let Ok(ok) = probe().await {
            if !ok {
                tracing::error!(
                    "this node's clock is too far off the database's: it neither claims nor decides"
                );
            }
            self.commands.clock(ok).await;
        }
    }

    /// One round: renew, balance, take, give back; then what the table says of every shard.
    async fn round(&self) -> Result<BTreeMap<Shard, Lease>, annals_store::Error> {
        let keys = self.keys();
        let me = self.leases.node();
        let nodes: Vec<NodeId> = self
            .leases
            .nodes()
            .await?
            .into_iter()
            .filter(is_command)
            .map(|n| n.id)
            .collect();
        let before = self.leases.list(LeaseKind::Command, "").await?;
        let plan = balance(me, &nodes, &keys, &before);
        if !plan.keep.is_empty() {
            self.leases.renew(&plan.keep).await?;
        }
        if !plan.acquire.is_empty() {
            self.leases.acquire(&plan.acquire).await?;
        }
        if !plan.release.is_empty() {
            self.leases.release(&plan.release).await?;
        }
        let mut leases: BTreeMap<Shard, Lease> = self
            .shards
            .shards()
            .map(|shard| (shard, Lease::Unknown))
            .collect();
        for lease in self.leases.list(LeaseKind::Command, "").await? {
            if lease.live {
                let says = if lease.node == *me {
                    Lease::Ours
                } else {
                    Lease::Theirs(lease.url)
                };
                leases.insert(Shard::new(lease.key.shard), says);
            }
        }
        Ok(leases)
    }

    async fn pause(&self) {
        let [a, b] = self.ambient.random::<2>();
        let pause = u64::from(u16::from_be_bytes([a, b])) % PAUSE_MS;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Tells the engine what has changed, and what it asked for.
    async fn tell(
        &self,
        leases: BTreeMap<Shard, Lease>,
        asked: &BTreeSet<Shard>,
        known: &mut BTreeMap<Shard, Lease>,
    ) {
        for (shard, lease) in leases {
            if asked.contains(&shard) || known.get(&shard) != Some(&lease) {
                known.insert(shard, lease.clone());
                self.commands.lease(shard, lease).await;
            }
        }
    }
}

fn is_command(node: &annals_store::lease::Node) -> bool {
    node.roles.iter().any(|role| role == "command")
}

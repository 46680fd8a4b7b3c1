//! Filling the journal from Kafka: leases balanced over the nodes with the role `command`, one indexer for what
//! this node has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals_log::{Indexer, IndexerSettings};
use annals_record::{Shard, ShardCount};
use annals_store::lease::{LeaseKey, LeaseKind, Leases, NodeId, balance};
use annals_store::roles::DatabaseRole;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::node::Parts;
use crate::node::role::Role;
use crate::node::tasks::{Phase, Tasks};

/// Starts the indexer and keeps its leases.
pub(crate) async fn start(parts: &Parts, tasks: &mut Tasks) -> anyhow::Result<()> {
    let pool = parts
        .databases
        .pool(DatabaseRole::Indexer, "indexer", 4, None)
        .await?;
    let leases = parts.leases(pool.clone());
    let log = Arc::clone(&parts.log.log);
    let indexer = Indexer::new(log, pool, parts.catalog.clone(), IndexerSettings::default());
    let (own, shards) = watch::channel(BTreeSet::new());
    let stop = tasks.token(Phase::Work);
    let cancelled = stop.clone();
    tasks.spawn(Phase::Work, "indexer", async move {
        indexer.run(shards, cancelled).await
    });
    tasks.spawn(
        Phase::Work,
        "indexer-leases",
        keep(leases, parts.log.shards, own, stop),
    );
    Ok(())
}

async fn keep(
    leases: Arc<dyn Leases>,
    count: ShardCount,
    own: watch::Sender<BTreeSet<Shard>>,
    stop: CancellationToken,
) {
    let keys: Vec<LeaseKey> = count
        .shards()
        .map(|shard| LeaseKey::new(LeaseKind::Indexer, "", shard.get()))
        .collect();
    let mut round = tokio::time::interval((leases.ttl() / 3).max(Duration::from_millis(100)));
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = round.tick() => {}
        }
        match once(leases.as_ref(), &keys, &own).await {
            Ok(held) => {
                let shards = count.shards().filter(|shard| held.contains(&shard.get()));
                own.send_replace(shards.collect());
            }
            // What is held is held until another takes it: its checkpoint's compare-and-set keeps both right.
            Err(error) => tracing::warn!(%error, "the indexer's leases cannot be renewed"),
        }
    }
    own.send_replace(BTreeSet::new());
    if let Err(error) = leases.release(&keys).await {
        tracing::warn!(%error, "the indexer's leases could not be given back; they expire");
    }
}

async fn once(
    leases: &dyn Leases,
    keys: &[LeaseKey],
    own: &watch::Sender<BTreeSet<Shard>>,
) -> Result<BTreeSet<u32>, annals_store::Error> {
    let nodes = leases.nodes().await?.into_iter();
    let able = nodes.filter(|node| node.roles.iter().any(|role| role == Role::Command.name()));
    let able: Vec<NodeId> = able.map(|node| node.id).collect();
    let held = leases.list(LeaseKind::Indexer, "").await?;
    let plan = balance(leases.node(), &able, keys, &held);
    if !plan.release.is_empty() {
        own.send_modify(|own| own.retain(|shard| !plan.release.iter().any(|key| key.shard == shard.get())));
        leases.release(&plan.release).await?;
    }
    let mut mine = leases.renew(&plan.keep).await?;
    mine.extend(leases.acquire(&plan.acquire).await?);
    Ok(mine.into_iter().map(|key| key.shard).collect())
}

//! Fills the auditors' search table, by a reader of its own.

mod keeper;
mod rounds;
mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_log::{Checkpoint, CheckpointError, Log, ReaderSettings};
use annals_record::{Offset, Shard, ShardCount};
use annals_store::lease::{LeaseKey, LeaseKind, Leases, balance};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use keeper::Keeper;
pub use rounds::RoundSettings;

/// The reader's name in `checkpoint`.
pub const READER: &str = "audit";

/// Fills the search table for the shards whose leases are this node's.
pub struct AuditIndexer {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The aggregates.
    pub catalog: Catalog,
    /// The audit role's database.
    pub pool: PgPool,
    /// Who reads which shard.
    pub leases: Arc<dyn Leases>,
    /// How many shards there are.
    pub shards: ShardCount,
    /// How the readers read.
    pub reader: ReaderSettings,
    /// What shares a transaction.
    pub rounds: RoundSettings,
}

impl AuditIndexer {
    /// Runs until `stop` is cancelled. A shard whose reader halts stays where it is, with an alarm.
    ///
    /// # Panics
    /// With the panic of the task that reads.
    pub async fn run(self, stop: CancellationToken) {
        let me = Arc::new(self);
        let third = (me.leases.ttl() / 3).max(Duration::from_millis(100));
        let mut round = tokio::time::interval(third);
        let (mine, follows) = watch::channel(BTreeSet::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(Keeper::new(Arc::clone(&me)).run(follows));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next() => raise(ended),
                _ = round.tick() => {}
            }
            match me.mine().await {
                Ok(now) => {
                    let now: BTreeSet<Shard> = now.into_iter().collect();
                    mine.send_if_modified(|before| {
                        let other = *before != now;
                        *before = now;
                        other
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the audit reader's leases cannot be read or renewed");
                }
            }
        }
        tasks.shutdown().await;
        let keys: Vec<_> = me.keys();
        if let Err(error) = me.leases.release(&keys).await {
            tracing::debug!(%error, "the audit reader's leases could not be given back; they expire");
        }
    }

    fn keys(&self) -> Vec<LeaseKey> {
        self.shards
            .shards()
            .map(|shard| LeaseKey::new(LeaseKind::Audit, "", shard.get()))
            .collect()
    }

    async fn mine(&self) -> Result<Vec<Shard>, annals_store::Error> {
        let keys = self.keys();
        let has_role = |node: &annals_store::lease::Node| node.roles.iter().any(|role| role == "audit");
        let nodes: Vec<_> = self
            .leases
            .nodes()
            .await?
            .into_iter()
            .filter(has_role)
            .map(|node| node.id)
            .collect();
        let leases = self.leases.list(LeaseKind::Audit, "").await?;
        let plan = balance(self.leases.node(), &nodes, &keys, &leases);
        let mut mine = self.leases.renew(&plan.keep).await?;
        mine.extend(self.leases.acquire(&plan.acquire).await?);
        self.leases.release(&plan.release).await?;
        Ok(mine.into_iter().map(|key| Shard::new(key.shard)).collect())
    }
}

/// How far the search table goes for a shard.
pub(crate) async fn next_offset(pool: &PgPool, shard: Shard) -> Result<Offset, sqlx::Error> {
    match Checkpoint::load(pool, READER, shard).await {
        Ok(checkpoint) => Ok(checkpoint.map_or(Offset::new(0), |checkpoint| checkpoint.head.next)),
        Err(CheckpointError::Database(error)) => Err(error),
        Err(error) => Err(sqlx::Error::Protocol(error.to_string())),
    }
}

/// A panic of the task that reads is this one's: its shards would otherwise stand still unseen.
fn raise(ended: Result<(), tokio::task::JoinError>) {
    if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
        std::panic::resume_unwind(panic);
    }
}

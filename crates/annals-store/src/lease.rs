//! Leases: who should do what. Liveness only; safety is the accepted claim and the checkpoint's
//! compare-and-set.
//!
//! All times are the database's. A row changes hands only when it has expired or was released, by one
//! conditional statement. Nodes agree on who should have what by [`balance`], which is pure.

mod balance;
mod postgres;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

pub use balance::{Plan, balance, desired_owner};
pub use postgres::PgLeases;

use crate::Error;

/// The channel of notifications: leases or nodes have changed, read them again. (A hint: whoever listens polls too.)
pub const CHANNEL: &str = "annals_lease";

/// The default of `lease.ttl_ms`: how long a lease lasts without renewal.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);

/// A node's name, unique in a deployment and new at every start: `{host}-{random}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(String);

impl NodeId {
    /// Takes a name as it is.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What kind of work a lease is for. (A node's own row is no lease of work: [`Leases::keep_node`].)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseKind {
    /// Deciding the commands of a shard.
    Command,
    /// Filling the journal from a shard in Kafka.
    Indexer,
    /// A build of a projection; name `{name}/{build}`.
    Projection,
    /// A process manager; name is the process's.
    Process,
    /// Republishing events.
    Publish,
    /// Filling the auditors' search table.
    Audit,
    /// Sealing.
    Sealer,
}

impl LeaseKind {
    /// As the table has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Indexer => "indexer",
            Self::Projection => "projection",
            Self::Process => "process",
            Self::Publish => "publish",
            Self::Audit => "audit",
            Self::Sealer => "sealer",
        }
    }
}

/// Which lease: kind, name within the kind (may be empty), shard (0 where the work has none).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// What kind of work.
    pub kind: LeaseKind,
    /// Which of that kind; empty if there is one only.
    pub name: String,
    /// The shard, at most 2^31 - 1.
    pub shard: u32,
}

impl LeaseKey {
    /// One shard's part of some work.
    pub fn new(kind: LeaseKind, name: impl Into<String>, shard: u32) -> Self {
        let name = name.into();
        Self { kind, name, shard }
    }
}

/// `command/3`, `projection/orders/3/7`.
impl fmt::Display for LeaseKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind.as_str())?;
        if !self.name.is_empty() {
            write!(out, "/{}", self.name)?;
        }
        write!(out, "/{}", self.shard)
    }
}

/// A lease as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which one.
    pub key: LeaseKey,
    /// Who has it, or had it last.
    pub node: NodeId,
    /// Where that node listens for other nodes.
    pub url: String,
    /// The epoch last claimed under it, as its holder said; 0: none.
    pub epoch_hint: u64,
    /// When it ends, by the database's clock; `None`: it was released.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether it was in force when it was read, by the database's clock.
    pub live: bool,
    /// For how long it was in force still when it was read, to the ms; zero if it was not.
    pub remaining: Duration,
}

/// A live node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Where it listens for other nodes.
    pub url: String,
    /// Its node roles.
    pub roles: Vec<String>,
    /// When its row ends, by the database's clock.
    pub expires_at: DateTime<Utc>,
    /// How long that was away when it was read, to the ms.
    pub remaining: Duration,
}

/// Leases as one node sees them. Whoever holds leases renews them at a third of [`Leases::ttl`].
///
/// Every method is one statement (but [`Leases::survey`], by default), so a future that is dropped has done all of it or nothing. After an
/// error a lease that was one's own may be counted on until [`Leases::ttl`] after the last call that
/// succeeded **began**, by a monotonic clock, and no longer.
#[async_trait]
pub trait Leases: Send + Sync {
    /// The node that these leases are taken for.
    fn node(&self) -> &NodeId;

    /// How long a lease lasts without renewal.
    fn ttl(&self) -> Duration;

    /// Makes or renews this node's own row, with its node roles.
    async fn keep_node(&self, roles: &[String]) -> Result<(), Error>;

    /// Takes this node's own row away.
    async fn drop_node(&self) -> Result<(), Error>;

    /// The live nodes, by name.
    async fn nodes(&self) -> Result<Vec<Node>, Error>;

    /// All leases of a kind and name, also those that are not in force, by shard.
    async fn list(&self, kind: LeaseKind, name: &str) -> Result<Vec<Lease>, Error>;

    /// The live nodes, by name, and all leases of a kind and name, by shard, as they are at one moment.
    async fn survey(&self, kind: LeaseKind, name: &str) -> Result<(Vec<Node>, Vec<Lease>), Error> {
        Ok((self.nodes().await?, self.list(kind, name).await?))
    }

    /// Takes those of `keys` that are free, released, expired or this node's already, for one ttl from
    /// now. Returns those that are this node's after it, by key.
    async fn acquire(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, Error>;

    /// Extends those of `keys` that are this node's still, for one ttl from now; one that expired and
    /// that nobody took counts as such. Returns them, by key; the rest are lost.
    async fn renew(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, Error>;

    /// Gives those of `keys` back that are this node's, so that another may take them at once.
    async fn release(&self, keys: &[LeaseKey]) -> Result<(), Error>;

    /// Notes the epoch claimed under a lease of this node, for people and for other nodes' hints. Returns
    /// whether the lease is this node's.
    async fn hint_epoch(&self, key: &LeaseKey, epoch: u64) -> Result<bool, Error>;
}

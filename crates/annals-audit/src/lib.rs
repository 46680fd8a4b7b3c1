//! The auditors' side: histories, states by replay, and a search over every accepted record.
//!
//! Everything is shown as stored: personal fields stay sealed. Nothing here changes the log.
//!
//! *Invariant:* no other crate names the tables `audit_record` and `audit_shape`.

mod fresh;
mod indexer;
mod item;
mod metrics;
mod search;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_log::{Checkpoint, PgStreamStore, StoreError, StreamStore};
use annals_record::{Generation, Offset, Position, RecordId, Shard, ShardCount, StreamId};
use annals_store::lease::{LeaseKind, Leases};
use chrono::{DateTime, SecondsFormat};
use sqlx::PgPool;
use tokio::time::Instant;

pub use fresh::Fresh;
pub use indexer::{AuditIndexer, READER, RoundSettings};
pub use item::{Item, Outcome, Page, RawItem};
pub use search::{InvalidCursor, RecordKind, Search};
pub use state::{StateAt, Upto};

/// What auditors may ask. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    pool: PgPool,
    journal: PgStreamStore,
    leases: Arc<dyn Leases>,
    catalog: Catalog,
    shards: ShardCount,
    generation: Generation,
}

/// Why an auditor's question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No such stream, record or version.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// A position of another generation or beyond the shards.
    #[error("the position {0} is not of this log")]
    UnknownPosition(Position),
    /// Not as fresh as was asked for, within the time that was given.
    #[error("shard {} is at {at}, and {} was asked for", .asked.shard, .asked.offset)]
    Behind {
        /// What was asked for.
        asked: Position,
        /// The next offset that is not there yet.
        at: Offset,
    },
    /// The journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The search table.
    #[error("the search table is unavailable: {0}")]
    Database(#[from] sqlx::Error),
    /// The leases, which say who owns a shard.
    #[error("the leases are unavailable: {0}")]
    Leases(#[from] annals_store::Error),
    /// Something in the journal that this program cannot read.
    #[error("the journal holds what this program cannot read: {0}")]
    Unreadable(String),
    /// A cursor that did not come from here.
    #[error(transparent)]
    Cursor(#[from] InvalidCursor),
}

/// One shard as auditors see it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ShardStatus {
    /// The shard.
    pub shard: Shard,
    /// Its end as far as the journal goes: the next offset.
    pub end: Offset,
    /// The ownership term.
    pub epoch: u64,
    /// How many records count.
    pub accepted: u64,
    /// The chain over them, hexadecimal.
    pub chain: String,
    /// The latest decision's time, RFC 3339; `None` before the first.
    pub time: Option<String>,
    /// The node that decides this shard's commands, by its lease; `None` while nobody does.
    pub owner: Option<String>,
}

/// Between two looks at how far the journal or the search table has come.
const POLL: Duration = Duration::from_millis(50);

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit")
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

impl Audit {
    /// Over the journal, the leases and the search table of the database of `pool`.
    pub fn new(
        pool: PgPool,
        journal: PgStreamStore,
        leases: Arc<dyn Leases>,
        catalog: Catalog,
        shards: ShardCount,
        generation: Generation,
    ) -> Self {
        Self {
            pool,
            journal,
            leases,
            catalog,
            shards,
            generation,
        }
    }

    fn position(&self, shard: Shard, offset: Offset) -> Position {
        Position::new(self.generation, shard, offset)
    }

    /// A stream's records behind `after`, oldest first: commits and refusals.
    ///
    /// # Errors
    /// [`AuditError::NotFound`] if the stream has no record at all.
    pub async fn history(
        &self,
        stream: &StreamId,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Page, AuditError> {
        let shard = self.shards.shard_of(stream);
        let from = match after {
            None => Offset::new(0),
            Some(position) if position.shard == shard && position.generation == self.generation => {
                position.offset.next()
            }
            Some(position) => return Err(AuditError::UnknownPosition(position)),
        };
        let mut rows = self
            .journal
            .page_of_stream(stream, from, limit.saturating_add(1))
            .await?;
        if rows.is_empty() && after.is_none() {
            return Err(AuditError::NotFound("stream"));
        }
        let more = rows.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next = rows
            .last()
            .filter(|_| more)
            .map(|(offset, _)| self.position(shard, *offset).to_string());
        let items = rows
            .iter()
            .map(|(offset, record)| Item::of(self.position(shard, *offset), record));
        Ok(Page {
            data: items.collect::<Result<_, _>>()?,
            next,
        })
    }

    /// One record by its id.
    ///
    /// # Errors
    /// [`AuditError::NotFound`].
    pub async fn record(&self, id: RecordId) -> Result<Item, AuditError> {
        let (position, record) = self.find(id).await?;
        Item::of(position, &record)
    }

    /// One record's exact bytes.
    ///
    /// # Errors
    /// [`AuditError::NotFound`].
    pub async fn raw(&self, id: RecordId) -> Result<RawItem, AuditError> {
        let (position, record) = self.find(id).await?;
        Ok(RawItem::of(position, &record))
    }

    /// Every shard as far as the journal goes.
    ///
    /// # Errors
    /// [`AuditError::Store`], [`AuditError::Leases`].
    pub async fn shards(&self) -> Result<Vec<ShardStatus>, AuditError> {
        let leases = self.leases.list(LeaseKind::Command, "").await?;
        let mut owners: BTreeMap<u32, String> = leases
            .into_iter()
            .filter(|lease| lease.live)
            .map(|lease| (lease.key.shard, lease.node.to_string()))
            .collect();
        let shards: Vec<_> = self.shards.shards().collect();
        let checkpoints = self.journal.checkpoints(&shards).await?;
        let heads = shards.into_iter().zip(checkpoints);
        let status = |(shard, Checkpoint { head, .. }): (Shard, Checkpoint)| ShardStatus {
            shard,
            end: head.next,
            epoch: head.epoch.get(),
            accepted: head.accepted,
            chain: head.chain.to_string(),
            time: (head.time_ms > 0)
                .then(|| DateTime::from_timestamp_millis(head.time_ms))
                .flatten()
                .map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            owner: owners.remove(&shard.get()),
        };
        Ok(heads.map(status).collect())
    }

    /// Waits until the journal has these positions.
    ///
    /// # Errors
    /// [`AuditError::Behind`] if it has not within `wait`, [`AuditError::UnknownPosition`].
    pub async fn wait_for_journal(&self, after: &[Position], wait: Duration) -> Result<(), AuditError> {
        let deadline = Instant::now() + wait;
        for asked in after {
            self.check(*asked)?;
            loop {
                let at = self.journal.checkpoint(asked.shard).await?.head.next;
                if at > asked.offset {
                    break;
                }
                pause(deadline, *asked, at).await?;
            }
        }
        Ok(())
    }

    /// Waits until the search table has these positions.
    ///
    /// # Errors
    /// As [`Self::wait_for_journal`].
    pub async fn wait_for_search(&self, after: &[Position], wait: Duration) -> Result<(), AuditError> {
        let deadline = Instant::now() + wait;
        for asked in after {
            self.check(*asked)?;
            loop {
                let at = indexer::next_offset(&self.pool, asked.shard).await?;
                if at > asked.offset {
                    break;
                }
                pause(deadline, *asked, at).await?;
            }
        }
        Ok(())
    }

    fn check(&self, position: Position) -> Result<(), AuditError> {
        if position.generation == self.generation && self.shards.contains(position.shard) {
            Ok(())
        } else {
            Err(AuditError::UnknownPosition(position))
        }
    }
}

async fn pause(deadline: Instant, asked: Position, at: Offset) -> Result<(), AuditError> {
    if Instant::now() >= deadline {
        return Err(AuditError::Behind { asked, at });
    }
    tokio::time::sleep(POLL).await;
    Ok(())
}

//! How fresh what an auditor is told is: read before the question is answered, so that the answer has at least that.

use annals_log::{StreamStore, fragment};
use annals_record::{Offset, Position, Shard};
use sqlx::{AssertSqlSafe, Row};

use crate::{Audit, AuditError, READER};

/// How fresh an answer is at least.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fresh {
    /// The last offset of each shard that has records, in the order of shards.
    pub positions: Vec<Position>,
    /// When the oldest record was decided that the journal has and the answer may lack, ms since 1970; none if it lacks
    /// none.
    pub oldest_missing_ms: Option<i64>,
}

impl Audit {
    /// How far the journal goes: what histories, states and shards are read from.
    ///
    /// # Errors
    /// [`AuditError::Store`].
    pub async fn journal_fresh(&self) -> Result<Fresh, AuditError> {
        let shards: Vec<_> = self.shards.shards().collect();
        let checkpoints = self.journal.checkpoints(&shards).await?;
        let ends = shards.into_iter().zip(checkpoints);
        let positions = ends
            .filter_map(|(shard, at)| self.last(shard, at.head.next))
            .collect();
        Ok(Fresh {
            positions,
            oldest_missing_ms: None,
        })
    }

    /// How far the search table goes: what searches and single records are found by.
    ///
    /// # Errors
    /// [`AuditError::Database`].
    pub async fn search_fresh(&self) -> Result<Fresh, AuditError> {
        let reader = format!("'{READER}'");
        let sql = format!(
            "SELECT c.shards, c.nexts, {} FROM {}",
            fragment::unfolded(&reader, "$1"),
            fragment::checkpoints(&reader, "c")
        );
        let shards = i32::try_from(self.shards.get()).unwrap_or(i32::MAX);
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(shards)
            .fetch_one(&self.pool)
            .await?;
        let shards: Option<Vec<i32>> = row.try_get(0)?;
        let nexts: Option<Vec<i64>> = row.try_get(1)?;
        let pairs = shards
            .unwrap_or_default()
            .into_iter()
            .zip(nexts.unwrap_or_default());
        let mut positions: Vec<Position> = pairs
            .filter_map(|(shard, next)| {
                let (shard, next) = (Shard::try_from(shard).ok()?, Offset::try_from(next).ok()?);
                self.last(shard, next)
            })
            .collect();
        positions.sort_unstable_by_key(|position| position.shard);
        let unfolded: Option<String> = row.try_get(2)?;
        let times = unfolded.as_deref().unwrap_or_default().split(',');
        Ok(Fresh {
            positions,
            oldest_missing_ms: times.filter_map(|one| one.rsplit(':').next()?.parse().ok()).min(),
        })
    }

    fn last(&self, shard: Shard, next: Offset) -> Option<Position> {
        let last = next.get().checked_sub(1)?;
        Some(self.position(shard, Offset::new(last)))
    }
}

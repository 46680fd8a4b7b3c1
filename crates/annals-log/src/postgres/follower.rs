//! The task that learns of other processes' appends: by notification where there is a listener, and by polling.

use std::sync::Arc;

use annals_record::{Offset, Shard};
use annals_store::notify::{Heard, Listener, Notice};
use sqlx::PgPool;
use tokio::time::sleep;

use super::Shared;
use crate::checkpoint::{decoded, shard_of};

pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    pub(super) listener: Option<Listener>,
}

impl Follower {
    /// Runs until the log is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let heard = tokio::select! {
                () = self.shared.closed() => return,
                heard = hear(&mut self.listener) => heard,
                () = sleep(self.shared.settings.poll) => Heard::Reread,
            };
            match heard {
                Heard::Notice(notice) => self.raise(&notice),
                Heard::Reread => {
                    if let Err(error) = self.reread().await {
                        tracing::warn!(%error, "the ends of the log cannot be read");
                    }
                }
            }
        }
    }

    /// The notice says where a shard ends; what does not read is made up for by the next poll.
    fn raise(&self, notice: &Notice) {
        if let (Ok(shard), Ok(end)) = (notice.key.parse::<Shard>(), notice.value.parse::<Offset>()) {
            self.shared.recent.raise(shard, end);
        }
    }

    async fn reread(&self) -> Result<(), sqlx::Error> {
        let shards = || self.shared.identity.shards.shards();
        // Taken before the statement's snapshot: an end below one of these means that the log was cut.
        let known: Vec<Offset> = shards().map(|shard| self.shared.recent.end(shard)).collect();
        for (shard, end) in ends(&self.shared.pool).await? {
            let index = usize::try_from(shard.get()).unwrap_or(usize::MAX);
            if known.get(index).is_some_and(|known| end < *known) {
                tracing::error!(shard = shard.get(), %end, "the log ends below where it did");
                self.shared.recent.reset(shard, end);
            } else {
                self.shared.recent.raise(shard, end);
            }
        }
        Ok(())
    }
}

/// Without a listener nothing is ever heard.
async fn hear(listener: &mut Option<Listener>) -> Heard {
    match listener {
        Some(listener) => listener.next().await,
        None => std::future::pending().await,
    }
}

/// Where each shard ends.
pub(super) async fn ends(pool: &PgPool) -> Result<Vec<(Shard, Offset)>, sqlx::Error> {
    let rows = sqlx::query("SELECT shard, next_offset FROM annals.log_head ORDER BY shard")
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| {
            let end: i64 = sqlx::Row::try_get(row, "next_offset")?;
            Ok((shard_of(row)?, decoded(end.try_into())?))
        })
        .collect()
}

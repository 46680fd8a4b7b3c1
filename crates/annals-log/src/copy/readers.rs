//! Readers whose work is carried to the copy: where each of them stands there.
//!
//! What a reader folded is a count of accepted records and the chain behind them, which are the same in the copy; only
//! the offset may be another one.

use std::collections::BTreeMap;

use annals_record::{Head, Offset, Shard};
use sqlx::PgConnection;

use super::{CopyError, Proof};
use crate::{Checkpoint, CheckpointError};

/// A reader's checkpoint in both logs.
#[derive(Debug, Clone)]
pub struct Carried {
    /// The reader.
    pub reader: String,
    /// The shard.
    pub shard: Shard,
    /// Where it stands in the source.
    pub from: Checkpoint,
    /// How many records of the copy it has accepted.
    pub accepted: u64,
}

impl Carried {
    /// How many records that it had read stay behind.
    pub fn lost(&self) -> u64 {
        let closed = u64::from(self.from.head.closed);
        self.from.head.accepted.saturating_sub(closed + self.accepted)
    }
}

/// Readers whose work does not follow from the log alone, because they sent something: process managers and
/// publishers. All others begin anew on the copy. `accepted` says how many records of each shard were copied.
#[must_use]
pub fn readers_to_carry(
    all: Vec<(String, Shard, Checkpoint)>,
    accepted: &BTreeMap<Shard, u64>,
) -> Vec<Carried> {
    let is_kept = |reader: &str| {
        ["process/", "publish/"]
            .iter()
            .any(|kind| reader.starts_with(kind))
            || reader == "publish"
    };
    all.into_iter()
        .filter(|(reader, ..)| is_kept(reader))
        .map(|(reader, shard, from)| {
            let copied = accepted.get(&shard).copied().unwrap_or_default();
            // Who has read the close has read nothing more than what was before it.
            let read = from.head.accepted - u64::from(from.head.closed);
            Carried {
                reader,
                shard,
                from,
                accepted: read.min(copied),
            }
        })
        .collect()
}

/// Writes the checkpoints of carried readers, as the proofs of their shards have them.
///
/// # Errors
/// [`CopyError::Reader`] if one had folded another history; Postgres.
pub async fn carry_checkpoints(
    to: &mut PgConnection,
    readers: &[Carried],
    proofs: &BTreeMap<Shard, Proof>,
) -> Result<(), CopyError> {
    for carried in readers {
        let other = || CopyError::Reader {
            reader: carried.reader.clone(),
            shard: carried.shard,
        };
        let proof = proofs.get(&carried.shard).ok_or_else(other)?;
        let at = proof.checkpoints.get(&carried.accepted).ok_or_else(other)?;
        let unshortened = carried.lost() == 0 && !carried.from.head.closed;
        if unshortened && at.head.chain != carried.from.head.chain {
            return Err(other());
        }
        if at.head.next.get() == 0 {
            continue;
        }
        // A row that is not there yet begins at offset 0; nothing else of this is looked at.
        let begin = Checkpoint::genesis(Head {
            next: Offset::new(0),
            ..at.head
        });
        let moved = Checkpoint::advance(to, &carried.reader, carried.shard, &begin, at).await;
        moved.map_err(|error| match error {
            CheckpointError::Database(error) => CopyError::Database(error),
            CheckpointError::Moved { .. } | CheckpointError::Backwards { .. } => other(),
        })?;
    }
    Ok(())
}

//! A reader's checkpoint: the head of the fold, and enough of the last record to notice a replaced log.

use annals_record::fold::Head;
use annals_record::{Hash32, Shard};

/// Up to where something has been folded. Moves only forward and only with what it stands for (L8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The head of the fold.
    pub head: Head,
    /// The hash of the record before `head.next`; zeros at offset 0.
    pub last_hash: Hash32,
    /// Whether that record was a ghost.
    pub last_ghost: bool,
}

impl Checkpoint {
    /// Before the first record.
    pub fn genesis(head: Head) -> Self {
        Self {
            head,
            last_hash: Hash32::from([0; 32]),
            last_ghost: false,
        }
    }
}

/// Why a checkpoint could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another reader of this name moved it: this one is a zombie and must stop.
    #[error(
        "the checkpoint of `{reader}` for shard {shard} is not where this reader left it: another one moved it"
    )]
    Moved {
        /// The reader's name.
        reader: String,
        /// The shard.
        shard: Shard,
    },
    /// Postgres.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

//! What things are called: names, numbers, unique ids and positions, each its own type.

mod number;
mod position;
mod shard;
mod text;
mod unique;

pub use number::{Epoch, Generation, Offset, Shard, Version};
pub use position::Position;
pub use shard::{ShardCount, murmur2};
pub use text::{AppName, Category, Key, StreamId};
pub use unique::{EventId, RecordId};

/// A text or number that is not what it was given for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not {what}: {rule}")]
pub struct IdError {
    what: &'static str,
    rule: &'static str,
    found: String,
}

impl IdError {
    /// What was expected, with its article: `a stream id`.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The rule that was broken, fit to be shown to a caller.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        self.rule
    }

    /// Keeps at most 80 characters of what was found: it may come from anyone.
    fn new(what: &'static str, rule: &'static str, found: &str) -> Self {
        let found = found.chars().take(80).collect();
        Self { what, rule, found }
    }
}

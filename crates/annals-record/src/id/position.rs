//! The token that clients see: which shard, which offset, of which copy of the log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Generation, IdError, Offset, Shard};

const RULE: &str = "shard:offset, as in 3:1042, with ~generation behind it from the second copy on";

/// A place in the log: `3:1042`, and `3:1042~2` in the second generation.
///
/// It has one spelling only: no signs, no leading zeros, no `~1`. Positions compare by generation,
/// then shard, then offset; only those of one shard and generation are in order of time.
///
/// ```
/// use annals_record::Position;
/// let position: Position = "3:1042".parse()?;
/// assert_eq!(position.offset.get(), 1042);
/// assert!("3:01042".parse::<Position>().is_err());
/// # Ok::<(), annals_record::IdError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which copy of the log.
    pub generation: Generation,
    /// Which part of it.
    pub shard: Shard,
    /// Which record there.
    pub offset: Offset,
}

impl Position {
    /// The position of `offset` in `shard` of the `generation`-th log.
    #[must_use]
    pub const fn new(generation: Generation, shard: Shard, offset: Offset) -> Self {
        Self {
            generation,
            shard,
            offset,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shard, self.offset)?;
        if self.generation > Generation::FIRST {
            write!(f, "~{}", self.generation)?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        parse(text).ok_or_else(|| IdError::new("a position", RULE, text))
    }
}

fn parse(text: &str) -> Option<Position> {
    let (place, generation) = match text.split_once('~') {
        Some((place, number)) => (place, number.parse().ok()?),
        None => (text, Generation::FIRST),
    };
    // The first generation is never written, so `~1` would be a second spelling.
    if text.contains('~') && generation == Generation::FIRST {
        return None;
    }
    let (shard, offset) = place.split_once(':')?;
    Some(Position::new(
        generation,
        shard.parse().ok()?,
        offset.parse().ok()?,
    ))
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

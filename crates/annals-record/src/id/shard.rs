//! Which shard a stream lives in: the same one that Kafka's own clients choose for its key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{IdError, Shard, StreamId};
use crate::decimal;

const RULE: &str = "an integer from 1 to 65536";

/// How many shards a log has, fixed when it is created: 1 to 65,536.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct ShardCount(u32);

impl ShardCount {
    /// The largest count.
    pub const MAX: Self = Self(65_536);

    /// The bare number, 1 to 65,536.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Where `stream` lives: `(murmur2(stream id) & 0x7fffffff) mod shards`.
    ///
    /// Source: Kafka's default partitioner for records with a key
    /// (`org.apache.kafka.clients.producer.internals.BuiltInPartitioner.partitionForKey`).
    #[must_use]
    pub fn shard_of(self, stream: &StreamId) -> Shard {
        Shard::new((murmur2(stream.as_str().as_bytes()) & 0x7fff_ffff) % self.0)
    }

    /// Whether `shard` is one of these.
    #[must_use]
    pub fn contains(self, shard: Shard) -> bool {
        shard.get() < self.0
    }

    /// All shards, in order.
    pub fn shards(self) -> impl ExactSizeIterator<Item = Shard> + Clone {
        // `Range<u16>` would miss the last of 65,536 and `Range<u32>` has no exact size; the count
        // fits a `usize` on every machine that runs this.
        let count = usize::try_from(self.0).unwrap_or(usize::MAX);
        (0..count).map(|n| Shard::new(u32::try_from(n).unwrap_or(u32::MAX)))
    }
}

impl TryFrom<u32> for ShardCount {
    type Error = IdError;

    fn try_from(count: u32) -> Result<Self, IdError> {
        if (1..=Self::MAX.0).contains(&count) {
            return Ok(Self(count));
        }
        Err(IdError::new("a shard count", RULE, &count.to_string()))
    }
}

impl From<ShardCount> for u32 {
    fn from(count: ShardCount) -> Self {
        count.0
    }
}

impl fmt::Display for ShardCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ShardCount {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        decimal::parse_u32(text.as_bytes())
            .and_then(|n| Self::try_from(n).ok())
            .ok_or_else(|| IdError::new("a shard count", RULE, text))
    }
}

/// The 32-bit murmur2 hash as Kafka's Java client computes it.
///
/// Source: `org.apache.kafka.common.utils.Utils.murmur2` (seed `0x9747b28c`), whose result is the
/// same 32 bits read as a signed integer.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // Java's arithmetic is modulo 2^32, the length included; no key comes near that.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

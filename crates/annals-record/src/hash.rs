//! How records are hashed and chained.
//!
//! ```text
//! enc(b)       = 0x00 if b is null, else 0x01 ‖ u32be(len b) ‖ b
//! record_hash  = SHA-256("annals/record/v1" ‖ 0x00 ‖ i64be(timestamp ms) ‖ enc(key) ‖ enc(SHA-256(value))
//!                ‖ u32be(header count) ‖ for each header in stored order: enc(name) ‖ enc(value))
//! c(0)         = SHA-256("annals/genesis/v1" ‖ 0x00 ‖ enc(app name) ‖ u32be(shard) ‖ u32be(shard count))
//! c(n)         = SHA-256(c(n-1) ‖ record_hash of the n-th accepted record)
//! ```
//!
//! The value enters as its hash, so that large values are hashed off the serial path and a chain
//! can be verified without payloads. A null value (only a foreign record has one) is `enc(null)`,
//! not the hash of no bytes. Source: the log's design, "Hashes"; SHA-256 is FIPS 180-4.

mod digest;

use sha2::{Digest, Sha256};

pub use digest::{Fingerprint, Hash32, HashError, KeyHash};
pub(crate) use digest::{hex_into, write_hex};

use crate::id::{AppName, Shard, ShardCount};
use crate::record::{RawRecord, Record, Slot};

const RECORD_TAG: &[u8] = b"annals/record/v1\0";
const GENESIS_TAG: &[u8] = b"annals/genesis/v1\0";

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash32 {
    Hash32::new(Sha256::digest(bytes).into())
}

/// SHA-256 of a record's value: the part of [`record_hash`] whose cost grows with the value. It
/// needs nothing else of the record, so it can be computed anywhere, at any time.
#[must_use]
pub fn value_hash(value: &[u8]) -> Hash32 {
    sha256(value)
}

/// The hash of a record, all of it.
#[must_use]
pub fn record_hash(record: &Record) -> Hash32 {
    record_hash_with(record, value_hash(&record.value))
}

/// The hash of a record whose [`value_hash`] is known. Costs the same for every size of value.
#[must_use]
pub fn record_hash_with(record: &Record, value_hash: Hash32) -> Hash32 {
    let mut hasher = Buffered::new();
    hasher.put(RECORD_TAG);
    hasher.put(&record.timestamp_ms.to_be_bytes());
    hasher.put_enc(record.stream.as_ref().map(|s| s.as_str().as_bytes()));
    hasher.put_enc(Some(value_hash.as_bytes()));
    hasher.put(&record.meta.header_count().to_be_bytes());
    record.meta.visit_headers(
        #[inline(always)]
        |name, value| {
            hasher.put_enc(Some(name.as_bytes()));
            hasher.put_enc(Some(value));
        },
    );
    hasher.finish()
}

/// The hash of whatever is stored: the same as [`record_hash`] for a well-formed record.
#[must_use]
pub fn raw_record_hash(raw: &RawRecord) -> Hash32 {
    let value = raw.value.as_ref().map(|value| value_hash(value));
    let mut hasher = Buffered::new();
    hasher.put(RECORD_TAG);
    hasher.put(&raw.timestamp_ms.to_be_bytes());
    hasher.put_enc(raw.key.as_deref());
    hasher.put_enc(value.as_ref().map(|hash| hash.as_bytes().as_slice()));
    hasher.put(&length(raw.headers.len()).to_be_bytes());
    for header in &raw.headers {
        hasher.put_enc(Some(&header.name));
        hasher.put_enc(header.value.as_deref());
    }
    hasher.finish()
}

/// The hash of the record in a slot, whatever it is.
#[must_use]
pub fn slot_hash(slot: &Slot) -> Hash32 {
    match slot {
        Slot::Known(record) => record_hash(record),
        Slot::UnknownFormat { raw, .. } | Slot::Foreign(raw) => raw_record_hash(raw),
    }
}

/// c(0): the chain of a shard in which nothing was accepted yet.
#[must_use]
pub fn genesis(app: &AppName, shard: Shard, shards: ShardCount) -> Hash32 {
    let mut hasher = Buffered::new();
    hasher.put(GENESIS_TAG);
    hasher.put_enc(Some(app.as_str().as_bytes()));
    hasher.put(&shard.get().to_be_bytes());
    hasher.put(&shards.get().to_be_bytes());
    hasher.finish()
}

/// c(n) from c(n-1) and the hash of the n-th accepted record.
#[must_use]
pub fn chain(prev: Hash32, record_hash: Hash32) -> Hash32 {
    let mut both = [0; 64];
    both[..32].copy_from_slice(prev.as_bytes());
    both[32..].copy_from_slice(record_hash.as_bytes());
    sha256(&both)
}

/// A length as it is hashed. No record comes near 4 GiB: brokers and `log.record_bytes` end far
/// below, so the cap is never reached.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// SHA-256 behind a small buffer on the stack. A record is hashed from some forty short pieces;
/// gathering them first is faster than as many updates, and nothing is allocated. Inlined always,
/// since most pieces have a length that the compiler then knows (measured: a fifth less time).
struct Buffered {
    hasher: Sha256,
    bytes: [u8; Self::BYTES],
    len: usize,
}

impl Buffered {
    /// Room for every well-formed record of the grammar without a flush (at most 669 bytes).
    const BYTES: usize = 704;

    fn new() -> Self {
        Self {
            hasher: Sha256::new(),
            bytes: [0; Self::BYTES],
            len: 0,
        }
    }

    #[inline(always)]
    fn put(&mut self, piece: &[u8]) {
        let end = self.len + piece.len();
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(piece);
            self.len = end;
        } else {
            self.hasher.update(&self.bytes[..self.len]);
            self.len = 0;
            self.hasher.update(piece);
        }
    }

    #[inline(always)]
    fn put_enc(&mut self, piece: Option<&[u8]>) {
        let Some(piece) = piece else {
            return self.put(&[0]);
        };
        let [a, b, c, d] = length(piece.len()).to_be_bytes();
        self.put(&[1, a, b, c, d]);
        self.put(piece);
    }

    fn finish(mut self) -> Hash32 {
        self.hasher.update(&self.bytes[..self.len]);
        Hash32::new(self.hasher.finalize().into())
    }
}

//! How a record enters the audit tree: a leaf entry of 94 bytes, and the tree's two hashes.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | format, `0x01` |
//! | 1 | kind: 0 foreign, 1 commit, 2 refusal, 3 claim, 4 close; plus `0x80` where the fold accepted it |
//! | 8 | offset, big-endian |
//! | 8 | timestamp in ms, signed, big-endian |
//! | 16 | record id |
//! | 16 | first 16 bytes of SHA-256(stream id) |
//! | 8 | version of the first event, big-endian |
//! | 4 | count of events, big-endian |
//! | 32 | record hash |
//!
//! What a record lacks (id, stream, version, count) is zero. Source: the audit design, "Seals"; the
//! hashes are those of RFC 6962, section 2.1.

use sha2::{Digest, Sha256};

use crate::hash::{Hash32, sha256};
use crate::id::Offset;
use crate::record::{Kind, Slot};

/// Bytes of a leaf entry.
pub const LEAF_BYTES: usize = 94;

/// The format of leaf entries.
const FORMAT: u8 = 0x01;

/// Marks the kind of a record that the fold accepted.
const ACCEPTED: u8 = 0x80;

/// What the tree says of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafEntry([u8; LEAF_BYTES]);

impl LeafEntry {
    /// The entry of the record at `offset`, with its hash and whether the fold accepted it.
    ///
    /// A record of an unknown format has kind 0, as everything whose grammar is not known here;
    /// readers halt in front of it anyway.
    #[must_use]
    pub fn new(slot: &Slot, offset: Offset, record_hash: Hash32, accepted: bool) -> Self {
        let mut bytes = [0; LEAF_BYTES];
        bytes[0] = FORMAT;
        bytes[1] = kind(slot) | if accepted { ACCEPTED } else { 0 };
        bytes[2..10].copy_from_slice(&offset.get().to_be_bytes());
        bytes[10..18].copy_from_slice(&slot.timestamp_ms().to_be_bytes());
        if let Some(record) = slot.known() {
            bytes[18..34].copy_from_slice(record.id().as_bytes());
            if let Some(stream) = &record.stream {
                let hash = sha256(stream.as_str().as_bytes());
                bytes[34..50].copy_from_slice(&hash.as_bytes()[..16]);
            }
            if let Some(entry) = record.entry() {
                bytes[50..58].copy_from_slice(&entry.version.get().to_be_bytes());
                bytes[58..62].copy_from_slice(&entry.count.to_be_bytes());
            }
        }
        bytes[62..].copy_from_slice(record_hash.as_bytes());
        Self(bytes)
    }

    /// The 94 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LEAF_BYTES] {
        &self.0
    }

    /// The leaf's hash: SHA-256(0x00 ‖ entry).
    #[must_use]
    pub fn hash(&self) -> Hash32 {
        leaf_hash(&self.0)
    }
}

fn kind(slot: &Slot) -> u8 {
    match slot.known().map(crate::record::Record::kind) {
        None => 0,
        Some(Kind::Commit) => 1,
        Some(Kind::Refusal) => 2,
        Some(Kind::Claim) => 3,
        Some(Kind::Close) => 4,
    }
}

/// SHA-256(0x00 ‖ entry), for an entry of any tree.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash32 {
    let hasher = Sha256::new_with_prefix([0]).chain_update(entry);
    Hash32::new(hasher.finalize().into())
}

/// SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: Hash32, right: Hash32) -> Hash32 {
    let hasher = Sha256::new_with_prefix([1])
        .chain_update(left.as_bytes())
        .chain_update(right.as_bytes());
    Hash32::new(hasher.finalize().into())
}

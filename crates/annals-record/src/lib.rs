//! Ids, record bytes, hashes and the fold: what a stranger needs to check a log.
//!
//! Nothing here does I/O, is async, reads a clock or draws a random number. Read in this order:
//! [`id`] (what things are called), [`record`] (the grammar of what is stored), [`hash`] (how
//! records are chained), [`fold`] (which of them count), [`value`] (the JSON that a record carries)
//! and [`leaf`] (how a record enters the audit tree). [`planted`] is for tests only.
//!
//! *Invariant:* nothing outside [`fold`] decides whether a record counts, and [`fold`] never looks
//! at a record's value.

mod decimal;
pub mod fold;
pub mod hash;
pub mod id;
pub mod leaf;
pub mod planted;
pub mod record;
mod text;
pub mod value;

pub use fold::{Fold, Ghost, Halt, Head, Verdict};
pub use hash::{Fingerprint, Hash32, HashError, KeyHash};
pub use id::{
    AppName, Category, Epoch, EventId, Generation, IdError, Key, Offset, Position, RecordId, Shard,
    ShardCount, StreamId, Version,
};
pub use record::{Claim, Close, Entry, Kind, Meta, RawHeader, RawRecord, Record, Seen, Slot, Traceparent};

//! The folding reader: what every consumer of a shard sees, accepted records only, decoded and upcast once.

mod decode;
mod folding;
mod shard;
mod versions;

use std::fmt;
use std::sync::Arc;

use annals_domain::Refusal;
use annals_record::record::Record;
use annals_record::{EventId, Hash32, Offset, RecordId, Shard, StreamId, Version};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

pub use decode::{DecodeError, decode};
pub use folding::{Folding, HaltReason, Halted, ReaderError, ReaderSettings, Took};
pub use shard::ShardReader;
pub use versions::VersionBreak;

use crate::{Checkpoint, Placed};

/// What one commit or refusal says, decoded; its events brought up to their newest schemas.
#[derive(Debug)]
pub struct Entry {
    /// The record's id.
    pub record: RecordId,
    /// The stream.
    pub stream: StreamId,
    /// Version of the first event; with no events the next one.
    pub version: Version,
    /// The decision's time.
    pub time: DateTime<Utc>,
    /// The command's name.
    pub command: Box<str>,
    /// The command's data, as stored.
    pub data: Box<RawValue>,
    /// HMAC-SHA-256 of caller, command, precondition and plain data.
    pub fingerprint: Hash32,
    /// Who sent it.
    pub actor: Actor,
    /// What came of it.
    pub outcome: Result<Vec<DecodedEvent>, Refusal>,
    /// The client's own metadata, an object.
    pub metadata: Box<RawValue>,
    /// Carried from the request.
    pub correlation: Box<str>,
    /// What it followed from.
    pub causation: Option<Box<str>>,
}

/// Who sent a command.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Actor {
    /// A pseudonymous id; `process:{name}` for process managers.
    pub sub: Box<str>,
    /// The caller's roles.
    pub roles: Box<[Box<str>]>,
}

/// One event of a commit.
#[derive(Debug)]
pub struct DecodedEvent {
    /// UUIDv5 of the record's id and the event's index.
    pub id: EventId,
    /// `order.placed`.
    pub event_type: Box<str>,
    /// The stream's version with this event.
    pub version: Version,
    /// The schema that it was written in.
    pub schema: u32,
    /// The data as stored.
    pub stored: Box<RawValue>,
    /// The data in the newest schema, where that is another one.
    pub upcast: Option<Box<RawValue>>,
}

impl DecodedEvent {
    /// The data in the newest schema.
    pub fn data(&self) -> &RawValue {
        self.upcast.as_deref().unwrap_or(&self.stored)
    }
}

/// An accepted record of a batch.
#[derive(Clone)]
pub struct Accepted {
    pub(crate) placed: Arc<Placed>,
}

/// Accepted records between two checkpoints of one shard. Ghosts in between are passed over.
#[derive(Debug)]
pub struct Batch {
    /// The shard.
    pub shard: Shard,
    /// Where the reader was.
    pub from: Checkpoint,
    /// Where it is once the caller has committed what follows from the records.
    pub to: Checkpoint,
    /// The accepted records, in order; may be empty while the checkpoint moves (ghosts).
    pub records: Vec<Accepted>,
}

impl Accepted {
    /// Its offset.
    pub fn offset(&self) -> Offset {
        self.placed.offset
    }
    /// Its hash.
    pub fn hash(&self) -> Hash32 {
        self.placed.hash
    }
    /// The record.
    ///
    /// # Panics
    /// Never: the fold accepts well-formed records only.
    pub fn record(&self) -> &Record {
        self.placed
            .slot
            .known()
            .expect("the fold accepts well-formed records only")
    }
    /// What it says; `None` for claims and closes.
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        self.placed.entry.get()
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.placed.fmt(f)
    }
}

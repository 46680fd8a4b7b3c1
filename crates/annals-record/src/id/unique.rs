//! Ids that nobody chooses: of a record, and of an event within it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::{Uuid, Variant};

use super::IdError;
use crate::decimal;

const RECORD_RULE: &str = "a UUID of version 7, lower case, with hyphens";
const EVENT_RULE: &str = "a UUID, lower case, with hyphens";

/// The id of a record: a UUID of version 7. One spelling: lower case, with hyphens.
///
/// Source: RFC 9562, section 5.7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct RecordId(Uuid);

/// The id of an event: a UUID that follows from its record and its place there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl RecordId {
    /// Builds an id from a time and 10 random bytes, both injected by the caller.
    ///
    /// `unix_ms` counts from 1970 and keeps its lower 48 bits; 6 of the random bits give way to
    /// version and variant.
    #[must_use]
    pub fn from_parts(unix_ms: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The bare UUID, for a database.
    #[must_use]
    pub fn get(self) -> Uuid {
        self.0
    }

    /// Reads the one spelling; `None` for anything else.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        parse_strict(text).and_then(|uuid| Self::try_from(uuid).ok())
    }
}

impl EventId {
    /// The id of the event at `index` (from 0) of `record`: UUIDv5 in the namespace of the record's
    /// id, over the index in decimal ASCII (`0`, `1`, … `10`).
    ///
    /// Source: RFC 9562, section 5.5.
    #[must_use]
    pub fn of(record: RecordId, index: u32) -> Self {
        let mut digits = [0; decimal::DIGITS];
        let name = decimal::write(u64::from(index), &mut digits);
        Self(Uuid::new_v5(&record.0, name))
    }

    /// The bare UUID, for a database.
    #[must_use]
    pub fn get(self) -> Uuid {
        self.0
    }
}

/// A UUID in lower case with hyphens; the parser of `uuid` takes other spellings too.
fn parse_strict(text: &[u8]) -> Option<Uuid> {
    let plain = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-');
    if text.len() != 36 || !text.iter().all(plain) {
        return None;
    }
    // 36 characters without braces or prefix leave the hyphenated form alone.
    Uuid::try_parse_ascii(text).ok()
}

impl TryFrom<Uuid> for RecordId {
    type Error = IdError;

    fn try_from(uuid: Uuid) -> Result<Self, IdError> {
        if uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122 {
            return Ok(Self(uuid));
        }
        Err(IdError::new("a record id", RECORD_RULE, &uuid.to_string()))
    }
}

impl From<RecordId> for Uuid {
    fn from(id: RecordId) -> Self {
        id.0
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<EventId> for Uuid {
    fn from(id: EventId) -> Self {
        id.0
    }
}

impl FromStr for RecordId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text.as_bytes()).ok_or_else(|| IdError::new("a record id", RECORD_RULE, text))
    }
}

impl FromStr for EventId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let uuid = parse_strict(text.as_bytes()).map(Self);
        uuid.ok_or_else(|| IdError::new("an event id", EVENT_RULE, text))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({self})")
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

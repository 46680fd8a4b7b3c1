//! Writing the value of a commit or a refusal.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::hash::Fingerprint;
use crate::id::{EventId, StreamId};

/// The value of a commit or a refusal, to be written.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EntryValue<'a> {
    /// The stream, as in the record's key.
    pub stream: &'a StreamId,
    /// What was asked, and by whom.
    pub command: CommandValue<'a>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: OutcomeValue<'a>,
    /// Further facts as a JSON object; none is written as `{}`.
    #[serde(serialize_with = "object_or_empty")]
    pub metadata: Option<&'a RawValue>,
    /// What the command is part of.
    pub correlation: &'a str,
    /// What caused the command, `null` if nothing of ours did.
    pub causation: Option<&'a str>,
}

/// What was asked, and by whom.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CommandValue<'a> {
    /// The command's name, `place`.
    pub name: &'a str,
    /// What tells a repeat from another command.
    pub fingerprint: Fingerprint,
    /// Who asked.
    pub actor: ActorValue<'a>,
    /// The command's data, personal fields encrypted.
    pub data: &'a RawValue,
}

/// Who asked.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ActorValue<'a> {
    /// The caller's pseudonymous id.
    pub sub: &'a str,
    /// The caller's roles.
    pub roles: &'a [Arc<str>],
}

/// What came of a command.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeValue<'a> {
    /// These events, perhaps none.
    Events(&'a [EventValue<'a>]),
    /// A rule's no.
    Refusal(RefusalValue<'a>),
}

/// One event.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EventValue<'a> {
    /// The event's id.
    pub id: EventId,
    /// The event's type, `order.placed`.
    #[serde(rename = "type")]
    pub type_name: &'a str,
    /// The number of its shape.
    pub schema: u32,
    /// The event's data, personal fields encrypted.
    pub data: &'a RawValue,
}

/// A rule's no.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RefusalValue<'a> {
    /// The reason, `out_of_stock`.
    pub code: &'a str,
    /// Its details, personal fields encrypted.
    pub detail: &'a RawValue,
}

impl EntryValue<'_> {
    /// The value as it is stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        super::to_bytes(self)
    }
}

// The signature is the one that `serialize_with` calls.
#[allow(clippy::ref_option)]
fn object_or_empty<S: serde::Serializer>(
    metadata: &Option<&RawValue>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match metadata {
        Some(object) => object.serialize(serializer),
        None => serde::ser::SerializeMap::end(serializer.serialize_map(Some(0))?),
    }
}

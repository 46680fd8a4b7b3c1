//! Reading the value of a commit or a refusal, with nested JSON left as it is.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::hash::Fingerprint;
use crate::id::{EventId, StreamId};

/// A value that is not what its record's kind promises.
#[derive(Debug, thiserror::Error)]
pub enum ValueError {
    /// Not JSON, or without a field that must be there.
    #[error("unreadable record value: {0}")]
    Json(#[from] serde_json::Error),
    /// It has both `events` and `refusal`, or neither.
    #[error("unreadable record value: exactly one of events and refusal must be there")]
    Outcome,
    /// The record is a claim or a close, which holds no entry.
    #[error("a claim or a close is no command's record")]
    NoEntry,
}

/// The value of a commit or a refusal; it borrows from the bytes that it was read from.
#[derive(Debug, Clone)]
pub struct EntryView<'a> {
    /// The stream, as in the record's key.
    pub stream: StreamId,
    /// What was asked, and by whom.
    pub command: CommandView<'a>,
    /// What came of it.
    pub outcome: OutcomeView<'a>,
    /// Further facts, `{}` if none.
    pub metadata: &'a RawValue,
    /// What the command is part of.
    pub correlation: Cow<'a, str>,
    /// What caused the command.
    pub causation: Option<Cow<'a, str>>,
}

/// What was asked, and by whom.
#[derive(Debug, Clone, Deserialize)]
pub struct CommandView<'a> {
    /// The command's name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// What tells a repeat from another command.
    pub fingerprint: Fingerprint,
    /// Who asked.
    #[serde(borrow)]
    pub actor: ActorView<'a>,
    /// The command's data as it is stored.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// Who asked.
#[derive(Debug, Clone, Deserialize)]
pub struct ActorView<'a> {
    /// The caller's pseudonymous id.
    #[serde(borrow)]
    pub sub: Cow<'a, str>,
    /// The caller's roles.
    pub roles: Vec<String>,
}

/// What came of a command.
#[derive(Debug, Clone)]
pub enum OutcomeView<'a> {
    /// These events, perhaps none.
    Events(Vec<EventView<'a>>),
    /// A rule's no.
    Refusal(RefusalView<'a>),
}

/// One event.
#[derive(Debug, Clone, Deserialize)]
pub struct EventView<'a> {
    /// The event's id.
    pub id: EventId,
    /// The event's type.
    #[serde(borrow, rename = "type")]
    pub type_name: Cow<'a, str>,
    /// The number of its shape.
    pub schema: u32,
    /// The event's data as it is stored.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// A rule's no.
#[derive(Debug, Clone, Deserialize)]
pub struct RefusalView<'a> {
    /// The reason.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
    /// Its details as they are stored.
    #[serde(borrow)]
    pub detail: &'a RawValue,
}

/// The fields as JSON has them.
#[derive(Deserialize)]
struct Fields<'a> {
    stream: StreamId,
    #[serde(borrow)]
    command: CommandView<'a>,
    #[serde(borrow)]
    events: Option<Vec<EventView<'a>>>,
    #[serde(borrow)]
    refusal: Option<RefusalView<'a>>,
    #[serde(borrow)]
    metadata: &'a RawValue,
    #[serde(borrow)]
    correlation: Cow<'a, str>,
    #[serde(borrow)]
    causation: Option<Cow<'a, str>>,
}

impl<'a> EntryView<'a> {
    /// Reads a stored value; unknown fields are passed over.
    ///
    /// # Errors
    ///
    /// [`ValueError`] if it is not the JSON of a commit or a refusal.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        let fields: Fields<'a> = serde_json::from_slice(value)?;
        let outcome = match (fields.events, fields.refusal) {
            (Some(events), None) => OutcomeView::Events(events),
            (None, Some(refusal)) => OutcomeView::Refusal(refusal),
            (Some(_), Some(_)) | (None, None) => return Err(ValueError::Outcome),
        };
        Ok(Self {
            stream: fields.stream,
            command: fields.command,
            outcome,
            metadata: fields.metadata,
            correlation: fields.correlation,
            causation: fields.causation,
        })
    }

    /// The events; none of a refusal.
    #[must_use]
    pub fn events(&self) -> &[EventView<'a>] {
        match &self.outcome {
            OutcomeView::Events(events) => events,
            OutcomeView::Refusal(_) => &[],
        }
    }
}

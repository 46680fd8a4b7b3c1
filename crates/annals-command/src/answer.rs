//! What a command's sender learns: an [`Answer`] that is on the record, or a [`SendError`] that says what is known.

use std::time::Duration;

use annals_record::record::Record;
use annals_record::value::{EntryView, OutcomeView, ValueError};
use annals_record::{EventId, Position, RecordId, StreamId, Version};
use serde_json::value::RawValue;

/// The answer to a command; it follows from an accepted record and from nothing else.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The record.
    pub record: RecordId,
    /// Its stream.
    pub stream: StreamId,
    /// Where it stands.
    pub position: Position,
    /// The stream's version behind it.
    pub version: Version,
    /// What came of the command.
    pub outcome: Outcome,
    /// Whether this is a first answer given again.
    pub replayed: bool,
}

/// What came of a command.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// These events, possibly none.
    Committed(Vec<EventRef>),
    /// The rules said no.
    Rejected {
        /// `out_of_stock`.
        code: String,
        /// An object.
        detail: Box<RawValue>,
    },
    /// The precondition failed.
    VersionMismatch {
        /// The stream's version when it was compared.
        current: Version,
    },
}

/// One event of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRef {
    /// UUIDv5 of record and index.
    pub id: EventId,
    /// `order.placed`.
    pub event_type: String,
    /// The stream's version with it.
    pub version: Version,
}

impl Answer {
    /// Whether the stream begins with this record: a 201.
    pub fn began(&self) -> bool {
        match &self.outcome {
            Outcome::Committed(events) => events
                .first()
                .is_some_and(|event| event.version == Version::new(1)),
            Outcome::Rejected { .. } | Outcome::VersionMismatch { .. } => false,
        }
    }

    /// Reads the answer that an accepted record stands for.
    ///
    /// # Errors
    /// If the record's value does not read, or it is neither commit nor refusal.
    pub fn of_record(record: &Record, position: Position, replayed: bool) -> Result<Self, ValueError> {
        let view = EntryView::parse(&record.value)?;
        let (entry, stream) = match (record.entry(), &record.stream) {
            (Some(entry), Some(stream)) => (entry, stream.clone()),
            _ => return Err(ValueError::NoEntry),
        };
        let before = Version::new(entry.version.get().saturating_sub(1));
        let (outcome, version) = match view.outcome {
            OutcomeView::Events(events) => {
                let refs: Vec<_> = (1u64..)
                    .zip(&events)
                    .map(|(n, event)| EventRef {
                        id: event.id,
                        event_type: event.type_name.to_string(),
                        version: Version::new(before.get() + n),
                    })
                    .collect();
                let version = refs.last().map_or(before, |last| last.version);
                (Outcome::Committed(refs), version)
            }
            OutcomeView::Refusal(refusal) if refusal.code == annals_domain::VERSION_MISMATCH => {
                (Outcome::VersionMismatch { current: before }, before)
            }
            OutcomeView::Refusal(refusal) => {
                let detail = refusal.detail.to_owned();
                (
                    Outcome::Rejected {
                        code: refusal.code.to_string(),
                        detail,
                    },
                    before,
                )
            }
        };
        Ok(Self {
            record: entry.id,
            stream,
            position,
            version,
            outcome,
            replayed,
        })
    }
}

/// Why there is no answer. What each says of whether it happened is part of its contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nothing happened here: another node owns the shard.
    #[error("another node owns the shard")]
    NotOwner {
        /// The owner's internal address.
        url: String,
    },
    /// Nothing happened: no owner is known, or this node is becoming it.
    #[error("the shard has no owner right now")]
    ShardUnavailable,
    /// Nothing happened: the shard is halted or closed until an operator acts.
    #[error("the shard is halted")]
    ShardHalted,
    /// Nothing happened: a queue or a limit is full.
    #[error("this node is overloaded")]
    Overloaded,
    /// Nothing happened: the journal cannot be read, or the log has not answered for too long.
    #[error("the log is unavailable")]
    LogUnavailable,
    /// It may have happened: send it again with the same key.
    #[error("the outcome is not known yet")]
    OutcomeUnknown,
    /// Nothing happened: the stream is not the caller's.
    #[error("the stream is not the caller's")]
    Forbidden,
    /// Nothing happened: the key was used for another command, or by another caller.
    #[error("the idempotency key was used for another command")]
    KeyReused,
    /// Nothing happened: too many of this caller's commands were refused.
    #[error("too many of this caller's commands were refused")]
    RefusalBudget {
        /// When there is room for one more.
        retry_after: Duration,
        /// How many refusals fit the bucket.
        burst: u32,
        /// How many a minute refill it.
        per_minute: u32,
    },
    /// Nothing happened: the record would be larger than the log takes.
    #[error("the record would have {bytes} bytes, and {limit} is the limit")]
    TooLarge {
        /// Bytes of the record.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Nothing was decided: a defect, logged with the correlation id.
    #[error("an internal error")]
    Internal,
}

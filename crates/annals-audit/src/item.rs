//! A record as auditors see it: decoded, but as stored.

use annals_record::record::{Kind, Record};
use annals_record::value::{EntryView, OutcomeView};
use annals_record::{EventId, Position, RecordId, StreamId, Version, hash};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::AuditError;

/// One accepted record.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// Where it stands.
    pub position: Position,
    /// Its id.
    pub record: RecordId,
    /// `commit`, `refusal`, `claim`, `close`.
    pub kind: &'static str,
    /// Its stream; null for claims and closes.
    pub stream: Option<StreamId>,
    /// The version of its first event; with no events the next one.
    pub version: Option<Version>,
    /// The decision's time, RFC 3339 with milliseconds.
    pub time: String,
    /// Who sent the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<ItemActor>,
    /// The command: name and data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<ItemCommand>,
    /// `events` or `refusal`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Carried from the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// What it followed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation: Option<String>,
    /// The record's hash, hexadecimal.
    pub hash: String,
}

/// Who sent a command.
#[derive(Debug, Clone, Serialize)]
pub struct ItemActor {
    /// The pseudonymous id.
    pub sub: String,
    /// The roles at that time.
    pub roles: Vec<String>,
}

/// A command as stored.
#[derive(Debug, Clone, Serialize)]
pub struct ItemCommand {
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: Box<RawValue>,
}

/// What came of a command.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// These events.
    Events(Vec<ItemEvent>),
    /// The rules' no.
    Refusal {
        /// The code.
        code: String,
        /// The detail.
        detail: Box<RawValue>,
    },
}

/// One event as stored.
#[derive(Debug, Clone, Serialize)]
pub struct ItemEvent {
    /// Its id.
    pub id: EventId,
    /// `order.placed`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The schema that it was written in.
    pub schema: u32,
    /// The stream's version with it.
    pub stream_version: Version,
    /// Its data.
    pub data: Box<RawValue>,
}

/// A page of records.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// The records.
    pub data: Vec<Item>,
    /// The value of `after` for the next page; null behind the last.
    pub next: Option<String>,
}

/// A record's exact bytes, to be hashed by anyone.
#[derive(Debug, Clone, Serialize)]
pub struct RawItem {
    /// Where it stands.
    pub position: Position,
    /// The key; null for claims and closes.
    pub key: Option<String>,
    /// The timestamp, ms since 1970.
    pub timestamp_ms: i64,
    /// Name and value of each header, in stored order. They are ASCII.
    pub headers: Vec<(String, String)>,
    /// The value in base64 (RFC 4648, section 4).
    pub value: String,
    /// The record's hash, hexadecimal.
    pub hash: String,
}

impl Item {
    pub(crate) fn of(position: Position, record: &Record) -> Result<Self, AuditError> {
        let unreadable = |what: String| AuditError::Unreadable(format!("{position}: {what}"));
        let time = DateTime::from_timestamp_millis(record.timestamp_ms)
            .ok_or_else(|| unreadable("a time beyond the calendar".to_owned()))?;
        let mut item = Self {
            position,
            record: record.id(),
            kind: record.kind().as_str(),
            stream: record.stream.clone(),
            version: record.entry().map(|entry| entry.version),
            time: time.to_rfc3339_opts(SecondsFormat::Millis, true),
            actor: None,
            command: None,
            outcome: None,
            correlation: None,
            causation: None,
            hash: hash::record_hash(record).to_string(),
        };
        if matches!(record.kind(), Kind::Claim | Kind::Close) {
            return Ok(item);
        }
        let view = EntryView::parse(&record.value).map_err(|error| unreadable(error.to_string()))?;
        let first = item.version.unwrap_or_default();
        item.outcome = Some(outcome(&view.outcome, first));
        item.actor = Some(ItemActor {
            sub: view.command.actor.sub.into_owned(),
            roles: view.command.actor.roles,
        });
        item.command = Some(ItemCommand {
            name: view.command.name.into_owned(),
            data: view.command.data.to_owned(),
        });
        item.correlation = Some(view.correlation.into_owned());
        item.causation = view.causation.map(std::borrow::Cow::into_owned);
        Ok(item)
    }
}

fn outcome(outcome: &OutcomeView<'_>, first: Version) -> Outcome {
    match outcome {
        OutcomeView::Events(events) => Outcome::Events(
            (0u64..)
                .zip(events)
                .map(|(n, event)| ItemEvent {
                    id: event.id,
                    event_type: event.type_name.to_string(),
                    schema: event.schema,
                    stream_version: first.plus(n),
                    data: event.data.to_owned(),
                })
                .collect(),
        ),
        OutcomeView::Refusal(refusal) => Outcome::Refusal {
            code: refusal.code.to_string(),
            detail: refusal.detail.to_owned(),
        },
    }
}

impl RawItem {
    pub(crate) fn of(position: Position, record: &Record) -> Self {
        let mut headers = Vec::new();
        record.meta.visit_headers(|name, value| {
            headers.push((name.to_owned(), String::from_utf8_lossy(value).into_owned()));
        });
        Self {
            position,
            key: record.stream.as_ref().map(ToString::to_string),
            timestamp_ms: record.timestamp_ms,
            headers,
            value: STANDARD.encode(&record.value),
            hash: hash::record_hash(record).to_string(),
        }
    }
}

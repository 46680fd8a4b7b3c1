//! A test of a read model: given events, then rows.
//!
//! ```json
//! { "name": "a confirmed order",
//!   "given": [ { "stream": "order-0192f…", "type": "order.placed", "schema": 1, "data": { },
//!                "at": "2026-01-02T10:00:00Z", "actor": "ann" } ],
//!   "then": { "orders": [ { "order_id": "0192f…", "status": "confirmed" } ] } }
//! ```
//!
//! `schema` is the newest one if it is left out, `at` one second after the event before, `actor` is `test`. Each
//! event is a record of its own; versions are counted by stream. `then` names every row of every table: a column
//! that is left out is null, a table that is left out is empty. `_version` is not named: it follows from `given`.
//! A personal field is written as records have it, `{"personal": "Ada"}`, and opens to its text.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_domain::Catalog;
use annals_log::{Actor, DecodedEvent, Entry};
use annals_record::{EventId, Hash32, RecordId, StreamId, Version};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// One test.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, as a sentence.
    pub name: String,
    /// What has happened, in order.
    pub given: Vec<Given>,
    /// The rows of each table then.
    pub then: BTreeMap<String, Vec<Map<String, Value>>>,
    /// The events as readers give them; made of `given`.
    #[serde(skip)]
    pub(super) entries: Vec<Arc<Entry>>,
}

/// One event that has happened.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Its stream.
    pub stream: StreamId,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The schema of `data`.
    pub schema: Option<u32>,
    /// Its data.
    pub data: Box<RawValue>,
    /// When.
    pub at: Option<DateTime<Utc>>,
    /// Who.
    pub actor: Option<String>,
}

/// What is wrong with a test's file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub struct CaseError {
    file: PathBuf,
    what: String,
}

/// 2026-01-01T00:00:00Z, in ms.
const BEGIN_MS: i64 = 1_767_225_600_000;

impl Case {
    /// Reads a test.
    ///
    /// # Errors
    /// [`CaseError`]: not JSON of this form, an unknown event, data that do not fit their schema.
    pub fn load(file: &Path, catalog: &Catalog) -> Result<Self, CaseError> {
        let wrong = |what: String| CaseError {
            file: file.to_owned(),
            what,
        };
        let text =
            std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let mut case: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        case.entries = entries(&case.given, catalog).map_err(wrong)?;
        Ok(case)
    }

    /// The version of each stream after all events.
    pub(super) fn versions(&self) -> HashMap<&str, u64> {
        let mut versions = HashMap::new();
        for given in &self.given {
            *versions.entry(given.stream.as_str()).or_insert(0) += 1;
        }
        versions
    }
}

fn entries(given: &[Given], catalog: &Catalog) -> Result<Vec<Arc<Entry>>, String> {
    let mut time = DateTime::from_timestamp_millis(BEGIN_MS).unwrap_or_default();
    let mut versions: HashMap<&StreamId, u64> = HashMap::new();
    let mut entries = Vec::new();
    for (index, given) in given.iter().enumerate() {
        let wrong = |what: String| format!("given[{index}]: {what}");
        let event = catalog
            .event(&given.event_type)
            .ok_or_else(|| wrong(format!("no event `{}` is registered", given.event_type)))?;
        let schema = given.schema.unwrap_or(event.newest());
        let upcast = catalog
            .upcast(&given.event_type, schema, &given.data)
            .map_err(|error| wrong(error.to_string()))?;
        time = given.at.unwrap_or(time + TimeDelta::seconds(1));
        let version = versions.entry(&given.stream).or_insert(0);
        *version += 1;
        let record = record_id(index, time);
        let decoded = DecodedEvent {
            id: EventId::of(record, 0),
            event_type: given.event_type.as_str().into(),
            version: Version::new(*version),
            schema,
            stored: given.data.clone(),
            upcast,
        };
        entries.push(Arc::new(Entry {
            record,
            stream: given.stream.clone(),
            version: Version::new(*version),
            time,
            command: "test".into(),
            data: empty(),
            fingerprint: Hash32::new([0; 32]),
            actor: Actor {
                sub: given.actor.as_deref().unwrap_or("test").into(),
                roles: Box::default(),
            },
            outcome: Ok(vec![decoded]),
            metadata: empty(),
            correlation: "".into(),
            causation: None,
        }));
    }
    Ok(entries)
}

fn record_id(index: usize, time: DateTime<Utc>) -> RecordId {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&u64::try_from(index).unwrap_or(u64::MAX).to_be_bytes());
    RecordId::from_parts(u64::try_from(time.timestamp_millis()).unwrap_or(0), bytes)
}

fn empty() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("it is JSON")
}

//! A stream's state at a moment, by replaying its events.

use annals_record::record::Record;
use annals_record::value::{EntryView, OutcomeView};
use annals_record::{Offset, Position, StreamId, Version};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Audit, AuditError};

/// Up to where to replay.
#[derive(Debug, Clone, Copy)]
pub enum Upto {
    /// Everything.
    Now,
    /// Up to and with this version.
    Version(Version),
    /// Up to and with what was decided at this time.
    Time(DateTime<Utc>),
}

/// A state as it was.
#[derive(Debug, Clone, Serialize)]
pub struct StateAt {
    /// The stream.
    pub stream: StreamId,
    /// Its version then.
    pub version: Version,
    /// The last record that is in it.
    pub position: Position,
    /// The state; personal fields as stored.
    pub data: Box<RawValue>,
}

/// Rows read at once.
const ROWS: u32 = 1_000;

impl Audit {
    /// The state of a stream at a moment.
    ///
    /// # Errors
    /// [`AuditError::NotFound`] if the stream had not begun then, or never had that version.
    pub async fn state(&self, stream: &StreamId, upto: Upto) -> Result<StateAt, AuditError> {
        let aggregate = self
            .catalog
            .category(stream.category())
            .ok_or(AuditError::NotFound("stream"))?;
        let shard = self.shards.shard_of(stream);
        let mut state = aggregate.initial();
        let (mut version, mut last, mut from) = (Version::new(0), None, Offset::new(0));
        'pages: loop {
            let rows = self.journal.page_of_stream(stream, from, ROWS).await?;
            let full = rows.len() == usize::try_from(ROWS).unwrap_or(usize::MAX);
            for (offset, record) in &rows {
                from = offset.next();
                if !is_within(record, upto) {
                    break 'pages;
                }
                let unreadable = |error: String| {
                    AuditError::Unreadable(format!("{}: {error}", self.position(shard, *offset)))
                };
                let view = EntryView::parse(&record.value).map_err(|error| unreadable(error.to_string()))?;
                let OutcomeView::Events(events) = &view.outcome else {
                    continue;
                };
                for event in events {
                    if matches!(upto, Upto::Version(wanted) if version >= wanted) {
                        break 'pages;
                    }
                    let evolved = state.evolve(&event.type_name, event.schema, event.data);
                    evolved.map_err(|error| unreadable(error.to_string()))?;
                    version = version.next();
                    last = Some(*offset);
                }
            }
            if !full {
                break;
            }
        }
        let missing = matches!(upto, Upto::Version(wanted) if wanted != version);
        let position = match last {
            Some(offset) if !missing => self.position(shard, offset),
            _ => return Err(AuditError::NotFound("version of the stream")),
        };
        let json = state.to_json().and_then(|json| serde_json::from_slice(&json));
        let data = json.map_err(|error| AuditError::Unreadable(error.to_string()))?;
        Ok(StateAt {
            stream: stream.clone(),
            version,
            position,
            data,
        })
    }
}

fn is_within(record: &Record, upto: Upto) -> bool {
    match upto {
        Upto::Now | Upto::Version(_) => true,
        Upto::Time(time) => record.timestamp_ms <= time.timestamp_millis(),
    }
}

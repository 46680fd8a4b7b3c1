//! From a record's bytes to an [`Entry`]: parsed once, its events brought up to their newest schemas.

use annals_domain::{Catalog, ReadError, Refusal};
use annals_record::record::{self, Kind, Record};
use annals_record::value::{ActorView, EntryView, EventView, OutcomeView, ValueError};
use chrono::DateTime;

use super::{Actor, DecodedEvent, Entry};

/// Why the value of an accepted record cannot be read. It stays in the log, so trying again does not help:
/// another release may read it.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON of its kind.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// An event that this program does not know, or whose data do not fit.
    #[error("event {index}: {source}")]
    Event {
        /// Which event of the record, from 0.
        index: usize,
        /// What is wrong with it.
        source: ReadError,
    },
    /// Key, headers and value contradict each other.
    #[error("headers and value contradict each other: {0}")]
    Contradiction(&'static str),
}

/// Decodes a commit or a refusal; `None` for claims and closes.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(catalog: &Catalog, record: &Record) -> Result<Option<Entry>, DecodeError> {
    let (Some(stream), Some(meta)) = (&record.stream, record.entry()) else {
        return Ok(None);
    };
    let view = EntryView::parse(&record.value)?;
    if view.stream != *stream {
        return Err(DecodeError::Contradiction("another stream than the key"));
    }
    let time = DateTime::from_timestamp_millis(record.timestamp_ms)
        .ok_or(DecodeError::Contradiction("a time beyond the calendar"))?;
    Ok(Some(Entry {
        record: meta.id,
        stream: stream.clone(),
        version: meta.version,
        time,
        command: view.command.name.into(),
        data: view.command.data.to_owned(),
        fingerprint: view.command.fingerprint.get(),
        actor: actor(view.command.actor),
        outcome: outcome(catalog, record.kind(), meta, view.outcome)?,
        metadata: view.metadata.to_owned(),
        correlation: view.correlation.into(),
        causation: view.causation.map(Into::into),
    }))
}

fn actor(view: ActorView<'_>) -> Actor {
    Actor {
        sub: view.sub.into(),
        roles: view.roles.into_iter().map(String::into_boxed_str).collect(),
    }
}

fn outcome(
    catalog: &Catalog,
    kind: Kind,
    meta: &record::Entry,
    view: OutcomeView<'_>,
) -> Result<Result<Vec<DecodedEvent>, Refusal>, DecodeError> {
    match (kind, view) {
        (Kind::Commit, OutcomeView::Events(events)) => {
            if u32::try_from(events.len()) != Ok(meta.count) {
                return Err(DecodeError::Contradiction(
                    "another number of events than `count`",
                ));
            }
            let events = events.into_iter().zip(0_u32..);
            events
                .map(|(event, index)| decode_event(catalog, meta, event, index))
                .collect::<Result<_, _>>()
                .map(Ok)
        }
        (Kind::Refusal, OutcomeView::Refusal(refusal)) => Ok(Err(Refusal {
            code: refusal.code.into_owned(),
            detail: refusal.detail.to_owned(),
        })),
        _ => Err(DecodeError::Contradiction("another outcome than `kind`")),
    }
}

fn decode_event(
    catalog: &Catalog,
    meta: &record::Entry,
    event: EventView<'_>,
    index: u32,
) -> Result<DecodedEvent, DecodeError> {
    let upcast = catalog.upcast(&event.type_name, event.schema, event.data);
    let upcast = upcast.map_err(|source| DecodeError::Event {
        index: usize::try_from(index).unwrap_or(usize::MAX),
        source,
    })?;
    Ok(DecodedEvent {
        id: event.id,
        event_type: event.type_name.into(),
        version: meta.version.plus(u64::from(index)),
        schema: event.schema,
        stored: event.data.to_owned(),
        upcast,
    })
}

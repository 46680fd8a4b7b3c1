//! What is handed to a projector: the events of one shard between two checkpoints, their data made ready.

use std::collections::HashMap;
use std::sync::Arc;

use annals_domain::personal::{self, SEALED_MEMBER};
use annals_log::{Batch, Checkpoint, DecodedEvent, Entry};
use annals_record::{Offset, Shard};
use async_trait::async_trait;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{ApplyError, ParkedStreams, Plan};

/// What was read of one shard.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The shard.
    pub shard: Shard,
    /// Where the projection is.
    pub from: Checkpoint,
    /// Where it will be.
    pub to: Checkpoint,
    /// Accepted commits and refusals between them, in order. Refusals are passed over.
    pub entries: Vec<(Offset, Arc<Entry>)>,
}

/// One event at its place.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its record.
    pub entry: Arc<Entry>,
    /// Which of the record's events, from 0.
    pub index: usize,
    /// Its shard.
    pub shard: Shard,
    /// Its record's offset.
    pub offset: Offset,
}

/// The text of a sealed personal value, as it stands under `personal`.
pub type Sealed = str;

/// Decrypts personal values, many at once.
#[async_trait]
pub trait OpenPersonal: Send + Sync {
    /// One answer for each text, in order: the plain value, or none if the data subject's key is gone.
    ///
    /// # Errors
    /// [`OpenError`] if it cannot be known for now; nothing is applied then.
    async fn open(&self, sealed: &[Box<Sealed>]) -> Result<Vec<Option<Value>>, OpenError>;
}

/// Personal values cannot be decrypted for now.
#[derive(Debug, thiserror::Error)]
#[error("personal data cannot be decrypted: {0}")]
pub struct OpenError(pub String);

impl Delivery {
    /// What a reader brought.
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        let entries = batch.records.iter().filter_map(|accepted| {
            let entry = accepted.entry()?;
            Some((accepted.offset(), Arc::clone(entry)))
        });
        Self {
            shard: batch.shard,
            from: batch.from.clone(),
            to: batch.to.clone(),
            entries: entries.collect(),
        }
    }

    /// The same for one projection: what does not concern it only moves its checkpoint.
    pub(crate) fn concerning(batch: &Batch, plan: &Plan) -> Self {
        let mut delivery = Self::of(batch);
        delivery.entries.retain(|(_, entry)| {
            let category = entry.stream.category();
            entry.outcome.as_ref().is_ok_and(|events| {
                events
                    .iter()
                    .any(|event| plan.concerns(category, &event.event_type))
            })
        });
        delivery
    }

    /// Adds what was read of the same shard right behind this.
    pub fn extend(&mut self, later: Self) {
        self.to = later.to;
        self.entries.extend(later.entries);
    }

    /// Appends the events that concern a projection.
    pub(crate) fn collect(&self, plan: &Plan, events: &mut Vec<Event>) {
        for (offset, entry) in &self.entries {
            let Ok(decoded) = &entry.outcome else { continue };
            for (index, event) in decoded.iter().enumerate() {
                if plan.concerns(entry.stream.category(), &event.event_type) {
                    events.push(Event {
                        entry: Arc::clone(entry),
                        index,
                        shard: self.shard,
                        offset: *offset,
                    });
                }
            }
        }
    }
}

impl Event {
    /// The event within its record; `None` only if the index is not one of the record's.
    #[must_use]
    pub fn decoded(&self) -> Option<&DecodedEvent> {
        self.entry.outcome.as_ref().ok()?.get(self.index)
    }

    /// Shard, offset and index as the table has them.
    pub(crate) fn place(&self) -> Result<(i32, i64, i32), ApplyError> {
        Ok((
            encoded(i32::try_from(self.shard))?,
            encoded(i64::try_from(self.offset))?,
            encoded(i32::try_from(self.index))?,
        ))
    }
}

/// Events with their data as statements see them.
pub(crate) struct Prepared {
    pub(crate) events: Vec<Event>,
    /// By index of the event, where the data are not those of the record.
    replaced: HashMap<usize, Box<RawValue>>,
}

impl Prepared {
    /// Personal fields become plain for a projection with private columns, null for all others.
    pub(crate) async fn new(
        events: Vec<Event>,
        private: bool,
        opener: &dyn OpenPersonal,
    ) -> Result<Self, ApplyError> {
        let mut values: Vec<(usize, Value)> = Vec::new();
        for (at, event) in events.iter().enumerate() {
            let Some(decoded) = event.decoded() else { continue };
            let text = decoded.data().get();
            // Both forms of a personal field carry one of these names; most events carry neither.
            if (text.contains("\"personal\"") || text.contains("\"erased\""))
                && let Ok(value) = serde_json::from_str(text)
            {
                values.push((at, value));
            }
        }
        let mut opened = HashMap::new();
        if private && !values.is_empty() {
            let mut sealed = Vec::new();
            for (_, value) in &values {
                sealed_in(value, &mut sealed);
            }
            sealed.sort_unstable();
            sealed.dedup();
            let answers = opener.open(&sealed).await?;
            if answers.len() != sealed.len() {
                return Err(OpenError("the answers do not match what was asked".to_owned()).into());
            }
            opened = sealed.into_iter().zip(answers).collect();
        }
        let mut replaced = HashMap::new();
        for (at, mut value) in values {
            let mut open = |text: &str| opened.get(text).cloned().flatten();
            if personal::replace_sealed(&mut value, &mut open)
                && let Ok(raw) = serde_json::value::to_raw_value(&value)
            {
                replaced.insert(at, raw);
            }
        }
        Ok(Self { events, replaced })
    }

    pub(crate) fn event_type(&self, at: usize) -> Option<&str> {
        let event = self.events.get(at)?;
        event.decoded().map(|decoded| &*decoded.event_type)
    }

    pub(crate) fn stream(&self, at: usize) -> &str {
        self.events
            .get(at)
            .map_or("", |event| event.entry.stream.as_str())
    }

    pub(crate) fn data<'a>(&'a self, at: usize, decoded: &'a DecodedEvent) -> &'a RawValue {
        match self.replaced.get(&at) {
            Some(raw) => raw,
            None => decoded.data(),
        }
    }

    /// The events of streams that are not parked, and of those that are.
    pub(crate) fn apart(&self, parked: &ParkedStreams) -> (Vec<usize>, Vec<usize>) {
        let all = 0..self.events.len();
        if parked.is_empty() {
            return (all.collect(), Vec::new());
        }
        all.partition(|&at| !parked.contains(self.stream(at)))
    }

    /// The keys of a category's streams among some events, and the newest version of each; without those whose
    /// rows a statement brought there: `settled` holds, by stream, the event up to which that is so.
    pub(crate) fn newest_versions(
        &self,
        events: &[usize],
        category: &str,
        settled: Option<&HashMap<&str, usize>>,
    ) -> Result<(Vec<&str>, Vec<i64>), ApplyError> {
        let mut newest: HashMap<&str, usize> = HashMap::new();
        for &at in events {
            // A stream's events come in order: the last one is the newest.
            newest.insert(self.stream(at), at);
        }
        let (mut keys, mut versions) = (Vec::new(), Vec::new());
        for (stream, at) in newest {
            let is_settled = settled.is_some_and(|settled| settled.get(stream) == Some(&at));
            if let Some(event) = self.events.get(at)
                && event.entry.stream.category() == category
                && !is_settled
                && let Some(decoded) = event.decoded()
            {
                keys.push(event.entry.stream.key());
                versions.push(encoded(i64::try_from(decoded.version))?);
            }
        }
        Ok((keys, versions))
    }
}

/// A number that Postgres cannot hold is an error of encoding, which is of class "data".
pub(crate) fn encoded<T, E>(value: Result<T, E>) -> Result<T, ApplyError>
where
    E: std::error::Error + Send + Sync + 'static,
{
    value.map_err(|error| ApplyError::of(sqlx::Error::Encode(Box::new(error))))
}

fn sealed_in(value: &Value, found: &mut Vec<Box<str>>) {
    match value {
        Value::Object(map) => match (map.len(), map.get(SEALED_MEMBER)) {
            (1, Some(Value::String(text))) => found.push(text.as_str().into()),
            _ => map.values().for_each(|member| sealed_in(member, found)),
        },
        Value::Array(list) => list.iter().for_each(|item| sealed_in(item, found)),
        _ => {}
    }
}

/// Opens nothing: every personal value is null. For programs without personal data.
#[derive(Debug, Clone, Copy, Default)]
pub struct Closed;

#[async_trait]
impl OpenPersonal for Closed {
    async fn open(&self, sealed: &[Box<Sealed>]) -> Result<Vec<Option<Value>>, OpenError> {
        Ok(vec![None; sealed.len()])
    }
}

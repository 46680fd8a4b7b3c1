//! The writer's tail: accepted records that the journal may not have yet, by offset and by stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use annals_record::record::Record;
use annals_record::{Offset, StreamId};

/// Accepted commits and refusals from an offset on.
#[derive(Debug)]
pub struct Tail {
    from: Offset,
    records: VecDeque<(Offset, Arc<Record>)>,
    by_stream: HashMap<StreamId, VecDeque<Offset>>,
    bytes: usize,
}

impl Tail {
    pub(super) fn new(from: Offset) -> Self {
        Self {
            from,
            records: VecDeque::new(),
            by_stream: HashMap::new(),
            bytes: 0,
        }
    }

    /// Where it begins: a load whose journal ends below this must be done again.
    pub fn from(&self) -> Offset {
        self.from
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The record at `offset`, if the tail holds it.
    pub fn get(&self, offset: Offset) -> Option<&Arc<Record>> {
        let index = self.records.binary_search_by_key(&offset, |(at, _)| *at).ok()?;
        self.records.get(index).map(|(_, record)| record)
    }

    /// The records of a stream at or above `from`, by offset.
    pub fn of_stream(&self, stream: &StreamId, from: Offset) -> impl Iterator<Item = (Offset, &Arc<Record>)> {
        let offsets = self.by_stream.get(stream).into_iter().flatten();
        offsets
            .filter(move |offset| **offset >= from)
            .filter_map(|offset| Some((*offset, self.get(*offset)?)))
    }

    pub(super) fn push(&mut self, offset: Offset, record: &Arc<Record>) {
        let Some(stream) = &record.stream else { return };
        self.by_stream
            .entry(stream.clone())
            .or_default()
            .push_back(offset);
        self.bytes += record.stored_bytes();
        self.records.push_back((offset, Arc::clone(record)));
    }

    pub(super) fn trim(&mut self, journal: Offset) {
        self.from = self.from.max(journal);
        while let Some((_, record)) = self.records.pop_front_if(|(offset, _)| *offset < journal) {
            self.bytes -= record.stored_bytes();
            let Some(stream) = &record.stream else { continue };
            if let Some(offsets) = self.by_stream.get_mut(stream) {
                offsets.pop_front();
                if offsets.is_empty() {
                    self.by_stream.remove(stream);
                }
            }
        }
    }
}

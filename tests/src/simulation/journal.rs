//! The journal and the snapshots, as the tables of Postgres would hold them: rows and their checkpoint move together.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_log::{Batch, Checkpoint, LoadRequest, Loaded, Snapshot};
use annals_record::planted::{Plant, planted};
use annals_record::record::Record;
use annals_record::{Offset, StreamId};

/// Accepted records by place and by stream, and how far they go.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) at: Checkpoint,
    rows: BTreeMap<Offset, Arc<Record>>,
    streams: BTreeMap<StreamId, Vec<Offset>>,
    snapshots: BTreeMap<StreamId, Snapshot>,
}

impl Journal {
    pub(crate) fn new(at: Checkpoint) -> Self {
        Self {
            at,
            rows: BTreeMap::new(),
            streams: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        }
    }

    /// Rows and checkpoint in one transaction, which fails if the checkpoint is not where the batch begins.
    pub(crate) fn commit(&mut self, batch: &Batch) -> bool {
        if self.at != batch.from {
            return false;
        }
        for accepted in &batch.records {
            self.insert(accepted.offset(), accepted.record());
        }
        self.at = batch.to.clone();
        true
    }

    /// One accepted record, with the Postgres log.
    pub(crate) fn insert(&mut self, offset: Offset, record: &Record) {
        if let Some(stream) = &record.stream {
            self.streams.entry(stream.clone()).or_default().push(offset);
        }
        self.rows.insert(offset, Arc::new(record.clone()));
    }

    pub(crate) fn record_at(&self, offset: Offset) -> Option<Arc<Record>> {
        self.rows.get(&offset).cloned()
    }

    /// Snapshot, later rows and checkpoint of one moment.
    pub(crate) fn load(&self, request: &LoadRequest) -> Loaded {
        let snapshot = self
            .snapshots
            .get(&request.stream)
            .filter(|kept| !request.in_full && kept.fingerprint == request.fingerprint)
            .cloned();
        let from = snapshot.as_ref().map_or(Offset::new(0), |kept| kept.offset);
        let rows = self.streams.get(&request.stream).into_iter().flatten();
        let rows = rows.map(|offset| (*offset, Arc::clone(&self.rows[offset])));
        let version = snapshot.as_ref().map_or(0, |kept| kept.version.get());
        let is_behind = |offset: Offset, record: &Record| {
            if planted(Plant::RowsByVersion) {
                // The version behind the record's last event: a refusal has none.
                return record
                    .entry()
                    .is_some_and(|entry| entry.version.get() + u64::from(entry.count) > version + 1);
            }
            offset >= from
        };
        Loaded {
            rows: rows
                .filter(|(offset, record)| is_behind(*offset, record))
                .collect(),
            snapshot,
            journal_next: self.at.head.next,
        }
    }

    /// An older snapshot never replaces a newer one.
    pub(crate) fn save(&mut self, snapshot: Snapshot) {
        let kept = self.snapshots.get(&snapshot.stream);
        if kept.is_none_or(|kept| kept.offset <= snapshot.offset) {
            self.snapshots.insert(snapshot.stream.clone(), snapshot);
        }
    }
}

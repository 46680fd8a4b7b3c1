//! One stream in memory: its state, its version, what is in flight, its keys.
//!
//! There is one state a stream, evolved when a record is decided, before it is durable. Four rules keep it true,
//! and the model finds a violation without each: a stream is dropped when a record of its own did not count; it
//! is dropped when a record that this node did not decide is accepted; a key learns its offset when its record
//! is accepted; a snapshot is taken only with nothing in flight.

use std::collections::VecDeque;

use annals_domain::catalog::{AggregateType, AnyState};
use annals_log::{KeyTrail, Loaded, Snapshot};
use annals_record::planted::{Plant, planted};
use annals_record::record::Record;
use annals_record::value::{EntryView, OutcomeView};
use annals_record::{Hash32, Offset, StreamId, Version};
use bytes::Bytes;

use crate::keys::{Keys, Seen, short};
use crate::shard::Waiting;

/// What a slot takes beside its state, about: map entry, queue entry, the struct.
const SLOT_BYTES: usize = 512;
/// A state is measured anew once the records behind the last measure have more bytes than it, or than this.
const MEASURED_FROM: usize = 4 << 10;

/// A stream that commands wait for, or one that is there.
#[derive(Debug)]
pub(crate) enum Slot {
    Loading(Loading),
    Live(Box<Live>),
}

#[derive(Debug, Default)]
pub(crate) struct Loading {
    pub(crate) waiting: VecDeque<Waiting>,
    /// Something was accepted meanwhile that the load may not have seen.
    pub(crate) again: bool,
}

/// A loaded stream.
#[derive(Debug)]
pub(crate) struct Live {
    /// Tells this load of the stream from earlier ones, to which records in flight may still belong.
    pub(crate) incarnation: u64,
    pub(crate) state: AnyState,
    pub(crate) version: Version,
    pub(crate) in_flight: u32,
    pub(crate) keys: Keys,
    /// Accepted records of the stream below this are in the state.
    pub(crate) as_of: Offset,
    /// Records and bytes since the last snapshot, and how large that would be.
    pub(crate) since: Since,
    size: Size,
    /// Commands that wait for an overdue snapshot.
    pub(crate) held: VecDeque<Waiting>,
    /// Touched since the evictor last looked.
    pub(crate) touched: bool,
    /// Bytes accounted for in the cache.
    pub(crate) bytes: usize,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Since {
    pub(crate) records: u32,
    pub(crate) bytes: usize,
    pub(crate) snapshot_bytes: usize,
}

/// How large a state is, about.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// As JSON, when it was last measured.
    measured: usize,
    /// Bytes of the records since then.
    unmeasured: usize,
}

/// Why a stream could not be put together from what was loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The journal ends below the writer's tail: load again.
    #[error("the journal is behind the tail")]
    JournalBehind,
    /// L2, or something that does not read.
    #[error("stream {stream} at offset {offset}: {what}")]
    Broken {
        stream: StreamId,
        offset: Offset,
        what: String,
    },
}

impl Live {
    /// Puts a stream together: snapshot, later journal rows, and the writer's tail behind them.
    pub(crate) fn build<'t>(
        aggregate: &AggregateType,
        stream: &StreamId,
        loaded: Loaded,
        tail_from: Offset,
        tail: impl FnOnce(Offset) -> Box<dyn Iterator<Item = (Offset, &'t Record)> + 't>,
        most_keys: usize,
    ) -> Result<Self, BuildError> {
        if loaded.journal_next < tail_from && !planted(Plant::LoadRacesTrim) {
            return Err(BuildError::JournalBehind);
        }
        let mut live = Self::from_snapshot(aggregate, stream, loaded.snapshot.as_ref())?;
        for key in loaded.snapshot.iter().flat_map(|snapshot| &snapshot.keys) {
            live.keys
                .push(key.hash, Seen::At(key.offset), key.time_ms, most_keys);
        }
        for (offset, record) in &loaded.rows {
            live.take(stream, *offset, record, most_keys)?;
        }
        live.as_of = live.as_of.max(loaded.journal_next);
        let behind = if planted(Plant::LoadedAheadOfFold) {
            tail_from
        } else {
            live.as_of
        };
        for (offset, record) in tail(behind).filter(|_| !planted(Plant::LoadWithoutTail)) {
            live.take(stream, offset, record, most_keys)?;
        }
        live.measure();
        Ok(live)
    }

    fn from_snapshot(
        aggregate: &AggregateType,
        stream: &StreamId,
        snapshot: Option<&Snapshot>,
    ) -> Result<Self, BuildError> {
        let broken = |offset, what| BuildError::Broken {
            stream: stream.clone(),
            offset,
            what,
        };
        let (state, version, as_of, bytes) = match snapshot {
            None => (aggregate.initial(), Version::new(0), Offset::new(0), 0),
            Some(snapshot) => {
                let state = aggregate.restore(&snapshot.state);
                let state =
                    state.map_err(|error| broken(snapshot.offset, format!("its snapshot: {error}")))?;
                (state, snapshot.version, snapshot.offset, snapshot.state.len())
            }
        };
        Ok(Self {
            incarnation: 0,
            state,
            version,
            in_flight: 0,
            keys: Keys::default(),
            as_of,
            since: Since {
                records: 0,
                bytes: 0,
                snapshot_bytes: bytes,
            },
            size: Size {
                measured: bytes,
                unmeasured: 0,
            },
            held: VecDeque::new(),
            touched: true,
            bytes: 0,
        })
    }

    /// Takes in an accepted record that was not decided here.
    fn take(
        &mut self,
        stream: &StreamId,
        offset: Offset,
        record: &Record,
        most_keys: usize,
    ) -> Result<(), BuildError> {
        let broken = |what: String| BuildError::Broken {
            stream: stream.clone(),
            offset,
            what,
        };
        let Some(entry) = record.entry() else {
            return Err(broken("a claim or a close".to_owned()));
        };
        let expected = self.version.next();
        if entry.version != expected {
            return Err(broken(format!(
                "L2: version {} where {expected} follows",
                entry.version
            )));
        }
        let view = EntryView::parse(&record.value).map_err(|error| broken(error.to_string()))?;
        if let OutcomeView::Events(events) = &view.outcome {
            for event in events {
                let evolved = self.state.evolve(&event.type_name, event.schema, event.data);
                evolved.map_err(|error| broken(error.to_string()))?;
            }
            self.version = self.version.plus(entry.count.into());
        }
        let time_ms = record.timestamp_ms;
        self.keys
            .push(short(entry.idempotency_key), Seen::At(offset), time_ms, most_keys);
        self.as_of = self.as_of.max(offset.next());
        self.grew(record.value.len());
        Ok(())
    }

    /// Takes note of a record of so many bytes that is in the state.
    fn grew(&mut self, bytes: usize) {
        self.since.records = self.since.records.saturating_add(1);
        self.since.bytes += bytes;
        self.size.unmeasured += bytes;
    }

    /// The same for one that was decided here.
    pub(crate) fn decided(&mut self, bytes: usize) {
        self.grew(bytes);
        self.measure();
    }

    /// Most records leave a state as large as it was: their bytes say little about it, and are counted only until it is
    /// worth looking.
    fn measure(&mut self) {
        let due = self.size.unmeasured > self.size.measured.max(MEASURED_FROM);
        if due && let Ok(state) = self.state.to_json() {
            self.size = Size {
                measured: state.len(),
                unmeasured: 0,
            };
        }
    }

    /// Bytes held, about: a state in memory takes about twice its JSON.
    pub(crate) fn estimate(&self, stream: &StreamId) -> usize {
        let state = 2 * self.size.measured + self.size.unmeasured;
        SLOT_BYTES + 2 * stream.as_str().len() + state + self.keys.bytes()
    }

    /// Whether a snapshot is due, and by how many of its intervals.
    pub(crate) fn overdue(&self, every: u32) -> u32 {
        if self.since.bytes < self.since.snapshot_bytes + self.keys.bytes() {
            return 0;
        }
        self.since.records.checked_div(every).unwrap_or(0)
    }

    /// The state as a snapshot.
    ///
    /// *Invariant:* only with nothing in flight; else the state holds what may never count.
    pub(crate) fn snapshot(
        &mut self,
        stream: &StreamId,
        fingerprint: Hash32,
    ) -> Result<Snapshot, serde_json::Error> {
        debug_assert!(
            self.in_flight == 0 || planted(Plant::SpeculativeSnapshot),
            "a snapshot of speculative state"
        );
        let state = Bytes::from(self.state.to_json()?);
        let keys: Vec<KeyTrail> = self.keys.trails();
        self.since = Since {
            records: 0,
            bytes: 0,
            snapshot_bytes: state.len(),
        };
        self.size = Size {
            measured: state.len(),
            unmeasured: 0,
        };
        Ok(Snapshot {
            stream: stream.clone(),
            offset: self.as_of,
            version: self.version,
            fingerprint,
            state,
            keys,
        })
    }
}

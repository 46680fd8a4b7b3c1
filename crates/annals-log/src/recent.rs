//! The newest records of each shard in memory, so that readers near the end share them, decoded once.
//!
//! *Invariant:* only durable records, without a gap, are in a ring; a gap empties its older part. A ring is never
//! the authority on where a shard ends: it knows only what this process has seen.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_record::record::{RawRecord, Slot};
use annals_record::{Offset, Shard, ShardCount};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::{Placed, ReadLimits};

/// What a record costs beside its own bytes: its header fields, its decoded form, the pointers to it.
const OVERHEAD_BYTES: usize = 1024;

/// The rings of all shards, and how far each shard is known to go.
#[derive(Debug)]
pub(crate) struct Recent {
    shards: Box<[ShardRing]>,
}

#[derive(Debug)]
struct ShardRing {
    ring: Mutex<Ring>,
    end: watch::Sender<Offset>,
}

#[derive(Debug)]
struct Ring {
    placed: VecDeque<Arc<Placed>>,
    bytes: usize,
    max_bytes: usize,
}

impl Recent {
    /// Empty rings that hold about `max_bytes` each.
    pub(crate) fn new(shards: ShardCount, max_bytes: usize) -> Self {
        let ring = |_| ShardRing {
            ring: Mutex::new(Ring {
                placed: VecDeque::new(),
                bytes: 0,
                max_bytes,
            }),
            end: watch::Sender::new(Offset::new(0)),
        };
        Self {
            shards: shards.shards().map(ring).collect(),
        }
    }

    /// Takes in durable records in offset order without a gap, appended or read, and wakes who waits for them.
    ///
    /// Records below the newest that is known are passed over: a reader far behind must not push the newest out.
    pub(crate) fn push(&self, shard: Shard, records: &[Arc<Placed>]) {
        let (Some(of_shard), Some(last)) = (self.of(shard), records.last()) else {
            return;
        };
        lock(&of_shard.ring).push(records);
        of_shard.raise(last.offset.next());
    }

    /// Learns that the shard's durable part goes up to `end` at least, and wakes who waits.
    pub(crate) fn raise(&self, shard: Shard, end: Offset) {
        if let Some(of_shard) = self.of(shard) {
            of_shard.raise(end);
        }
    }

    /// Forgets everything about a shard but that it ends at `end`: after a lost connection the log may be another.
    pub(crate) fn reset(&self, shard: Shard, end: Offset) {
        if let Some(of_shard) = self.of(shard) {
            let mut ring = lock(&of_shard.ring);
            ring.clear();
            of_shard.end.send_replace(end);
        }
    }

    /// How far the shard is known to go.
    pub(crate) fn end(&self, shard: Shard) -> Offset {
        self.of(shard)
            .map_or(Offset::new(0), |of_shard| *of_shard.end.borrow())
    }

    /// Records from `from` on, at least one; `None` if the one at `from` is not here.
    pub(crate) fn read(&self, shard: Shard, from: Offset, limits: &ReadLimits) -> Option<Vec<Arc<Placed>>> {
        lock(&self.of(shard)?.ring).read(from, limits)
    }

    /// Waits until the shard is known to go beyond `from`, at most `wait`. Says whether it does.
    ///
    /// Cancel safe.
    pub(crate) async fn wait(&self, shard: Shard, from: Offset, wait: Duration) -> bool {
        let Some(of_shard) = self.of(shard) else {
            return false;
        };
        let mut end = of_shard.end.subscribe();
        let beyond = timeout(wait, end.wait_for(|end| *end > from)).await;
        matches!(beyond, Ok(Ok(_)))
    }

    fn of(&self, shard: Shard) -> Option<&ShardRing> {
        self.shards.get(usize::try_from(shard.get()).ok()?)
    }
}

impl ShardRing {
    fn raise(&self, end: Offset) {
        self.end.send_if_modified(|known| {
            let higher = end > *known;
            if higher {
                *known = end;
            }
            higher
        });
    }
}

impl Ring {
    fn push(&mut self, records: &[Arc<Placed>]) {
        for placed in records {
            match self.next() {
                Some(next) if placed.offset < next => {
                    // The same place with another record: what is here is not the log any more.
                    if self
                        .at(placed.offset)
                        .is_some_and(|here| here.hash != placed.hash)
                    {
                        self.clear();
                        self.add(placed);
                    }
                }
                Some(next) if placed.offset == next => self.add(placed),
                Some(_) => {
                    self.clear();
                    self.add(placed);
                }
                None => self.add(placed),
            }
        }
        while self.bytes > self.max_bytes && self.placed.len() > 1 {
            if let Some(oldest) = self.placed.pop_front() {
                self.bytes = self.bytes.saturating_sub(cost(&oldest));
            }
        }
    }

    fn add(&mut self, placed: &Arc<Placed>) {
        self.bytes += cost(placed);
        self.placed.push_back(Arc::clone(placed));
    }

    fn clear(&mut self) {
        self.placed.clear();
        self.bytes = 0;
    }

    fn next(&self) -> Option<Offset> {
        self.placed.back().map(|placed| placed.offset.next())
    }

    fn index(&self, offset: Offset) -> Option<usize> {
        let first = self.placed.front()?.offset;
        let index = usize::try_from(offset.get().checked_sub(first.get())?).ok()?;
        (index < self.placed.len()).then_some(index)
    }

    fn at(&self, offset: Offset) -> Option<&Arc<Placed>> {
        self.placed.get(self.index(offset)?)
    }

    fn read(&self, from: Offset, limits: &ReadLimits) -> Option<Vec<Arc<Placed>>> {
        let index = self.index(from)?;
        let mut taken = Taken::new(*limits);
        for placed in self.placed.range(index..) {
            if !taken.take(Arc::clone(placed)) {
                break;
            }
        }
        Some(taken.records)
    }
}

/// Records of one read, up to its limits; the first one always fits.
pub(crate) struct Taken {
    limits: ReadLimits,
    bytes: usize,
    pub(crate) records: Vec<Arc<Placed>>,
}

impl Taken {
    pub(crate) fn new(limits: ReadLimits) -> Self {
        Self {
            limits,
            bytes: 0,
            records: Vec::new(),
        }
    }

    /// How many bytes a record had on average; `None` if there is none.
    pub(crate) fn mean_bytes(&self) -> Option<usize> {
        self.bytes.checked_div(self.records.len())
    }

    /// Takes one; `false` if there is room for no further one.
    pub(crate) fn take(&mut self, placed: Arc<Placed>) -> bool {
        self.bytes += stored_bytes(&placed.slot);
        self.records.push(placed);
        self.bytes < self.limits.bytes && self.records.len() < self.limits.records
    }
}

/// Bytes of key, value and headers.
pub(crate) fn stored_bytes(slot: &Slot) -> usize {
    match slot {
        Slot::Known(record) => record.stored_bytes(),
        Slot::UnknownFormat { raw, .. } | Slot::Foreign(raw) => raw_bytes(raw),
    }
}

fn raw_bytes(raw: &RawRecord) -> usize {
    let of = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let headers = raw.headers.iter().map(|h| h.name.len() + of(&h.value));
    of(&raw.key) + of(&raw.value) + headers.sum::<usize>()
}

/// A record's own bytes count twice: once stored, once decoded.
fn cost(placed: &Placed) -> usize {
    2 * stored_bytes(&placed.slot) + OVERHEAD_BYTES
}

/// A ring is whole between any two statements that change it, so a panic elsewhere cannot have torn it.
fn lock(ring: &Mutex<Ring>) -> std::sync::MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_record::Hash32;

    fn placed(offset: u64, hash: u8) -> Arc<Placed> {
        let raw = RawRecord {
            key: None,
            timestamp_ms: 0,
            value: Some(bytes::Bytes::from_static(b"x")),
            headers: Vec::new(),
        };
        Arc::new(Placed::new(
            Offset::new(offset),
            Slot::Foreign(raw),
            Hash32::from([hash; 32]),
        ))
    }

    fn recent(records: usize) -> Recent {
        let one = ShardCount::try_from(1).unwrap();
        Recent::new(one, records * cost(&placed(0, 0)))
    }

    fn offsets(recent: &Recent, from: u64) -> Option<Vec<u64>> {
        let read = recent.read(Shard::new(0), Offset::new(from), &ReadLimits::default())?;
        Some(read.iter().map(|placed| placed.offset.get()).collect())
    }

    #[test]
    fn a_gap_empties_the_older_part() {
        let recent = recent(10);
        recent.push(Shard::new(0), &[placed(3, 3), placed(4, 4)]);
        assert_eq!(offsets(&recent, 3), Some(vec![3, 4]));
        recent.push(Shard::new(0), &[placed(6, 6)]);
        assert_eq!(offsets(&recent, 3), None);
        assert_eq!(offsets(&recent, 5), None);
        assert_eq!(offsets(&recent, 6), Some(vec![6]));
        assert_eq!(recent.end(Shard::new(0)), Offset::new(7));
    }

    #[test]
    fn a_reader_far_behind_does_not_push_the_newest_out() {
        let recent = recent(10);
        recent.push(Shard::new(0), &[placed(8, 8), placed(9, 9)]);
        recent.push(Shard::new(0), &[placed(0, 0), placed(1, 1)]);
        assert_eq!(offsets(&recent, 8), Some(vec![8, 9]));
        assert_eq!(offsets(&recent, 0), None);
    }

    #[test]
    fn another_record_at_the_same_place_replaces_all_that_was_here() {
        let recent = recent(10);
        recent.push(Shard::new(0), &[placed(1, 1), placed(2, 2)]);
        recent.push(Shard::new(0), &[placed(2, 2)]);
        assert_eq!(offsets(&recent, 1), Some(vec![1, 2]));
        recent.push(Shard::new(0), &[placed(2, 7)]);
        assert_eq!(offsets(&recent, 1), None);
        assert_eq!(offsets(&recent, 2), Some(vec![2]));
    }

    #[test]
    fn holds_no_more_than_its_bytes_and_always_the_newest() {
        let recent = recent(2);
        recent.push(Shard::new(0), &[placed(0, 0), placed(1, 1), placed(2, 2)]);
        assert_eq!(offsets(&recent, 0), None);
        assert_eq!(offsets(&recent, 1), Some(vec![1, 2]));
    }

    #[tokio::test]
    async fn wakes_who_waits() {
        let recent = recent(2);
        let waited = recent.wait(Shard::new(0), Offset::new(4), Duration::from_secs(60));
        let (beyond, ()) = tokio::join!(waited, async {
            recent.raise(Shard::new(0), Offset::new(4));
            recent.raise(Shard::new(0), Offset::new(5));
        });
        assert!(beyond);
        let nothing = recent
            .wait(Shard::new(0), Offset::new(5), Duration::from_millis(1))
            .await;
        assert!(!nothing);
    }
}

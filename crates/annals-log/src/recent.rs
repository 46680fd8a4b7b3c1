//! The newest records of each shard in memory, so that readers near the end share them, decoded once.
//!
//! *Invariant:* only durable records, without a gap, are in a ring; a gap empties its older part. A ring is never
//! the authority on where a shard ends: it knows only what this process has seen.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_record::fold::{self, ChainAt, Head};
use annals_record::hash;
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
    /// Records below the newest that is known are passed over: a reader far behind must not push the newest out. Says
    /// whether one was another than the one that was here: then what was here is forgotten.
    pub(crate) fn push(&self, shard: Shard, records: &[Arc<Placed>]) -> bool {
        let (Some(of_shard), Some(last)) = (self.of(shard), records.last()) else {
            return false;
        };
        let replaced = lock(&of_shard.ring).push(records);
        of_shard.raise(last.offset.next());
        replaced
    }

    /// Takes in records that this process appended itself and that landed at these offsets, without anybody having read
    /// them: only behind a commit or refusal that is here, and only those that the fold accepts behind it, each at the
    /// very next offset. What is here already has to be the same.
    ///
    /// Says where the ring ends then (`None`: it is empty), and whether every record fitted. From the first one on that
    /// does not, none is taken in.
    pub(crate) fn extend(&self, shard: Shard, records: &[Arc<Placed>]) -> (Option<Offset>, bool) {
        let Some(of_shard) = self.of(shard) else {
            return (None, false);
        };
        let mut ring = lock(&of_shard.ring);
        let fitted = ring.extend(records);
        let next = ring.next();
        drop(ring);
        if let Some(next) = next {
            of_shard.raise(next);
        }
        (next, fitted)
    }

    /// The offset of the newest record that is here.
    pub(crate) fn last(&self, shard: Shard) -> Option<Offset> {
        let ring = lock(&self.of(shard)?.ring);
        ring.placed.back().map(|placed| placed.offset)
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
    fn push(&mut self, records: &[Arc<Placed>]) -> bool {
        let mut replaced = false;
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
                        replaced = true;
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
        self.trim();
        replaced
    }

    fn extend(&mut self, records: &[Arc<Placed>]) -> bool {
        let mut head = None;
        for placed in records {
            if let Some(here) = self.at(placed.offset) {
                if here.hash != placed.hash {
                    return false;
                }
                continue;
            }
            let before = head.or_else(|| self.placed.back().and_then(|last| head_behind(last)));
            let Some(behind) = before.and_then(|before| accepted_behind(&before, placed)) else {
                return false;
            };
            self.add(placed);
            head = Some(behind);
        }
        self.trim();
        true
    }

    fn trim(&mut self) {
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

/// The head behind a commit or refusal, if that counts. How many were accepted is not known, and not looked at.
fn head_behind(last: &Placed) -> Option<Head> {
    let record = last.slot.known()?;
    let entry = record.entry()?;
    Some(Head {
        next: last.offset.next(),
        accepted: 0,
        epoch: entry.epoch,
        chain: hash::chain(entry.prev, last.hash),
        time_ms: record.timestamp_ms,
        closed: false,
    })
}

/// The head behind `placed`, if it is a commit or refusal that the fold accepts at `before`.
fn accepted_behind(before: &Head, placed: &Placed) -> Option<Head> {
    let record = placed.slot.known().filter(|record| record.entry().is_some())?;
    if placed.offset != before.next {
        return None;
    }
    // Only claims are compared with the first chain and with those of before.
    let forgotten = |_| ChainAt::Forgotten;
    let (verdict, behind) = fold::accept_record(before, before.chain, forgotten, record, placed.hash);
    verdict.is_accept().then_some(behind)
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
    use crate::testing::Chained;
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

    fn of(offset: u64, record: &Arc<annals_record::Record>) -> Arc<Placed> {
        let hash = annals_record::hash::record_hash(record);
        Arc::new(Placed::new(
            Offset::new(offset),
            Slot::Known((**record).clone()),
            hash,
        ))
    }

    #[test]
    fn own_records_go_on_where_the_fold_would() {
        let mut writer = Chained::example();
        let claim = writer.claim();
        let all: Vec<_> = (0..5).map(|_| writer.commit("order-1", 1, 0)).collect();
        let shard = Shard::new(0);
        let recent = Recent::new(ShardCount::try_from(1).unwrap(), 1 << 20);
        let next = |n: u64| Some(Offset::new(n));
        assert_eq!(recent.extend(shard, &[of(1, &all[0])]), (None, false), "empty");
        recent.push(shard, &[of(0, &claim)]);
        assert_eq!(
            recent.extend(shard, &[of(1, &all[0])]),
            (next(1), false),
            "behind a claim"
        );
        recent.push(shard, &[of(1, &all[0])]);
        assert_eq!(
            recent.extend(shard, &[of(2, &all[1]), of(3, &all[2])]),
            (next(4), true)
        );
        // Known in part, as when the consumer was quicker.
        assert_eq!(
            recent.extend(shard, &[of(3, &all[2]), of(4, &all[3])]),
            (next(5), true)
        );
        assert_eq!(recent.extend(shard, &[of(6, &all[4])]), (next(5), false), "a gap");
        assert_eq!(
            recent.extend(shard, &[of(4, &all[4])]),
            (next(5), false),
            "another one there"
        );
        assert_eq!(recent.extend(shard, &[of(5, &all[4])]), (next(6), true));
        assert_eq!(offsets(&recent, 0), Some(vec![0, 1, 2, 3, 4, 5]));
    }

    #[test]
    fn what_the_fold_does_not_accept_is_left_to_be_read() {
        let mut writer = Chained::example();
        let (claim, first) = (writer.claim(), writer.commit("order-1", 1, 0));
        let shard = Shard::new(0);
        let recent = Recent::new(ShardCount::try_from(1).unwrap(), 1 << 20);
        recent.push(shard, &[of(0, &claim), of(1, &first)]);
        let (mut unchained, mut early, mut later) = (writer.another(1), writer.another(2), writer.another(3));
        unchained.commit("order-1", 1, 0);
        early.time_ms -= 1_000;
        let claimed = later.claim();
        let wrong = [
            unchained.commit("order-1", 1, 0),
            early.commit("order-1", 1, 0),
            later.commit("order-1", 1, 0),
            claimed,
        ];
        for record in wrong {
            assert_eq!(
                recent.extend(shard, &[of(2, &record)]),
                (Some(Offset::new(2)), false)
            );
        }
        let right = writer.commit("order-1", 1, 0);
        assert_eq!(
            recent.extend(shard, &[of(2, &right)]),
            (Some(Offset::new(3)), true)
        );
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

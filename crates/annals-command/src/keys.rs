//! The idempotency keys that a loaded stream remembers: exactly those that could still be repeated.
//!
//! *Invariant:* an unseen key is new, so it costs nothing. A key that is found here is a hint of 64 bits; the record itself decides.

use std::collections::{BTreeSet, VecDeque};

use annals_log::KeyTrail;
use annals_record::{KeyHash, Offset, RecordId};

/// From this many keys on they are indexed; below it a scan is quicker.
const INDEXED_FROM: usize = 32;

/// Where a remembered key's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// With the log, not accepted yet.
    Pending(RecordId),
    /// Accepted, here.
    At(Offset),
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    hash: u64,
    seen: Seen,
    time_ms: i64,
}

/// Keys by age, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    remembered: VecDeque<Remembered>,
    /// How many were forgotten: the sequence number of the oldest.
    first: u64,
    /// Hash and sequence number of each, once there are many.
    index: Option<BTreeSet<(u64, u64)>>,
}

/// The 64 bits by which a key is found.
pub(crate) fn short(key: KeyHash) -> u64 {
    let bytes = key.get();
    let mut first = [0; 8];
    first.copy_from_slice(&bytes.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

impl Keys {
    /// Bytes held, about.
    pub(crate) fn bytes(&self) -> usize {
        self.remembered.len() * if self.index.is_some() { 80 } else { 48 }
    }

    /// Where the records of keys with this hash are, newest first, as far as they are not older than `after_ms`.
    pub(crate) fn find(&self, hash: u64, after_ms: i64) -> Vec<Seen> {
        let fits = |r: &&Remembered| r.hash == hash && r.time_ms >= after_ms;
        match &self.index {
            None => self
                .remembered
                .iter()
                .rev()
                .filter(fits)
                .map(|r| r.seen)
                .collect(),
            Some(index) => {
                let sequences = index
                    .range((hash, 0)..=(hash, u64::MAX))
                    .rev()
                    .map(|(_, sequence)| *sequence);
                sequences
                    .filter_map(|s| self.at(s))
                    .filter(fits)
                    .map(|r| r.seen)
                    .collect()
            }
        }
    }

    fn at(&self, sequence: u64) -> Option<&Remembered> {
        self.remembered
            .get(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }

    /// Remembers a key, and forgets the oldest beyond `most`.
    pub(crate) fn push(&mut self, hash: u64, seen: Seen, time_ms: i64, most: usize) {
        let sequence = self.first + u64::try_from(self.remembered.len()).unwrap_or(u64::MAX);
        self.remembered.push_back(Remembered { hash, seen, time_ms });
        if let Some(index) = &mut self.index {
            index.insert((hash, sequence));
        } else if self.remembered.len() >= INDEXED_FROM {
            self.index = Some(
                (self.first..)
                    .zip(&self.remembered)
                    .map(|(s, r)| (r.hash, s))
                    .collect(),
            );
        }
        while self.remembered.len() > most {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.remembered.pop_front() {
            if let Some(index) = &mut self.index {
                index.remove(&(oldest.hash, self.first));
            }
            self.first += 1;
        }
    }

    /// Forgets what is older than `after_ms`.
    pub(crate) fn expire(&mut self, after_ms: i64) {
        while self.remembered.front().is_some_and(|r| r.time_ms < after_ms) {
            self.forget_oldest();
        }
    }

    /// The record of a pending key was accepted: from now on it is found at its offset.
    pub(crate) fn accepted(&mut self, record: RecordId, offset: Offset) {
        // The oldest pending one is accepted first; what is before it has its place.
        let pending = self
            .remembered
            .iter_mut()
            .rev()
            .take_while(|r| matches!(r.seen, Seen::Pending(_)));
        if let Some(found) = pending.into_iter().find(|r| r.seen == Seen::Pending(record)) {
            found.seen = Seen::At(offset);
        }
    }

    /// What a snapshot keeps. Call it only with nothing pending: a pending key has no place yet.
    pub(crate) fn trails(&self) -> Vec<KeyTrail> {
        let placed = self.remembered.iter().filter_map(|r| match r.seen {
            Seen::At(offset) => Some(KeyTrail {
                hash: r.hash,
                offset,
                time_ms: r.time_ms,
            }),
            Seen::Pending(_) => None,
        });
        placed.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> RecordId {
        RecordId::from_parts(1, [n; 10])
    }

    #[test]
    fn finds_each_key_scanned_or_indexed_until_it_is_forgotten() {
        let mut keys = Keys::default();
        for n in 0..100u8 {
            keys.push(u64::from(n), Seen::Pending(id(n)), i64::from(n), 64);
            keys.accepted(id(n), Offset::new(u64::from(n) + 1_000));
        }
        for n in 0..100u8 {
            let found = keys.find(u64::from(n), 0);
            let expected = if n < 36 {
                vec![]
            } else {
                vec![Seen::At(Offset::new(u64::from(n) + 1_000))]
            };
            assert_eq!(found, expected, "key {n}");
        }
        assert_eq!(keys.find(99, 100), [], "older than asked for");
        keys.expire(90);
        assert_eq!(keys.trails().len(), 10);
        assert_eq!(keys.find(89, 0), []);
        assert_eq!(keys.find(95, 0).len(), 1);
    }

    #[test]
    fn two_keys_with_one_hash_are_both_found_newest_first() {
        let mut keys = Keys::default();
        for n in 0..40u8 {
            keys.push(7, Seen::At(Offset::new(n.into())), 0, 1_000);
        }
        assert_eq!(keys.find(7, 0).len(), 40);
        assert_eq!(keys.find(7, 0)[0], Seen::At(Offset::new(39)));
    }

    #[test]
    fn several_pending_keys_learn_their_places_in_any_order() {
        let mut keys = Keys::default();
        for n in 1..=3u8 {
            keys.push(u64::from(n), Seen::Pending(id(n)), 0, 10);
        }
        keys.accepted(id(1), Offset::new(10));
        keys.accepted(id(2), Offset::new(12));
        assert_eq!(keys.find(2, 0), [Seen::At(Offset::new(12))]);
        assert_eq!(keys.find(3, 0), [Seen::Pending(id(3))]);
    }
}

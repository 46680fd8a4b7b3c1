//! The state machine of a feed: which rows there are, what changed, and what somebody who comes back has missed. No
//! input or output, no clock.
//!
//! *Invariant:* the digest is the sum of the digests of the rows, and each entry of the log leads from one such sum to
//! the next. So undoing entries from the end gives exactly the rows that an earlier id stands for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use annals_record::{Position, Version};

use super::event::{Digest, Event, LiveId, RowDigest};

/// What an entry costs beside its texts, about.
const ENTRY: u64 = 160;

/// A row as a subscriber sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// As in the path.
    pub(crate) key: Arc<str>,
    pub(crate) version: Option<Version>,
    /// JSON.
    pub(crate) data: Arc<str>,
    pub(crate) digest: RowDigest,
}

/// One row that became another.
#[derive(Debug)]
struct Entry {
    key: Arc<str>,
    before: Option<RowDigest>,
    after: Option<Row>,
    /// Of all rows, after it.
    digest: Digest,
    positions: Arc<[Position]>,
}

impl Entry {
    fn event(&self) -> Event {
        let id = LiveId {
            positions: Arc::clone(&self.positions),
            digest: self.digest,
        };
        match &self.after {
            Some(row) => Event::change(id, row),
            None => Event::remove(id, &self.key),
        }
    }

    fn bytes(&self) -> u64 {
        let data = self.after.as_ref().map_or(0, |row| row.data.len());
        ENTRY + u64::try_from(self.key.len() + data).unwrap_or(u64::MAX)
    }
}

/// Rows, and how they came to be what they are.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    begun: bool,
    rows: HashMap<Arc<str>, RowDigest>,
    digest: Digest,
    positions: Arc<[Position]>,
    log: VecDeque<Entry>,
    /// The number of the entry that comes next; the log holds those right before it.
    next: u64,
    /// The first entry of the newest batch: never forgotten before there is another.
    newest: u64,
    bytes: u64,
}

/// What somebody who comes back has missed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Exactly this, perhaps nothing.
    Events(Vec<Event>),
    /// That cannot be said.
    Unknown,
}

/// Entries that were asked for are not there any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forgotten;

impl Feed {
    /// What whoever has seen everything holds.
    pub(crate) fn id(&self) -> LiveId {
        LiveId {
            positions: Arc::clone(&self.positions),
            digest: self.digest,
        }
    }

    /// The place behind the last change.
    pub(crate) fn end(&self) -> u64 {
        self.next
    }

    /// Whether it was ever read.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Takes in what the rows are now. Rows that are gone come first, so that nobody ever holds more than there are.
    pub(crate) fn advance(&mut self, rows: &[Row], positions: Arc<[Position]>) {
        self.positions = positions;
        if !std::mem::replace(&mut self.begun, true) {
            // Nobody has seen anything yet: these are no changes.
            self.rows = rows.iter().map(|row| (Arc::clone(&row.key), row.digest)).collect();
            let sum = |digest: Digest, row: &Row| digest.with(None, Some(row.digest));
            self.digest = rows.iter().fold(Digest::default(), sum);
            return;
        }
        let first = self.next;
        let now: HashMap<&str, RowDigest> = rows.iter().map(|row| (&*row.key, row.digest)).collect();
        let mut gone: Vec<Arc<str>> = self
            .rows
            .keys()
            .filter(|key| !now.contains_key(&***key))
            .cloned()
            .collect();
        gone.sort_unstable();
        for key in gone {
            let before = self.rows.remove(&key);
            self.push(key, before, None);
        }
        for row in rows {
            let before = self.rows.get(&row.key).copied();
            if before != Some(row.digest) {
                self.rows.insert(Arc::clone(&row.key), row.digest);
                self.push(Arc::clone(&row.key), before, Some(row.clone()));
            }
        }
        if self.next > first {
            self.newest = first;
        }
    }

    fn push(&mut self, key: Arc<str>, before: Option<RowDigest>, after: Option<Row>) {
        self.digest = self.digest.with(before, after.as_ref().map(|row| row.digest));
        let entry = Entry {
            key,
            before,
            after,
            digest: self.digest,
            positions: Arc::clone(&self.positions),
        };
        self.bytes += entry.bytes();
        self.log.push_back(entry);
        self.next += 1;
    }

    /// Forgets the oldest changes until the rest costs no more than this, but for the newest batch.
    pub(crate) fn forget(&mut self, bytes: u64) {
        while self.bytes > bytes && self.first() < self.newest {
            if let Some(entry) = self.log.pop_front() {
                self.bytes = self.bytes.saturating_sub(entry.bytes());
            }
        }
    }

    /// The number of the oldest change that is remembered.
    fn first(&self) -> u64 {
        self.next - u64::try_from(self.log.len()).unwrap_or(u64::MAX)
    }

    /// The changes from a place on, at most so many.
    pub(crate) fn read(&self, from: u64, most: usize) -> Result<Vec<Event>, Forgotten> {
        let skip = from.checked_sub(self.first()).ok_or(Forgotten)?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(self.log.iter().skip(skip).take(most).map(Entry::event).collect())
    }

    /// What brings whoever holds what an id stands for to what there is now: one event for each row that is different.
    ///
    /// `single` is the key of the only row that there can be, and that row: then its digest alone says enough.
    pub(crate) fn missed(&self, id: &LiveId, single: Option<(&str, Option<&Row>)>) -> Missed {
        if id.digest == self.digest {
            return Missed::Events(Vec::new());
        }
        if let Some((key, row)) = single {
            return Missed::Events(vec![match row {
                Some(row) => Event::change(self.id(), row),
                None => Event::remove(self.id(), key),
            }]);
        }
        let Some(since) = self.since(id.digest) else {
            return Missed::Unknown;
        };
        // What the subscriber holds of each row that was touched since: what the first entry found.
        let mut held: HashMap<&str, Option<RowDigest>> = HashMap::new();
        let mut latest: HashMap<&str, &Entry> = HashMap::new();
        let mut order: Vec<&str> = Vec::new();
        for entry in self.log.iter().skip(since) {
            held.entry(&entry.key).or_insert_with(|| {
                order.push(&entry.key);
                entry.before
            });
            latest.insert(&entry.key, entry);
        }
        let mut digest = id.digest;
        let mut events = Vec::new();
        let (gone, there): (Vec<&str>, Vec<&str>) =
            order.into_iter().partition(|key| !self.rows.contains_key(*key));
        for key in gone.into_iter().chain(there) {
            let (before, entry) = (held[key], latest[key]);
            let after = entry.after.as_ref().map(|row| row.digest);
            if before == after {
                continue;
            }
            digest = digest.with(before, after);
            let id = LiveId {
                positions: Arc::clone(&self.positions),
                digest,
            };
            events.push(match &entry.after {
                Some(row) => Event::change(id, row),
                None => Event::remove(id, key),
            });
        }
        Missed::Events(events)
    }

    /// Which entry of the log comes after the rows that a digest stands for; the newest such place.
    fn since(&self, digest: Digest) -> Option<usize> {
        let found = self.log.iter().rposition(|entry| entry.digest == digest);
        if let Some(at) = found {
            return Some(at + 1);
        }
        let first = self.log.front()?;
        let before = first
            .digest
            .with(first.after.as_ref().map(|row| row.digest), first.before);
        (before == digest).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn row(key: u8, value: u8) -> Row {
        Row {
            key: format!("k{key}").into(),
            version: None,
            data: format!("{{\"v\":{value}}}").into(),
            digest: u128::from_be_bytes(std::array::from_fn(|at| {
                annals_record::hash::sha256(&[key, value]).as_ref()[at]
            })),
        }
    }

    fn rows(of: &BTreeMap<u8, u8>) -> Vec<Row> {
        of.iter().map(|(key, value)| row(*key, *value)).collect()
    }

    fn at(offset: u64) -> Arc<[Position]> {
        vec![format!("0:{offset}").parse().unwrap()].into()
    }

    /// A subscriber: does what events say, and counts those that change nothing.
    #[derive(Default, Clone)]
    struct Holder {
        held: BTreeMap<String, String>,
        repeats: usize,
    }

    impl Holder {
        fn see(&mut self, event: &Event) {
            let json: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            let key = || json["key"].as_str().unwrap().to_owned();
            match event.kind {
                super::super::Kind::Snapshot => {
                    let pair = |row: &serde_json::Value| (row["key"].as_str().unwrap().to_owned(), row["data"].to_string());
                    self.held = json["data"].as_array().unwrap().iter().map(pair).collect();
                }
                super::super::Kind::Change => {
                    let data = json["data"].to_string();
                    self.repeats += usize::from(self.held.insert(key(), data.clone()) == Some(data));
                }
                super::super::Kind::Remove => self.repeats += usize::from(self.held.remove(&key()).is_none()),
            }
        }
    }

    fn wanted(of: &BTreeMap<u8, u8>) -> BTreeMap<String, String> {
        let pair = |(key, value): (&u8, &u8)| (format!("k{key}"), format!("{{\"v\":{value}}}"));
        of.iter().map(pair).collect()
    }

    proptest! {
        /// Whoever leaves after any event, and comes back after any number of batches, holds exactly the rows that
        /// there are, is told nothing that it has, and gets a snapshot only when the changes are forgotten.
        #[test]
        fn whoever_comes_back_misses_nothing_and_gets_nothing_twice(
            states in prop::collection::vec(prop::collection::btree_map(0u8..8, 0u8..3, 0..8), 1..8),
            leaves in any::<prop::sample::Index>(),
            forget in prop::option::of(0u64..2_000),
        ) {
            let mut feed = Feed::default();
            feed.advance(&rows(&states[0]), at(0));
            let mut holder = Holder::default();
            holder.see(&Event::snapshot(feed.id(), &rows(&states[0])));
            let mut moments = vec![(feed.id(), holder.clone())];
            let mut place = feed.end();
            for (offset, state) in (1..).zip(&states[1..]) {
                feed.advance(&rows(state), at(offset));
                for event in feed.read(place, usize::MAX).unwrap() {
                    holder.see(&event);
                    moments.push((event.id.clone(), holder.clone()));
                }
                place = feed.end();
                prop_assert_eq!(&holder.held, &wanted(state));
            }
            prop_assert_eq!(holder.repeats, 0);
            let last = states.last().unwrap();
            if let Some(bytes) = forget {
                feed.forget(bytes);
                prop_assert!(feed.bytes <= bytes || feed.first() >= feed.newest);
            }
            let (id, mut back) = moments[leaves.index(moments.len())].clone();
            let id: LiveId = id.to_string().parse().unwrap();
            match feed.missed(&id, None) {
                Missed::Events(events) => {
                    for event in &events {
                        back.see(event);
                    }
                    prop_assert_eq!(back.repeats, 0);
                    prop_assert_eq!(&back.held, &wanted(last));
                    let end = events.last().map_or(id.digest, |event| event.id.digest);
                    prop_assert_eq!(end, feed.id().digest);
                }
                Missed::Unknown => prop_assert!(forget.is_some()),
            }
        }

        #[test]
        fn of_a_single_row_everything_is_known(before in prop::option::of(0u8..3), now in prop::option::of(0u8..3)) {
            let one = |value: Option<u8>| value.map(|value| row(0, value));
            let mut was = Feed::default();
            was.advance(one(before).as_slice(), at(0));
            // Another node, which knows nothing of it.
            let mut feed = Feed::default();
            feed.advance(one(now).as_slice(), at(1));
            let Missed::Events(events) = feed.missed(&was.id(), Some(("k0", one(now).as_ref()))) else {
                panic!("unknown");
            };
            prop_assert_eq!(events.len(), usize::from(before != now));
        }
    }

    #[test]
    fn the_newest_batch_is_never_forgotten_and_what_is_forgotten_is_said() {
        let mut feed = Feed::default();
        feed.advance(&[], at(0));
        feed.advance(&[row(1, 1)], at(1));
        feed.advance(&[row(1, 2), row(2, 1)], at(2));
        feed.forget(0);
        assert_eq!(feed.read(0, 9), Err(Forgotten));
        assert_eq!(feed.read(1, 9).unwrap().len(), 2);
        assert_eq!(feed.read(3, 9), Ok(Vec::new()));
    }
}

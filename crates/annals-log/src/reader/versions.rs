//! Watches that a stream's versions have no gap and no repeat (L2), in bounded memory.

use std::collections::HashMap;
use std::mem;

use annals_record::record::Record;
use annals_record::{StreamId, Version};

/// The next version of each of the streams seen last. Two generations: the older is dropped when the younger is full.
#[derive(Debug)]
pub(super) struct Versions {
    young: HashMap<StreamId, Version>,
    old: HashMap<StreamId, Version>,
    capacity: usize,
    /// Nothing was missed and nothing forgotten, so an unknown stream is a new one.
    complete: bool,
}

/// A stream whose versions have a gap or a repeat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream} goes on with version {found}, and {expected} was expected")]
pub struct VersionBreak {
    /// The stream.
    pub stream: StreamId,
    /// The version that should have come.
    pub expected: Version,
    /// The one that came.
    pub found: Version,
}

impl Versions {
    /// Remembers between `capacity / 2` and `capacity` streams. `complete`: it will see the shard from offset 0.
    pub(super) fn new(capacity: usize, complete: bool) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity: capacity.max(2),
            complete,
        }
    }

    /// Looks at the next accepted record.
    pub(super) fn see(&mut self, record: &Record) -> Result<(), VersionBreak> {
        let (Some(stream), Some(entry)) = (&record.stream, record.entry()) else {
            return Ok(());
        };
        let next = entry.version.plus(u64::from(entry.count));
        let known = self.young.get_mut(stream);
        let expected = match &known {
            Some(version) => Some(**version),
            None => self.old.get(stream).copied(),
        };
        let expected = expected.or(self.complete.then_some(Version::new(1)));
        if let Some(expected) = expected.filter(|expected| *expected != entry.version) {
            return Err(VersionBreak {
                stream: stream.clone(),
                expected,
                found: entry.version,
            });
        }
        match known {
            Some(version) => *version = next,
            None => self.remember(stream.clone(), next),
        }
        Ok(())
    }

    fn remember(&mut self, stream: StreamId, next: Version) {
        if self.young.len() >= self.capacity / 2 {
            let older = mem::take(&mut self.young);
            self.complete &= self.old.is_empty();
            self.old = older;
        }
        self.young.insert(stream, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Chained;

    #[test]
    fn finds_gaps_and_repeats() {
        let mut chained = Chained::example();
        let first = chained.commit("order-1", 1, 2);
        let gap = chained.commit("order-1", 4, 1);
        let mut versions = Versions::new(8, true);
        versions.see(&first).unwrap();
        let broken = versions.see(&gap).unwrap_err();
        assert_eq!(
            (broken.expected, broken.found),
            (Version::new(3), Version::new(4))
        );
        assert!(versions.see(&first).is_err());
        versions.see(&chained.refusal("order-1", 3)).unwrap();
        versions.see(&chained.commit("order-1", 3, 1)).unwrap();
    }

    #[test]
    fn a_stream_that_it_never_saw_begins_anywhere_unless_it_saw_all() {
        let record = Chained::example().commit("order-1", 5, 1);
        assert!(Versions::new(8, true).see(&record).is_err());
        assert!(Versions::new(8, false).see(&record).is_ok());
    }

    #[test]
    fn forgets_the_streams_seen_longest_ago() {
        let mut chained = Chained::example();
        let mut versions = Versions::new(4, true);
        for stream in 0..64 {
            versions
                .see(&chained.commit(&format!("order-{stream}"), 1, 1))
                .unwrap();
            assert!(versions.young.len() + versions.old.len() <= 4);
        }
        assert!(!versions.complete);
        assert!(versions.see(&chained.commit("order-63", 1, 1)).is_err());
        assert!(versions.see(&chained.commit("order-0", 9, 1)).is_ok());
    }
}

//! Answers kept as long as the checkpoints they belong to have not moved, bounded in bytes.
//!
//! *Invariant:* an answer is kept with the states that its own snapshot had, and given out only while exactly these
//! are the known ones. So it never claims a position that it does not have. Its key holds the caller's access.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;

use crate::cursor::Fingerprint;
use crate::freshness::State;

/// What a statement gave.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// JSON as Postgres wrote it; `None`: no such row.
    pub(crate) data: Option<Arc<str>>,
    pub(crate) version: Option<annals_record::Version>,
    pub(crate) next: Option<Arc<str>>,
    pub(crate) count: Option<u64>,
    /// Of each source, in order.
    pub(crate) states: Arc<[Arc<State>]>,
}

/// Answers by request.
#[derive(Debug)]
pub(crate) struct Answers {
    kept: Option<Cache<Fingerprint, Found>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What the cache has done since the start, and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Answers that it had.
    pub hits: u64,
    /// Answers that it did not have.
    pub misses: u64,
    /// Answers in it.
    pub entries: u64,
    /// What they take, about.
    pub bytes: u64,
}

impl CacheStats {
    /// Hits of all, 0 to 1; 0 if it was never asked.
    #[must_use]
    pub fn hit_ratio(&self) -> f64 {
        let number = |count: u64| u32::try_from(count >> self.scale()).map_or(f64::from(u32::MAX), f64::from);
        match self.hits + self.misses {
            0 => 0.0,
            all => number(self.hits) / number(all),
        }
    }

    /// By how many bits to shift so that both counts are exact enough in a float.
    fn scale(&self) -> u32 {
        32_u32.saturating_sub((self.hits + self.misses).leading_zeros())
    }
}

/// What an entry costs beside its texts, about: key, value, and the cache's own bookkeeping.
const OVERHEAD: usize = 400;

impl Answers {
    /// Holds about so many bytes; 0: nothing.
    pub(crate) fn new(bytes: u64) -> Self {
        let weight = |_: &Fingerprint, found: &Found| {
            let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
            let bytes = OVERHEAD + text(&found.data) + text(&found.next);
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let cache = || Cache::builder().max_capacity(bytes).weigher(weight).build();
        Self {
            kept: (bytes > 0).then(cache),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let (entries, bytes) = match &self.kept {
            Some(kept) => {
                // What was put in is counted, and what is too much taken out, only now and then.
                kept.run_pending_tasks();
                (kept.entry_count(), kept.weighted_size())
            }
            None => (0, 0),
        };
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries,
            bytes,
        }
    }

    /// The answer to a request, if it was given in exactly these states.
    pub(crate) fn get(&self, request: &Fingerprint, states: Option<&[Arc<State>]>) -> Option<Found> {
        let found = states.and_then(|states| self.look(request, states));
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn look(&self, request: &Fingerprint, states: &[Arc<State>]) -> Option<Found> {
        let found = self.kept.as_ref()?.get(request)?;
        let same = found.states.len() == states.len()
            && found
                .states
                .iter()
                .zip(states)
                .all(|(had, is)| had.seen() == is.seen());
        same.then_some(found)
    }

    pub(crate) fn put(&self, request: Fingerprint, found: Found) {
        if let Some(cache) = &self.kept {
            cache.insert(request, found);
        }
    }
}

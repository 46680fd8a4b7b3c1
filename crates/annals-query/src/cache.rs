//! Answers kept as long as the checkpoints they belong to have not moved, bounded in bytes.
//!
//! *Invariant:* an answer is kept with the states that its own snapshot had, and given out only while exactly these
//! are the known ones. So it never claims a position that it does not have. Its key holds the caller's access.

use std::sync::Arc;

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
pub(crate) struct Answers(Option<Cache<Fingerprint, Found>>);

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
        Self((bytes > 0).then(cache))
    }

    /// The answer to a request, if it was given in exactly these states.
    pub(crate) fn get(&self, request: &Fingerprint, states: &[Arc<State>]) -> Option<Found> {
        let found = self.0.as_ref()?.get(request)?;
        let same = found.states.len() == states.len()
            && found
                .states
                .iter()
                .zip(states)
                .all(|(had, is)| had.seen() == is.seen());
        same.then_some(found)
    }

    pub(crate) fn put(&self, request: Fingerprint, found: Found) {
        if let Some(cache) = &self.0 {
            cache.insert(request, found);
        }
    }
}

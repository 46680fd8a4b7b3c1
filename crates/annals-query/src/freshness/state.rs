//! Where one live projection is: its build, its checkpoints and what is parked, as one snapshot saw them.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use annals_record::{Offset, Shard};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::answer::Positions;

/// Where a projection is, in one snapshot.
#[derive(Debug)]
pub struct State {
    seen: Seen,
    token: Arc<str>,
    /// Made when first asked for: not every state is answered with.
    positions: OnceLock<Positions>,
}

/// What a statement says of a projection, in the columns of [`crate::sql`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    build: Option<i32>,
    /// Streams, and events: `resume` may take events away without moving a checkpoint.
    parked: (u64, u64),
    /// In the order of shards; the offset that comes next.
    checkpoints: Vec<(Shard, Offset)>,
}

/// How many columns a state has.
pub(crate) const COLUMNS: usize = 4;

impl Seen {
    /// Reads the columns `at..at + COLUMNS`: the live build, `streams|events` if there are any parked, the shards, and
    /// their next offsets.
    pub(crate) fn read(row: &PgRow, at: usize) -> Result<Self, sqlx::Error> {
        let parked: Option<&str> = row.try_get(at + 1)?;
        let parked = parked.and_then(|text| {
            let (streams, events) = text.split_once('|')?;
            Some((streams.parse().ok()?, events.parse().ok()?))
        });
        let shards: Option<Vec<i32>> = row.try_get(at + 2)?;
        let nexts: Option<Vec<i64>> = row.try_get(at + 3)?;
        let pairs = shards
            .unwrap_or_default()
            .into_iter()
            .zip(nexts.unwrap_or_default());
        // Neither is ever negative.
        let pair = |(shard, next)| Some((Shard::try_from(shard).ok()?, Offset::try_from(next).ok()?));
        Ok(Self::new(
            row.try_get(at)?,
            parked.unwrap_or_default(),
            pairs.filter_map(pair).collect(),
        ))
    }

    pub(crate) fn new(build: Option<i32>, parked: (u64, u64), mut checkpoints: Vec<(Shard, Offset)>) -> Self {
        checkpoints.sort_unstable();
        Self {
            build,
            parked,
            checkpoints,
        }
    }
}

impl State {
    pub(crate) fn new(seen: Seen) -> Self {
        let mut text = format!("{:?}|{:?}", seen.build, seen.parked);
        for (shard, next) in &seen.checkpoints {
            // Writing to a text cannot fail.
            let _ = write!(text, "|{shard}:{next}");
        }
        Self {
            token: token(&text),
            positions: OnceLock::new(),
            seen,
        }
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Stands for all of it in entity tags: 12 bytes of its SHA-256.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its positions, made by the first who asks.
    pub(crate) fn positions(&self, make: impl FnOnce() -> Positions) -> &Positions {
        self.positions.get_or_init(make)
    }

    /// The live build; `None` if there is none.
    #[must_use]
    pub fn build(&self) -> Option<i32> {
        self.seen.build
    }

    /// How many streams are parked.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.seen.parked.0
    }

    /// The offset after the last one that was folded.
    #[must_use]
    pub fn next(&self, shard: Shard) -> Offset {
        let found = self
            .seen
            .checkpoints
            .binary_search_by_key(&shard, |(shard, _)| *shard);
        found.map_or(Offset::new(0), |at| self.seen.checkpoints[at].1)
    }

    /// Every shard that has a checkpoint, in order, with the offset that comes next.
    #[must_use]
    pub fn checkpoints(&self) -> &[(Shard, Offset)] {
        &self.seen.checkpoints
    }

    /// Whether it comes before the other one: behind in some shard, ahead in none.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        let ahead = self
            .seen
            .checkpoints
            .iter()
            .any(|(shard, next)| other.next(*shard) < *next);
        let behind = other
            .seen
            .checkpoints
            .iter()
            .any(|(shard, next)| self.next(*shard) < *next);
        behind && !ahead
    }
}

/// 12 bytes of SHA-256 in base64url: 16 characters.
pub(crate) fn token(text: &str) -> Arc<str> {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(parked: (u64, u64), checkpoints: &[(u32, u64)]) -> State {
        let pair = |(shard, next): &(u32, u64)| (Shard::new(*shard), Offset::new(*next));
        State::new(Seen::new(Some(3), parked, checkpoints.iter().map(pair).collect()))
    }

    #[test]
    fn finds_a_shard_in_any_order() {
        let state = state((2, 5), &[(11, 4), (0, 17), (2, 1)]);
        assert_eq!((state.build(), state.parked()), (Some(3), 2));
        assert_eq!(state.next(Shard::new(11)), Offset::new(4));
        assert_eq!(state.next(Shard::new(1)), Offset::new(0));
    }

    #[test]
    fn knows_which_comes_first() {
        let at = |checkpoints| state((0, 0), checkpoints);
        let (a, b, c) = (at(&[(0, 5)]), at(&[(0, 5), (1, 1)]), at(&[(0, 6)]));
        assert!(a.is_before(&b) && a.is_before(&c));
        assert!(!b.is_before(&a) && !b.is_before(&c) && !c.is_before(&b) && !a.is_before(&a));
    }

    #[test]
    fn what_is_parked_changes_the_token() {
        assert_ne!(state((1, 2), &[(0, 5)]).token(), state((1, 1), &[(0, 5)]).token());
        assert_eq!(state((1, 1), &[(0, 5)]).token(), state((1, 1), &[(0, 5)]).token());
    }
}

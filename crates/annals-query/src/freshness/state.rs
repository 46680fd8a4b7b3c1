//! Where one live projection is: its build, its checkpoints and what is parked, as one snapshot saw them.

use std::sync::Arc;

use annals_record::{Offset, Shard};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Where a projection is, in one snapshot.
#[derive(Debug)]
pub struct State {
    raw: Arc<str>,
    token: Arc<str>,
    build: Option<i32>,
    parked: u64,
    /// In the order of shards; the offset that comes next.
    checkpoints: Vec<(Shard, Offset)>,
}

impl State {
    /// Reads what the statements of [`crate::sql`] write. Anything else is a state without a live build.
    pub(crate) fn parse(raw: &str) -> Self {
        let mut parts = raw.split('|');
        let build = parts.next().and_then(|text| text.parse().ok());
        let parked = parts.next().and_then(|text| text.parse().ok());
        let checkpoints = parts.nth(1).unwrap_or_default().split(',').filter_map(|one| {
            let (shard, next) = one.split_once(':')?;
            Some((shard.parse().ok()?, next.parse().ok()?))
        });
        Self {
            build,
            parked: parked.unwrap_or(0),
            checkpoints: checkpoints.collect(),
            token: token(raw),
            raw: raw.into(),
        }
    }

    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// Stands for all of it in entity tags: 12 bytes of its SHA-256.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The live build; `None` if there is none.
    #[must_use]
    pub fn build(&self) -> Option<i32> {
        self.build
    }

    /// How many streams are parked.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.parked
    }

    /// The offset after the last one that was folded.
    #[must_use]
    pub fn next(&self, shard: Shard) -> Offset {
        let found = self.checkpoints.binary_search_by_key(&shard, |(shard, _)| *shard);
        found.map_or(Offset::new(0), |at| self.checkpoints[at].1)
    }

    /// Every shard that has a checkpoint, in order, with the offset that comes next.
    #[must_use]
    pub fn checkpoints(&self) -> &[(Shard, Offset)] {
        &self.checkpoints
    }

    /// Whether it comes before the other one: behind in some shard, ahead in none.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        let ahead = self.checkpoints.iter().any(|(shard, next)| other.next(*shard) < *next);
        let behind = other.checkpoints.iter().any(|(shard, next)| self.next(*shard) < *next);
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

    #[test]
    fn reads_a_state() {
        let state = State::parse("3|2|5|0:17,2:1,11:4");
        assert_eq!((state.build(), state.parked()), (Some(3), 2));
        assert_eq!(state.next(Shard::new(11)), Offset::new(4));
        assert_eq!(state.next(Shard::new(1)), Offset::new(0));
        let empty = State::parse("|0|0|");
        assert_eq!((empty.build(), empty.checkpoints().len()), (None, 0));
    }

    #[test]
    fn knows_which_comes_first() {
        let (a, b, c) = (State::parse("1|0|0|0:5"), State::parse("1|0|0|0:5,1:1"), State::parse("1|0|0|0:6"));
        assert!(a.is_before(&b) && a.is_before(&c));
        assert!(!b.is_before(&a) && !b.is_before(&c) && !c.is_before(&b) && !a.is_before(&a));
    }

    #[test]
    fn what_is_parked_changes_the_token() {
        assert_ne!(State::parse("1|1|2|0:5").token(), State::parse("1|1|1|0:5").token());
    }
}

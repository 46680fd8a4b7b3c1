//! Whether the consumer reads a shard, or this process's own appends alone fill its ring.
//!
//! While one process writes a shard, its consumer would bring it nothing but what it has sent itself, for a fetch an
//! append at the broker and a parse and a hash a record here. So the consumer leaves a shard whose ring is kept full by
//! deliveries, and comes back as soon as one does not fit, when there are none, when a claim is made, and every few
//! seconds to compare.
//!
//! No I/O and no clock: the consumer's thread asks for its [`Turn`] and says what it did.

use std::time::Duration;

use tokio::time::Instant;

/// Own appends in a row that the ring took in, before the consumer leaves.
const ENOUGH: u32 = 8;
/// Without an own append for so long the consumer comes back: another one may be writing.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// The consumer is never away for longer: what it reads then must be what was delivered.
pub(super) const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// What the consumer has to do with a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    Stay,
    /// Read it, from the newest record on that is known.
    Join,
    /// Read it no more.
    Leave,
}

/// Of one shard.
#[derive(Debug)]
pub(super) struct Feed {
    /// Since when the consumer is away; none: it reads.
    away: Option<Instant>,
    /// Own appends in a row that fitted, since the consumer reads.
    fitted: u32,
    /// When the last one did.
    last: Option<Instant>,
    /// Whether the consumer has brought something since it reads.
    brought: bool,
    /// Whether it is to come whatever else.
    wanted: bool,
}

impl Feed {
    /// Of a shard that the consumer is to read from now on.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            away: Some(now),
            fitted: 0,
            last: None,
            brought: false,
            wanted: true,
        }
    }

    /// An own append landed behind what the ring had.
    pub(super) fn fitted(&mut self, now: Instant) {
        self.fitted = self.fitted.saturating_add(1);
        self.last = Some(now);
    }

    /// An own append did not, or may not have, or somebody wants to know what others write.
    pub(super) fn want(&mut self) {
        self.fitted = 0;
        self.wanted = true;
    }

    /// The consumer brought a record.
    pub(super) fn brought(&mut self) {
        self.brought = true;
    }

    /// What to do now.
    pub(super) fn turn(&self, now: Instant) -> Turn {
        let quiet = self.last.is_none_or(|last| now.duration_since(last) >= QUIET);
        match self.away {
            None if self.fitted >= ENOUGH && self.brought && !quiet => Turn::Leave,
            Some(since) if self.wanted || quiet || now.duration_since(since) >= COMPARE_EVERY => Turn::Join,
            None | Some(_) => Turn::Stay,
        }
    }

    /// The consumer reads the shard now.
    pub(super) fn joined(&mut self) {
        self.away = None;
        self.fitted = 0;
        self.brought = false;
        self.wanted = false;
    }

    /// The consumer has left it.
    pub(super) fn left(&mut self, now: Instant) {
        self.away = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// A shard that the consumer has left.
    fn away(start: Instant) -> Feed {
        let mut feed = Feed::new(start);
        assert_eq!(feed.turn(start), Turn::Join);
        feed.joined();
        for _ in 0..ENOUGH {
            feed.fitted(start);
        }
        assert_eq!(feed.turn(start), Turn::Stay, "it has not brought anything yet");
        feed.brought();
        assert_eq!(feed.turn(start), Turn::Leave);
        feed.left(start);
        assert_eq!(feed.turn(start), Turn::Stay);
        feed
    }

    #[test]
    fn the_consumer_leaves_only_behind_own_appends_in_a_row() {
        let start = Instant::now();
        let mut feed = Feed::new(start);
        feed.joined();
        feed.brought();
        for _ in 1..ENOUGH {
            feed.fitted(start);
        }
        assert_eq!(feed.turn(start), Turn::Stay);
        feed.want();
        feed.fitted(start);
        assert_eq!(feed.turn(start), Turn::Stay, "the row was broken");
    }

    #[test]
    fn it_comes_back_when_there_is_nothing_to_feed_on() {
        let start = Instant::now();
        let mut feed = away(start);
        feed.fitted(at(start, 150));
        assert_eq!(feed.turn(at(start, 300)), Turn::Stay);
        assert_eq!(feed.turn(at(start, 350)), Turn::Join);
        feed.joined();
        assert_eq!(feed.turn(at(start, 400)), Turn::Stay);
    }

    #[test]
    fn it_comes_back_at_once_when_something_does_not_fit() {
        let start = Instant::now();
        let mut feed = away(start);
        feed.want();
        assert_eq!(feed.turn(at(start, 1)), Turn::Join);
    }

    #[test]
    fn it_comes_back_to_compare_however_well_it_is_fed() {
        let start = Instant::now();
        let mut feed = away(start);
        for ms in (100..5_000).step_by(100) {
            feed.fitted(at(start, ms));
            assert_eq!(feed.turn(at(start, ms)), Turn::Stay);
        }
        feed.fitted(at(start, 5_000));
        assert_eq!(feed.turn(at(start, 5_000)), Turn::Join);
    }
}

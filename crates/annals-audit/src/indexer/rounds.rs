//! [`Rounds`]: what the next transaction of the search table takes in, and when it begins; no I/O, no clock.
//!
//! Rounds are rate-limited, not delayed: the first record after a silence begins one at once, and what follows within
//! [`RoundSettings::every`] shares the next one.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use annals_record::Shard;

/// How the search table is filled.
#[derive(Debug, Clone, Copy)]
pub struct RoundSettings {
    /// From the beginning of one transaction to that of the next, at least, while readers keep up with the log.
    pub every: Duration,
    /// Records in one transaction; no further shard is taken in behind that many.
    pub records: usize,
    /// The same in bytes of records as stored.
    pub bytes: usize,
}

impl Default for RoundSettings {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(250),
            records: 4_000,
            bytes: 8 << 20,
        }
    }
}

/// What one shard has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) shard: Shard,
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// The read was full: more is likely to stand behind it.
    pub(super) more: bool,
}

/// What became of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is committed.
    Kept,
    /// Nothing is: another node moved this shard's checkpoint.
    Moved(Shard),
    /// Nothing is: Postgres refuses what one of the rows says.
    Refused,
    /// Nothing is known of it: Postgres was away.
    Failed,
}

/// The shards of a round that has ended. Those in neither list go into the next one as they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct After {
    /// These read on.
    pub(super) kept: Vec<Shard>,
    /// These begin anew from their stored checkpoints.
    pub(super) anew: Vec<Shard>,
}

/// What has been read and waits, at most one read a shard.
#[derive(Debug)]
pub(super) struct Rounds {
    settings: RoundSettings,
    waiting: VecDeque<Load>,
    /// What the round under way has taken in.
    taken: Vec<Load>,
    /// Shards that were in a round whose rows were refused: each goes alone, so that one holds up nobody else.
    alone: BTreeSet<Shard>,
    began: Option<Duration>,
    /// The next round need not wait: more is there than went into the last one.
    hurry: bool,
}

impl Rounds {
    pub(super) fn new(settings: RoundSettings) -> Self {
        Self {
            settings,
            waiting: VecDeque::new(),
            taken: Vec::new(),
            alone: BTreeSet::new(),
            began: None,
            hurry: false,
        }
    }

    /// A shard has read something.
    pub(super) fn offer(&mut self, load: Load) {
        self.waiting.push_back(load);
    }

    /// Whether the next round has room for what another shard reads.
    pub(super) fn has_room(&self) -> bool {
        let records: usize = self.waiting.iter().map(|load| load.records).sum();
        let bytes: usize = self.waiting.iter().map(|load| load.bytes).sum();
        records < self.settings.records && bytes < self.settings.bytes
    }

    /// How long nobody need read or write yet; `now` counts from any fixed moment.
    pub(super) fn rest(&self, now: Duration) -> Option<Duration> {
        if self.hurry {
            return None;
        }
        let due = self.began? + self.settings.every;
        due.checked_sub(now).filter(|rest| !rest.is_zero())
    }

    /// The shards of the round that begins now, in their order; none if nothing waits.
    pub(super) fn begin(&mut self, now: Duration) -> Vec<Shard> {
        let (mut records, mut bytes) = (0, 0);
        let mut left = VecDeque::new();
        for load in self.waiting.drain(..) {
            let full = records >= self.settings.records || bytes >= self.settings.bytes;
            if full || self.alone.contains(&load.shard) {
                left.push_back(load);
            } else {
                records += load.records;
                bytes += load.bytes;
                self.taken.push(load);
            }
        }
        if self.taken.is_empty() {
            self.taken.extend(left.pop_front());
        }
        self.waiting = left;
        self.taken.sort_by_key(|load| load.shard);
        if !self.taken.is_empty() {
            self.began = Some(now);
        }
        self.hurry = !self.waiting.is_empty() || self.taken.iter().any(|load| load.more);
        self.taken.iter().map(|load| load.shard).collect()
    }

    /// What became of the round that began last.
    pub(super) fn ended(&mut self, ended: Ended) -> After {
        let taken = std::mem::take(&mut self.taken);
        let shards = |taken: &[Load]| taken.iter().map(|load| load.shard).collect();
        match ended {
            Ended::Kept => {
                // Whoever went alone and was kept may share again.
                taken.iter().for_each(|load| {
                    self.alone.remove(&load.shard);
                });
                After {
                    kept: shards(&taken),
                    anew: Vec::new(),
                }
            }
            Ended::Refused if taken.len() > 1 => {
                self.alone.extend(taken.iter().map(|load| load.shard));
                self.again(taken);
                After::default()
            }
            Ended::Moved(lost) if taken.iter().any(|load| load.shard == lost) => {
                self.again(taken.into_iter().filter(|load| load.shard != lost));
                After {
                    kept: Vec::new(),
                    anew: vec![lost],
                }
            }
            Ended::Refused | Ended::Failed | Ended::Moved(_) => {
                self.hurry = !self.waiting.is_empty();
                After {
                    kept: Vec::new(),
                    anew: shards(&taken),
                }
            }
        }
    }

    /// The shard is another node's: what it has read is nobody's any more. Not while a round is under way.
    pub(super) fn lost(&mut self, shard: Shard) {
        self.waiting.retain(|load| load.shard != shard);
        self.alone.remove(&shard);
    }

    fn again(&mut self, loads: impl IntoIterator<Item = Load, IntoIter: DoubleEndedIterator>) {
        for load in loads.into_iter().rev() {
            self.waiting.push_front(load);
        }
        self.hurry = !self.waiting.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(250);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn shard(n: u32) -> Shard {
        Shard::new(n)
    }

    fn load(n: u32, records: usize) -> Load {
        Load {
            shard: shard(n),
            records,
            bytes: records * 100,
            more: false,
        }
    }

    fn rounds(loads: &[Load]) -> Rounds {
        let mut rounds = Rounds::new(RoundSettings {
            every: EVERY,
            records: 100,
            bytes: 1_000_000,
        });
        loads.iter().for_each(|load| rounds.offer(*load));
        rounds
    }

    #[test]
    fn the_first_read_after_a_silence_goes_at_once_and_the_next_ones_share_a_round() {
        let mut rounds = rounds(&[load(3, 1)]);
        assert_eq!(rounds.rest(ms(5_000)), None);
        assert_eq!(rounds.begin(ms(5_000)), [shard(3)]);
        assert_eq!(rounds.ended(Ended::Kept).kept, [shard(3)]);
        assert_eq!(rounds.rest(ms(5_010)), Some(ms(240)));
        assert_eq!(rounds.rest(ms(5_250)), None);
        rounds.offer(load(4, 1));
        rounds.offer(load(1, 1));
        assert_eq!(rounds.begin(ms(5_250)), [shard(1), shard(4)]);
        rounds.ended(Ended::Kept);
        assert_eq!(rounds.rest(ms(9_000)), None);
        assert_eq!(rounds.begin(ms(9_000)), []);
        assert_eq!(rounds.rest(ms(9_000)), None, "nothing was done");
    }

    #[test]
    fn a_full_round_takes_no_more_and_the_next_one_does_not_wait() {
        let mut rounds = rounds(&[load(0, 60), load(1, 60)]);
        assert!(!rounds.has_room());
        rounds.offer(load(2, 1));
        assert_eq!(rounds.begin(ms(0)), [shard(0), shard(1)]);
        rounds.ended(Ended::Kept);
        assert_eq!(rounds.rest(ms(1)), None);
        assert_eq!(rounds.begin(ms(1)), [shard(2)]);
        rounds.ended(Ended::Kept);
        assert_eq!(rounds.rest(ms(2)), Some(ms(249)));
        rounds.offer(Load {
            more: true,
            ..load(0, 10)
        });
        assert_eq!(rounds.begin(ms(251)), [shard(0)]);
        rounds.ended(Ended::Kept);
        assert_eq!(rounds.rest(ms(252)), None, "the reader is behind");
    }

    #[test]
    fn one_read_beyond_every_bound_still_goes() {
        let mut rounds = rounds(&[load(0, 10_000)]);
        assert_eq!(rounds.begin(ms(0)), [shard(0)]);
    }

    #[test]
    fn a_shard_that_was_taken_over_holds_up_no_other() {
        let mut rounds = rounds(&[load(0, 1), load(1, 1), load(2, 1)]);
        rounds.begin(ms(0));
        let after = rounds.ended(Ended::Moved(shard(1)));
        assert_eq!((after.kept, after.anew), (vec![], vec![shard(1)]));
        assert_eq!(rounds.rest(ms(1)), None, "the others go again at once");
        assert_eq!(rounds.begin(ms(1)), [shard(0), shard(2)]);
        assert_eq!(rounds.ended(Ended::Kept).kept, [shard(0), shard(2)]);
        assert!(rounds.rest(ms(2)).is_some());
    }

    #[test]
    fn of_a_round_that_is_refused_each_shard_goes_alone_until_it_is_kept() {
        let mut rounds = rounds(&[load(0, 1), load(1, 1)]);
        rounds.begin(ms(0));
        assert_eq!(rounds.ended(Ended::Refused), After::default());
        rounds.offer(load(2, 1));
        assert_eq!(rounds.begin(ms(1)), [shard(2)], "who is not suspected goes first");
        rounds.ended(Ended::Kept);
        assert_eq!(rounds.begin(ms(1)), [shard(0)]);
        let after = rounds.ended(Ended::Refused);
        assert_eq!(after.anew, [shard(0)], "it is this one");
        assert_eq!(rounds.rest(ms(2)), None);
        assert_eq!(rounds.begin(ms(2)), [shard(1)]);
        assert_eq!(rounds.ended(Ended::Kept).kept, [shard(1)]);
        // The one goes on alone, the other shares again.
        for n in [0, 1, 2] {
            rounds.offer(load(n, 1));
        }
        assert_eq!(rounds.begin(ms(300)), [shard(1), shard(2)]);
        rounds.ended(Ended::Kept);
        assert_eq!(rounds.begin(ms(301)), [shard(0)]);
        rounds.ended(Ended::Kept);
        for n in [0, 1] {
            rounds.offer(load(n, 1));
        }
        assert_eq!(rounds.begin(ms(600)), [shard(0), shard(1)], "nobody is suspected");
    }

    #[test]
    fn when_the_database_was_away_all_of_the_round_begin_anew() {
        let mut rounds = rounds(&[load(0, 1), load(1, 1)]);
        rounds.begin(ms(0));
        assert_eq!(rounds.ended(Ended::Failed).anew, [shard(0), shard(1)]);
        assert_eq!(rounds.rest(ms(1)), Some(ms(249)));
        assert_eq!(rounds.begin(ms(250)), []);
    }

    #[test]
    fn a_shard_that_is_another_nodes_is_left_out() {
        let mut rounds = rounds(&[load(0, 1), load(1, 1)]);
        rounds.lost(shard(0));
        assert_eq!(rounds.begin(ms(0)), [shard(1)]);
    }
}

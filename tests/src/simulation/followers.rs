//! What follows the log: indexers, which fill the journal, and recorders, readers that keep what they saw.
//!
//! Both drive the real [`Folding`] from a stored checkpoint and commit with a compare-and-set; of each there may be two
//! at once, one of them a zombie. A recorder keeps offsets only: it imitates no SQL.

use std::time::Duration;

use annals_log::indexer::{Committing, Then, Tried};
use annals_log::reader::{Folding, Took};
use annals_log::{Batch, Checkpoint, LogError, Plays, ReaderError, ReaderSettings, Stopped};
use annals_record::Offset;

use super::truth::index;
use super::wire::SHARD;
use super::world::World;
use super::{Check, Violation};

/// How long a log may end below a checkpoint, as readers are set by default.
const SHORT_LOG: Duration = Duration::from_secs(30);

/// What a recorder has stored: the offsets of accepted records, and the checkpoint that stands for them.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) at: Checkpoint,
    pub(super) offsets: Vec<Offset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Indexer,
    Recorder,
}

/// One process that follows the log.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) kind: Kind,
    folding: Option<Folding>,
    committing: Option<Committing>,
    /// It stands still until it is started anew.
    stopped: bool,
    /// It has halted, in this life or an earlier one.
    pub(super) halted: bool,
}

impl Follower {
    /// Two of each kind that the log needs: one of them is always a zombie.
    pub(super) fn all(plays: Plays) -> Vec<Self> {
        let kinds: &[Kind] = match plays {
            Plays::Kafka => &[Kind::Indexer, Kind::Indexer, Kind::Recorder, Kind::Recorder],
            Plays::Postgres => &[Kind::Recorder, Kind::Recorder],
        };
        kinds.iter().map(|kind| Self::new(*kind)).collect()
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            folding: None,
            committing: None,
            stopped: false,
            halted: false,
        }
    }
}

impl World {
    pub(super) fn crash_follower(&mut self, n: usize) {
        let kind = self.followers[n].kind;
        self.say(|_| format!("follower {n} ({kind:?}) starts anew"));
        let halted = self.followers[n].halted && self.cut.is_some() && self.calm;
        self.followers[n] = Follower {
            halted,
            ..Follower::new(kind)
        };
    }

    pub(super) fn stored(&self, kind: Kind) -> &Checkpoint {
        match kind {
            Kind::Indexer => &self.journal.at,
            Kind::Recorder => &self.recorded.at,
        }
    }

    /// One read, or one commit.
    pub(super) fn follow(&mut self, n: usize) -> Check {
        if self.followers[n].stopped {
            // A supervisor starts it again, from what is stored.
            self.crash_follower(n);
            return Ok(());
        }
        if self.followers[n].committing.is_some() {
            return self.commit(n);
        }
        let kind = self.followers[n].kind;
        if self.followers[n].folding.is_none() {
            let settings = ReaderSettings {
                short_log: SHORT_LOG,
                ..ReaderSettings::default()
            };
            let at = self.stored(kind).clone();
            let folding = Folding::new(self.catalog.clone(), SHARD, self.truth.genesis(), at, settings);
            self.followers[n].folding = Some(folding);
        }
        self.read_on(n)
    }

    fn read_on(&mut self, n: usize) -> Check {
        let now = Duration::from_millis(u64::try_from(self.now_ms).unwrap_or(0));
        let end = self.truth.end();
        let most = 1 + self.rng.below(6);
        let follower = &mut self.followers[n];
        let Some(folding) = &mut follower.folding else {
            return Ok(());
        };
        let took = folding.wants().and_then(|(from, limits)| {
            let read = if from > end {
                Err(LogError::BeyondEnd {
                    shard: SHARD,
                    end,
                    from,
                })
            } else {
                let most = most.min(limits.records);
                Ok(self.truth.placed[index(from)..]
                    .iter()
                    .take(most)
                    .cloned()
                    .collect())
            };
            match folding.took(now, read)? {
                Took::AskEnd => folding.ends(now, end),
                took => Ok(took),
            }
        });
        match took {
            Ok(Took::Batch(batch)) => {
                follower.committing = Some(Committing::new(vec![*batch]));
                Ok(())
            }
            Ok(Took::Nothing | Took::Resumed | Took::AskEnd | Took::Short(_)) => Ok(()),
            Err(error) => {
                follower.stopped = true;
                self.reader_stopped(n, &error)
            }
        }
    }

    fn reader_stopped(&mut self, n: usize, error: &ReaderError) -> Check {
        let kind = self.followers[n].kind;
        self.say(|_| format!("follower {n} ({kind:?}) stops: {error}"));
        self.counts.halts += 1;
        self.followers[n].halted = true;
        self.may_halt(&format!("follower {n} ({kind:?})"), &error.to_string())
    }

    fn commit(&mut self, n: usize) -> Check {
        let fails = self.rate(self.plan.faults.store);
        let (before, lost) = (self.rng.chance(fails), self.rng.chance(fails));
        let kind = self.followers[n].kind;
        let Some(mut committing) = self.followers[n].committing.take() else {
            return Ok(());
        };
        let Some([batch]) = committing.batches() else {
            return self.committed(n, committing);
        };
        let tried = if before {
            failed(false)
        } else if self.store(kind, batch)? {
            if lost { failed(true) } else { Tried::Done }
        } else {
            Tried::Moved(SHARD)
        };
        self.say(|_| format!("follower {n} ({kind:?}) commits: {tried:?}"));
        if committing.tried(tried) == Then::Compare {
            let stands = committing
                .batches()
                .is_some_and(|group| group.iter().all(|b| b.to == *self.stored(kind)));
            committing.compared(stands);
        }
        if committing.batches().is_some() {
            self.followers[n].committing = Some(committing);
            return Ok(());
        }
        self.committed(n, committing)
    }

    fn committed(&mut self, n: usize, committing: Committing) -> Check {
        let (_, stopped) = committing.finish();
        self.followers[n].stopped = !stopped.is_empty();
        match stopped
            .into_iter()
            .find(|(_, why)| !matches!(why, Stopped::Moved(_)))
        {
            Some((_, why)) => Violation::of("followers", format!("follower {n} stops: {why}")),
            None => Ok(()),
        }
    }

    /// The transaction: L8, and that a batch holds what counts and nothing else.
    fn store(&mut self, kind: Kind, batch: &Batch) -> Result<bool, Violation> {
        let stored = self.stored(kind);
        if *stored != batch.from {
            return Ok(false);
        }
        if batch.to.head.next < stored.head.next {
            return Violation::of("L8", format!("the checkpoint of the {kind:?} moves back"));
        }
        if self.cut.is_none() {
            self.is_whole(kind, batch)?;
        }
        match kind {
            Kind::Indexer => return Ok(self.journal.commit(batch)),
            Kind::Recorder => {
                let new = batch.records.iter().map(annals_log::Accepted::offset);
                self.recorded.offsets.extend(new);
                self.recorded.at = batch.to.clone();
            }
        }
        Ok(true)
    }

    fn is_whole(&self, kind: Kind, batch: &Batch) -> Check {
        let (from, to) = (batch.from.head.next, batch.to.head.next);
        if self.truth.checkpoint_at(to) != Some(&batch.to) {
            let what = format!(
                "the {kind:?} is at {:?}; a fold to there gives {:?}",
                batch.to,
                self.truth.checkpoint_at(to)
            );
            return Violation::of("L4", what);
        }
        let entries = batch
            .records
            .iter()
            .filter(|accepted| accepted.record().stream.is_some());
        let entries: Vec<_> = entries
            .map(|accepted| (accepted.offset(), accepted.record().id()))
            .collect();
        let facts: Vec<_> = self
            .truth
            .facts_in(from, to)
            .map(|(offset, fact)| (offset, fact.id))
            .collect();
        if entries != facts {
            return Violation::of(
                "L8",
                format!("the {kind:?} stores {entries:?} for {from} to {to}, where {facts:?} count"),
            );
        }
        Ok(())
    }
}

fn failed(unsure: bool) -> Tried {
    let why = Stopped::Reader(ReaderError::Log(LogError::Unavailable("by plan".to_owned())));
    Tried::Failed {
        transient: true,
        unsure,
        why,
    }
}

//! [`Committing`]: what an indexer decides about its commits; no I/O, no clock.
//!
//! Batches of several shards share a transaction. One whose answer was lost may have happened; one that fails for
//! good is tried shard by shard, so that the others go on; a checkpoint that somebody else moved ends its shard.

use std::collections::VecDeque;

use annals_record::Shard;

use super::Stopped;
use crate::Batch;

/// What came of one transaction.
#[derive(Debug)]
pub enum Tried {
    /// It is committed.
    Done,
    /// Nothing happened: the checkpoint of this shard is not where its batch begins.
    Moved(Shard),
    /// It failed.
    Failed {
        /// Trying again may help.
        transient: bool,
        /// It may have been committed all the same.
        unsure: bool,
        /// What stops the shard if it does not.
        why: Stopped,
    },
}

/// What is to be done before the next transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Go,
    /// Wait a little.
    Pause,
    /// See whether every shard of the transaction stands where its batch ends, then [`Committing::compared`].
    Compare,
}

/// Batches that are to be committed, and what became of those that are not any more.
#[derive(Debug, Default)]
pub struct Committing {
    groups: VecDeque<Group>,
    moved: Option<Shard>,
    committed: Vec<Batch>,
    stopped: Vec<(Shard, Stopped)>,
}

#[derive(Debug)]
struct Group {
    batches: Vec<Batch>,
    /// An attempt may have been committed though its answer was lost.
    unsure: bool,
}

impl Committing {
    /// All of them in one transaction, at first.
    pub fn new(batches: Vec<Batch>) -> Self {
        let group = Group {
            batches,
            unsure: false,
        };
        Self {
            groups: VecDeque::from([group]),
            ..Self::default()
        }
    }

    /// What the next transaction is to hold; `None` once there is nothing left.
    pub fn batches(&mut self) -> Option<&[Batch]> {
        while self
            .groups
            .pop_front_if(|group| group.batches.is_empty())
            .is_some()
        {}
        self.groups.front().map(|group| &*group.batches)
    }

    /// Takes in what came of it.
    pub fn tried(&mut self, tried: Tried) -> Then {
        let Some(group) = self.groups.front_mut() else {
            return Then::Go;
        };
        match tried {
            Tried::Done => self.done(),
            Tried::Moved(shard) if group.unsure => {
                self.moved = Some(shard);
                return Then::Compare;
            }
            Tried::Moved(shard) => self.lose(shard),
            Tried::Failed {
                transient,
                unsure,
                why,
                ..
            } => {
                group.unsure |= unsure;
                if transient {
                    return Then::Pause;
                }
                self.isolate(&why);
            }
        }
        Then::Go
    }

    /// Takes in whether the transaction whose answer was lost had been committed.
    pub fn compared(&mut self, is_committed: bool) {
        match self.moved.take() {
            Some(_) if is_committed => self.done(),
            Some(shard) => self.lose(shard),
            None => {}
        }
    }

    /// What was committed, and which shards are at their end and why.
    pub fn finish(self) -> (Vec<Batch>, Vec<(Shard, Stopped)>) {
        (self.committed, self.stopped)
    }

    fn done(&mut self) {
        self.committed.extend(
            self.groups
                .pop_front()
                .into_iter()
                .flat_map(|group| group.batches),
        );
    }

    /// Another indexer has this shard.
    fn lose(&mut self, shard: Shard) {
        if let Some(group) = self.groups.front_mut() {
            group.batches.retain(|batch| batch.shard != shard);
        }
        self.stopped.push((shard, Stopped::Moved(shard)));
    }

    /// One of them will never be taken: each alone.
    fn isolate(&mut self, why: &Stopped) {
        let Some(Group { batches, unsure }) = self.groups.pop_front() else {
            return;
        };
        if let [batch] = &*batches {
            self.stopped.push((batch.shard, why.clone()));
            return;
        }
        for batch in batches.into_iter().rev() {
            self.groups.push_front(Group {
                batches: vec![batch],
                unsure,
            });
        }
    }
}

//! What one statement writes: groups of appends, one group a shard, each chained from one head to another.
//!
//! No I/O. The fold computes the new heads, and what it would pass over is not written.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use annals_record::fold::{self, ChainAt, Head};
use annals_record::record::{Record, Slot};
use annals_record::{Hash32, Offset, RecordId, Shard};
use tokio::sync::oneshot;

use crate::{Appended, Hashed, LogError, Placed};

/// One append that waits.
pub(super) struct Job {
    pub(super) shard: Shard,
    pub(super) at: Head,
    pub(super) records: Vec<Hashed>,
    pub(super) bytes: usize,
    pub(super) answer: oneshot::Sender<Appended>,
}

/// Appends of one shard that chain on each other: one row of `log_head` moves, or none of them is written.
pub(super) struct Group {
    pub(super) shard: Shard,
    pub(super) from: Head,
    pub(super) to: Head,
    pub(super) last_hash: Hash32,
    pub(super) placed: Vec<Arc<Placed>>,
    answers: Vec<(oneshot::Sender<Appended>, Landing)>,
}

/// Where each record of an append lands, if the group is written.
type Landing = Vec<(RecordId, Offset)>;

/// The groups of one statement.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) groups: BTreeMap<Shard, Group>,
    /// What the fold would pass over: to be told where the head is.
    pub(super) refused: Vec<(Shard, oneshot::Sender<Appended>)>,
    pub(super) rows: usize,
    bytes: usize,
}

/// How much one statement may write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.refused.is_empty()
    }

    /// Takes what fits from the front of the queue. What does not chain on its shard's group stays, and all that
    /// is behind it on that shard: only the statement's answer can say what becomes of it.
    pub(super) fn absorb(
        &mut self,
        queue: &mut VecDeque<Job>,
        bounds: Bounds,
        genesis: impl Fn(Shard) -> Hash32,
    ) {
        let mut held = HashSet::new();
        let mut later = VecDeque::new();
        while let Some(job) = queue.pop_front() {
            if !self.has_room(&job, bounds) {
                queue.push_front(job);
                break;
            }
            let chains = self.groups.get(&job.shard).is_none_or(|group| group.to == job.at);
            if !chains || held.contains(&job.shard) {
                held.insert(job.shard);
                later.push_back(job);
            } else {
                let genesis = genesis(job.shard);
                self.add(job, genesis);
            }
        }
        while let Some(job) = later.pop_back() {
            queue.push_front(job);
        }
    }

    fn has_room(&self, job: &Job, bounds: Bounds) -> bool {
        self.is_empty()
            || (self.rows + job.records.len() <= bounds.rows && self.bytes + job.bytes <= bounds.bytes)
    }

    /// All records of the job chain from its head on, or the job is refused.
    fn add(&mut self, job: Job, genesis: Hash32) {
        let mut head = job.at;
        let mut placed = Vec::with_capacity(job.records.len());
        for Hashed { record, hash } in job.records {
            // What the claimer saw below its own count, the log cannot contradict here; a reader can.
            let forgotten = |_| ChainAt::Forgotten;
            let (verdict, behind) = fold::accept_record(&head, genesis, forgotten, &record, hash);
            if !verdict.is_accept() {
                self.refused.push((job.shard, job.answer));
                return;
            }
            let slot = Slot::Known(Arc::unwrap_or_clone(record));
            placed.push(Arc::new(Placed::new(head.next, slot, hash)));
            head = behind;
        }
        let Some(last_hash) = placed.last().map(|placed| placed.hash) else {
            job.answer.send(Appended::Landed(Vec::new())).ok();
            return;
        };
        self.rows += placed.len();
        self.bytes += job.bytes;
        let landed = placed
            .iter()
            .map(|placed| (record_of(placed).id(), placed.offset));
        let landed = landed.collect();
        let group = self.groups.entry(job.shard).or_insert_with(|| Group {
            shard: job.shard,
            from: job.at,
            to: job.at,
            last_hash,
            placed: Vec::new(),
            answers: Vec::new(),
        });
        group.to = head;
        group.last_hash = last_hash;
        group.placed.append(&mut placed);
        group.answers.push((job.answer, landed));
    }

    /// Gives every append of the batch the same answer.
    pub(super) fn answer_all(self, answer: impl Fn() -> Appended) {
        for group in self.groups.into_values() {
            group.answer_all(&answer);
        }
        for (_, refused) in self.refused {
            refused.send(answer()).ok();
        }
    }
}

impl Group {
    /// Everything was written. Nobody may be waiting for an answer any more; that changes nothing.
    pub(super) fn landed(self) {
        for (answer, landed) in self.answers {
            answer.send(Appended::Landed(landed)).ok();
        }
    }

    /// Gives every append of the group the same answer.
    pub(super) fn answer_all(self, answer: impl Fn() -> Appended) {
        for (waiting, _) in self.answers {
            waiting.send(answer()).ok();
        }
    }
}

/// The record of a row that is about to be written.
pub(super) fn record_of(placed: &Placed) -> &Record {
    placed
        .slot
        .known()
        .expect("only records are appended, never foreign bytes")
}

/// The answer for what is known not to have been written.
pub(super) fn not_written(why: &str) -> Appended {
    Appended::NotWritten(LogError::Unavailable(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Chained;

    const BOUNDS: Bounds = Bounds {
        rows: 100,
        bytes: 1 << 20,
    };

    fn job(shard: u32, at: Head, records: Vec<Arc<Record>>) -> (Job, oneshot::Receiver<Appended>) {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            shard: Shard::new(shard),
            at,
            bytes: records.iter().map(|record| record.stored_bytes()).sum(),
            records: records.into_iter().map(Hashed::of).collect(),
            answer,
        };
        (job, answered)
    }

    fn absorb(batch: &mut Batch, jobs: Vec<Job>, bounds: Bounds) -> VecDeque<Job> {
        let mut queue = VecDeque::from(jobs);
        let genesis = Chained::example().genesis();
        batch.absorb(&mut queue, bounds, |_| genesis);
        queue
    }

    #[test]
    fn appends_that_chain_become_one_group() {
        let mut writer = Chained::example();
        let at = writer.head();
        let (first, mut answered) = job(0, at, vec![writer.claim(), writer.commit("a-1", 1, 1)]);
        let middle = writer.head();
        let (second, _) = job(0, middle, vec![writer.commit("a-1", 2, 1)]);
        let mut batch = Batch::default();
        assert!(absorb(&mut batch, vec![first, second], BOUNDS).is_empty());
        let group = batch.groups.remove(&Shard::new(0)).unwrap();
        assert_eq!((group.from, group.to), (at, writer.head()));
        assert_eq!(group.placed.len(), 3);
        group.landed();
        let Ok(Appended::Landed(landed)) = answered.try_recv() else {
            panic!("it landed");
        };
        assert_eq!(landed.len(), 2);
        assert_eq!(landed[1].1, Offset::new(1));
    }

    #[test]
    fn what_does_not_chain_waits_with_all_behind_it_on_its_shard() {
        let mut writer = Chained::example();
        let mut zombie = writer.another(1);
        let at = writer.head();
        let (first, _a) = job(0, at, vec![writer.claim()]);
        let (rival, _b) = job(0, at, vec![zombie.claim()]);
        let middle = writer.head();
        let (behind, _c) = job(0, middle, vec![writer.commit("a-1", 1, 1)]);
        let (other, _d) = job(1, at, vec![Chained::example().claim()]);
        let mut batch = Batch::default();
        let left = absorb(&mut batch, vec![first, rival, behind, other], BOUNDS);
        let left: Vec<_> = left
            .iter()
            .map(|job| (job.shard.get(), job.at.next.get()))
            .collect();
        assert_eq!(left, [(0, 0), (0, 1)]);
        assert_eq!(batch.groups.len(), 2);
    }

    #[test]
    fn what_the_fold_would_pass_over_is_not_written() {
        let mut writer = Chained::example();
        writer.claim();
        let at = writer.head();
        let earlier = Head {
            time_ms: i64::MAX,
            ..at
        };
        let (late, _answered) = job(0, earlier, vec![writer.commit("a-1", 1, 1)]);
        let mut batch = Batch::default();
        absorb(&mut batch, vec![late], BOUNDS);
        assert!(batch.groups.is_empty());
        assert_eq!(batch.refused.len(), 1);
    }

    #[test]
    fn a_full_batch_leaves_the_rest_in_order() {
        let mut writer = Chained::example();
        let (mut jobs, mut answers) = (Vec::new(), Vec::new());
        for version in 1..=5 {
            let at = writer.head();
            let (job, answered) = job(0, at, vec![writer.commit("a-1", version, 1)]);
            jobs.push(job);
            answers.push(answered);
        }
        let bounds = Bounds { rows: 2, ..BOUNDS };
        let mut batch = Batch::default();
        let left = absorb(&mut batch, jobs, bounds);
        assert_eq!(batch.rows, 2);
        let left: Vec<_> = left.iter().map(|job| job.at.next.get()).collect();
        assert_eq!(left, [2, 3, 4]);
    }
}

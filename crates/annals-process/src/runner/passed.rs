//! [`Passed`]: how far each shard was read over records that do not concern the process; no I/O, no clock.
//!
//! Such records need no transaction: whoever reads them again passes over them again. Their checkpoints go with the next
//! transaction that keeps something, or by themselves now and then, so that little is read again after a crash.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_log::{Batch, Checkpoint};
use annals_record::Shard;

/// Moves of checkpoints that are not stored. Everything that concerns the process below each `to` is kept.
#[derive(Debug)]
pub(super) struct Passed {
    /// Records after which they are stored by themselves.
    most: u64,
    /// The time after which they are.
    every: Duration,
    moves: BTreeMap<Shard, (Checkpoint, Checkpoint)>,
    records: u64,
    since: Option<Duration>,
}

impl Passed {
    pub(super) fn new(most: u64, every: Duration) -> Self {
        Self {
            most,
            every,
            moves: BTreeMap::new(),
            records: 0,
            since: None,
        }
    }

    /// A batch without a record for the process was read; `now` counts from any fixed moment.
    pub(super) fn pass(&mut self, now: Duration, batch: &Batch) {
        self.since.get_or_insert(now);
        let (from, to) = (batch.from.head.next.get(), batch.to.head.next.get());
        self.records += to.saturating_sub(from);
        extend(&mut self.moves, batch);
    }

    /// Whether they are to be stored by themselves.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        let old = self
            .since
            .is_some_and(|since| now.saturating_sub(since) >= self.every);
        old || self.records >= self.most
    }

    pub(super) fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// One move a shard, with what these batches add. They are not taken note of: their records are not kept yet.
    pub(super) fn moves_with(&self, batches: &[Batch]) -> BTreeMap<Shard, (Checkpoint, Checkpoint)> {
        let mut moves = self.moves.clone();
        batches.iter().for_each(|batch| extend(&mut moves, batch));
        moves
    }

    /// The transaction with these moves is committed.
    pub(super) fn stored(&mut self) {
        self.moves.clear();
        self.records = 0;
        self.since = None;
    }
}

fn extend(moves: &mut BTreeMap<Shard, (Checkpoint, Checkpoint)>, batch: &Batch) {
    let (_, to) = moves
        .entry(batch.shard)
        .or_insert_with(|| (batch.from.clone(), batch.to.clone()));
    to.clone_from(&batch.to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_record::fold::Head;
    use annals_record::{AppName, Offset, ShardCount};

    fn at(shard: u32, next: u64) -> Checkpoint {
        let (app, shards) = (
            AppName::try_from("test").unwrap(),
            ShardCount::try_from(4).unwrap(),
        );
        Checkpoint::genesis(Head {
            next: Offset::new(next),
            ..Head::genesis(&app, Shard::new(shard), shards)
        })
    }

    fn batch(shard: u32, from: u64, to: u64) -> Batch {
        Batch {
            shard: Shard::new(shard),
            from: at(shard, from),
            to: at(shard, to),
            records: Vec::new(),
        }
    }

    fn moves(passed: &Passed, batches: &[Batch]) -> Vec<(u32, u64, u64)> {
        let all = passed.moves_with(batches);
        all.iter()
            .map(|(shard, (from, to))| (shard.get(), from.head.next.get(), to.head.next.get()))
            .collect()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn they_are_stored_after_a_while_or_many_records_and_not_before() {
        let mut passed = Passed::new(100, SECOND);
        assert!(!passed.is_due(10 * SECOND), "there is nothing");
        passed.pass(10 * SECOND, &batch(0, 0, 5));
        passed.pass(10 * SECOND + SECOND / 2, &batch(1, 7, 8));
        assert!(!passed.is_due(11 * SECOND - Duration::from_millis(1)));
        assert!(passed.is_due(11 * SECOND), "it counts from the first");
        passed.stored();
        assert!(!passed.is_due(20 * SECOND) && passed.is_empty());
        passed.pass(20 * SECOND, &batch(0, 5, 104));
        assert!(!passed.is_due(20 * SECOND));
        passed.pass(20 * SECOND, &batch(0, 104, 105));
        assert!(passed.is_due(20 * SECOND), "it is a hundred");
    }

    #[test]
    fn a_batch_that_is_being_kept_goes_on_from_what_was_passed_and_is_not_passed_itself() {
        let mut passed = Passed::new(100, SECOND);
        passed.pass(SECOND, &batch(0, 3, 5));
        passed.pass(SECOND, &batch(0, 5, 9));
        let kept = [batch(0, 9, 12), batch(2, 1, 2), batch(2, 2, 6)];
        assert_eq!(moves(&passed, &kept), [(0, 3, 12), (2, 1, 6)]);
        // Had the transaction failed, these would be read again.
        assert_eq!(moves(&passed, &[]), [(0, 3, 9)]);
        passed.stored();
        assert_eq!(moves(&passed, &[]), []);
    }
}

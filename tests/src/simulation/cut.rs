//! A log that is cut off or replaced behind everybody's back (L9): whoever resumes on it must halt.
//!
//! Nothing is promised of answers from then on: what was acknowledged may be gone. So the oracle stops judging answers,
//! and looks at who notices: a fold of the log must not lead to a head that was known before, whoever starts again at
//! a record that is not what it was must halt, and so must an owner that stands beyond the log's end.

use annals_command::engine::Engine;
use annals_log::{Checkpoint, Plays};
use annals_record::Offset;
use annals_record::fold::{Fold, Head};
use annals_record::record::Slot;
use bytes::Bytes;

use super::followers::Kind;
use super::journal::Journal;
use super::plan::Cut;
use super::truth::index;
use super::wire::{SHARD, raw};
use super::world::World;
use super::{Check, Violation};

/// Rounds of a second each in which an owner must notice that the log is too short.
const ROUNDS: usize = 60;

impl World {
    /// Tampers with the log, if there is anything to tamper with.
    pub(super) fn tamper(&mut self, cut: Cut) -> Check {
        let accepted: Vec<Offset> = self.truth.accepted().collect();
        let newest = accepted.len().min(4);
        if newest < 2 {
            return Ok(());
        }
        let at = accepted[accepted.len() - 1 - self.rng.below(newest - 1)];
        let known = self.known_heads(at);
        self.say(|_| format!("the log is tampered with at {at}: {cut:?}"));
        match cut {
            Cut::Truncated => self.wire.log.truncate(SHARD, at),
            Cut::Replaced => {
                let mut other = raw(&self.truth.placed[index(at)].slot);
                let value = other.value.as_deref().unwrap_or_default();
                other.value = Some(Bytes::from([value, b" "].concat()));
                self.wire.log.replace(SHARD, at, other);
            }
        }
        self.cut = Some(at);
        self.history.judges = false;
        let placed = self.wire.log.placed(SHARD);
        self.truth.read_again(placed);
        if self.plan.plays == Plays::Postgres {
            self.restore_journal();
        }
        self.leads_elsewhere(at, &known)
    }

    /// With Postgres the journal is the log, so it loses the same.
    fn restore_journal(&mut self) {
        let genesis = Checkpoint::genesis(Head::at_genesis(self.truth.genesis()));
        self.journal = Journal::new(genesis);
        for placed in &self.truth.placed {
            if let Slot::Known(record) = &placed.slot {
                self.journal.insert(placed.offset, record);
            }
        }
        self.journal.at = self.truth.checkpoint().clone();
    }

    /// What nodes and readers know beyond a place.
    fn known_heads(&self, at: Offset) -> Vec<Head> {
        let nodes = self
            .nodes
            .iter()
            .filter_map(|node| node.engine.as_ref()?.head(SHARD).copied());
        let stored = [self.journal.at.head, self.recorded.at.head];
        nodes.chain(stored).filter(|head| head.next > at).collect()
    }

    /// L9, by the fold that a verifier uses.
    fn leads_elsewhere(&self, at: Offset, known: &[Head]) -> Check {
        let mut fold = Fold::from_genesis(self.truth.genesis());
        for placed in &self.truth.placed {
            fold.step(&placed.slot, placed.hash);
            if known.contains(fold.head()) {
                let what = format!(
                    "the log was changed at {at}, and a fold of it still leads to {:?}",
                    fold.head()
                );
                return Violation::of("L9", what);
            }
        }
        Ok(())
    }

    /// The end of a run on such a log.
    pub(super) fn end_cut(&mut self) -> Check {
        for _ in 0..ROUNDS {
            self.now_ms += 900;
            self.round()?;
        }
        self.owner_noticed()?;
        self.say(|_| "everybody starts again".to_owned());
        for follower in 0..self.followers.len() {
            self.crash_follower(follower);
        }
        for node in 0..self.nodes.len() {
            self.crash(node);
            self.start(node);
        }
        let mut must_halt: Vec<(Kind, bool)> = vec![(Kind::Recorder, false)];
        if self.plan.plays == Plays::Kafka {
            must_halt.push((Kind::Indexer, false));
        }
        must_halt.retain(|(kind, _)| !self.stands(self.stored(*kind)));
        let node_must_halt = !self.stands(&self.journal.at);
        for _ in 0..ROUNDS {
            self.now_ms += 900;
            self.round()?;
            for (kind, halted) in &mut must_halt {
                *halted |= self
                    .followers
                    .iter()
                    .any(|follower| follower.kind == *kind && follower.halted);
            }
        }
        if let Some((kind, _)) = must_halt.iter().find(|(_, halted)| !halted) {
            return Violation::of(
                "L9",
                format!("the {kind:?} resumes on a log that was tampered with"),
            );
        }
        if node_must_halt && !self.nodes[self.holder].halted {
            return Violation::of(
                "L9",
                format!("node {} resumes on a log that was tampered with", self.holder),
            );
        }
        Ok(())
    }

    /// Whether the record before a checkpoint is what it was.
    fn stands(&self, at: &Checkpoint) -> bool {
        match at.head.next.get().checked_sub(1) {
            None => true,
            Some(last) => {
                let placed = self.truth.placed.get(index(Offset::new(last)));
                placed.is_some_and(|placed| placed.hash == at.last_hash)
            }
        }
    }

    fn owner_noticed(&self) -> Check {
        let node = &self.nodes[self.holder];
        let head = node
            .engine
            .as_ref()
            .and_then(|engine: &Engine| engine.head(SHARD));
        match head {
            Some(head) if head.next > self.truth.end() && !node.halted => {
                let what = format!(
                    "node {} stands at {}, beyond the log's end at {}",
                    node.name,
                    head.next,
                    self.truth.end()
                );
                Violation::of("L9", what)
            }
            Some(_) | None => Ok(()),
        }
    }
}

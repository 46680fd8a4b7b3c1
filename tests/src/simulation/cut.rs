//! A log that is cut off or replaced behind everybody's back (L9): whoever resumes on it must halt.
//!
//! Nothing is promised of answers from then on: what was acknowledged may be gone. So the oracle stops judging answers,
//! and looks at who notices: a fold of the log must not lead to a head that was known before, whoever starts again at
//! a record that is not what it was must halt, and so must an owner that stands beyond the log's end.

use std::sync::Arc;

use annals_command::engine::Engine;
use annals_log::{Checkpoint, Log, Plays};
use annals_record::fold::{Fold, Head};
use annals_record::record::{Close, Meta, RawHeader, RawRecord, Record, Slot};
use annals_record::{Offset, RecordId};
use bytes::Bytes;
use futures_util::FutureExt;

use super::followers::Kind;
use super::journal::Journal;
use super::plan::Cut;
use super::truth::index;
use super::wire::{SHARD, raw};
use super::world::World;
use super::{Check, Violation};

/// Rounds of a second each in which an owner must notice that the log is too short.
const ROUNDS: usize = 60;
/// A command that has been open for so long, ms, will not be answered.
const LATE_MS: i64 = 40_000;

impl World {
    /// Ends the shard, as the first step of copying a log does. Everything is still promised: what was acknowledged
    /// stays, and what is open never happens.
    pub(super) fn close(&mut self) -> Check {
        let head = *self.truth.head();
        let close = Record {
            stream: None,
            timestamp_ms: self.now_ms.max(head.time_ms),
            meta: Meta::Close(Close {
                id: RecordId::from_parts(1, [0xcc; 10]),
                epoch: head.epoch,
                prev: head.chain,
            }),
            value: Bytes::from_static(b"{}"),
        };
        self.say(|_| "an operator closes the shard".to_owned());
        self.wire
            .log
            .append(SHARD, head, vec![Arc::new(close)])
            .now_or_never();
        self.landed()
    }

    /// Tampers with the log, if there is anything to tamper with.
    pub(super) fn tamper(&mut self, cut: Cut) -> Check {
        let accepted: Vec<Offset> = self.truth.accepted().collect();
        let newest = accepted.len().min(4);
        if newest < 2 {
            return Ok(());
        }
        let at = match cut {
            Cut::Newer => self.truth.end(),
            Cut::Truncated | Cut::Replaced => accepted[accepted.len() - 1 - self.rng.below(newest - 1)],
        };
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
            Cut::Newer => {
                let header = RawHeader {
                    name: Bytes::from_static(b"annals"),
                    value: Some(Bytes::from_static(b"2")),
                };
                let newer = RawRecord {
                    key: None,
                    timestamp_ms: self.now_ms,
                    value: None,
                    headers: vec![header],
                };
                self.wire.log.insert(SHARD, newer);
            }
        }
        self.cut = Some((cut, at));
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
        for round in 0..ROUNDS {
            self.now_ms += 900;
            if round % 20 == 0 {
                self.ask(self.holder)?;
            }
            self.round()?;
        }
        self.owner_noticed()?;
        self.nobody_waits()?;
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
        let newer = self.cut.filter(|(cut, _)| *cut == Cut::Newer).map(|(_, at)| at);
        must_halt.retain(|(kind, _)| newer.is_some() || !self.stands(self.stored(*kind)));
        let node_must_halt = newer.is_some() || !self.stands(&self.journal.at);
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
        let nodes = self
            .nodes
            .iter()
            .filter_map(|node| node.engine.as_ref()?.head(SHARD));
        let mut heads = nodes.chain([&self.journal.at.head, &self.recorded.at.head]);
        match newer.and_then(|at| heads.find(|head| head.next > at)) {
            Some(head) => Violation::of(
                "L9",
                format!("a reader passed a record that it cannot know: {head:?}"),
            ),
            None => Ok(()),
        }
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

    /// Nobody waits for the outcome of a command for ever without an alarm: a node that has halted, or unchained ghosts.
    /// (One that has lost the shard rightly waits for the next owner's claim, and the next owner may be the one that
    /// halts.)
    fn nobody_waits(&self) -> Check {
        if self.truth.unchained > 0 || self.nodes.iter().any(|node| node.halted) {
            return Ok(());
        }
        let late = |since_ms: i64| self.now_ms - since_ms > LATE_MS;
        let open = self
            .history
            .handed
            .values()
            .find(|handed| !handed.answered && late(handed.since_ms));
        match open {
            Some(handed) => {
                let what = format!(
                    "node {} keeps attempt {} and has noticed nothing",
                    handed.node, handed.attempt
                );
                Violation::of("L9", what)
            }
            None => Ok(()),
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

//! The end of a run: faults stop, and within a bounded time everything is answered and every reader is at the end.

use annals_record::Offset;

use super::followers::Kind;
use super::world::{Act, World};
use super::{Check, Violation};

/// After so many rounds without faults everything is settled. A round lets everything that waits go on once.
const ROUNDS: usize = 400;
/// After so long, ms, a client gives up waiting and sends again: a little more than a node keeps a command undecided.
const TIMEOUT_MS: i64 = 6_000;

impl World {
    pub(super) fn end(&mut self) -> Check {
        self.say(|_| "faults stop".to_owned());
        self.calm = true;
        for n in 0..self.nodes.len() {
            if self.nodes[n].engine.is_none() {
                self.start(n);
            }
            (self.nodes[n].paused, self.nodes[n].skew_ms, self.nodes[n].asked) = (false, 0, true);
        }
        if self.cut.is_some() {
            return self.end_cut();
        }
        for _ in 0..ROUNDS {
            self.round()?;
            if self.is_settled() {
                return self.is_complete();
            }
        }
        let open = self.history.orders.iter().position(|order| !order.settled);
        let what = match open {
            Some(order) => format!("order {order} has no answer {ROUNDS} rounds after the last fault"),
            None => format!("readers are not at the end {ROUNDS} rounds after the last fault"),
        };
        Violation::of("liveness", what)
    }

    pub(super) fn round(&mut self) -> Check {
        self.now_ms += 100;
        for n in 0..self.nodes.len() {
            self.counts.steps += 1;
            if self.nodes[n].asked {
                self.tell_lease(n)?;
            }
            for _ in 0..self.nodes[n].open.len() {
                self.deliver(n)?;
            }
            self.tick(n)?;
            self.trim(n)?;
            self.flush(n)?;
        }
        for session in (0..self.wire.sessions.len()).rev() {
            self.progress(session)?;
        }
        for follower in 0..self.followers.len() {
            self.act(Act::Follow(follower))?;
        }
        self.history.time_out(self.now_ms - TIMEOUT_MS);
        for order in 0..self.history.orders.len() {
            let open = &self.history.orders[order];
            if !open.settled && open.waits_for.is_none() {
                self.attempt(order)?;
            }
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        let end = self.truth.end();
        let quiet = self.nodes.iter().all(|node| {
            node.engine
                .as_ref()
                .is_some_and(annals_command::engine::Engine::is_quiet)
        });
        quiet
            && self.wire.sessions.is_empty()
            && self.history.orders.iter().all(|order| order.settled)
            && self.recorded.at.head.next == end
            && self.journal.at.head.next == end
    }

    /// L1 once more over everything, and what the recorder has kept.
    fn is_complete(&self) -> Check {
        for (offset, record) in &self.history.acknowledged {
            if self.truth.fact(*offset).is_none_or(|fact| fact.id != *record) {
                return Violation::of(
                    "L1",
                    format!("record {record} was acknowledged at {offset} and is not there"),
                );
            }
        }
        let count = u64::try_from(self.recorded.offsets.len()).unwrap_or(0);
        let (start, end) = (Offset::new(0), self.truth.end());
        let facts = self.truth.facts_in(start, end).count();
        let kept = self
            .recorded
            .offsets
            .iter()
            .filter(|offset| self.truth.fact(**offset).is_some())
            .count();
        if count != self.truth.head().accepted || kept != facts {
            let what = format!(
                "the {:?} kept {count} of {} accepted records",
                Kind::Recorder,
                self.truth.head().accepted
            );
            return Violation::of("L8", what);
        }
        Ok(())
    }

    /// Nothing that a log does by itself is worth a halt; a close is, and a log that was tampered with.
    pub(super) fn may_halt(&self, what: &str, why: &str) -> Check {
        if self.cut.is_some() || self.truth.head().closed {
            return Ok(());
        }
        Violation::of("halts", format!("{what} halts: {why}"))
    }
}

//! What lands and what is read, folded; everything pending settled by it.

use std::sync::Arc;

use annals_record::fold::Verdict;
use annals_record::planted::{Plant, planted};
use annals_record::record::{Meta, Record};
use annals_record::{Offset, RecordId};

use super::{HaltReason, Output, Pending, Phase, ShardWriter, State, StopReason};
use crate::{Appended, Placed};

impl ShardWriter {
    pub(super) fn records_appended(&mut self, index: usize, result: Appended, out: &mut Vec<Output>) {
        let State::Owner { repair } = self.state else {
            return;
        };
        if planted(Plant::AcknowledgeBeforeFold) {
            self.acknowledge(&result, out);
        }
        match result {
            Appended::Unknown(_) if planted(Plant::BlindRetry) => self.retry_blindly(out),
            Appended::Unknown(_) if planted(Plant::IgnoreUnknown) => {}
            Appended::Landed(places) if index == 0 && repair.is_none() && self.is_expected(&places) => {
                self.in_flight.pop_front();
                self.accept_front(places.len(), out);
            }
            Appended::Landed(places) => {
                if let Some(open) = self.in_flight.get_mut(index) {
                    open.landed = true;
                }
                let behind = places
                    .iter()
                    .map(|(_, offset)| offset.next())
                    .max()
                    .unwrap_or_default();
                self.state = State::Owner {
                    repair: Some(repair.unwrap_or_default().max(behind)),
                };
                self.end_repair(out);
            }
            Appended::HeadMoved(_) => self.stop(StopReason::HeadMoved, out),
            Appended::NotWritten(error) => self.stop(StopReason::NotWritten(error.to_string()), out),
            Appended::Unknown(error) => self.stop(StopReason::Unknown(error.to_string()), out),
        }
    }

    /// Whether these are the first pending records, at the offsets that come next.
    pub(super) fn is_expected(&self, places: &[(RecordId, Offset)]) -> bool {
        let mut next = self.fold.head().next;
        places.len() <= self.sent
            && places.iter().zip(&self.pending).all(|((id, offset), pending)| {
                let expected = (*offset == next || planted(Plant::NoGapCheck))
                    && (*id == pending.record.id() || planted(Plant::LandingsByOrder));
                next = next.next();
                expected
            })
    }

    /// Folds the first `count` pending records, which landed where they were expected.
    pub(super) fn accept_front(&mut self, count: usize, out: &mut Vec<Output>) {
        for _ in 0..count {
            let Some(Pending { record, hash }) = self.pending.pop_front() else {
                return;
            };
            self.sent -= 1;
            let offset = self.fold.head().next;
            self.last_hash = hash;
            match self.fold.step_record(&record, hash) {
                Verdict::Accept => self.accepted(record, offset, out),
                Verdict::Ghost(why) => {
                    out.push(Output::Ghost { offset, why });
                    self.pending.push_front(Pending { record, hash });
                    return self.stop(StopReason::OwnGhost(offset), out);
                }
                Verdict::Halt(halt) => {
                    self.pending.push_front(Pending { record, hash });
                    return self.halt(HaltReason::Fold { offset, halt }, out);
                }
            }
        }
    }

    pub(super) fn accepted(&mut self, record: Arc<Record>, offset: Offset, out: &mut Vec<Output>) {
        if self.settings.keep_tail {
            self.tail.push(offset, &record);
        }
        out.push(Output::Accepted { record, offset });
    }

    pub(super) fn read(&mut self, slots: Vec<Arc<Placed>>, out: &mut Vec<Output>) {
        self.reading = false;
        if std::mem::take(&mut self.short) {
            // It has come back; whether it is still the same log, the record before the head says.
            return;
        }
        if slots.is_empty() {
            self.ask_end_again(out);
        }
        for placed in slots {
            if !self.still_reading() {
                return;
            }
            if let Some((offset, expected)) = self.verify
                && placed.offset == offset
            {
                if placed.hash != expected {
                    return self.halt(
                        HaltReason::Replaced {
                            offset,
                            expected,
                            found: placed.hash,
                        },
                        out,
                    );
                }
                self.verify = None;
            }
            match placed.offset.cmp(&self.fold.head().next) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => self.take(&placed, out),
                // Not what was asked for; asked again.
                std::cmp::Ordering::Greater => break,
            }
        }
        self.claim_if_at_end(out);
        self.end_repair(out);
    }

    /// Nothing stands where a record was folded or has landed: the log may have become shorter since.
    fn ask_end_again(&mut self, out: &mut Vec<Output>) {
        match self.state {
            State::Claiming(Phase::Reading(_)) if self.verify.is_some() => {
                self.state = State::Claiming(Phase::End);
                out.push(Output::End);
            }
            // Nothing new while it waits for the next claim: the next read looks at the record before the head again.
            State::Idle if self.verify.is_none() => self.verify = self.record_before_head(),
            State::Idle | State::Owner { repair: Some(_) } if !self.asks_end => {
                self.asks_end = true;
                out.push(Output::End);
            }
            State::Idle | State::Claiming(_) | State::Owner { .. } | State::Halted | State::Closed => {}
        }
    }

    pub(super) fn still_reading(&self) -> bool {
        !matches!(self.state, State::Halted | State::Closed)
    }

    /// Folds one record that was read.
    pub(super) fn take(&mut self, placed: &Placed, out: &mut Vec<Output>) {
        let offset = placed.offset;
        let record = placed.slot.known();
        self.last_hash = placed.hash;
        match self.fold.step(&placed.slot, placed.hash) {
            Verdict::Halt(halt) => self.halt(HaltReason::Fold { offset, halt }, out),
            Verdict::Ghost(why) => {
                out.push(Output::Ghost { offset, why });
                if let Some(record) = record {
                    self.own_ghost(record.id(), offset, out);
                }
            }
            Verdict::Accept => {
                let record = Arc::new(record.expect("the fold accepts well-formed records only").clone());
                match &record.meta {
                    Meta::Claim(claim) => self.claim_accepted(claim.id, record, out),
                    Meta::Close(_) => {
                        self.settle_all(out);
                        self.state = State::Closed;
                        out.push(Output::Closed);
                    }
                    Meta::Commit(_) | Meta::Refusal(_) => self.entry_accepted(record, offset, out),
                }
            }
        }
    }

    /// An own record that does not count: stop, or lose the claim.
    pub(super) fn own_ghost(&mut self, id: RecordId, offset: Offset, out: &mut Vec<Output>) {
        if self.claim.as_ref().is_some_and(|claim| claim.id == id) {
            if let State::Claiming(_) = self.state {
                // Another's claim was accepted in front of it, and was seen when it was.
                self.stop(
                    StopReason::ClaimFailed("another claim came first".to_owned()),
                    out,
                );
            }
        } else if self.is_owner() && self.pending.iter().any(|pending| pending.record.id() == id) {
            self.stop(StopReason::OwnGhost(offset), out);
        }
    }

    pub(super) fn claim_accepted(&mut self, id: RecordId, record: Arc<Record>, out: &mut Vec<Output>) {
        // No record of an earlier epoch can count from here on.
        self.settle_all(out);
        if let State::Claiming(_) = self.state
            && self.claim.as_ref().is_some_and(|claim| {
                claim.id == id || planted(Plant::ClaimByEpoch) && self.awaits_its_claim()
            })
        {
            self.claim = None;
            self.next = *self.fold.head();
            self.last_append_ms = i64::MIN;
            self.state = State::Owner { repair: None };
            return out.push(Output::Owner);
        }
        match self.state {
            State::Owner { .. } => {
                self.state = State::Idle;
                out.push(Output::Lost(record));
            }
            // Before our claim was written: it only moves the epoch. Behind it: ours will pass as a ghost.
            State::Claiming(Phase::End | Phase::Reading(_)) => {}
            State::Claiming(Phase::Appending | Phase::Passing) => {
                self.claim = None;
                self.state = State::Idle;
                out.push(Output::Lost(record));
            }
            State::Idle | State::Halted | State::Closed => {}
        }
    }

    pub(super) fn entry_accepted(&mut self, record: Arc<Record>, offset: Offset, out: &mut Vec<Output>) {
        let own = self
            .pending
            .iter()
            .position(|pending| pending.record.id() == record.id());
        if let Some(index) = own {
            self.pending.remove(index);
            self.sent = self.sent.saturating_sub(usize::from(index < self.sent));
            return self.accepted(record, offset, out);
        }
        if self.settings.keep_tail {
            self.tail.push(offset, &record);
        }
        let intruder = self.is_owner();
        out.push(Output::OtherAccepted { offset, record });
        if intruder {
            self.stop(StopReason::Intruder(offset), out);
        }
    }

    /// Ends a repair once everything that landed has been folded.
    pub(super) fn end_repair(&mut self, out: &mut Vec<Output>) {
        let State::Owner { repair: Some(until) } = self.state else {
            return;
        };
        if self.fold.head().next < until {
            return;
        }
        let pending = &self.pending;
        self.in_flight.retain(|open| {
            !open.landed
                || open
                    .ids
                    .iter()
                    .any(|id| pending.iter().any(|p| p.record.id() == *id))
        });
        if self.in_flight.iter().any(|open| open.landed) {
            return self.stop(StopReason::Missing, out);
        }
        if self.in_flight.is_empty() {
            self.state = State::Owner { repair: None };
        }
    }
}

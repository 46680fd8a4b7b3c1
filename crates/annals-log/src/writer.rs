//! The fenced, pipelined writer of one shard: a state machine that never believes a log's answer alone.
//!
//! It chains records speculatively, keeps appends under way, and says that a record counts only when the fold
//! has accepted it at its offset. In order:
//!
//! 1. **Claim.** Read to the end, append a claim, read on until the fold passes that very record (found by its
//!    id, never by its epoch). Accepted: owner, with everything before it known. Nothing is sent behind a claim
//!    before that.
//! 2. **Append and accept.** What lands at the expected offset with nothing in between is folded at once. A
//!    gap, a lower offset, or a later append that lands while an earlier one is open: read what is there and let
//!    the fold say it.
//! 3. **Stop.** An unknown outcome, or an own record that became a ghost: nothing is answered; claim again.
//! 4. **Settle.** A pending record is settled by the fold alone: accepted, or passed by an accepted later
//!    claim, after which it can never count.
//!
//! *Invariant (L1, L6):* [`Output::Accepted`] follows from a fold that accepted the record, and from nothing else.
//! *Invariant:* [`Output::NeverHappened`] follows only once the fold has accepted a later claim without the record.
//!
//! No I/O, no clock, no randomness: a shell carries out what [`ShardWriter::step`] asks for. Source: the rules
//! were model-checked; each is there because the model finds a loss or a double answer without it.

#![deny(clippy::wildcard_enum_match_arm)]

mod claim;
mod plants;
mod settle;
mod tail;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;

use annals_record::fold::{ChainAt, Fold, Head};
use annals_record::hash;
use annals_record::planted::{Plant, planted};
use annals_record::record::{Entry, Meta, Record};
use annals_record::{Hash32, Offset, RecordId, Shard};
use bytes::Bytes;

use crate::{Appended, Checkpoint, Hashed};

pub use tail::Tail;
pub use words::{AppendId, Draft, HaltReason, Input, Output, Progress, StopReason, WriterSettings};

/// What a writer is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not owner; nothing of it is open, or the fold is read until it is.
    Idle,
    /// Between wanting to be owner and the fold passing the claim.
    Claiming(Phase),
    /// Owner. `Some(until)`: reads up to there, since something did not land as expected.
    Owner {
        repair: Option<Offset>,
    },
    Halted,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for the end.
    End,
    /// Reads up to this end.
    Reading(Offset),
    /// The claim is with the log.
    Appending,
    /// Reads until the fold passes the claim.
    Passing,
}

#[derive(Debug)]
struct Pending {
    record: Arc<Record>,
    hash: Hash32,
}

#[derive(Debug)]
struct InFlight {
    append: AppendId,
    ids: Vec<RecordId>,
    landed: bool,
}

#[derive(Debug)]
struct ClaimDraft {
    id: RecordId,
    time_ms: i64,
    value: Bytes,
    append: AppendId,
}

/// The writer of one shard.
#[derive(Debug)]
pub struct ShardWriter {
    shard: Shard,
    settings: WriterSettings,
    fold: Fold,
    /// The head behind everything that is pending.
    next: Head,
    state: State,
    /// Chained and not settled, in order; the first `sent` of them are with the log.
    pending: VecDeque<Pending>,
    sent: usize,
    in_flight: VecDeque<InFlight>,
    claim: Option<ClaimDraft>,
    next_append: AppendId,
    last_append_ms: i64,
    /// The append that went behind a claim or a long idle time: while it is open, nothing follows it.
    alone: Option<AppendId>,
    /// How often the log has answered.
    answers: u64,
    /// Whether a [`Output::Read`] is unanswered.
    reading: bool,
    /// The hash of the record before the head; zeros at offset 0.
    last_hash: Hash32,
    /// The record before the head, which must still be what it was when a claim is made or open records are settled.
    verify: Option<(Offset, Hash32)>,
    /// The log was said to end below what was folded, or below what landed.
    short: bool,
    /// Where it ends was asked while nothing came where something landed; nothing is read meanwhile.
    asks_end: bool,
    tail: Tail,
}

impl ShardWriter {
    /// A writer that knows the shard up to `checkpoint` (the journal's). It is owner of nothing yet.
    pub fn new(shard: Shard, genesis: Hash32, checkpoint: &Checkpoint, settings: WriterSettings) -> Self {
        let next = checkpoint.head.next;
        Self {
            shard,
            settings,
            fold: Fold::new(genesis, checkpoint.head),
            next: checkpoint.head,
            state: State::Idle,
            pending: VecDeque::new(),
            sent: 0,
            in_flight: VecDeque::new(),
            claim: None,
            next_append: 0,
            last_append_ms: i64::MIN,
            alone: None,
            answers: 0,
            reading: false,
            last_hash: checkpoint.last_hash,
            verify: None,
            short: false,
            asks_end: false,
            tail: Tail::new(next),
        }
    }

    /// The shard.
    pub fn shard(&self) -> Shard {
        self.shard
    }
    /// What the fold has accepted so far.
    pub fn head(&self) -> &Head {
        self.fold.head()
    }
    /// Whether drafts may be submitted.
    pub fn is_owner(&self) -> bool {
        matches!(self.state, State::Owner { .. })
    }
    /// Whether its claim is with the log and the fold has not passed it.
    pub fn awaits_its_claim(&self) -> bool {
        matches!(self.state, State::Claiming(Phase::Appending | Phase::Passing))
    }
    /// What it has got from the log so far, while the log owes it something: an append, a claim, a repair.
    ///
    /// The same value for long means that the log does not answer.
    pub fn awaits(&self) -> Option<Progress> {
        let owed = match self.state {
            State::Claiming(_) | State::Owner { repair: Some(_) } => true,
            State::Owner { repair: None } => !self.in_flight.is_empty(),
            State::Idle | State::Halted | State::Closed => false,
        };
        owed.then(|| Progress {
            folded: self.fold.head().next,
            answers: self.answers,
        })
    }
    /// How many submitted records are not settled.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
    /// Accepted records that the journal may not have yet.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }
    /// The journal has everything below `journal`: the tail may begin there.
    pub fn trim_tail(&mut self, journal: Offset) {
        self.tail.trim(journal);
    }
    /// The time of the next decision: the larger of the clock and the shard's latest (L7).
    pub fn next_time(&self, now_ms: i64) -> i64 {
        now_ms.max(self.next.time_ms)
    }
    /// Whether a reader that accepted `accepted` records has this writer's chain there; `None` if it is too
    /// long ago to say. A `false` is an alarm (L4).
    pub fn agrees(&self, accepted: u64, chain: Hash32) -> Option<bool> {
        if accepted > self.fold.head().accepted {
            return None;
        }
        match self.fold.chain_at(accepted) {
            ChainAt::Known(ours) => Some(ours == chain),
            ChainAt::Forgotten => None,
        }
    }

    /// Is owner no more by its own will, since another is to be; only with nothing open. Returns whether it was.
    pub fn resign(&mut self) -> bool {
        let quiet = self.pending.is_empty() && self.in_flight.is_empty();
        let resigns = quiet && self.state == State::Owner { repair: None };
        if resigns {
            self.state = State::Idle;
        }
        resigns
    }

    /// Chains a decided command behind everything pending. [`Self::flush`] hands it to the log.
    ///
    /// `None` if this writer is not owner: nothing happened.
    pub fn submit(&mut self, draft: Draft) -> Option<Arc<Record>> {
        if !self.is_owner() {
            return None;
        }
        let entry = Entry {
            id: draft.id,
            epoch: self.next.epoch,
            prev: self.next.chain,
            version: draft.version,
            count: draft.count,
            idempotency_key: draft.idempotency_key,
            traceparent: draft.traceparent,
        };
        let record = Arc::new(Record {
            stream: Some(draft.stream),
            timestamp_ms: draft.time_ms.max(self.next.time_ms),
            meta: if draft.refusal {
                Meta::Refusal(entry)
            } else {
                Meta::Commit(entry)
            },
            value: draft.value,
        });
        let record_hash = hash::record_hash(&record);
        self.next = Head {
            next: self.next.next.next(),
            accepted: self.next.accepted + 1,
            chain: hash::chain(self.next.chain, record_hash),
            time_ms: record.timestamp_ms,
            ..self.next
        };
        self.pending.push_back(Pending {
            record: Arc::clone(&record),
            hash: record_hash,
        });
        Some(record)
    }

    /// Hands what was submitted to the log, as far as appends may be under way.
    pub fn flush(&mut self, out: &mut Vec<Output>) {
        while self.sent < self.pending.len() && self.may_append() {
            let (records, at) = self.next_append_records();
            let append = self.number_append();
            if self.is_idle(self.sent) {
                self.alone = Some(append);
            }
            self.last_append_ms = records
                .last()
                .map_or(self.last_append_ms, |hashed| hashed.record.timestamp_ms);
            self.sent += records.len();
            let ids = records.iter().map(|hashed| hashed.record.id()).collect();
            self.in_flight.push_back(InFlight {
                append,
                ids,
                landed: false,
            });
            out.push(Output::Append { append, at, records });
        }
    }

    /// Takes in what happened and says what follows from it.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Claim { id, time_ms, value } => self.begin_claim(id, time_ms, value, out),
            Input::GiveUpClaim => self.give_up_claim(out),
            Input::End(end) => {
                self.answers += 1;
                self.end_known(end, out);
            }
            Input::Read(slots) => self.read(slots, out),
            Input::Truncated(end) => {
                self.reading = false;
                self.halt(
                    HaltReason::Truncated {
                        end,
                        folded: self.fold.head().next,
                    },
                    out,
                );
            }
            Input::Deleted(begin) => self.halt(HaltReason::Deleted { begin }, out),
            Input::Appended { append, result } => {
                self.answers += 1;
                self.appended(append, result, out);
            }
        }
        self.flush(out);
        self.ask_for_more(out);
    }

    fn may_append(&self) -> bool {
        let State::Owner { repair: None } = self.state else {
            return false;
        };
        let front = self.in_flight.front().map(|open| open.append);
        if front.is_some() && (front == self.alone || self.is_idle(self.sent)) {
            return false;
        }
        self.in_flight.len() < self.settings.appends_in_flight.max(1)
    }

    /// Whether the pending record at `index` is the first for a long time, or the first since the claim.
    fn is_idle(&self, index: usize) -> bool {
        self.pending.get(index).is_some_and(|first| {
            first.record.timestamp_ms.saturating_sub(self.last_append_ms) > self.settings.idle_ms
        })
    }

    fn next_append_records(&self) -> (Vec<Hashed>, Head) {
        let mut bytes = 0;
        let mut records = Vec::new();
        for pending in self
            .pending
            .iter()
            .skip(self.sent)
            .take(self.settings.append_records)
        {
            if !records.is_empty() && bytes >= self.settings.append_bytes {
                break;
            }
            bytes += pending.record.stored_bytes();
            records.push(Hashed {
                record: Arc::clone(&pending.record),
                hash: pending.hash,
            });
        }
        (records, self.head_before(self.sent))
    }

    /// The head that the pending record at `index` is chained to.
    fn head_before(&self, index: usize) -> Head {
        let folded = *self.fold.head();
        let before = u64::try_from(index).unwrap_or(u64::MAX);
        let record = self.pending.get(index).map(|pending| &pending.record);
        let time_ms = index
            .checked_sub(1)
            .and_then(|i| self.pending.get(i))
            .map(|p| p.record.timestamp_ms);
        Head {
            next: Offset::new(folded.next.get().saturating_add(before)),
            accepted: folded.accepted.saturating_add(before),
            chain: record.and_then(|record| record.prev()).unwrap_or(folded.chain),
            time_ms: time_ms.unwrap_or(folded.time_ms),
            ..folded
        }
    }

    fn number_append(&mut self) -> AppendId {
        self.next_append += 1;
        self.next_append
    }

    fn appended(&mut self, append: AppendId, result: Appended, out: &mut Vec<Output>) {
        if self.claim.as_ref().is_some_and(|claim| claim.append == append) {
            self.claim_appended(result, out);
        } else if let Some(index) = self
            .in_flight
            .iter()
            .position(|open| open.append == append || planted(Plant::LandingsByOrder))
        {
            self.records_appended(index, result, out);
        }
    }

    fn settle_all(&mut self, out: &mut Vec<Output>) {
        out.extend(
            self.pending
                .drain(..)
                .map(|pending| Output::NeverHappened(pending.record)),
        );
        self.forget_appends();
    }

    fn forget_appends(&mut self) {
        self.in_flight.clear();
        self.sent = 0;
    }

    /// No longer owner. What is pending stays so until the fold settles it.
    fn stop(&mut self, reason: StopReason, out: &mut Vec<Output>) {
        self.forget_appends();
        self.claim = None;
        self.state = State::Idle;
        self.verify = self.record_before_head();
        out.push(Output::Stopped(reason));
    }

    fn halt(&mut self, reason: HaltReason, out: &mut Vec<Output>) {
        self.forget_appends();
        self.claim = None;
        self.state = State::Halted;
        out.push(Output::Halted(reason));
    }

    fn ask_for_more(&mut self, out: &mut Vec<Output>) {
        let wanted = match self.state {
            State::Idle => !self.pending.is_empty(),
            State::Claiming(Phase::Reading(_) | Phase::Passing) | State::Owner { repair: Some(_) } => true,
            State::Claiming(Phase::End | Phase::Appending)
            | State::Owner { repair: None }
            | State::Halted
            | State::Closed => false,
        };
        if wanted && !self.reading && !self.asks_end {
            self.reading = true;
            out.push(Output::Read(self.reads_from()));
        }
    }

    /// Where to read next. A log that is too short is asked for more than it has: it comes back, or the shell says
    /// that it will not.
    fn reads_from(&self) -> Offset {
        let next = self.fold.head().next;
        match (self.state, self.verify) {
            (State::Owner { repair: Some(until) }, _) if self.short => until.max(next),
            (_, Some((before, _))) if !self.short => before,
            (_, _) => next,
        }
    }
}

#[cfg(test)]
mod alone;
#[cfg(test)]
mod tests;

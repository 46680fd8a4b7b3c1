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

mod tail;

use std::collections::VecDeque;
use std::sync::Arc;

use annals_record::fold::{ChainAt, Fold, Ghost, Halt, Head, Verdict};
use annals_record::hash;
use annals_record::record::{Claim, Entry, Meta, Record, Seen, Traceparent};
use annals_record::{Hash32, KeyHash, Offset, RecordId, Shard, StreamId, Version};
use bytes::Bytes;

use crate::{Appended, Checkpoint, Placed};

pub use tail::Tail;

/// Limits of one shard's writer.
#[derive(Debug, Clone, Copy)]
pub struct WriterSettings {
    /// How many appends may be under way at once.
    pub appends_in_flight: usize,
    /// At most this many records an append.
    pub append_records: usize,
    /// No further record in an append that has this many bytes.
    pub append_bytes: usize,
    /// After this time without an append the next one goes alone (Kafka forgets idle producers), ms.
    pub idle_ms: i64,
    /// Whether accepted records are kept until the journal has them (Kafka), or are in it at once (Postgres).
    pub keep_tail: bool,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self {
            appends_in_flight: 1,
            append_records: 1_000,
            append_bytes: 4 << 20,
            idle_ms: 600_000,
            keep_tail: false,
        }
    }
}

/// A decided command, before it is chained.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The record's id.
    pub id: RecordId,
    /// The stream.
    pub stream: StreamId,
    /// Whether the rules said no.
    pub refusal: bool,
    /// The decision's time: [`ShardWriter::next_time`].
    pub time_ms: i64,
    /// Version of the first event; with no events the next one.
    pub version: Version,
    /// How many events.
    pub count: u32,
    /// The hash of the client's key.
    pub idempotency_key: KeyHash,
    /// W3C trace context.
    pub traceparent: Option<Traceparent>,
    /// The record's value.
    pub value: Bytes,
}

/// Which append an answer belongs to; unique within a writer.
pub type AppendId = u64;

/// What happens to a writer.
#[derive(Debug)]
pub enum Input {
    /// The lease is ours: become owner.
    Claim {
        /// The id of the claim's record.
        id: RecordId,
        /// The clock.
        time_ms: i64,
        /// The claim's value ([`ClaimValue`](annals_record::value::ClaimValue)).
        value: Bytes,
    },
    /// A claim under way takes too long: give it up. (Whether it lands is no matter: it is found by its id.)
    GiveUpClaim,
    /// The answer to [`Output::End`].
    End(Offset),
    /// The answer to [`Output::Read`]; empty if there was nothing within the log's wait.
    Read(Vec<Arc<Placed>>),
    /// The log ends below what this writer has folded, and kept doing so: it was cut off or replaced.
    Truncated(Offset),
    /// The answer to [`Output::Append`].
    Appended {
        /// Which one.
        append: AppendId,
        /// What became of it.
        result: Appended,
    },
}

/// What a writer wants done, or says.
#[derive(Debug)]
pub enum Output {
    /// Ask the log for its end, then [`Input::End`]. Retried by the shell until there is an answer.
    End,
    /// Read from here, then [`Input::Read`]. Retried by the shell until there is an answer.
    Read(Offset),
    /// Append, then [`Input::Appended`].
    Append {
        /// For the answer.
        append: AppendId,
        /// The head that the first record is chained to.
        at: Head,
        /// The records, in order.
        records: Vec<Arc<Record>>,
    },
    /// The claim was accepted: drafts may be submitted.
    Owner,
    /// The fold accepted a record that was submitted here.
    Accepted {
        /// The record.
        record: Arc<Record>,
        /// Where it stands, for ever.
        offset: Offset,
    },
    /// A record that was submitted here can never count any more: it may be decided anew.
    NeverHappened(Arc<Record>),
    /// The fold accepted a commit or refusal that was not submitted here: its stream must be dropped.
    OtherAccepted {
        /// Where it stands.
        offset: Offset,
        /// The record.
        record: Arc<Record>,
    },
    /// No longer owner, outcomes are open: ask the lease; if it is still ours, claim again.
    Stopped(StopReason),
    /// No longer owner, or never was: another claim counts. Every pending record is settled.
    Lost(Arc<Record>),
    /// The shard was ended by a close record.
    Closed,
    /// The fold passed a ghost; foreign and unchained ones are alarms.
    Ghost {
        /// Where.
        offset: Offset,
        /// Why it does not count.
        why: Ghost,
    },
    /// Never again: somebody has to look.
    Halted(HaltReason),
}

/// Why a writer stopped being owner without another's claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The outcome of an append is unknown.
    #[error("the outcome of an append is unknown: {0}")]
    Unknown(String),
    /// An append was not written, and those chained to it cannot count.
    #[error("an append was not written: {0}")]
    NotWritten(String),
    /// The log's head is not the expected one.
    #[error("the log's head has moved")]
    HeadMoved,
    /// An own record is in the log but does not count.
    #[error("an own record became a ghost at offset {0}")]
    OwnGhost(Offset),
    /// Every append was answered, yet a record is not where it was said to be.
    #[error("a record that landed is not there")]
    Missing,
    /// Somebody else's record counts in this writer's epoch.
    #[error("a record of another writer counts in this epoch, at offset {0}")]
    Intruder(Offset),
    /// The claim took too long or could not be written.
    #[error("the claim could not be made: {0}")]
    ClaimFailed(String),
}

/// Why a shard halted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// The fold says so.
    #[error("at offset {offset}: {halt}")]
    Fold {
        /// Where.
        offset: Offset,
        /// Why.
        halt: Halt,
    },
    /// The record before the checkpoint is another one than it was.
    #[error(
        "the record at offset {offset} has hash {found}, and had {expected} when it was folded: the log was replaced"
    )]
    Replaced {
        /// Where.
        offset: Offset,
        /// The hash that the checkpoint remembers.
        expected: Hash32,
        /// The hash that is there now.
        found: Hash32,
    },
    /// The log ends below the checkpoint.
    #[error("the log ends at offset {end}, below {folded}, which was folded: it was cut off")]
    Truncated {
        /// Its end.
        end: Offset,
        /// How far it was folded.
        folded: Offset,
    },
}

/// What a writer is at.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Whether a [`Output::Read`] is unanswered.
    reading: bool,
    /// The record before the checkpoint, which must still be what it was.
    verify: Option<(Offset, Hash32)>,
    tail: Tail,
}

impl ShardWriter {
    /// A writer that knows the shard up to `checkpoint` (the journal's). It is owner of nothing yet.
    pub fn new(shard: Shard, genesis: Hash32, checkpoint: &Checkpoint, settings: WriterSettings) -> Self {
        let next = checkpoint.head.next;
        let verify = next
            .get()
            .checked_sub(1)
            .map(|last| (Offset::new(last), checkpoint.last_hash));
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
            reading: false,
            verify,
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
            self.last_append_ms = records
                .last()
                .map_or(self.last_append_ms, |record| record.timestamp_ms);
            self.sent += records.len();
            let ids = records.iter().map(|record| record.id()).collect();
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
            Input::End(end) => self.end_known(end, out),
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
            Input::Appended { append, result } => self.appended(append, result, out),
        }
        self.flush(out);
        self.ask_for_more(out);
    }

    fn may_append(&self) -> bool {
        let State::Owner { repair: None } = self.state else {
            return false;
        };
        let Some(first) = self.pending.get(self.sent) else {
            return false;
        };
        let idle = first.record.timestamp_ms.saturating_sub(self.last_append_ms) > self.settings.idle_ms;
        let limit = if idle { 1 } else { self.settings.appends_in_flight };
        self.in_flight.len() < limit
    }

    fn next_append_records(&self) -> (Vec<Arc<Record>>, Head) {
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
            records.push(Arc::clone(&pending.record));
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

    fn begin_claim(&mut self, id: RecordId, time_ms: i64, value: Bytes, out: &mut Vec<Output>) {
        if self.state != State::Idle {
            return;
        }
        self.claim = Some(ClaimDraft {
            id,
            time_ms,
            value,
            append: 0,
        });
        self.state = State::Claiming(Phase::End);
        out.push(Output::End);
    }

    fn give_up_claim(&mut self, out: &mut Vec<Output>) {
        if let State::Claiming(_) = self.state {
            self.stop(StopReason::ClaimFailed("it took too long".to_owned()), out);
        }
    }

    fn end_known(&mut self, end: Offset, out: &mut Vec<Output>) {
        if self.state == State::Claiming(Phase::End) {
            self.state = State::Claiming(Phase::Reading(end));
            self.claim_if_at_end(out);
        }
    }

    /// Appends the claim once everything up to the end seen before it has been folded, and the record before
    /// the checkpoint was found to be what it was.
    fn claim_if_at_end(&mut self, out: &mut Vec<Output>) {
        let State::Claiming(Phase::Reading(end)) = self.state else {
            return;
        };
        let head = *self.fold.head();
        if head.next < end || self.verify.is_some() {
            return;
        }
        let append = self.number_append();
        let Some(claim) = &mut self.claim else { return };
        claim.append = append;
        let record = Record {
            stream: None,
            timestamp_ms: claim.time_ms.max(head.time_ms),
            meta: Meta::Claim(Claim {
                id: claim.id,
                epoch: annals_record::Epoch::new(head.epoch.get().saturating_add(1)),
                seen: Seen {
                    accepted: head.accepted,
                    chain: head.chain,
                },
                genesis: self.fold.genesis(),
            }),
            value: claim.value.clone(),
        };
        self.state = State::Claiming(Phase::Appending);
        out.push(Output::Append {
            append,
            at: head,
            records: vec![Arc::new(record)],
        });
    }

    fn appended(&mut self, append: AppendId, result: Appended, out: &mut Vec<Output>) {
        if self.claim.as_ref().is_some_and(|claim| claim.append == append) {
            self.claim_appended(result, out);
        } else if let Some(index) = self.in_flight.iter().position(|open| open.append == append) {
            self.records_appended(index, result, out);
        }
    }

    fn claim_appended(&mut self, result: Appended, out: &mut Vec<Output>) {
        if self.state != State::Claiming(Phase::Appending) {
            return;
        }
        match result {
            // Whether it landed or not, the fold will say: by its id, or by a claim that was given up.
            Appended::Landed(_) | Appended::Unknown(_) => self.state = State::Claiming(Phase::Passing),
            Appended::HeadMoved(head) if head.epoch > self.fold.head().epoch => {
                self.stop(
                    StopReason::ClaimFailed("another claim came first".to_owned()),
                    out,
                );
            }
            // Nothing was written, so the same claim may be made again behind what came in between.
            Appended::HeadMoved(head) => self.state = State::Claiming(Phase::Reading(head.next)),
            Appended::NotWritten(error) => self.stop(StopReason::ClaimFailed(error.to_string()), out),
        }
        self.claim_if_at_end(out);
    }

    fn records_appended(&mut self, index: usize, result: Appended, out: &mut Vec<Output>) {
        let State::Owner { repair } = self.state else {
            return;
        };
        match result {
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
    fn is_expected(&self, places: &[(RecordId, Offset)]) -> bool {
        let mut next = self.fold.head().next;
        places.len() <= self.sent
            && places.iter().zip(&self.pending).all(|((id, offset), pending)| {
                let expected = *offset == next && *id == pending.record.id();
                next = next.next();
                expected
            })
    }

    /// Folds the first `count` pending records, which landed where they were expected.
    fn accept_front(&mut self, count: usize, out: &mut Vec<Output>) {
        for _ in 0..count {
            let Some(Pending { record, hash }) = self.pending.pop_front() else {
                return;
            };
            self.sent -= 1;
            let offset = self.fold.head().next;
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

    fn accepted(&mut self, record: Arc<Record>, offset: Offset, out: &mut Vec<Output>) {
        if self.settings.keep_tail {
            self.tail.push(offset, &record);
        }
        out.push(Output::Accepted { record, offset });
    }

    fn read(&mut self, slots: Vec<Arc<Placed>>, out: &mut Vec<Output>) {
        self.reading = false;
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

    fn still_reading(&self) -> bool {
        !matches!(self.state, State::Halted | State::Closed)
    }

    /// Folds one record that was read.
    fn take(&mut self, placed: &Placed, out: &mut Vec<Output>) {
        let offset = placed.offset;
        let record = placed.slot.known();
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
    fn own_ghost(&mut self, id: RecordId, offset: Offset, out: &mut Vec<Output>) {
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

    fn claim_accepted(&mut self, id: RecordId, record: Arc<Record>, out: &mut Vec<Output>) {
        // No record of an earlier epoch can count from here on.
        self.settle_all(out);
        if let State::Claiming(_) = self.state
            && self.claim.as_ref().is_some_and(|claim| claim.id == id)
        {
            self.claim = None;
            self.next = *self.fold.head();
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

    fn entry_accepted(&mut self, record: Arc<Record>, offset: Offset, out: &mut Vec<Output>) {
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
    fn end_repair(&mut self, out: &mut Vec<Output>) {
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
        if wanted && !self.reading {
            self.reading = true;
            let from = self.verify.map_or(self.fold.head().next, |(offset, _)| offset);
            out.push(Output::Read(from));
        }
    }
}

#[cfg(test)]
mod tests;

//! Becoming owner: read to the end, append a claim, read on until the fold passes it.

use std::sync::Arc;

use annals_record::planted::{Plant, planted};
use annals_record::record::{Claim, Meta, Record, Seen};
use annals_record::{Epoch, Hash32, Offset, RecordId};
use bytes::Bytes;

use super::{ClaimDraft, Output, Phase, ShardWriter, State, StopReason};
use crate::{Appended, Hashed};

impl ShardWriter {
    pub(super) fn begin_claim(&mut self, id: RecordId, time_ms: i64, value: Bytes, out: &mut Vec<Output>) {
        if self.state != State::Idle {
            return;
        }
        if self.fold.head().closed {
            self.state = State::Closed;
            return out.push(Output::Closed);
        }
        self.claim = Some(ClaimDraft {
            id,
            time_ms,
            value,
            append: 0,
        });
        self.verify = self.record_before_head();
        self.short = false;
        self.state = State::Claiming(Phase::End);
        out.push(Output::End);
    }

    pub(super) fn give_up_claim(&mut self, out: &mut Vec<Output>) {
        if let State::Claiming(_) = self.state {
            self.stop(StopReason::ClaimFailed("it took too long".to_owned()), out);
        }
    }

    pub(super) fn end_known(&mut self, end: Offset, out: &mut Vec<Output>) {
        self.asks_end = false;
        match self.state {
            State::Claiming(Phase::End) => {
                self.short = end < self.fold.head().next && !planted(Plant::ClaimShortLog);
                self.state = State::Claiming(Phase::Reading(end));
                self.claim_if_at_end(out);
            }
            State::Owner { repair: Some(until) } => self.short = end < until,
            State::Idle => self.short = end < self.fold.head().next,
            State::Claiming(_) | State::Owner { .. } | State::Halted | State::Closed => {}
        }
        if self.short {
            self.verify = self.record_before_head();
        }
    }

    /// Claiming is resuming, and so is settling what is open: the log may have been cut off or replaced since this
    /// record was folded.
    pub(super) fn record_before_head(&self) -> Option<(Offset, Hash32)> {
        let last = self.fold.head().next.get().checked_sub(1)?;
        (!planted(Plant::ClaimShortLog)).then_some((Offset::new(last), self.last_hash))
    }

    /// Appends the claim once everything up to the end seen before it has been folded, and the record before
    /// the head was found to be what it was.
    pub(super) fn claim_if_at_end(&mut self, out: &mut Vec<Output>) {
        let State::Claiming(Phase::Reading(end)) = self.state else {
            return;
        };
        let head = *self.fold.head();
        if head.next < end || self.short || self.verify.is_some() {
            return;
        }
        let append = self.number_append();
        let Some(claim) = &mut self.claim else { return };
        claim.append = append;
        let Some(record) = self.claim_record() else { return };
        self.state = State::Claiming(Phase::Appending);
        out.push(Output::Append {
            append,
            at: head,
            records: vec![Hashed::of(Arc::new(record))],
        });
    }

    /// The claim, chained to the head.
    pub(super) fn claim_record(&self) -> Option<Record> {
        let (claim, head) = (self.claim.as_ref()?, self.fold.head());
        Some(Record {
            stream: None,
            timestamp_ms: claim.time_ms.max(head.time_ms),
            meta: Meta::Claim(Claim {
                id: claim.id,
                epoch: Epoch::new(head.epoch.get().saturating_add(1)),
                seen: Seen {
                    accepted: head.accepted,
                    chain: head.chain,
                },
                genesis: self.fold.genesis(),
            }),
            value: claim.value.clone(),
        })
    }

    pub(super) fn claim_appended(&mut self, result: Appended, out: &mut Vec<Output>) {
        if self.state != State::Claiming(Phase::Appending) {
            return;
        }
        match result {
            Appended::Landed(_) if planted(Plant::ClaimReadToTheEnd) => self.own_at_once(out),
            // Whether it landed or not, the fold will say: by its id, or by a claim that was given up.
            Appended::Landed(_) | Appended::Unknown(_) => self.state = State::Claiming(Phase::Passing),
            Appended::HeadMoved(head) if head.epoch > self.fold.head().epoch => {
                self.stop(
                    StopReason::ClaimFailed("another claim came first".to_owned()),
                    out,
                );
            }
            // Nothing came in between: another log. The next claim looks at the record before the head.
            Appended::HeadMoved(head)
                if head.next <= self.fold.head().next && !planted(Plant::ClaimShortLog) =>
            {
                self.stop(
                    StopReason::ClaimFailed("the log's head is not the one that was read".to_owned()),
                    out,
                );
            }
            // Nothing was written, so the same claim may be made again behind what came in between.
            Appended::HeadMoved(head) => self.state = State::Claiming(Phase::Reading(head.next)),
            Appended::NotWritten(error) => self.stop(StopReason::ClaimFailed(error.to_string()), out),
        }
        self.claim_if_at_end(out);
    }
}

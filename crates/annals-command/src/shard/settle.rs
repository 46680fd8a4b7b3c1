//! What the writer says, turned into answers, second decisions, snapshots and dropped streams.

use std::sync::Arc;

use annals_log::writer::Output;
use annals_record::planted::{Plant, planted};
use annals_record::record::Record;
use annals_record::{Offset, StreamId};

use super::{Decided, Lease, ShardEngine, Shared, reply};
use crate::answer::{Answer, SendError};
use crate::engine::Effect;
use crate::metrics;
use crate::slot::Slot;

impl ShardEngine {
    /// Carries out what the writer wants and says.
    pub(super) fn writer_outputs(&mut self, outputs: &mut Vec<Output>, cx: &mut Shared<'_>) {
        let mut redo = Vec::new();
        for output in outputs.drain(..) {
            match output {
                Output::End | Output::Read(_) | Output::Append { .. } => {
                    cx.out.push(Effect::Log {
                        shard: self.shard,
                        output,
                    });
                }
                Output::Accepted { record, offset } => self.accepted(&record, offset, cx),
                Output::NeverHappened(record) => redo.extend(self.never_happened(&record, cx)),
                Output::OtherAccepted { offset, record } => self.other_accepted(&record, offset, cx),
                Output::Owner => self.won(cx),
                Output::Stopped(reason) => {
                    tracing::warn!(shard = %self.shard, %reason, "no longer owner: outcomes are open");
                    if planted(Plant::ForwardUnsettled) {
                        self.hand_on_pending(cx);
                    }
                    self.lost(cx);
                }
                Output::Lost(claim) => {
                    tracing::info!(shard = %self.shard, epoch = %claim.epoch(), "another node has claimed the shard");
                    self.lost(cx);
                }
                Output::Ghost { offset, why } => metrics::ghost(self.shard, offset, why),
                Output::Closed => self.halt("the shard was closed", cx),
                Output::Halted(reason) => self.halt(&reason.to_string(), cx),
            }
        }
        // Before anything that came later, in the order in which they were decided first.
        for command in redo.into_iter().rev() {
            self.waiting.push_front(command);
        }
        if self.is_owner() || self.halted || self.lease != Lease::Ours {
            for command in std::mem::take(&mut self.waiting) {
                self.command(command, cx);
            }
        }
    }

    /// The fold accepted a record of ours: now, and not before, its sender and everyone who repeated it hear.
    fn accepted(&mut self, record: &Arc<Record>, offset: Offset, cx: &mut Shared<'_>) {
        let Some(pending) = self.pending.remove(&record.id()) else {
            return;
        };
        self.pending_bytes = self.pending_bytes.saturating_sub(pending.bytes);
        let Decided { version, outcome } = pending.decided;
        let stream = &pending.command.request.stream;
        let answer = Answer {
            record: record.id(),
            stream: stream.clone(),
            position: self.position(offset),
            version,
            outcome,
            replayed: false,
        };
        reply(cx, pending.command.token, Ok(answer));
        for repeat in &pending.repeats {
            self.replay(repeat, record, offset, cx);
        }
        if let Some(Slot::Live(live)) = self.slots.get_mut(stream)
            && live.incarnation == pending.incarnation
        {
            live.in_flight -= 1;
            live.keys.accepted(record.id(), offset);
            live.as_of = live.as_of.max(offset.next());
            if live.in_flight == 0 || planted(Plant::SpeculativeSnapshot) {
                self.quiet(stream, cx);
            }
        }
    }

    /// Nothing of the stream is in flight: the moment for a snapshot, and for what waited for one.
    fn quiet(&mut self, stream: &StreamId, cx: &mut Shared<'_>) {
        let Some(Slot::Live(live)) = self.slots.get_mut(stream) else {
            return;
        };
        if live.overdue(cx.settings.snapshot_every) > 0
            && let Some(aggregate) = cx.catalog.category(stream.category())
        {
            match live.snapshot(stream, aggregate.fingerprint()) {
                Ok(snapshot) => cx.out.push(Effect::Snapshot(snapshot)),
                Err(error) => tracing::error!(%stream, %error, "a state could not be written as a snapshot"),
            }
        }
        for command in std::mem::take(&mut live.held) {
            self.command(command, cx);
        }
    }

    /// A record of ours can never count: its stream is loaded anew, its command decided anew, its repeats too.
    fn never_happened(&mut self, record: &Record, cx: &mut Shared<'_>) -> Vec<super::Waiting> {
        let Some(pending) = self.pending.remove(&record.id()) else {
            return Vec::new();
        };
        metrics::never_happened();
        self.pending_bytes = self.pending_bytes.saturating_sub(pending.bytes);
        if !planted(Plant::KeepAfterGhost) {
            self.drop_stream(&pending.command.request.stream, cx);
        }
        std::iter::once(pending.command).chain(pending.repeats).collect()
    }

    /// A record that was not decided here counts: whoever loaded its stream before must load it again.
    fn other_accepted(&mut self, record: &Record, offset: Offset, cx: &mut Shared<'_>) {
        let Some(stream) = &record.stream else { return };
        match self.slots.get_mut(stream) {
            Some(Slot::Live(live)) if offset >= live.as_of && !planted(Plant::KeepAfterOther) => {
                self.drop_stream(stream, cx)
            }
            Some(Slot::Loading(loading)) => loading.again = true,
            Some(Slot::Live(_)) | None => {}
        }
    }

    /// Forgets a stream's state. What waited for it goes the whole way again.
    pub(super) fn drop_stream(&mut self, stream: &StreamId, cx: &mut Shared<'_>) {
        match self.slots.get_mut(stream) {
            Some(Slot::Live(live)) => {
                cx.cache.bytes = cx.cache.bytes.saturating_sub(live.bytes);
                let held = std::mem::take(&mut live.held);
                self.slots.remove(stream);
                self.waiting.extend(held);
            }
            Some(Slot::Loading(loading)) => loading.again = true,
            None => {}
        }
    }

    fn lost(&mut self, cx: &mut Shared<'_>) {
        metrics::owner(self.shard, false);
        cx.out.push(Effect::Owner {
            shard: self.shard,
            owner: false,
        });
        // Whether to claim again is the lease's to say.
        cx.out.push(Effect::AskLease(self.shard));
    }

    /// Nothing more is decided here until an operator has looked. What is with the log stays unanswered.
    fn halt(&mut self, reason: &str, cx: &mut Shared<'_>) {
        self.halted = true;
        metrics::halted(self.shard);
        tracing::error!(shard = %self.shard, reason, "the shard is halted: see the runbook `halted-shard`");
        cx.out.push(Effect::Halted {
            shard: self.shard,
            reason: reason.to_owned(),
        });
        let mut open: Vec<_> = self.pending.drain().collect();
        open.sort_by_key(|(id, _)| *id);
        for (_, pending) in open {
            for command in std::iter::once(pending.command).chain(pending.repeats) {
                reply(cx, command.token, Err(SendError::OutcomeUnknown));
            }
        }
        self.pending_bytes = 0;
        for (_, slot) in self.slots.drain() {
            match slot {
                Slot::Live(live) => {
                    cx.cache.bytes = cx.cache.bytes.saturating_sub(live.bytes);
                    self.waiting.extend(live.held);
                }
                Slot::Loading(loading) => self.waiting.extend(loading.waiting),
            }
        }
    }
}

//! Becoming owner of a shard: what leases say, where a claim begins to read.

use annals_log::Checkpoint;
use annals_log::writer::{self, ShardWriter};
use annals_record::Offset;

use super::{Lease, ShardEngine, Shared};
use crate::engine::Effect;
use crate::metrics;

/// A node that gets a shard back may have to read what others wrote meanwhile. If that is a lot, it begins at the
/// journal's end like a node that never had the shard, so that the log's length is not felt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum CatchingUp {
    /// The writer reads on from where it is.
    #[default]
    No,
    /// The log ends there, far away: the journal is asked how far it goes.
    Asked(Offset),
    /// This claim has asked already.
    Done,
}

impl ShardEngine {
    /// Leases say whose the shard is.
    pub(crate) fn lease(&mut self, lease: Lease, cx: &mut Shared<'_>) {
        self.lease = lease;
        self.leased_since_ms = match &self.lease {
            Lease::Ours if !self.is_owner() => self.leased_since_ms.or(Some(cx.now_ms)),
            Lease::Ours | Lease::Theirs(_) | Lease::Unknown => None,
        };
        match &self.lease {
            Lease::Ours => {
                if self.writer.is_none() {
                    cx.out.push(Effect::Journal(self.shard));
                } else {
                    self.claim(cx);
                }
            }
            Lease::Theirs(_) | Lease::Unknown if !self.is_owner() => {
                for command in std::mem::take(&mut self.waiting) {
                    self.command(command, cx);
                }
            }
            // Still owner by the log; whoever claims will say otherwise.
            Lease::Theirs(_) | Lease::Unknown => {}
        }
    }

    /// The claim counts.
    pub(super) fn won(&mut self, cx: &mut Shared<'_>) {
        let since_ms = self.leased_since_ms.take().unwrap_or(cx.now_ms);
        let ms = u32::try_from(cx.now_ms.saturating_sub(since_ms)).unwrap_or(0);
        if let Some(writer) = &self.writer {
            tracing::info!(shard = %self.shard, epoch = %writer.head().epoch, ms, "owner");
        }
        metrics::claimed(ms);
        metrics::owner(self.shard, true);
        cx.out.push(Effect::Owner {
            shard: self.shard,
            owner: true,
        });
    }

    /// How far the journal goes: where a first claim begins to read.
    pub(crate) fn journal(&mut self, checkpoint: &Checkpoint, cx: &mut Shared<'_>) {
        if let CatchingUp::Asked(end) = self.catching_up {
            self.catching_up = CatchingUp::Done;
            let is_nearer = |writer: &ShardWriter| checkpoint.head.next > writer.head().next;
            if !self.writer.as_ref().is_some_and(is_nearer) {
                return self.writer_input(writer::Input::End(end), cx);
            }
            self.forget(cx);
        }
        if self.writer.is_none() {
            let writer = ShardWriter::new(self.shard, self.genesis, checkpoint, cx.settings.writer);
            self.writer = Some(writer);
        }
        self.claim_if_ours(cx);
    }

    /// The clock is right again, or the journal has answered.
    pub(crate) fn claim_if_ours(&mut self, cx: &mut Shared<'_>) {
        if self.lease == Lease::Ours && self.writer.is_some() {
            self.claim(cx);
        }
    }

    /// Another has the lease: once nothing is open, this node need not wait to be fenced. It would not notice while it
    /// has nothing to write, and take its memory for true when the shard comes back.
    pub(super) fn resign_if_theirs(&mut self, cx: &mut Shared<'_>) {
        if !matches!(self.lease, Lease::Theirs(_)) || !self.pending.is_empty() {
            return;
        }
        if self.writer.as_mut().is_some_and(ShardWriter::resign) {
            metrics::owner(self.shard, false);
            cx.out.push(Effect::Owner {
                shard: self.shard,
                owner: false,
            });
        }
    }

    fn claim(&mut self, cx: &mut Shared<'_>) {
        if self.halted || !cx.clock_ok || self.is_owner() {
            return;
        }
        let input = writer::Input::Claim {
            id: cx.ambient.record_id(),
            time_ms: cx.now_ms,
            value: self.claim.clone(),
        };
        self.writer_input(input, cx);
    }

    /// Whether the log ends so far away that the journal is asked first. What is pending is settled by reading on.
    pub(super) fn begins_anew(&mut self, input: &writer::Input, cx: &mut Shared<'_>) -> bool {
        let (writer::Input::End(end), Some(writer)) = (input, &self.writer) else {
            return false;
        };
        let missing = end.get().saturating_sub(writer.head().next.get());
        let is_settled = self.pending.is_empty() && writer.pending() == 0;
        if self.catching_up != CatchingUp::No || !is_settled || missing <= cx.settings.catch_up_records {
            self.catching_up = CatchingUp::No;
            return false;
        }
        self.catching_up = CatchingUp::Asked(*end);
        cx.out.push(Effect::Journal(self.shard));
        true
    }

    /// Forgets the writer and every stream: others have written to them, and it will not be read here.
    fn forget(&mut self, cx: &mut Shared<'_>) {
        self.writer = None;
        let streams: Vec<_> = self.slots.keys().cloned().collect();
        for stream in streams {
            // One whose load is under way is loaded again.
            self.drop_stream(&stream, cx);
        }
    }
}

//! Watches a shard's log from the side: does it answer, is it still the log that was folded, do its readers agree.
//!
//! What the log owes (an append, a claim, a read that settles something) and does not give for `command.stall_ms`
//! is a *stall*: new commands are refused with `log-unavailable` and do not pile up behind records that may never be
//! answered; readiness says so; the first sign of life ends it. Nothing is given up meanwhile: what is with the log
//! is settled by the fold alone, whenever the log answers.
//!
//! *Invariant:* a stall settles nothing and answers nothing that was handed to the log.

use std::collections::BTreeSet;

use annals_log::metrics::Invariant;
use annals_log::writer::{self, Progress, ShardWriter};
use annals_record::Offset;
use annals_record::fold::Head;

use super::{Lease, ShardEngine, Shared, reply};
use crate::answer::SendError;
use crate::engine::Effect;
use crate::metrics;

/// A claim that has not been seen for so long, ms, is made again.
const CLAIM_MS: i64 = 10_000;
/// An owner's log is asked so often, ms, where it begins and ends: an idle owner would not notice that it was cut.
const LOOK_MS: i64 = 5_000;
/// A log that ends below what was folded may be in the middle of a failover; this long, ms, it is looked at again.
const SHORT_MS: i64 = 15_000;

/// What is watched of one shard.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// What the writer had got from the log when it last got anything, and when that was.
    waits: Option<(Progress, i64)>,
    stalled: bool,
    /// When the log's bounds were last asked for, and what was folded then; `None`: an answer is open.
    looked_ms: i64,
    looking: Option<Offset>,
    short_since_ms: Option<i64>,
    /// Readers whose difference was said already.
    alarmed: BTreeSet<String>,
}

impl Watch {
    /// Whether the log owes something for too long.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Takes in what the writer waits for; `true` if it has just become stalled, or has just ceased to be.
    fn waits_for(&mut self, wanted: Option<Progress>, now_ms: i64, limit_ms: i64) -> bool {
        let before = self.stalled;
        match (wanted, &self.waits) {
            (None, _) => (self.waits, self.stalled) = (None, false),
            (Some(wanted), Some((known, since))) if wanted == *known => {
                self.stalled |= now_ms.saturating_sub(*since) > limit_ms;
            }
            (Some(wanted), _) => (self.waits, self.stalled) = (Some((wanted, now_ms)), false),
        }
        self.stalled != before
    }

    /// The log goes from `begin` to `end`: what the writer has to be told, if it is not the one that was folded.
    fn bounds(&mut self, begin: Offset, end: Offset, now_ms: i64) -> Option<writer::Input> {
        let folded = self.looking.take()?;
        if begin > Offset::new(0) {
            return Some(writer::Input::Deleted(begin));
        }
        if end >= folded {
            self.short_since_ms = None;
            return None;
        }
        let since = *self.short_since_ms.get_or_insert(now_ms);
        (now_ms.saturating_sub(since) >= SHORT_MS).then_some(writer::Input::Truncated(end))
    }
}

impl ShardEngine {
    /// Time has passed: gives up what nobody waits for any more, and looks at the log.
    pub(crate) fn expire(&mut self, cx: &mut Shared<'_>) {
        let now_ms = cx.now_ms;
        if self.writer.as_ref().is_some_and(ShardWriter::awaits_its_claim) {
            let since = *self.claiming_since_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since) > CLAIM_MS {
                self.claiming_since_ms = None;
                self.writer_input(writer::Input::GiveUpClaim, cx);
            }
        } else {
            self.claiming_since_ms = None;
        }
        self.look_for_stall(cx);
        self.look_at_bounds(cx);
        let stalled = self.watch.is_stalled();
        self.waiting.retain(|command| {
            let late = command.deadline_ms <= now_ms;
            if stalled {
                reply(cx, command.token, Err(SendError::LogUnavailable));
            } else if late {
                reply(cx, command.token, Err(SendError::ShardUnavailable));
            }
            !late && !stalled
        });
    }

    fn look_for_stall(&mut self, cx: &mut Shared<'_>) {
        let wanted = match &self.writer {
            Some(writer) if !self.halted => {
                // Between two claims of a shard that is ours it is as it was.
                if !writer.is_owner() && self.lease == Lease::Ours && writer.awaits().is_none() {
                    return;
                }
                writer.awaits()
            }
            Some(_) | None => None,
        };
        let limit_ms = i64::try_from(cx.settings.stall_ms).unwrap_or(i64::MAX);
        if !self.watch.waits_for(wanted, cx.now_ms, limit_ms) {
            return;
        }
        let (shard, stalled) = (self.shard, self.watch.stalled);
        metrics::stalled(shard, stalled);
        if stalled {
            let (pending, bytes) = (self.pending.len(), self.pending_bytes);
            tracing::error!(
                %shard, pending, bytes,
                "the log has not answered for {limit_ms} ms: new commands get 503 until it does"
            );
        } else {
            tracing::info!(%shard, "the log answers again");
        }
        cx.out.push(Effect::Stalled { shard, stalled });
    }

    fn look_at_bounds(&mut self, cx: &mut Shared<'_>) {
        let due = cx.now_ms.saturating_sub(self.watch.looked_ms) >= LOOK_MS;
        if let Some(writer) = &self.writer
            && due
            && writer.is_owner()
            && self.watch.looking.is_none()
        {
            self.watch.looked_ms = cx.now_ms;
            self.watch.looking = Some(writer.head().next);
            cx.out.push(Effect::Bounds(self.shard));
        }
    }

    /// Where the log begins and ends; nothing if it did not say.
    pub(crate) fn bounds(&mut self, bounds: Option<(Offset, Offset)>, cx: &mut Shared<'_>) {
        let Some((begin, end)) = bounds else {
            self.watch.looking = None;
            return;
        };
        if let Some(input) = self.watch.bounds(begin, end, cx.now_ms)
            && self.is_owner()
        {
            self.writer_input(input, cx);
        }
    }

    /// A reader's checkpoint, to be compared with what was folded here (L4).
    pub(crate) fn compare(&mut self, reader: &str, head: &Head) {
        let Some(writer) = &self.writer else { return };
        if writer.agrees(head.accepted, head.chain) != Some(false) {
            self.watch.alarmed.remove(reader);
            return;
        }
        Invariant::L4.broken();
        if self.watch.alarmed.insert(reader.to_owned()) {
            let (shard, accepted, theirs) = (self.shard, head.accepted, head.chain);
            tracing::error!(
                %shard, reader, accepted, %theirs,
                "a reader has folded another history than this shard's owner: see the runbook `halted-shard`"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(folded: u64, answers: u64) -> Option<Progress> {
        Some(Progress {
            folded: Offset::new(folded),
            answers,
        })
    }

    #[test]
    fn a_stall_is_a_wait_without_any_progress_and_ends_with_the_first() {
        let mut watch = Watch::default();
        assert!(!watch.waits_for(progress(4, 1), 1_000, 500));
        assert!(!watch.waits_for(progress(4, 1), 1_500, 500));
        assert!(watch.waits_for(progress(4, 1), 1_501, 500), "too long");
        assert!(watch.is_stalled());
        assert!(!watch.waits_for(progress(4, 1), 9_000, 500), "said once");
        assert!(watch.waits_for(progress(5, 1), 9_001, 500), "something came");
        assert!(!watch.is_stalled());
        assert!(!watch.waits_for(progress(5, 2), 9_600, 500));
        assert!(!watch.waits_for(None, 20_000, 500), "nothing is owed");
        assert!(
            !watch.waits_for(progress(5, 2), 30_000, 500),
            "a new wait begins now"
        );
        assert!(!watch.waits_for(progress(5, 2), 30_500, 500));
    }

    #[test]
    fn a_short_log_is_looked_at_for_a_while_and_a_deleted_beginning_is_told_at_once() {
        let mut watch = Watch {
            looking: Some(Offset::new(9)),
            ..Watch::default()
        };
        let at = Offset::new;
        assert!(watch.bounds(at(0), at(7), 0).is_none());
        assert!(watch.bounds(at(0), at(7), 20_000).is_none(), "nobody asked");
        watch.looking = Some(at(9));
        assert!(watch.bounds(at(0), at(9), 5_000).is_none(), "the end is back");
        watch.looking = Some(at(9));
        assert!(watch.bounds(at(0), at(7), 10_000).is_none());
        watch.looking = Some(at(9));
        let told = watch.bounds(at(0), at(7), 25_000);
        assert!(
            matches!(told, Some(writer::Input::Truncated(end)) if end == at(7)),
            "{told:?}"
        );
        watch.looking = Some(at(9));
        let told = watch.bounds(at(3), at(9), 0);
        assert!(
            matches!(told, Some(writer::Input::Deleted(begin)) if begin == at(3)),
            "{told:?}"
        );
    }
}

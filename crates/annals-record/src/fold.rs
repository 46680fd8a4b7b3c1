//! Which records count: the one function that every reader of the log uses.
//!
//! [`accept`] is pure and total. It looks at key, timestamp and headers, never at the value. In this
//! order:
//!
//! | record | answer |
//! |---|---|
//! | no `annals` header, or headers outside the grammar | Ghost(foreign) |
//! | `annals` is a number that this program does not know | Halt(unknown format); never skipped |
//! | anything after an accepted close | Ghost(closed) |
//! | claim with another `genesis` | Ghost(foreign) |
//! | claim with `epoch == head.epoch + 1` | Accept, or Halt(history replaced) if `seen` contradicts this reader |
//! | any other claim | Ghost(lost claim) |
//! | commit, refusal, close with `epoch < head.epoch` | Ghost(superseded) |
//! | the same with `epoch == head.epoch`, `prev == head.chain`, timestamp ≥ head.time | Accept |
//! | all else | Ghost(unchained) |
//!
//! `seen` contradicts a reader if its count is beyond what the reader accepted, or if the reader
//! knows another chain at that count. A reader knows the last [`WINDOW`] counts that it folded
//! itself; below them it cannot tell, and accepts.
//!
//! `unchained` is a ghost and not a halt because Kafka can leave a hole or a duplicate; `prev` alone
//! is then a full compare-and-set. Source: the log's design, "Fold", which was model-checked: do not
//! simplify a rule away.

#![deny(clippy::wildcard_enum_match_arm)]

use serde::{Deserialize, Serialize};

use crate::hash::{self, Hash32};
use crate::id::{AppName, Epoch, Offset, Shard, ShardCount};
use crate::planted::{Plant, planted};
use crate::record::{Claim, Meta, Record, Slot};

/// How many accepted counts back a reader remembers the chain.
pub const WINDOW: usize = 4096;

/// What a reader knows of a shard after folding it up to `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The offset of the next record: everything below has been folded.
    pub next: Offset,
    /// How many records were accepted.
    pub accepted: u64,
    /// The ownership term; 0 before the first claim.
    pub epoch: Epoch,
    /// The chain over the accepted records.
    pub chain: Hash32,
    /// The time of the latest accepted commit, refusal or close, milliseconds since 1970; 0 before
    /// the first.
    pub time_ms: i64,
    /// Whether a close was accepted: then nothing counts any more.
    pub closed: bool,
}

/// Why a record does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ghost {
    /// Not of this log, or outside the grammar. To be counted and alarmed.
    Foreign,
    /// Written after the shard ended.
    Closed,
    /// A claim that came too late.
    LostClaim,
    /// Written by an owner whose term had ended.
    Superseded,
    /// Not the successor of what was accepted: a hole, a duplicate, or a second writer. To be
    /// counted and alarmed.
    Unchained,
}

impl Ghost {
    /// A short name for counters and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Closed => "closed",
            Self::LostClaim => "lost-claim",
            Self::Superseded => "superseded",
            Self::Unchained => "unchained",
        }
    }
}

impl std::fmt::Display for Ghost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a reader must stop before a record. Waiting or trying again does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The record was written by a newer program.
    #[error("record format {format} is not known here: upgrade this program")]
    UnknownFormat {
        /// The number in the header `annals`.
        format: u64,
    },
    /// The claimer had read another history than this reader.
    #[error(
        "history replaced: a claim saw {seen} records with chain {theirs}; here {accepted} are accepted, chain there {}",
        Chain(*ours)
    )]
    HistoryReplaced {
        /// How many records the claimer had accepted.
        seen: u64,
        /// The chain that it had there.
        theirs: Hash32,
        /// How many records this reader had accepted.
        accepted: u64,
        /// This reader's chain at `seen`; none if it never got that far.
        ours: Option<Hash32>,
    },
}

/// An optional chain in a message.
struct Chain(Option<Hash32>);

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(chain) => chain.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// What the fold says of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accept,
    /// It does not count; the reader goes on.
    Ghost(Ghost),
    /// The reader stops in front of it.
    Halt(Halt),
}

impl Verdict {
    /// Whether the record counts.
    #[must_use]
    pub fn is_accept(self) -> bool {
        matches!(self, Self::Accept)
    }
}

/// What a reader knows of the chain at an earlier count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainAt {
    /// It folded this count itself.
    Known(Hash32),
    /// It began later, or has forgotten.
    Forgotten,
}

impl Head {
    /// The head of an empty shard: offset 0, nothing accepted, epoch 0, chain c(0), time 0.
    #[must_use]
    pub fn genesis(app: &AppName, shard: Shard, shards: ShardCount) -> Self {
        Self::at_genesis(hash::genesis(app, shard, shards))
    }

    /// The head of an empty shard with this c(0).
    #[must_use]
    pub const fn at_genesis(genesis: Hash32) -> Self {
        Self {
            next: Offset::new(0),
            accepted: 0,
            epoch: Epoch::new(0),
            chain: genesis,
            time_ms: 0,
            closed: false,
        }
    }

    /// The head behind a record that does not count.
    #[must_use]
    fn passed(self) -> Self {
        Self {
            next: self.next.next(),
            ..self
        }
    }

    /// The head behind a record that counts.
    #[must_use]
    fn extended(self, record: &Record, record_hash: Hash32) -> Self {
        let behind = Self {
            accepted: self.accepted.saturating_add(1),
            chain: hash::chain(self.chain, record_hash),
            ..self.passed()
        };
        match &record.meta {
            // A claim's own time does not move the shard's: it is not a decision.
            Meta::Claim(claim) => Self {
                epoch: claim.epoch,
                ..behind
            },
            Meta::Commit(_) | Meta::Refusal(_) => Self {
                time_ms: record.timestamp_ms,
                ..behind
            },
            Meta::Close(_) => Self {
                time_ms: record.timestamp_ms,
                closed: true,
                ..behind
            },
        }
    }
}

/// Decides about the record at `head.next`, and gives the head behind it.
///
/// `genesis` is c(0) of the shard, `record_hash` the slot's own hash. `chain_at` is asked only for
/// counts below `head.accepted`. A ghost moves `next` alone; a halt moves nothing.
#[must_use]
pub fn accept(
    head: &Head,
    genesis: Hash32,
    chain_at: impl Fn(u64) -> ChainAt,
    slot: &Slot,
    record_hash: Hash32,
) -> (Verdict, Head) {
    match slot {
        Slot::Foreign(_) => (Verdict::Ghost(Ghost::Foreign), head.passed()),
        Slot::UnknownFormat { format, .. } => {
            let halt = Halt::UnknownFormat { format: *format };
            (Verdict::Halt(halt), *head)
        }
        Slot::Known(record) => accept_record(head, genesis, chain_at, record, record_hash),
    }
}

/// As [`accept`], for a record that is known to be well-formed.
#[must_use]
pub fn accept_record(
    head: &Head,
    genesis: Hash32,
    chain_at: impl Fn(u64) -> ChainAt,
    record: &Record,
    record_hash: Hash32,
) -> (Verdict, Head) {
    let verdict = judge(head, genesis, chain_at, record);
    let behind = match verdict {
        Verdict::Accept => head.extended(record, record_hash),
        Verdict::Ghost(_) => head.passed(),
        Verdict::Halt(_) => *head,
    };
    (verdict, behind)
}

/// The rows of the table from "anything after an accepted close" on.
fn judge(head: &Head, genesis: Hash32, chain_at: impl Fn(u64) -> ChainAt, record: &Record) -> Verdict {
    if head.closed {
        return Verdict::Ghost(Ghost::Closed);
    }
    let (epoch, prev) = match &record.meta {
        Meta::Claim(claim) => return judge_claim(head, genesis, chain_at, claim),
        Meta::Commit(entry) | Meta::Refusal(entry) => (entry.epoch, entry.prev),
        Meta::Close(close) => (close.epoch, close.prev),
    };
    if epoch < head.epoch && planted(Plant::EpochNotCompared) {
        Verdict::Accept
    } else if epoch < head.epoch {
        Verdict::Ghost(Ghost::Superseded)
    } else if epoch == head.epoch && prev == head.chain && record.timestamp_ms >= head.time_ms {
        Verdict::Accept
    } else {
        Verdict::Ghost(Ghost::Unchained)
    }
}

fn judge_claim(head: &Head, genesis: Hash32, chain_at: impl Fn(u64) -> ChainAt, claim: &Claim) -> Verdict {
    if claim.genesis != genesis {
        return Verdict::Ghost(Ghost::Foreign);
    }
    // After the last epoch there is no next one, and every claim is lost.
    if head.epoch.get().checked_add(1) != Some(claim.epoch.get()) {
        return Verdict::Ghost(Ghost::LostClaim);
    }
    let seen = claim.seen;
    let ours = match seen.accepted.cmp(&head.accepted) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(head.chain),
        std::cmp::Ordering::Less => match chain_at(seen.accepted) {
            ChainAt::Known(chain) => Some(chain),
            ChainAt::Forgotten => return Verdict::Accept,
        },
    };
    if ours == Some(seen.chain) {
        return Verdict::Accept;
    }
    Verdict::Halt(Halt::HistoryReplaced {
        seen: seen.accepted,
        theirs: seen.chain,
        accepted: head.accepted,
        ours,
    })
}

/// A reader's fold of one shard: its head, and the chains of its last [`WINDOW`] counts.
///
/// Takes 128 KiB once that many records were accepted, and allocates at its creation only.
#[derive(Debug, Clone)]
pub struct Fold {
    head: Head,
    genesis: Hash32,
    /// The count that this reader began at.
    from: u64,
    /// The chain at count `from + i` is at index `i % WINDOW`.
    ring: Vec<Hash32>,
}

impl Fold {
    /// Goes on from `head`, of the shard whose c(0) is `genesis`.
    #[must_use]
    pub fn new(genesis: Hash32, head: Head) -> Self {
        let mut ring = Vec::with_capacity(WINDOW);
        ring.push(head.chain);
        Self {
            head,
            genesis,
            from: head.accepted,
            ring,
        }
    }

    /// Begins with an empty shard.
    #[must_use]
    pub fn from_genesis(genesis: Hash32) -> Self {
        Self::new(genesis, Head::at_genesis(genesis))
    }

    /// What is known of the shard up to here.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// c(0) of the shard.
    #[must_use]
    pub fn genesis(&self) -> Hash32 {
        self.genesis
    }

    /// The chain after `accepted` records, if this reader still knows it.
    #[must_use]
    pub fn chain_at(&self, accepted: u64) -> ChainAt {
        match self.slot_of(accepted).and_then(|i| self.ring.get(i)) {
            Some(chain) => ChainAt::Known(*chain),
            None => ChainAt::Forgotten,
        }
    }

    /// Decides about the record at `head().next`, whose hash is `record_hash`, and moves the head.
    pub fn step(&mut self, slot: &Slot, record_hash: Hash32) -> Verdict {
        let (verdict, head) = accept(&self.head, self.genesis, |n| self.chain_at(n), slot, record_hash);
        self.moved(verdict, head)
    }

    /// As [`Fold::step`], for a record that is known to be well-formed.
    pub fn step_record(&mut self, record: &Record, record_hash: Hash32) -> Verdict {
        let (verdict, head) = accept_record(
            &self.head,
            self.genesis,
            |n| self.chain_at(n),
            record,
            record_hash,
        );
        self.moved(verdict, head)
    }

    fn moved(&mut self, verdict: Verdict, head: Head) -> Verdict {
        self.head = head;
        if verdict.is_accept() {
            match self.slot_of(head.accepted) {
                Some(index) if index < self.ring.len() => self.ring[index] = head.chain,
                _ => self.ring.push(head.chain),
            }
        }
        verdict
    }

    /// Where the chain at `accepted` is kept, if that count is within the window.
    fn slot_of(&self, accepted: u64) -> Option<usize> {
        let since = accepted.checked_sub(self.from)?;
        let age = usize::try_from(self.head.accepted.checked_sub(accepted)?).ok()?;
        (age < WINDOW).then_some(usize::try_from(since).ok()? % WINDOW)
    }
}

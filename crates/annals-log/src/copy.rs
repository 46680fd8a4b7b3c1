//! Copying a log: the source shard is closed, its accepted records go to the target byte for byte, and what the
//! target then holds is folded from its first record and must have the source's chain.
//!
//! In reading order: [`close`], [`shard()`] (copy one shard; it may be called again after any failure), [`prove`].
//! Nothing here trusts an answer of a log: what counts in the target is what the fold of what can be read from it says.
//!
//! *Invariant:* nothing is appended to the target that the fold of the source did not accept.
//! *Invariant:* a claim is appended to the target only when everything before it counts there.
//! *Invariant:* a copy that [`prove`] let pass has the source's count, chain, epoch and time in every shard.
//!
//! Source: 3-log.md, "Copying a log".

mod readers;
mod target;
mod walk;

use std::sync::Arc;
use std::time::Duration;

use annals_record::fold::{Fold, Ghost, Halt, Head, Verdict};
use annals_record::record::{Close, Kind, Meta, Record, Slot};
use annals_record::{Hash32, Offset, RecordId, Shard};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::{Appended, Hashed, Log, LogError};
pub use readers::{Carried, carry_checkpoints, readers_to_carry};
use target::Target;
pub use walk::{Proof, prove};

/// How a copy works.
#[derive(Debug, Clone, Copy)]
pub struct CopySettings {
    /// At most so many records in one append.
    pub records: usize,
    /// No further record in an append that has this many bytes.
    pub bytes: usize,
    /// How long a log may take over one answer before its outcome counts as unknown.
    pub patience: Duration,
    /// So many attempts in a row may bring nothing before it is given up.
    pub attempts: u32,
    /// The pause between two of them.
    pub pause: Duration,
}

impl Default for CopySettings {
    fn default() -> Self {
        Self {
            records: 1_000,
            bytes: 4 << 20,
            patience: Duration::from_secs(60),
            attempts: 20,
            pause: Duration::from_millis(500),
        }
    }
}

/// Why a copy cannot go on. The target is unfinished then; the same call goes on where this one ended.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the logs does not answer, or refuses.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The source itself halts: what is from there on cannot be copied, and has to be left behind knowingly.
    #[error(transparent)]
    Halted(Box<HaltedAt>),
    /// Somebody goes on writing to the source.
    #[error(
        "shard {shard} could not be closed in {attempts} attempts: somebody writes to it; stop every node first"
    )]
    Busy {
        /// The shard.
        shard: Shard,
        /// How many attempts.
        attempts: u32,
    },
    /// The target is not a copy of this source.
    #[error(
        "shard {shard} of the target is another log: after {accepted} accepted records its chain is {theirs}, and the \
         source's is {ours}"
    )]
    Different {
        /// The shard.
        shard: Shard,
        /// After how many records.
        accepted: u64,
        /// The source's chain there; zeros if it has not so many.
        ours: Hash32,
        /// The target's.
        theirs: Hash32,
    },
    /// The target takes nothing.
    #[error("shard {shard} of the target takes no record after {accepted}: {why}")]
    Stuck {
        /// The shard.
        shard: Shard,
        /// How many it has.
        accepted: u64,
        /// The last answer.
        why: String,
    },
    /// A reader had folded another history than the one that was copied.
    #[error(
        "reader `{reader}` folded another history of shard {shard} than the log holds: `log check` on the source says more"
    )]
    Reader {
        /// The reader.
        reader: String,
        /// The shard.
        shard: Shard,
    },
    /// Postgres.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Where and why a log cannot be folded any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "shard {shard} of the log halts at offset {offset} ({halt}; the record's hash is {record}, the chain before it \
     {chain}): --until {shard}:{offset} leaves it and all that follows behind"
)]
pub struct HaltedAt {
    /// The shard.
    pub shard: Shard,
    /// Where.
    pub offset: Offset,
    /// Why.
    pub halt: Halt,
    /// The hash of the record that it halts in front of.
    pub record: Hash32,
    /// The chain before it.
    pub chain: Hash32,
}

/// A shard of a log, and what it begins with.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// The shard.
    pub shard: Shard,
    /// c(0) of the shard: the same in both logs, for app, shard and number of shards are.
    pub genesis: Hash32,
}

/// A close record before it is chained.
#[derive(Debug, Clone)]
pub struct CloseDraft {
    /// The record's id.
    pub id: RecordId,
    /// The clock, ms since 1970.
    pub time_ms: i64,
    /// Its value ([`ClaimValue`](annals_record::value::ClaimValue)).
    pub value: Bytes,
}

/// A record that is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Where it stands in the source.
    pub offset: Offset,
    /// Its hash.
    pub hash: Hash32,
    /// What the source's own fold says of it.
    pub verdict: BehindAs,
    /// Its id, if it is a record of this log.
    pub id: Option<RecordId>,
    /// Its kind, if it is a record of this log.
    pub kind: Option<Kind>,
    /// Its stream, if it has one.
    pub stream: Option<String>,
}

/// What the source's fold said of a record that stays behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BehindAs {
    /// It counted: whoever was told so must be told otherwise.
    Accepted,
    /// It did not count there either.
    Ghost(Ghost),
    /// The source halts at it or before it.
    Halted,
}

/// What was copied of a shard.
#[derive(Debug, Clone)]
pub struct ShardCopy {
    /// The source's head behind the last record that was copied (before the close).
    pub head: Head,
    /// Records of the source that do not count, below the cut.
    pub ghosts: u64,
    /// How many appends had to be made again.
    pub resent: u64,
    /// Every record that stays behind, in order.
    pub behind: Vec<Behind>,
}

/// Ends a shard of the source with a close record, so that no node goes on. A shard that is closed already stays so.
///
/// A node that still writes meets the close by the fold, whenever it comes: either its record counts and the close is
/// made again behind it, or the close counts and its record does not.
///
/// # Errors
/// [`CopyError`]; `Halted` if the shard cannot be folded to its end, where no close would count.
pub async fn close(
    of: Of<'_>,
    settings: &CopySettings,
    mut draft: impl FnMut() -> CloseDraft + Send,
) -> Result<Head, CopyError> {
    let mut fold = Fold::from_genesis(of.genesis);
    for _ in 0..settings.attempts.max(1) {
        let halted = walk::to_end(of, &mut fold, settings.patience, |_, _, _| {}).await?;
        if let Some(halted) = halted {
            return Err(CopyError::Halted(halted));
        }
        let head = *fold.head();
        if head.closed {
            return Ok(head);
        }
        let CloseDraft { id, time_ms, value } = draft();
        let record = Record {
            stream: None,
            timestamp_ms: time_ms.max(head.time_ms),
            meta: Meta::Close(Close {
                id,
                epoch: head.epoch,
                prev: head.chain,
            }),
            value,
        };
        let appending = of.log.append(of.shard, head, vec![Arc::new(record)]);
        match timeout(settings.patience, appending).await {
            Ok(Appended::NotWritten(error)) => return Err(error.into()),
            // Whatever it was: the fold says whether the shard is closed.
            Ok(Appended::Landed(_)) => {}
            Ok(Appended::HeadMoved(_) | Appended::Unknown(_)) | Err(_) => sleep(settings.pause).await,
        }
    }
    Err(CopyError::Busy {
        shard: of.shard,
        attempts: settings.attempts,
    })
}

/// Copies what the source's fold accepts, up to its end or below `until`, behind what the target has already.
///
/// `progress` hears how many records of the source were gone through since it was last called.
///
/// # Errors
/// [`CopyError`]; the same call may be made again.
pub async fn shard(
    source: Of<'_>,
    target: &dyn Log,
    until: Option<Offset>,
    settings: &CopySettings,
    mut progress: impl FnMut(u64) + Send,
) -> Result<ShardCopy, CopyError> {
    let to = Of {
        log: target,
        ..source
    };
    let mut target = Target::open(to, settings).await?;
    let mut fold = Fold::from_genesis(source.genesis);
    let mut copy = ShardCopy {
        head: *fold.head(),
        ghosts: 0,
        resent: 0,
        behind: Vec::new(),
    };
    let mut batch = Batch::default();
    let mut halted = None;
    let end = source.log.end(source.shard).await?;
    let mut next = Offset::new(0);
    while next < end {
        let placed = walk::read(source, next, settings.patience).await?;
        progress(u64::try_from(placed.len()).unwrap_or(0));
        for placed in placed {
            next = placed.offset.next();
            let cut = until.is_some_and(|until| placed.offset >= until);
            let verdict = match &halted {
                Some(_) => BehindAs::Halted,
                None => match fold.step(&placed.slot, placed.hash) {
                    Verdict::Accept => BehindAs::Accepted,
                    Verdict::Ghost(why) => BehindAs::Ghost(why),
                    Verdict::Halt(halt) => {
                        halted = Some(HaltedAt {
                            shard: source.shard,
                            offset: placed.offset,
                            halt,
                            record: placed.hash,
                            chain: fold.head().chain,
                        });
                        BehindAs::Halted
                    }
                },
            };
            if cut {
                copy.behind
                    .push(behind(placed.offset, placed.hash, &placed.slot, verdict));
                continue;
            }
            match (verdict, placed.slot.known()) {
                (BehindAs::Accepted, Some(record)) if record.kind() == Kind::Close => {}
                (BehindAs::Accepted, Some(record)) => {
                    copy.head = *fold.head();
                    if target.holds(&copy.head)? {
                        continue;
                    }
                    // A claim goes alone, behind nothing that is open: if what it saw were missing in front of it, every
                    // reader of the target would halt there for ever.
                    let alone = record.kind() == Kind::Claim;
                    if alone {
                        copy.resent += target.push(std::mem::take(&mut batch)).await?;
                    }
                    batch.push(record, placed.hash, copy.head.chain);
                    if alone || batch.is_full(settings) {
                        copy.resent += target.push(std::mem::take(&mut batch)).await?;
                    }
                }
                (BehindAs::Ghost(_) | BehindAs::Accepted, _) => copy.ghosts += 1,
                (BehindAs::Halted, _) => {
                    if let Some(halted) = halted {
                        return Err(CopyError::Halted(Box::new(halted)));
                    }
                }
            }
        }
    }
    copy.resent += target.push(batch).await?;
    target.is_at(&copy.head)?;
    Ok(copy)
}

/// Records on their way, each with the chain behind it.
#[derive(Debug, Default)]
struct Batch {
    records: Vec<(Hashed, Hash32)>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, record: &Record, hash: Hash32, chain: Hash32) {
        self.bytes += record.stored_bytes();
        let record = Arc::new(record.clone());
        self.records.push((Hashed { record, hash }, chain));
    }

    fn is_full(&self, settings: &CopySettings) -> bool {
        self.records.len() >= settings.records || self.bytes >= settings.bytes
    }
}

fn behind(offset: Offset, hash: Hash32, slot: &Slot, verdict: BehindAs) -> Behind {
    let record = slot.known();
    Behind {
        offset,
        hash,
        verdict,
        id: record.map(Record::id),
        kind: record.map(Record::kind),
        stream: record.and_then(|record| Some(record.stream.as_ref()?.as_str().to_owned())),
    }
}

//! Reading a shard from its beginning to its end, and the proof that a copy is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_record::fold::{Fold, Head, Verdict};
use annals_record::{Offset, Shard};
use tokio::time::Instant;

use super::{CopyError, CopySettings, HaltedAt, Of};
use crate::{Checkpoint, LogError, Placed, ReadLimits};

/// Records from `from` on, which are there.
pub(super) async fn read(of: Of<'_>, from: Offset, patience: Duration) -> Result<Vec<Arc<Placed>>, LogError> {
    let until = Instant::now() + patience;
    let mut last = None;
    while Instant::now() < until {
        match of.log.read(of.shard, from, ReadLimits::default()).await {
            Ok(placed) if placed.is_empty() => {}
            Ok(placed) => return Ok(placed),
            Err(error @ LogError::Refused(_)) => return Err(error),
            Err(error) => {
                last = Some(error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        LogError::Unavailable(format!(
            "shard {} gave no record from offset {from} on within {patience:?}, and has more",
            of.shard
        ))
    }))
}

/// Folds from where `fold` is to the end that the shard has now; says where it halted, if it did.
pub(super) async fn to_end(
    of: Of<'_>,
    fold: &mut Fold,
    patience: Duration,
    mut each: impl FnMut(&Placed, Verdict, &Head) + Send,
) -> Result<Option<Box<HaltedAt>>, LogError> {
    let end = of.log.end(of.shard).await?;
    while fold.head().next < end {
        for placed in read(of, fold.head().next, patience).await? {
            let chain = fold.head().chain;
            let verdict = fold.step(&placed.slot, placed.hash);
            if let Verdict::Halt(halt) = verdict {
                return Ok(Some(Box::new(HaltedAt {
                    shard: of.shard,
                    offset: placed.offset,
                    halt,
                    record: placed.hash,
                    chain,
                })));
            }
            each(&placed, verdict, fold.head());
        }
    }
    Ok(None)
}

/// What the fold of a whole copy gave.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The target's head.
    pub head: Head,
    /// Its records that do not count: appends that were made again though they had landed.
    pub ghosts: u64,
    /// The checkpoints of a reader that accepted so many records, for each count that was asked for.
    pub checkpoints: BTreeMap<u64, Checkpoint>,
}

/// Folds all that the target holds, and compares it with the source's head behind the last copied record.
///
/// Give it a log that was opened anew: what this process remembers of its own appends is no proof.
///
/// # Errors
/// [`CopyError::Different`] if count, chain, epoch or time is another one, or the fold halts.
pub async fn prove(
    of: Of<'_>,
    source: &Head,
    counts: &[u64],
    settings: &CopySettings,
) -> Result<Proof, CopyError> {
    let mut fold = Fold::from_genesis(of.genesis);
    let mut proof = Proof {
        head: *fold.head(),
        ghosts: 0,
        checkpoints: BTreeMap::new(),
    };
    if counts.contains(&0) {
        proof.checkpoints.insert(0, Checkpoint::genesis(proof.head));
    }
    let Proof {
        ghosts, checkpoints, ..
    } = &mut proof;
    let halted = to_end(of, &mut fold, settings.patience, |placed, verdict, head| {
        if !verdict.is_accept() {
            *ghosts += 1;
        } else if counts.contains(&head.accepted) {
            let checkpoint = Checkpoint {
                head: *head,
                last_hash: placed.hash,
                last_ghost: false,
            };
            checkpoints.insert(head.accepted, checkpoint);
        }
    })
    .await?;
    if let Some(halted) = halted {
        return Err(CopyError::Halted(halted));
    }
    proof.head = *fold.head();
    same(of.shard, source, &proof.head)?;
    Ok(proof)
}

/// Whether two logs accepted the same; offsets may differ, by ghosts.
pub(super) fn same(shard: Shard, source: &Head, target: &Head) -> Result<(), CopyError> {
    let what = |head: &Head| (head.accepted, head.chain, head.epoch, head.time_ms);
    if what(source) == what(target) {
        return Ok(());
    }
    Err(CopyError::Different {
        shard,
        accepted: target.accepted,
        ours: source.chain,
        theirs: target.chain,
    })
}

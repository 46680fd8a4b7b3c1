//! One shard of the target: what it holds, and records that are pushed until it holds them.

use annals_record::fold::{Fold, Head, Verdict};
use annals_record::{Hash32, Offset, RecordId};
use tokio::time::{sleep, timeout};

use super::{Batch, CopyError, CopySettings, Of, walk};
use crate::{Appended, Hashed, LogError};

pub(super) struct Target<'a> {
    of: Of<'a>,
    settings: &'a CopySettings,
    fold: Fold,
    /// What it held when it was opened.
    opened: Head,
    /// An outcome was unknown since the last append.
    unsure: bool,
}

impl<'a> Target<'a> {
    /// Folds what is there.
    pub(super) async fn open(of: Of<'a>, settings: &'a CopySettings) -> Result<Self, CopyError> {
        let fold = Fold::from_genesis(of.genesis);
        let mut target = Self {
            of,
            settings,
            opened: *fold.head(),
            fold,
            unsure: false,
        };
        target.catch_up().await?;
        target.opened = *target.fold.head();
        Ok(target)
    }

    async fn catch_up(&mut self) -> Result<(), CopyError> {
        let halted = walk::to_end(self.of, &mut self.fold, self.settings.patience, |_, _, _| {}).await?;
        match halted {
            Some(halted) => Err(CopyError::Halted(halted)),
            None => Ok(()),
        }
    }

    /// Whether it held the source's record that `head` is behind when it was opened.
    pub(super) fn holds(&self, head: &Head) -> Result<bool, CopyError> {
        if head.accepted == self.opened.accepted && head.chain != self.opened.chain {
            return Err(self.different(&self.opened, head.chain));
        }
        Ok(head.accepted <= self.opened.accepted)
    }

    /// Whether it holds exactly what the source has.
    pub(super) fn is_at(&self, source: &Head) -> Result<(), CopyError> {
        walk::same(self.of.shard, source, self.fold.head())
    }

    fn different(&self, target: &Head, ours: Hash32) -> CopyError {
        CopyError::Different {
            shard: self.of.shard,
            accepted: target.accepted,
            ours,
            theirs: target.chain,
        }
    }

    /// Appends until the fold has accepted every one; says how many appends were made again.
    pub(super) async fn push(&mut self, batch: Batch) -> Result<u64, CopyError> {
        let mut left = batch.records;
        let (mut attempts, mut resent) = (0, 0);
        while !left.is_empty() {
            let head = *self.fold.head();
            let records: Vec<Hashed> = left.iter().map(|(hashed, _)| hashed.clone()).collect();
            let appending =
                self.of
                    .log
                    .append_copied(self.of.shard, head, records, std::mem::take(&mut self.unsure));
            let why = match timeout(self.settings.patience, appending).await {
                Ok(Appended::Landed(places)) if is_dense(&places, head.next) => {
                    return self.accept(&left).map(|()| resent);
                }
                Ok(Appended::NotWritten(error @ LogError::Refused(_))) => return Err(error.into()),
                Ok(Appended::Landed(_)) => "it landed with something in between".to_owned(),
                Ok(Appended::HeadMoved(_)) => "its head has moved".to_owned(),
                Ok(Appended::NotWritten(error) | Appended::Unknown(error)) => error.to_string(),
                Err(_) => format!("no answer within {:?}", self.settings.patience),
            };
            // What it became is read; what did not count goes again. Duplicates are ghosts.
            self.unsure = true;
            resent += 1;
            self.catch_up().await?;
            let taken = self.fold.head().accepted.saturating_sub(head.accepted);
            if taken == 0 {
                attempts += 1;
                if attempts >= self.settings.attempts {
                    return Err(CopyError::Stuck {
                        shard: self.of.shard,
                        accepted: head.accepted,
                        why,
                    });
                }
                sleep(self.settings.pause).await;
                continue;
            }
            attempts = 0;
            let taken = usize::try_from(taken).unwrap_or(usize::MAX).min(left.len());
            let chain = left.get(taken - 1).map_or(head.chain, |(_, chain)| *chain);
            if self.fold.head().chain != chain {
                return Err(self.different(self.fold.head(), chain));
            }
            left.drain(..taken);
        }
        Ok(resent)
    }

    /// They landed where they should, with nothing in between: the fold takes them without reading them again.
    fn accept(&mut self, landed: &[(Hashed, Hash32)]) -> Result<(), CopyError> {
        for (Hashed { record, hash }, chain) in landed {
            let verdict = self.fold.step_record(record, *hash);
            if verdict != Verdict::Accept || self.fold.head().chain != *chain {
                return Err(self.different(self.fold.head(), *chain));
            }
        }
        Ok(())
    }
}

fn is_dense(places: &[(RecordId, Offset)], mut next: Offset) -> bool {
    places.iter().all(|(_, offset)| {
        let expected = *offset == next;
        next = next.next();
        expected
    })
}

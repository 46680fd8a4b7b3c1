//! The log in memory, for tests and simulations: it plays Kafka or Postgres, and its bytes can be meddled with.

mod store;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_record::fold::{Fold, Head};
use annals_record::record::{RawRecord, Record, Slot};
use annals_record::{AppName, Generation, Offset, RecordId, Shard, ShardCount, hash};
use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::timeout;

pub use store::MemoryStore;

use crate::recent::Taken;
use crate::{Appended, Appending, Description, Durability, Log, LogError, LogKind, Placed, ReadLimits};

/// Which log it behaves like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plays {
    /// An append lands where it lands.
    Kafka,
    /// An append lands only on the head that it names, and only what the fold accepts.
    Postgres,
}

/// A log in memory. An append has happened when the call returns; its answer is there at once.
pub struct MemoryLog {
    app: AppName,
    shards: Box<[MemoryShard]>,
    count: ShardCount,
    plays: Plays,
}

struct MemoryShard {
    placed: Mutex<Vec<Arc<Placed>>>,
    end: watch::Sender<Offset>,
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<_> = self.shards.iter().map(|shard| *shard.end.borrow()).collect();
        f.debug_struct("MemoryLog")
            .field("plays", &self.plays)
            .field("ends", &ends)
            .finish_non_exhaustive()
    }
}

impl MemoryLog {
    /// An empty log.
    pub fn new(app: AppName, count: ShardCount, plays: Plays) -> Self {
        let shard = |_| MemoryShard {
            placed: Mutex::new(Vec::new()),
            end: watch::Sender::new(Offset::new(0)),
        };
        Self {
            app,
            shards: count.shards().map(shard).collect(),
            count,
            plays,
        }
    }

    /// The app whose log it is.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// How many shards it has.
    pub fn shard_count(&self) -> ShardCount {
        self.count
    }

    /// Everything that stands in a shard.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn placed(&self, shard: Shard) -> Vec<Arc<Placed>> {
        lock(self.of(shard)).clone()
    }

    /// The fold of all that stands in a shard, halted or not.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn fold(&self, shard: Shard) -> Fold {
        self.folded(shard, &lock(self.of(shard)))
    }

    /// Puts something behind the end, past every check: a foreign record, a zombie's, a duplicate.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn insert(&self, shard: Shard, raw: RawRecord) -> Offset {
        let of_shard = self.of(shard);
        let mut placed = lock(of_shard);
        let offset = push(&mut placed, Slot::parse(raw));
        of_shard.end.send_replace(offset.next());
        offset
    }

    /// Puts something in the place of a record, as a restored or forged log would have it.
    ///
    /// # Panics
    /// If nothing stands there.
    pub fn replace(&self, shard: Shard, offset: Offset, raw: RawRecord) {
        let slot = Slot::parse(raw);
        let hash = hash::slot_hash(&slot);
        let index = usize::try_from(offset.get()).expect("an offset in memory");
        lock(self.of(shard))[index] = Arc::new(Placed::new(offset, slot, hash));
    }

    /// Forgets everything from `end` on, as an unclean failover does.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn truncate(&self, shard: Shard, end: Offset) {
        let of_shard = self.of(shard);
        let mut placed = lock(of_shard);
        placed.truncate(usize::try_from(end.get()).unwrap_or(usize::MAX));
        of_shard.end.send_replace(next(&placed));
    }

    fn of(&self, shard: Shard) -> &MemoryShard {
        self.find(shard).expect("a shard of this log")
    }

    fn find(&self, shard: Shard) -> Result<&MemoryShard, LogError> {
        usize::try_from(shard.get())
            .ok()
            .and_then(|index| self.shards.get(index))
            .ok_or_else(|| no_shard(shard, self.count))
    }

    fn folded(&self, shard: Shard, placed: &[Arc<Placed>]) -> Fold {
        let mut fold = Fold::from_genesis(hash::genesis(&self.app, shard, self.count));
        for placed in placed {
            fold.step(&placed.slot, placed.hash);
        }
        fold
    }

    /// What Postgres would refuse: another head, or a record that the fold would pass over. The whole shard is
    /// folded each time, which in a test is little; so whatever was meddled with counts.
    fn refuse(
        &self,
        shard: Shard,
        at: &Head,
        records: &[Arc<Record>],
        placed: &[Arc<Placed>],
    ) -> Option<Head> {
        let mut fold = self.folded(shard, placed);
        // A meddled log may hold ghosts; the place is then the end.
        let head = Head {
            next: next(placed),
            ..*fold.head()
        };
        let accepted = |record: &Arc<Record>| fold.step_record(record, hash::record_hash(record)).is_accept();
        (head != *at || !records.iter().all(accepted)).then_some(head)
    }

    fn write(&self, shard: Shard, at: &Head, records: Vec<Arc<Record>>) -> Appended {
        let of_shard = match self.find(shard) {
            Ok(of_shard) => of_shard,
            Err(error) => return Appended::NotWritten(error),
        };
        let mut placed = lock(of_shard);
        if self.plays == Plays::Postgres
            && let Some(head) = self.refuse(shard, at, &records, &placed)
        {
            return Appended::HeadMoved(head);
        }
        let mut landed: Vec<(RecordId, Offset)> = Vec::with_capacity(records.len());
        for record in records {
            let id = record.id();
            landed.push((id, push(&mut placed, Slot::Known(Arc::unwrap_or_clone(record)))));
        }
        of_shard.end.send_replace(next(&placed));
        Appended::Landed(landed)
    }
}

#[async_trait]
impl Log for MemoryLog {
    fn append(&self, shard: Shard, at: Head, records: Vec<Arc<Record>>) -> Appending {
        let appended = self.write(shard, &at, records);
        Box::pin(std::future::ready(appended))
    }

    async fn read(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        let of_shard = self.find(shard)?;
        let mut end = of_shard.end.subscribe();
        {
            let end = *end.borrow_and_update();
            if from > end {
                return Err(LogError::BeyondEnd { shard, end, from });
            }
        }
        let beyond = timeout(limits.wait, end.wait_for(|end| *end > from)).await;
        if !matches!(beyond, Ok(Ok(_))) {
            return Ok(Vec::new());
        }
        let index = usize::try_from(from.get()).unwrap_or(usize::MAX);
        let mut taken = Taken::new(limits);
        for placed in lock(of_shard).iter().skip(index) {
            if !taken.take(Arc::clone(placed)) {
                break;
            }
        }
        Ok(taken.records)
    }

    async fn end(&self, shard: Shard) -> Result<Offset, LogError> {
        Ok(*self.find(shard)?.end.borrow())
    }

    async fn describe(&self) -> Result<Description, LogError> {
        Ok(Description {
            kind: LogKind::Memory,
            app: self.app.clone(),
            shards: self.count,
            generation: Generation::FIRST,
            durability: Durability::Process,
            settings: Vec::new(),
        })
    }
}

/// The error of a shard that a log does not have.
pub(crate) fn no_shard(shard: Shard, shards: ShardCount) -> LogError {
    LogError::Refused(format!("there is no shard {shard} in a log of {shards}"))
}

fn push(placed: &mut Vec<Arc<Placed>>, slot: Slot) -> Offset {
    let offset = next(placed);
    let hash = hash::slot_hash(&slot);
    placed.push(Arc::new(Placed::new(offset, slot, hash)));
    offset
}

fn next(placed: &[Arc<Placed>]) -> Offset {
    placed
        .last()
        .map_or(Offset::new(0), |placed| placed.offset.next())
}

/// A panic of another test thread cannot have torn a vector that is only pushed to.
fn lock(shard: &MemoryShard) -> MutexGuard<'_, Vec<Arc<Placed>>> {
    shard.placed.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The log in memory, for tests and simulations: it plays Kafka or Postgres, and its bytes can be meddled with.

mod store;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_record::fold::{self, Fold, Head};
use annals_record::record::{RawRecord, Record, Slot};
use annals_record::{AppName, Generation, Hash32, Offset, RecordId, Shard, ShardCount, hash};
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
    stands: Mutex<Stands>,
    end: watch::Sender<Offset>,
}

/// What stands in a shard, and what the fold makes of it.
struct Stands {
    placed: Vec<Arc<Placed>>,
    fold: Fold,
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
        let shard = |shard| MemoryShard {
            stands: Mutex::new(Stands {
                placed: Vec::new(),
                fold: Fold::from_genesis(hash::genesis(&app, shard, count)),
            }),
            end: watch::Sender::new(Offset::new(0)),
        };
        let shards = count.shards().map(shard).collect();
        Self {
            app,
            shards,
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
        self.placed_from(shard, Offset::new(0))
    }

    /// What stands in a shard from an offset on.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn placed_from(&self, shard: Shard, from: Offset) -> Vec<Arc<Placed>> {
        let stands = lock(self.of(shard));
        stands.from(from).cloned().collect()
    }

    /// The fold of all that stands in a shard; where it halted, it stands still.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn fold(&self, shard: Shard) -> Fold {
        lock(self.of(shard)).fold.clone()
    }

    /// Puts something behind the end, past every check: a foreign record, a zombie's, a duplicate.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn insert(&self, shard: Shard, raw: RawRecord) -> Offset {
        let of_shard = self.of(shard);
        let mut stands = lock(of_shard);
        let offset = stands.push(Slot::parse(raw));
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
        let mut stands = lock(self.of(shard));
        stands.placed[index] = Arc::new(Placed::new(offset, slot, hash));
        stands.fold_again();
    }

    /// Forgets everything from `end` on, as an unclean failover does.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn truncate(&self, shard: Shard, end: Offset) {
        let of_shard = self.of(shard);
        let mut stands = lock(of_shard);
        stands
            .placed
            .truncate(usize::try_from(end.get()).unwrap_or(usize::MAX));
        stands.fold_again();
        of_shard.end.send_replace(stands.next());
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

    fn write(&self, shard: Shard, at: &Head, records: Vec<Arc<Record>>) -> Appended {
        let of_shard = match self.find(shard) {
            Ok(of_shard) => of_shard,
            Err(error) => return Appended::NotWritten(error),
        };
        let mut stands = lock(of_shard);
        if self.plays == Plays::Postgres
            && let Some(head) = stands.refuse(at, &records)
        {
            return Appended::HeadMoved(head);
        }
        let mut landed: Vec<(RecordId, Offset)> = Vec::with_capacity(records.len());
        for record in records {
            let id = record.id();
            landed.push((id, stands.push(Slot::Known(Arc::unwrap_or_clone(record)))));
        }
        of_shard.end.send_replace(stands.next());
        Appended::Landed(landed)
    }
}

impl Stands {
    fn next(&self) -> Offset {
        self.placed
            .last()
            .map_or(Offset::new(0), |placed| placed.offset.next())
    }

    fn from(&self, from: Offset) -> impl Iterator<Item = &Arc<Placed>> {
        let index = usize::try_from(from.get()).unwrap_or(usize::MAX);
        self.placed.iter().skip(index)
    }

    fn push(&mut self, slot: Slot) -> Offset {
        let offset = self.next();
        let hash = hash::slot_hash(&slot);
        self.step(&slot, hash);
        self.placed.push(Arc::new(Placed::new(offset, slot, hash)));
        offset
    }

    /// Behind a halt nothing is folded any more.
    fn step(&mut self, slot: &Slot, hash: Hash32) {
        if self.fold.head().next == self.next() {
            self.fold.step(slot, hash);
        }
    }

    fn fold_again(&mut self) {
        self.fold = Fold::from_genesis(self.fold.genesis());
        for placed in std::mem::take(&mut self.placed) {
            self.step(&placed.slot, placed.hash);
            self.placed.push(placed);
        }
    }

    /// What Postgres would refuse: another head, or a record that the fold would pass over.
    fn refuse(&self, at: &Head, records: &[Arc<Record>]) -> Option<Head> {
        let (genesis, stands) = (self.fold.genesis(), *self.fold.head());
        let mut head = stands;
        let accepted = |record: &Arc<Record>| {
            let hash = hash::record_hash(record);
            let known = |n| self.fold.chain_at(n);
            let (verdict, behind) = fold::accept_record(&head, genesis, known, record, hash);
            head = behind;
            verdict.is_accept()
        };
        (stands != *at || !records.iter().all(accepted)).then_some(stands)
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
        // What comes out locks the channel while it lives, and a writer sends with the shard locked: dropped at once.
        let beyond = matches!(
            timeout(limits.wait, end.wait_for(|end| *end > from)).await,
            Ok(Ok(_))
        );
        if !beyond {
            return Ok(Vec::new());
        }
        let mut taken = Taken::new(limits);
        for placed in lock(of_shard).from(from) {
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

/// A test that panicked is over; what it shares with others is read for its report only.
fn lock(shard: &MemoryShard) -> MutexGuard<'_, Stands> {
    shard.stands.lock().unwrap_or_else(PoisonError::into_inner)
}

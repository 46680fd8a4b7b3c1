//! A wrapper that makes any log fail as logs do, by a plan that is written down or drawn from a seed.
//!
//! *Invariant:* it never lies. `Landed`, `HeadMoved` and `NotWritten` stay facts whatever goes wrong; only what a real
//! log may do to its callers is done. Source of the idea: Materialize, `src/persist/src/unreliable.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::future::{pending, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_record::fold::Head;
use annals_record::record::Record;
use annals_record::{Offset, Shard};
use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::testing::Chained;
use crate::{Appended, Appending, Description, Log, LogError, MemoryLog, Placed, ReadLimits};

/// What goes wrong with one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, and the answer says so.
    Refuse,
    /// Nothing is written; the answer is that nobody knows.
    FailBefore,
    /// It is written; the answer is that nobody knows.
    FailAfter,
    /// It is written; the answer never comes.
    LoseAnswer,
    /// It is written; the answer comes with [`Faulty::release`].
    DelayAnswer,
    /// It is written with [`Faulty::release`], behind whatever is written until then; nobody knows.
    WriteLate,
    /// It is written twice, as a broker does that forgot a producer.
    Duplicate,
    /// All but its first record are written; nobody knows.
    Hole,
    /// Another writer claims the shard just before.
    SecondWriter,
    /// It is written, and then the shard's last record is gone, as after an unclean fail-over; nobody knows.
    Truncate,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 10] = [
        Self::Refuse,
        Self::FailBefore,
        Self::FailAfter,
        Self::LoseAnswer,
        Self::DelayAnswer,
        Self::WriteLate,
        Self::Duplicate,
        Self::Hole,
        Self::SecondWriter,
        Self::Truncate,
    ];
}

/// Which append fails, and how.
#[derive(Debug, Clone)]
pub enum Plan {
    /// One entry an append, in the order of the calls; none after the last.
    Written(VecDeque<Option<Fault>>),
    /// Drawn anew for each call, the same for the same seed.
    Seeded {
        /// The state of the generator; begins as the seed.
        seed: u64,
        /// How many calls in a thousand fail; reads fail as often, with [`LogError::Unavailable`].
        per_mille: u64,
        /// The faults to draw from.
        faults: Vec<Fault>,
    },
}

impl Plan {
    /// A plan that is written down.
    pub fn of(faults: impl IntoIterator<Item = Option<Fault>>) -> Self {
        Self::Written(faults.into_iter().collect())
    }

    /// Any of `faults`, in `per_mille` of a thousand calls.
    pub fn seeded(seed: u64, per_mille: u64, faults: &[Fault]) -> Self {
        Self::Seeded {
            seed,
            per_mille,
            faults: faults.to_vec(),
        }
    }

    fn next_append(&mut self) -> Option<Fault> {
        match self {
            Self::Written(faults) => faults.pop_front().flatten(),
            Self::Seeded {
                seed,
                per_mille,
                faults,
            } => {
                let hit = draw(seed) % 1_000 < *per_mille;
                let which = draw(seed).checked_rem(u64::try_from(faults.len()).ok()?)?;
                faults.get(usize::try_from(which).ok()?).copied().filter(|_| hit)
            }
        }
    }

    fn next_read_fails(&mut self) -> bool {
        match self {
            Self::Written(_) => false,
            Self::Seeded { seed, per_mille, .. } => draw(seed) % 1_000 < *per_mille,
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What only a log that can be meddled with does.
pub trait Meddle: Send + Sync + 'static {
    /// Another writer claims the shard.
    fn claim(&self, shard: Shard);
    /// The shard loses its last record.
    fn lose_last(&self, shard: Shard);
}

impl Meddle for MemoryLog {
    fn claim(&self, shard: Shard) {
        let head = *self.fold(shard).head();
        let writer = Chained::new(self.app().clone(), shard, self.shard_count());
        // The writer's ids follow from where it claims, so that two claims differ.
        let number = u16::try_from(head.next.get() % 60_000).unwrap_or(0) + 1_000;
        self.insert(shard, writer.another(number).at(head).claim().to_raw());
    }

    fn lose_last(&self, shard: Shard) {
        let last = u64::try_from(self.placed(shard).len()).unwrap_or(0);
        self.truncate(shard, Offset::new(last.saturating_sub(1)));
    }
}

/// A log that fails by plan.
pub struct Faulty {
    inner: Arc<dyn Log>,
    meddle: Option<Arc<dyn Meddle>>,
    state: Mutex<State>,
}

struct State {
    plan: Plan,
    done: Vec<Fault>,
    answers: Vec<oneshot::Sender<()>>,
    late: Vec<(Shard, Head, Vec<Arc<Record>>)>,
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("inner", &self.inner)
            .field("done", &self.state().done)
            .finish_non_exhaustive()
    }
}

impl Faulty {
    /// Any log; [`Fault::SecondWriter`] and [`Fault::Truncate`] need `meddle` and do nothing of their own without it.
    pub fn new(inner: Arc<dyn Log>, meddle: Option<Arc<dyn Meddle>>, plan: Plan) -> Self {
        let state = State {
            plan,
            done: Vec::new(),
            answers: Vec::new(),
            late: Vec::new(),
        };
        Self {
            inner,
            meddle,
            state: Mutex::new(state),
        }
    }

    /// A log in memory, which can do all of it.
    pub fn memory(log: &Arc<MemoryLog>, plan: Plan) -> Self {
        Self::new(log.clone(), Some(log.clone()), plan)
    }

    /// The faults that have happened, in order.
    pub fn done(&self) -> Vec<Fault> {
        self.state().done.clone()
    }

    /// From here on another plan.
    pub fn replan(&self, plan: Plan) {
        self.state().plan = plan;
    }

    /// Writes what is late, then gives the answers that were held back. What never gets released never happens.
    pub fn release(&self) {
        let (late, answers) = {
            let mut state = self.state();
            (
                std::mem::take(&mut state.late),
                std::mem::take(&mut state.answers),
            )
        };
        for (shard, at, records) in late {
            // An append goes on when its answer is dropped.
            drop(self.inner.append(shard, at, records));
        }
        for answer in answers {
            answer.send(()).ok();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, fault: Fault, shard: Shard, at: Head, mut records: Vec<Arc<Record>>) -> Appending {
        let error = || LogError::Unavailable(format!("{fault:?}, by plan"));
        let unknown: Appending = Box::pin(ready(Appended::Unknown(error())));
        match fault {
            Fault::Refuse => return Box::pin(ready(Appended::NotWritten(error()))),
            Fault::FailBefore => {}
            Fault::FailAfter => drop(self.inner.append(shard, at, records)),
            Fault::LoseAnswer => {
                drop(self.inner.append(shard, at, records));
                return Box::pin(pending());
            }
            Fault::DelayAnswer => {
                let answer = self.inner.append(shard, at, records);
                let (release, released) = oneshot::channel();
                self.state().answers.push(release);
                return Box::pin(async move {
                    match released.await {
                        Ok(()) => answer.await,
                        Err(_) => pending().await,
                    }
                });
            }
            Fault::WriteLate => self.state().late.push((shard, at, records)),
            Fault::Duplicate => {
                let answer = self.inner.append(shard, at, records.clone());
                drop(self.inner.append(shard, at, records));
                return answer;
            }
            Fault::Hole => {
                records.remove(0);
                if !records.is_empty() {
                    drop(self.inner.append(shard, at, records));
                }
            }
            Fault::SecondWriter => {
                self.meddle.iter().for_each(|meddle| meddle.claim(shard));
                return self.inner.append(shard, at, records);
            }
            Fault::Truncate => {
                drop(self.inner.append(shard, at, records));
                self.meddle.iter().for_each(|meddle| meddle.lose_last(shard));
            }
        }
        unknown
    }
}

#[async_trait]
impl Log for Faulty {
    fn append(&self, shard: Shard, at: Head, records: Vec<Arc<Record>>) -> Appending {
        let fault = {
            let mut state = self.state();
            let fault = state.plan.next_append().filter(|_| !records.is_empty());
            state.done.extend(fault);
            fault
        };
        match fault {
            Some(fault) => self.fail(fault, shard, at, records),
            None => self.inner.append(shard, at, records),
        }
    }

    async fn read(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        if self.state().plan.next_read_fails() {
            return Err(LogError::Unavailable("a read, by plan".to_owned()));
        }
        self.inner.read(shard, from, limits).await
    }

    async fn end(&self, shard: Shard) -> Result<Offset, LogError> {
        self.inner.end(shard).await
    }

    async fn describe(&self) -> Result<Description, LogError> {
        self.inner.describe().await
    }
}

//! The deterministic simulation of the write side: the real engines, writers, readers and indexers, and no I/O.
//!
//! One thread plays everything around them: a log in memory with appends on their way to it, a journal, leases that
//! lie, clocks, clients that send again. Whatever happens follows from the seed, so a seed that fails replays
//! exactly. After every step the oracle holds all that was written and answered against the invariants of the log.
//!
//! In reading order: `plan` (what a seed draws first), `world` (which step comes next), `nodes` (an engine and
//! what its shell would wait for), `wire` (appends under way), `followers` (indexers and recording readers), `history`
//! and `truth` (the oracle), `ending` (faults stop: everything must be answered), `cut` (a log that was tampered with). What it finds, and how fast, is in
//! `docs/simulation.md`.

mod clients;
mod cut;
mod domain;
mod ending;
mod followers;
mod history;
mod journal;
mod nodes;
mod plan;
mod rng;
mod seeds;
mod snapshots;
mod truth;
mod wire;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use annals_record::planted::{Plant, plant};
pub use seeds::{Failure, Found, find, run_all};
use world::World;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which: `L1` to `L9`, or the name of a rule of the design.
    pub law: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    fn new(law: &'static str, what: String) -> Self {
        Self { law, what }
    }

    fn of<T>(law: &'static str, what: String) -> Result<T, Self> {
        Err(Self::new(law, what))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

type Check = Result<(), Violation>;

/// How much a run has seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Steps taken.
    pub steps: u64,
    /// Commands sent, repeats included.
    pub sent: u64,
    /// Answers from accepted records.
    pub acknowledged: u64,
    /// Of them, first answers given again.
    pub replayed: u64,
    /// Records in the log.
    pub records: u64,
    /// Of them, those that do not count.
    pub ghosts: u64,
    /// Accepted claims.
    pub epochs: u64,
    /// Nodes and readers that halted, as they must when the log was tampered with.
    pub halts: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.sent += other.sent;
        self.acknowledged += other.acknowledged;
        self.replayed += other.replayed;
        self.records += other.records;
        self.ghosts += other.ghosts;
        self.epochs += other.epochs;
        self.halts += other.halts;
    }
}

/// Gets a line a step of a run.
pub type Trace = Box<dyn FnMut(&str)>;

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How much was seen.
    pub counts: Counts,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
}

/// Runs one seed, with a mistake or without. `trace` gets a line a step.
pub fn run(seed: u64, mistake: Option<Plant>, trace: Option<Trace>) -> Outcome {
    plant(mistake);
    let mut world = World::new(seed, trace);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Violation::of("panic", text.unwrap_or("without a word").to_owned())
    });
    plant(None);
    Outcome {
        counts: world.counts(),
        violation: violation.err(),
    }
}

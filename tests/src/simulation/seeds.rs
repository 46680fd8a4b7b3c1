//! Many seeds: on every core until one fails, or until a planted mistake is found.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use annals_record::planted::Plant;

use super::{Counts, Violation, run};

/// A seed that broke an invariant.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What it broke.
    pub violation: Violation,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, violation } = self;
        write!(
            f,
            "seed {seed} breaks {violation}\nreplay it: cargo run -p annals-tests --bin simulate -- --replay {seed}"
        )
    }
}

/// Runs every seed of an interval on all cores. Ends early, with the smallest seed that failed.
///
/// # Errors
/// The first failure.
pub fn run_all(seeds: Range<u64>) -> Result<Counts, Failure> {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let worker = || {
        let (mut counts, mut failure) = (Counts::default(), None);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                return (counts, failure);
            }
            let outcome = run(seed, None, None);
            counts += outcome.counts;
            if let Some(violation) = outcome.violation {
                // Smaller seeds that are under way go on.
                end.fetch_min(seed, Ordering::Relaxed);
                failure = Some(Failure { seed, violation });
            }
        }
    };
    let mut counts = Counts::default();
    let mut failures = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            let (of_worker, failure) = worker.join().expect("a run's panics are caught within it");
            counts += of_worker;
            failures.extend(failure);
        }
    });
    failures.sort_by_key(|failure| failure.seed);
    failures.into_iter().next().map_or(Ok(counts), Err)
}

/// How soon a planted mistake is found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The mistake.
    pub mistake: Plant,
    /// How many seeds each search took, fewest first.
    pub seeds: Vec<u64>,
    /// What was seen first, most frequent first.
    pub laws: Vec<&'static str>,
    /// Whether every search came to its end within its bound.
    pub always: bool,
}

/// Searches for a planted mistake: so many times, each from a seed of its own and with so many seeds at most.
pub fn find(mistake: Plant, searches: u64, most: u64) -> Found {
    let mut laws: Vec<(u64, &'static str)> = Vec::new();
    let mut seeds = Vec::new();
    let mut always = true;
    for search in 0..searches {
        let from = 1 + search * 1_000_000;
        let first = (from..from + most).find_map(|seed| {
            let violation = run(seed, Some(mistake), None).violation?;
            Some((seed - from + 1, violation.law))
        });
        let Some((took, law)) = first else {
            always = false;
            seeds.push(most);
            continue;
        };
        seeds.push(took);
        match laws.iter_mut().find(|(_, known)| *known == law) {
            Some((count, _)) => *count += 1,
            None => laws.push((1, law)),
        }
    }
    seeds.sort_unstable();
    laws.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    Found {
        mistake,
        seeds,
        laws: laws.into_iter().map(|(_, law)| law).collect(),
        always,
    }
}

impl Found {
    /// The one in the middle.
    pub fn median(&self) -> u64 {
        self.seeds.get(self.seeds.len() / 2).copied().unwrap_or(0)
    }

    /// The longest search.
    pub fn most(&self) -> u64 {
        self.seeds.last().copied().unwrap_or(0)
    }
}

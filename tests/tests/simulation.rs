//! The simulation in the test run: 10,000 seeds hold every invariant, and every planted mistake is found.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZero;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use annals_record::planted::Plant;
use annals_tests::simulation;

/// How many seeds a run of all tests tries.
const SEEDS: u64 = 10_000;

/// Seeds that broke an invariant once, with what was wrong then. A change of the simulation itself gives a seed another
/// run, so each bug has a test of its own beside the code as well.
const FAILED_ONCE: [(u64, &str); 13] = [
    (
        19,
        "a snapshot ahead of a lagging journal was taken for a wrong one",
    ),
    (
        573,
        "a zombie answered 500 for a key known from another owner's snapshot only",
    ),
    (2_431, "the same"),
    (2_985, "the same"),
    (
        1_834,
        "a claimer waited for ever for the record before its head, on a log cut off",
    ),
    (
        32,
        "a node that began to read behind a close claimed again and again",
    ),
    (
        104_600,
        "an owner waited for ever for what had landed, on a log cut off",
    ),
    (974, "the same"),
    (
        1_517,
        "whoever waited for the next claim did not see that the log was replaced",
    ),
    (4_481, "the same, where unchained ghosts are the alarm"),
    (
        2_548,
        "the oracle let a client wait for ever at a node that only another node's claim could free",
    ),
    (
        8_423,
        "a key's record came into the tail while the journal was asked for it: 500",
    ),
    (5_750, "the same, where the log had been too short and came back"),
];

/// Each planted mistake is searched for so many times, each time from other seeds.
const SEARCHES: u64 = 3;

/// A search may take so many seeds. How many each mistake does take is in docs/simulation.md.
const MOST_SEEDS: u64 = 3_000;

#[test]
fn ten_thousand_seeds_break_no_invariant() {
    let counts = simulation::run_all(1..SEEDS + 1).unwrap_or_else(|failure| panic!("{failure}"));
    // A walk that reaches little finds little: each of these is about a third of what is reached.
    assert!(counts.acknowledged > 50_000, "{counts:?}");
    assert!(counts.replayed > 5_000, "{counts:?}");
    assert!(counts.ghosts > 5_000, "{counts:?}");
    assert!(counts.epochs > 10_000, "{counts:?}");
    assert!(counts.halts > 200, "{counts:?}");
}

#[test]
fn seeds_that_failed_once_hold() {
    for (seed, was) in FAILED_ONCE {
        let outcome = simulation::run(seed, None, None);
        assert_eq!(outcome.violation, None, "seed {seed}, which once showed: {was}");
    }
}

#[test]
fn every_planted_mistake_is_found() {
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let missed: Vec<Plant> = thread::scope(|scope| {
        let worker = || {
            let mine = std::iter::from_fn(|| Plant::ALL.get(next.fetch_add(1, Ordering::Relaxed)).copied());
            mine.filter(|mistake| !simulation::find(*mistake, SEARCHES, MOST_SEEDS).always)
                .collect::<Vec<_>>()
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    assert_eq!(missed, [], "not found within {MOST_SEEDS} seeds");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 1..=20 {
        let traced = || {
            let (lines, hash) = (
                Rc::new(RefCell::new(0_u64)),
                Rc::new(RefCell::new(DefaultHasher::new())),
            );
            let (counted, hashed) = (Rc::clone(&lines), Rc::clone(&hash));
            let trace = move |line: &str| {
                *counted.borrow_mut() += 1;
                line.hash(&mut *hashed.borrow_mut());
            };
            simulation::run(seed, None, Some(Box::new(trace)));
            (*lines.borrow(), hash.borrow().finish())
        };
        let (first, again) = (traced(), traced());
        assert!(first.0 > 100, "a trace has a line a step");
        assert_eq!(first, again, "seed {seed}");
    }
}

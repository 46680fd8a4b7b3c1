//! Runs seeds of the simulation, replays one of them step by step, or searches for planted mistakes.
//!
//! ```text
//! cargo run -p annals-tests --bin simulate -- [--seeds N] [--from SEED]           many seeds, on every core
//! cargo run -p annals-tests --bin simulate -- --replay SEED [--plant MISTAKE]     one seed, with a line a step
//! cargo run -p annals-tests --bin simulate -- --mistakes [--searches N]           how soon each mistake is found
//! ```
//!
//! Exit status: 0 every invariant held, 1 one did not (said with the command that replays it), 2 wrong options.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "it is a program of the command line"
)]

use std::process::ExitCode;
use std::time::Instant;

use annals_record::planted::Plant;
use annals_tests::simulation;

/// Seeds that a search for a mistake may take.
const MOST_SEEDS: u64 = 5_000;

struct Options {
    seeds: u64,
    from: u64,
    searches: u64,
    replay: Option<u64>,
    plant: Option<Plant>,
    mistakes: bool,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            seeds: 10_000,
            from: 1,
            searches: 21,
            replay: None,
            plant: None,
            mistakes: false,
        };
        while let Some(arg) = args.next() {
            let mut number = || {
                let value = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
                value
                    .parse()
                    .map_err(|_| format!("{arg}: `{value}` is not a number"))
            };
            match arg.as_str() {
                "--seeds" => options.seeds = number()?,
                "--from" => options.from = number()?,
                "--searches" => options.searches = number()?,
                "--replay" => options.replay = Some(number()?),
                "--mistakes" => options.mistakes = true,
                "--plant" => {
                    let name = args.next().unwrap_or_default();
                    let plant = Plant::ALL.into_iter().find(|plant| format!("{plant:?}") == name);
                    options.plant =
                        Some(plant.ok_or_else(|| format!("there is no mistake `{name}`: {:?}", Plant::ALL))?);
                }
                _ => return Err(format!("unknown option `{arg}`")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("simulate: {error}");
            return ExitCode::from(2);
        }
    };
    // A panic is a violation like another, and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(seed) = options.replay {
        replay(seed, options.plant)
    } else if options.mistakes {
        mistakes(options.searches);
        ExitCode::SUCCESS
    } else {
        many(options.from, options.seeds)
    }
}

fn replay(seed: u64, plant: Option<Plant>) -> ExitCode {
    let outcome = simulation::run(seed, plant, Some(Box::new(|line| println!("{line}"))));
    println!("{:?}", outcome.counts);
    match outcome.violation {
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn many(from: u64, seeds: u64) -> ExitCode {
    let began = Instant::now();
    match simulation::run_all(from..from.saturating_add(seeds)) {
        Ok(counts) => {
            println!(
                "{seeds} seeds from {from} in {:.1?}: no invariant broken\n{counts:?}",
                began.elapsed()
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn mistakes(searches: u64) {
    println!("| mistake | seeds, median | seeds, most | seen as |\n|---|---|---|---|");
    for mistake in Plant::ALL {
        let found = simulation::find(mistake, searches, MOST_SEEDS);
        let most = if found.always {
            found.most().to_string()
        } else {
            format!("not in {MOST_SEEDS}")
        };
        println!(
            "| `{mistake:?}` | {} | {most} | {} |",
            found.median(),
            found.laws.join(", ")
        );
    }
}

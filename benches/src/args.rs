//! What every benchmark takes on its command line.

use std::time::Duration;

/// How long and how often to measure.
#[derive(Debug, Clone, Copy)]
pub struct Args {
    /// The form of `make bench`: well under a minute.
    pub short: bool,
    rounds: Option<usize>,
    events: Option<u64>,
    seconds: Option<f64>,
}

impl Args {
    /// Reads `--short`, `--rounds N`, `--events N` and `--seconds N`; leaves the program with status 2 on anything else.
    #[must_use]
    pub fn parse() -> Self {
        let mut words = std::env::args().skip(1);
        let mut args = Self {
            short: false,
            rounds: None,
            events: None,
            seconds: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_default();
            let known = match word.as_str() {
                "--short" => {
                    args.short = true;
                    true
                }
                "--rounds" => {
                    args.rounds = value().parse().ok().filter(|rounds| *rounds > 0);
                    args.rounds.is_some()
                }
                "--events" => {
                    args.events = value().parse().ok().filter(|events| *events > 0);
                    args.events.is_some()
                }
                "--seconds" => {
                    args.seconds = value().parse().ok().filter(|seconds| *seconds > 0.0);
                    args.seconds.is_some()
                }
                _ => false,
            };
            if !known {
                println!("usage: [--short] [--rounds N] [--events N] [--seconds N of one round]");
                std::process::exit(2);
            }
        }
        args
    }

    /// How many pairs of rounds, if nothing else is said.
    #[must_use]
    pub fn rounds(&self, short: usize, long: usize) -> usize {
        self.rounds.unwrap_or(if self.short { short } else { long })
    }

    /// How many events, if nothing else is said.
    #[must_use]
    pub fn events(&self, short: u64, long: u64) -> u64 {
        self.events.unwrap_or(if self.short { short } else { long })
    }

    /// How long a round takes, if nothing else is said.
    #[must_use]
    pub fn round(&self, short_s: f64, long_s: f64) -> Duration {
        let default = if self.short { short_s } else { long_s };
        Duration::from_secs_f64(self.seconds.unwrap_or(default))
    }
}

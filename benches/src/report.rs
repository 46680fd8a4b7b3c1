//! Pairs of rounds, their medians and spread, and how they are printed.

use std::future::Future;

use crate::cpu;

/// The median; 0 of nothing.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Median, least and most.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// Half of them are below.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of some numbers.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        Self {
            median: median(values.iter().copied()),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    fn text(self, digits: usize) -> String {
        let Self { median, least, most } = self;
        format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}

/// Rounds of ours, each beside the round of the floor that came right after it.
#[derive(Debug, Default, Clone)]
pub struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    /// Takes turns: ours, floor, ours, floor; both give a rate. The first pair warms up and does not count.
    ///
    /// # Errors
    /// Of a round.
    pub async fn take<E>(
        rounds: usize,
        mut ours: impl AsyncFnMut() -> Result<f64, E>,
        mut floor: impl AsyncFnMut() -> Result<f64, E>,
    ) -> Result<Self, E> {
        let mut pairs = Self::default();
        for round in 0..=rounds {
            let pair = (ours().await?, floor().await?);
            if round > 0 {
                pairs.0.push(pair);
            }
        }
        Ok(pairs)
    }

    /// Adds a pair.
    pub fn push(&mut self, ours: f64, floor: f64) {
        self.0.push((ours, floor));
    }

    /// Ours, the floor's, and ours by the floor's.
    #[must_use]
    pub fn spreads(&self) -> [Spread; 3] {
        let of = |value: fn(&(f64, f64)) -> f64| Spread::of(&self.0.iter().map(value).collect::<Vec<_>>());
        [of(|pair| pair.0), of(|pair| pair.1), of(|pair| pair.0 / pair.1)]
    }
}

/// What a ratio must be.
#[derive(Debug, Clone, Copy)]
pub enum Must {
    /// At least this.
    Reach(f64),
    /// At most this.
    StayWithin(f64),
    /// Nothing: it is printed to compare.
    Nothing,
}

/// Prints a table's head: the claim, what the machine is doing, and the columns.
pub fn head(claim: &str, settings: &str) {
    println!("\n{claim}\n{settings}\nload average {}", cpu::load_average());
    println!(
        "{:<34} | {:>26} | {:>26} | {:>20} | target",
        "", "ours: median (spread)", "floor: median (spread)", "ratio (spread)"
    );
}

/// Prints one row and says whether the target was met.
pub fn row(name: &str, pairs: &Pairs, digits: usize, must: Must) -> bool {
    let [ours, floor, ratio] = pairs.spreads();
    let (met, target) = match must {
        Must::Reach(least) => (ratio.median >= least, format!("≥ {least}")),
        Must::StayWithin(most) => (ratio.median <= most, format!("≤ {most}")),
        Must::Nothing => (true, String::new()),
    };
    let verdict = match must {
        Must::Nothing => "",
        Must::Reach(_) | Must::StayWithin(_) if met => "met",
        Must::Reach(_) | Must::StayWithin(_) => "MISSED",
    };
    println!(
        "{name:<34} | {:>26} | {:>26} | {:>20} | {target} {verdict}",
        ours.text(digits),
        floor.text(digits),
        ratio.text(2)
    );
    met
}

/// Says why there is nothing to measure here.
pub fn left_off(what: &str, why: &str) {
    println!("{what}: left off: {why}");
}

/// Runs a benchmark on a runtime of `threads` workers.
///
/// # Errors
/// What it fails with.
pub fn on_runtime<F: Future<Output = anyhow::Result<()>>>(threads: usize, run: F) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?
        .block_on(run)
}

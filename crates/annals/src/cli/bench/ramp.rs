//! Which rate to try next on the way to the knee. No I/O.

/// The service level, ms: a step above it is beyond the knee.
pub(super) const P99_MS: f64 = 200.0;
/// So is one that fails more than this share of its requests,
const FAILED: f64 = 0.001;
/// or answers less than this share of its rate.
const KEPT_UP: f64 = 0.97;
/// From step to step while all is well.
const GROWTH: f64 = 1.5;
/// How often the interval around the knee is halved.
const HALVINGS: u32 = 3;

/// What one step saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Requests due a second.
    pub(super) rate: f64,
    /// Requests answered a second.
    pub(super) per_second: f64,
    pub(super) p99_ms: f64,
    /// The share of requests that the server failed.
    pub(super) failed: f64,
}

impl Step {
    fn is_good(&self) -> bool {
        self.p99_ms <= P99_MS && self.failed <= FAILED && self.per_second >= self.rate * KEPT_UP
    }
}

/// Grows until a step is too much, then halves the interval.
#[derive(Debug)]
pub(super) struct Ramp {
    first: f64,
    good: Option<f64>,
    bad: Option<f64>,
    halvings: u32,
}

impl Ramp {
    pub(super) fn new(first: f64) -> Self {
        Self {
            first,
            good: None,
            bad: None,
            halvings: 0,
        }
    }

    pub(super) fn first(&self) -> f64 {
        self.first
    }

    /// The rate behind this step; none: the knee is known as well as it gets.
    pub(super) fn next(&mut self, step: &Step) -> Option<f64> {
        if step.is_good() {
            self.good = Some(step.rate);
        } else {
            self.bad = Some(step.rate);
        }
        match (self.good, self.bad) {
            (Some(good), None) => Some((good * GROWTH).round()),
            (Some(good), Some(bad)) if self.halvings < HALVINGS => {
                self.halvings += 1;
                Some(f64::midpoint(good, bad).round())
            }
            (Some(_) | None, _) => None,
        }
    }

    /// The highest rate that was kept.
    pub(super) fn knee(&self) -> Option<f64> {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(first: f64, capacity: f64) -> (Option<f64>, usize) {
        let mut ramp = Ramp::new(first);
        let (mut rate, mut steps) = (ramp.first(), 0);
        loop {
            steps += 1;
            let step = Step {
                rate,
                per_second: rate.min(capacity),
                p99_ms: if rate > capacity { 900.0 } else { 10.0 },
                failed: 0.0,
            };
            match ramp.next(&step) {
                Some(next) => rate = next,
                None => return (ramp.knee(), steps),
            }
        }
    }

    #[test]
    fn comes_near_the_knee_from_below() {
        for capacity in [260.0, 1_000.0, 7_777.0, 40_000.0] {
            let (knee, steps) = walk(250.0, capacity);
            let knee = knee.expect("above the first rate");
            assert!(knee <= capacity && knee > capacity * 0.9, "{knee} of {capacity}");
            assert!(steps < 20);
        }
    }

    #[test]
    fn says_when_even_the_first_rate_is_too_much() {
        assert_eq!(walk(250.0, 100.0), (None, 1));
    }

    #[test]
    fn each_limit_counts() {
        let good = Step {
            rate: 100.0,
            per_second: 99.0,
            p99_ms: 100.0,
            failed: 0.0,
        };
        assert!(good.is_good());
        assert!(!Step { p99_ms: 201.0, ..good }.is_good());
        assert!(!Step { failed: 0.01, ..good }.is_good());
        assert!(
            !Step {
                per_second: 80.0,
                ..good
            }
            .is_good()
        );
    }
}

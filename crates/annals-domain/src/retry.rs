//! Whether trying again can help, as a type, and how long to wait before it.

use std::time::Duration;

/// What a failed attempt means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same thing will fail in the same way: somebody has to look.
    Never,
    /// It did not happen; later it may.
    Later,
    /// It may have happened: only what is idempotent may be tried again.
    Unknown,
}

/// Waiting times that double from `first` to `max`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// No wait is longer.
    pub max: Duration,
}

impl Backoff {
    /// How long to wait after `attempts` failures (from 1), with `jitter` from 0 to 255 taking off up to a half.
    pub fn after(&self, attempts: u32, jitter: u8) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1).min(30)));
        let full = doubled.min(self.max);
        full - (full / 2).mul_f64(f64::from(jitter) / 255.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_limit_and_never_below_half() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            max: Duration::from_secs(2),
        };
        assert_eq!(backoff.after(1, 0), Duration::from_millis(100));
        assert_eq!(backoff.after(3, 0), Duration::from_millis(400));
        assert_eq!(backoff.after(u32::MAX, 0), Duration::from_secs(2));
        assert_eq!(backoff.after(u32::MAX, 255), Duration::from_secs(1));
    }
}

//! What is tried again, how often, and after which pauses.
//!
//! Tried again are failures of the connection, 503 and 504: all requests of this client may be repeated, queries by
//! their nature and commands by their idempotency key. Not 503 `shard-halted`, which only an operator ends.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use http::StatusCode;
use http::header::RETRY_AFTER;

use crate::response::Response;

/// How patient a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// The first pause; each is twice the one before, with jitter.
    pub first: Duration,
    /// The longest pause, also where the server asks for a longer one.
    pub max: Duration,
    /// No attempt begins later than this after the first one; zero: one attempt.
    pub patience: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(50),
            max: Duration::from_secs(5),
            patience: Duration::from_secs(30),
        }
    }
}

impl Retries {
    /// One attempt.
    pub const NONE: Self = Self {
        first: Duration::ZERO,
        max: Duration::ZERO,
        patience: Duration::ZERO,
    };

    /// The pauses between attempts, without end: [`Retries::patience`] ends them.
    pub(crate) fn pauses(self) -> impl Iterator<Item = Duration> {
        ExponentialBuilder::default()
            .with_min_delay(self.first)
            .with_max_delay(self.max)
            .with_jitter()
            .without_max_times()
            .build()
    }

    /// The pause before the next attempt, or `None` if there is none: `pause` by our own rule, longer if the server
    /// asks for it.
    pub(crate) fn next(self, spent: Duration, pause: Duration, asked: Option<Duration>) -> Option<Duration> {
        let pause = pause.max(asked.unwrap_or_default()).min(self.max);
        (spent + pause <= self.patience && !self.patience.is_zero()).then_some(pause)
    }
}

/// Whether the same request may get another answer later.
pub(crate) fn is_passing(response: &Response) -> bool {
    match response.status {
        StatusCode::GATEWAY_TIMEOUT => true,
        StatusCode::SERVICE_UNAVAILABLE => response
            .problem()
            .is_none_or(|problem| problem.code != "shard-halted"),
        _ => false,
    }
}

/// What `Retry-After` asks for, in seconds. (Its other form, a date, is not used by our servers.)
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_wish_lengthens_a_pause_up_to_the_limit() {
        let retries = Retries::default();
        let ms = Duration::from_millis;
        assert_eq!(retries.next(ms(0), ms(50), None), Some(ms(50)));
        assert_eq!(retries.next(ms(0), ms(50), Some(ms(1_000))), Some(ms(1_000)));
        assert_eq!(retries.next(ms(0), ms(50), Some(ms(60_000))), Some(retries.max));
    }

    #[test]
    fn patience_ends_it() {
        let retries = Retries::default();
        let last = retries.patience - Duration::from_millis(10);
        assert_eq!(retries.next(last, Duration::from_millis(50), None), None);
        assert_eq!(Retries::NONE.next(Duration::ZERO, Duration::ZERO, None), None);
    }
}

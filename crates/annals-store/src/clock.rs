//! How far the local clock is off the database's: a node far off neither claims nor decides.

use std::time::Duration;

use sqlx::PgPool;

use crate::{Error, metrics as names};

/// The local clock, injected: milliseconds since 1970, UTC. A closure will do.
pub trait LocalClock: Send + Sync {
    /// Now, in milliseconds since 1970.
    fn now_ms(&self) -> i64;
}

impl<F: Fn() -> i64 + Send + Sync> LocalClock for F {
    fn now_ms(&self) -> i64 {
        self()
    }
}

/// One comparison of the two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    /// How far the local clock is ahead of the database's, in ms; negative if it is behind.
    pub offset_ms: i64,
    /// The true offset is within this many ms of `offset_ms`: half of the round trip, rounded up.
    pub uncertainty_ms: i64,
}

impl ClockOffset {
    /// From the local times just before and after the database said what it has.
    ///
    /// Source: Cristian, "Probabilistic clock synchronization", 1989: the answer was read half-way, give
    /// or take half of the round trip.
    #[must_use]
    pub fn of_round_trip(before_ms: i64, database_ms: i64, after_ms: i64) -> Self {
        let trip = after_ms.saturating_sub(before_ms).max(0);
        let middle = before_ms.saturating_add(trip / 2);
        Self {
            offset_ms: middle.saturating_sub(database_ms),
            uncertainty_ms: trip - trip / 2,
        }
    }

    /// Whether the clocks are certainly further apart than this.
    #[must_use]
    pub fn exceeds(&self, limit: Duration) -> bool {
        let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        self.offset_ms
            .saturating_abs()
            .saturating_sub(self.uncertainty_ms)
            > limit
    }
}

/// Compares the local clock with the database's by one round trip.
///
/// The connection is taken from the pool first, so that waiting for one does not blur the answer.
///
/// # Errors
///
/// If Postgres could not be asked.
pub async fn clock_offset(pool: &PgPool, clock: &dyn LocalClock) -> Result<ClockOffset, Error> {
    let mut connection = pool.acquire().await?;
    // Once to prepare the statement, once to measure.
    let mut measured = None;
    for _ in 0..2 {
        let before = clock.now_ms();
        let database: i64 =
            sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
                .fetch_one(&mut *connection)
                .await?;
        measured = Some(ClockOffset::of_round_trip(before, database, clock.now_ms()));
    }
    let offset = measured.expect("the loop runs twice");
    // A gauge is a float; a clock that is 2^31 ms (24 days) off is off enough.
    let shown =
        i32::try_from(offset.offset_ms).unwrap_or(if offset.offset_ms < 0 { i32::MIN } else { i32::MAX });
    metrics::gauge!(names::CLOCK_OFFSET_MS).set(f64::from(shown));
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_middle_of_the_round_trip() {
        let offset = ClockOffset::of_round_trip(1_000, 995, 1_011);
        assert_eq!((offset.offset_ms, offset.uncertainty_ms), (10, 6));
        let behind = ClockOffset::of_round_trip(0, 6_000, 10);
        assert_eq!(behind.offset_ms, -5_995);
        assert!(behind.exceeds(Duration::from_secs(5)));
        assert!(!ClockOffset::of_round_trip(0, 5_004, 10).exceeds(Duration::from_secs(5)));
    }

    #[test]
    fn a_clock_that_jumps_back_overflows_nothing() {
        let offset = ClockOffset::of_round_trip(i64::MAX, i64::MIN, 0);
        assert!(offset.exceeds(Duration::from_secs(5)));
    }
}

//! Refusals have a price: each is kept for ever, so a caller has a token bucket for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

/// A bucket's size and how it fills.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Price {
    pub(crate) burst: u32,
    pub(crate) per_minute: u32,
}

/// Fractions of a token, so that filling loses nothing to rounding: a minute's milliseconds.
const PART: i64 = 60_000;
/// Beyond this many callers, those whose buckets are full again are forgotten.
const CALLERS: usize = 100_000;

#[derive(Debug)]
struct Bucket {
    parts: i64,
    filled_ms: i64,
}

/// The buckets of every caller of a node's engine.
#[derive(Debug)]
pub(crate) struct Budgets {
    price: Price,
    buckets: HashMap<Arc<str>, Bucket, FixedState>,
}

impl Budgets {
    pub(crate) fn new(price: Price, seed: u64) -> Self {
        Self {
            price,
            buckets: HashMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    fn full(&self) -> i64 {
        i64::from(self.price.burst) * PART
    }

    /// Takes a token; it is given back when the command was no refusal.
    ///
    /// # Errors
    /// How long until there is one, if the bucket is empty.
    pub(crate) fn take(&mut self, caller: &Arc<str>, now_ms: i64) -> Result<(), Duration> {
        let (full, rate) = (self.full(), i64::from(self.price.per_minute));
        let Some(bucket) = self.buckets.get_mut(caller) else {
            self.make_room(now_ms);
            self.buckets.insert(
                Arc::clone(caller),
                Bucket {
                    parts: full - PART,
                    filled_ms: now_ms,
                },
            );
            return if full >= PART {
                Ok(())
            } else {
                Err(Duration::from_secs(60))
            };
        };
        let passed = now_ms.saturating_sub(bucket.filled_ms).max(0);
        bucket.parts = bucket.parts.saturating_add(passed.saturating_mul(rate)).min(full);
        bucket.filled_ms = bucket.filled_ms.max(now_ms);
        if bucket.parts >= PART {
            bucket.parts -= PART;
            return Ok(());
        }
        let missing = PART - bucket.parts;
        let wait_ms = if rate > 0 {
            missing.div_euclid(rate) + 1
        } else {
            PART
        };
        Err(Duration::from_millis(u64::try_from(wait_ms).unwrap_or(60_000)))
    }

    pub(crate) fn give_back(&mut self, caller: &Arc<str>) {
        let full = self.full();
        if let Some(bucket) = self.buckets.get_mut(caller) {
            bucket.parts = (bucket.parts + PART).min(full);
        }
    }

    fn make_room(&mut self, now_ms: i64) {
        if self.buckets.len() < CALLERS {
            return;
        }
        let (full, rate) = (self.full(), i64::from(self.price.per_minute));
        self.buckets.retain(|_, bucket| {
            let passed = now_ms.saturating_sub(bucket.filled_ms).max(0);
            bucket.parts.saturating_add(passed.saturating_mul(rate)) < full
        });
        if self.buckets.len() >= CALLERS {
            // All of them in debt at once: one that has waited longest goes.
            let oldest = self
                .buckets
                .iter()
                .min_by_key(|(sub, b)| (b.filled_ms, Arc::clone(sub)));
            if let Some(sub) = oldest.map(|(sub, _)| Arc::clone(sub)) {
                self.buckets.remove(&sub);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_fills_and_takes_back() {
        let mut budgets = Budgets::new(
            Price {
                burst: 2,
                per_minute: 60,
            },
            1,
        );
        let ada: Arc<str> = "ada".into();
        assert_eq!(budgets.take(&ada, 0), Ok(()));
        assert_eq!(budgets.take(&ada, 0), Ok(()));
        let wait = budgets.take(&ada, 0).expect_err("it is empty");
        assert!(
            wait > Duration::from_millis(900) && wait <= Duration::from_millis(1_001),
            "{wait:?}"
        );
        assert_eq!(
            budgets.take(&"bob".into(), 0),
            Ok(()),
            "another caller has one of their own"
        );
        assert_eq!(budgets.take(&ada, 1_000), Ok(()), "a second refills one");
        budgets.give_back(&ada);
        assert_eq!(budgets.take(&ada, 1_000), Ok(()), "it was no refusal");
        assert!(
            budgets.take(&ada, 500).is_err(),
            "a clock that goes back fills nothing"
        );
    }
}

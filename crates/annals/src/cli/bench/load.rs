//! The clients of a load: each sends, waits, notes what it saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use annals_client::Client;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::send;
use crate::app::Load;

/// The longest latency that is told apart, in µs: one minute.
const LONGEST_US: u64 = 60_000_000;

/// What clients saw.
pub(super) struct Seen {
    pub(super) latency: Histogram<u64>,
    /// Of those that the server did: neither refused for now nor failed.
    pub(super) served: Histogram<u64>,
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Requests without an answer.
    pub(super) broken: u64,
}

impl Seen {
    fn new() -> Self {
        let latency =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are fit for a histogram");
        Self {
            served: latency.clone(),
            latency,
            statuses: BTreeMap::new(),
            broken: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.latency += &other.latency;
        self.served += &other.served;
        self.broken += other.broken;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }
}

/// Makes load.
#[derive(Clone)]
pub(super) struct Generator {
    pub(super) client: Client,
    pub(super) mix: Arc<[Load]>,
    pub(super) streams: u32,
    /// At most so many requests under way.
    pub(super) clients: u16,
    /// Tells this run's idempotency keys from others'.
    pub(super) run: Uuid,
    pub(super) next: Arc<AtomicU32>,
}

impl Generator {
    /// Sends for a while: at `rate` requests a second, or as soon as the one before is answered. Gives what was seen
    /// and how long it took until the last answer.
    pub(super) async fn run(
        &self,
        rate: Option<f64>,
        duration: Duration,
    ) -> anyhow::Result<(Seen, Duration)> {
        let began = Instant::now();
        let slots = Arc::new(AtomicU32::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..self.clients {
            let (this, slots) = (self.clone(), Arc::clone(&slots));
            tasks.spawn(async move {
                let mut seen = Seen::new();
                while let Some(due) = due(rate, began, duration, &slots) {
                    sleep_until(due).await;
                    this.one(due, &mut seen).await;
                }
                seen
            });
        }
        let mut all = Seen::new();
        while let Some(seen) = tasks.join_next().await {
            all.add(&seen?);
        }
        Ok((all, began.elapsed()))
    }

    async fn one(&self, due: Instant, seen: &mut Seen) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let load = self.mix[usize::try_from(n).unwrap_or(0) % self.mix.len()];
        let request = (load.next)(scattered(n) % self.streams);
        match send(&self.client, &request, &format!("{}-{n}", self.run)).await {
            Ok(status) => {
                let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(LONGEST_US);
                seen.latency.saturating_record(took);
                if status < 500 {
                    seen.served.saturating_record(took);
                }
                *seen.statuses.entry(status).or_default() += 1;
            }
            Err(_) => seen.broken += 1,
        }
    }
}

/// When the next request is due; none: not in this run any more.
fn due(rate: Option<f64>, began: Instant, duration: Duration, slots: &AtomicU32) -> Option<Instant> {
    let after = match rate {
        Some(rate) => Duration::from_secs_f64(f64::from(slots.fetch_add(1, Ordering::Relaxed)) / rate),
        None => began.elapsed(),
    };
    (after < duration).then(|| began + after)
}

/// Neighbours apart, each stream as often as others. Source: Knuth, TAOCP 3, section 6.4, multiplicative hashing.
fn scattered(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

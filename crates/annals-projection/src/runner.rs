//! A node's part of the projecting: for each build the shards it has a lease for, read, batched, applied.
//!
//! One task looks every second at which builds there are to be and what was asked of them ([`crate::lifecycle`]), and
//! brings it about. One task a build, one a shard of it that reads ahead into a bounded queue, one transaction for
//! whatever its shards have waiting. Leases decide who tries; a checkpoint's compare-and-set decides who may.
//!
//! *Invariant:* nothing here is waited for without a bound or the token that ends it.

mod plan;
mod progress;
mod reading;
mod tending;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use annals_domain::{Ambient, Backoff, Catalog};
use annals_log::Log;
use annals_store::lease::Leases;
use annals_store::notify::Notifier;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub use progress::{BuildProgress, Progress};

use crate::apply::{Limits, OpenPersonal};
use crate::manifest::Projections;
use reading::QUEUE;

/// The channel on which the key `{name}/{build}` says that a checkpoint of that build has moved. The value is empty:
/// whoever hears it reads the checkpoints, together with the rows.
pub const CHANNEL: &str = "annals_projection";

/// The node role whose nodes share the work.
pub const NODE_ROLE: &str = "projector";

/// `projection.*` of the configuration.
#[derive(Debug, Clone)]
pub struct RunnerSettings {
    /// At most about so many records in one transaction; at least 1.
    pub batch_events: usize,
    /// At most about so many bytes of records read ahead for one projection; at least 4 KiB.
    pub batch_bytes: usize,
    /// The same as `batch_events` for a build that is being built beside the live one.
    pub rebuild_events: usize,
    /// The same as `batch_bytes` for such a build.
    pub rebuild_bytes: usize,
    /// From one transaction's begin to the next one's, unless a batch is full before. After a rest the first
    /// record is applied at once.
    pub batch_interval: Duration,
    /// Time-outs of the engine.
    pub limits: Limits,
    /// Between attempts after technical failures.
    pub retry: Backoff,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self {
            batch_events: 2_000,
            batch_bytes: 4 << 20,
            rebuild_events: 10_000,
            rebuild_bytes: 16 << 20,
            batch_interval: Duration::from_millis(50),
            limits: Limits::default(),
            retry: Backoff {
                first: Duration::from_millis(50),
                max: Duration::from_secs(10),
            },
        }
    }
}

impl RunnerSettings {
    /// Whether the settings can work.
    ///
    /// # Errors
    /// The setting and what it must be.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.batch_events == 0 {
            return Err("projection.batch_events must be at least 1");
        }
        if self.batch_bytes < 4_096 {
            return Err("projection.batch_bytes must be at least 4096");
        }
        if self.rebuild_events == 0 {
            return Err("projection.rebuild_events must be at least 1");
        }
        if self.rebuild_bytes < 4_096 {
            return Err("projection.rebuild_bytes must be at least 4096");
        }
        if self.limits.statement_timeout.as_millis() == 0 {
            return Err("projection.statement_timeout_ms must be at least 1");
        }
        Ok(())
    }
}

/// What the runner works with.
pub struct Parts {
    /// As the database role of projectors; at least two connections. Builds that find none wait for one, and try again
    /// after the pool's time-out: one for each that is fed at once, and two more, are of use.
    pub pool: PgPool,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The program's events.
    pub catalog: Catalog,
    /// This node's leases; its own row is kept by whoever runs the node.
    pub leases: Arc<dyn Leases>,
    /// Tells other nodes; none in a single process.
    pub notifier: Option<Notifier>,
    /// Decrypts for projections with private columns.
    pub opener: Arc<dyn OpenPersonal>,
    /// For the jitter of waits.
    pub ambient: Ambient,
    /// Bounds.
    pub settings: RunnerSettings,
}

/// Applies events for a node until it is told to stop.
pub struct ProjectionRunner {
    parts: Arc<Parts>,
    projections: Projections,
    progress: Progress,
}

impl ProjectionRunner {
    /// Prepares to run what there is to be run. The first build of a projection is made from its folder by itself; every
    /// later one when it is asked for.
    #[must_use]
    pub fn new(parts: Parts, projections: Projections) -> Self {
        let progress = Progress::of(projections.iter().map(|manifest| manifest.id.clone()));
        Self {
            parts: Arc::new(parts),
            projections,
            progress,
        }
    }

    /// How far it has got, to be watched in this process.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Runs until `stop`, then finishes the transactions under way and gives the leases back.
    ///
    /// # Panics
    /// If one of its tasks panicked: whoever owns this task ends the process in order.
    pub async fn run(self, stop: CancellationToken) {
        tending::Tender::new(self.parts, self.projections, self.progress, stop)
            .run()
            .await;
    }
}

/// How large a worker's batches are.
#[derive(Debug, Clone, Copy)]
struct BatchSize {
    events: usize,
    bytes: usize,
}

impl BatchSize {
    /// What one of so many readers may take at a time: each waits with one, and the queue between holds some more.
    fn share(self, readers: usize) -> Self {
        Self {
            events: (self.events / QUEUE).max(1),
            bytes: self.bytes / (QUEUE + readers),
        }
    }
}

impl Parts {
    /// How long to wait after so many failures.
    fn pause(&self, attempts: u32) -> Duration {
        let [jitter] = self.ambient.random::<1>();
        self.settings.retry.after(attempts, jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::{BatchSize, QUEUE};

    #[test]
    fn what_all_readers_and_the_queue_hold_is_within_the_bound() {
        for readers in [1, 16, 128] {
            let whole = BatchSize {
                events: 2_000,
                bytes: 4 << 20,
            };
            let share = whole.share(readers);
            assert!(share.bytes * (readers + QUEUE) <= whole.bytes);
            assert!(share.bytes * (readers + QUEUE + 1) > whole.bytes - (readers + QUEUE));
        }
    }
}

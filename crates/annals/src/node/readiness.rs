//! Whether the node can serve: its shards have owners, the live builds are near the log's end, it is not ending.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_command::{Commands, Place};
use annals_http::operations::Readiness;
use annals_projection::{metrics as names, status};
use annals_store::roles::DatabaseRole;
use sqlx::PgPool;

use crate::node::Parts;
use crate::node::role::Role;
use crate::node::tasks::{Phase, Tasks};

/// How often it is looked how far the live builds are.
const LOOK: Duration = Duration::from_secs(1);
/// The same while one is too far behind: whoever waits for this node to be ready learns it soon.
const LOOK_BEHIND: Duration = Duration::from_millis(100);

/// Whether the node can serve. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ready {
    commands: Option<Commands>,
    draining: Arc<AtomicBool>,
    /// Live builds that are too far behind, in words.
    behind: Arc<Mutex<Vec<String>>>,
}

impl Ready {
    /// Watches the live builds on nodes that query or project.
    pub(crate) async fn start(
        parts: &Parts,
        commands: Option<Commands>,
        tasks: &mut Tasks,
    ) -> anyhow::Result<Self> {
        let ready = Self {
            commands,
            draining: Arc::default(),
            behind: Arc::default(),
        };
        let role = match (parts.has(Role::Query), parts.has(Role::Projector)) {
            (true, _) => DatabaseRole::Query,
            (false, true) => DatabaseRole::Projector,
            (false, false) => return Ok(ready),
        };
        let lag = Lag {
            pool: parts.databases.pool(role, "readiness", 1, None).await?,
            limit_ms: parts.settings.projection.ready_lag_ms,
            shards: parts.log.shards,
            ambient: parts.ambient.clone(),
            behind: Arc::clone(&ready.behind),
        };
        lag.look().await;
        let stop = tasks.token(Phase::Work);
        tasks.spawn(Phase::Work, "readiness", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = lag.watch() => {}
            }
        });
        Ok(ready)
    }

    pub(crate) fn now(&self) -> Readiness {
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("shutting down".to_owned());
        }
        let places = self.commands.as_ref().map(Commands::places).unwrap_or_default();
        for (shard, place) in places {
            match place {
                Place::Here { owner: true } | Place::At(_) => {}
                Place::Here { owner: false } | Place::Nowhere => {
                    reasons.push(format!("shard {shard} has no owner yet"));
                }
                Place::Halted => reasons.push(format!("shard {shard} is halted")),
            }
        }
        for shard in self.commands.iter().flat_map(Commands::stalled) {
            reasons.push(format!("shard {shard} waits for the log"));
        }
        let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.extend(behind.iter().cloned());
        match reasons.is_empty() {
            true => Readiness::Ready,
            false => Readiness::NotReady(reasons),
        }
    }

    /// Waits until it can.
    pub(crate) async fn wait(&self) {
        while self.now() != Readiness::Ready {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// From now on it cannot: a load balancer takes it out.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

struct Lag {
    pool: PgPool,
    limit_ms: u64,
    shards: annals_record::ShardCount,
    ambient: annals_domain::Ambient,
    behind: Arc<Mutex<Vec<String>>>,
}

impl Lag {
    async fn watch(self) {
        loop {
            let is_behind = self.look().await;
            tokio::time::sleep(if is_behind { LOOK_BEHIND } else { LOOK }).await;
        }
    }

    /// Whether one is too far behind. While the database does not answer, what was known stays.
    async fn look(&self) -> bool {
        let found = status::live_lag_ms(&self.pool, self.shards, self.ambient.now_ms()).await;
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(found) => {
                for (name, lag_ms) in &found {
                    let seconds = Duration::from_millis(*lag_ms).as_secs_f64();
                    metrics::gauge!(names::LAG_SECONDS, "projection" => name.clone()).set(seconds);
                }
                let over = found.into_iter().filter(|(_, lag_ms)| *lag_ms > self.limit_ms);
                let limit = self.limit_ms;
                *behind = over
                    .map(|(name, lag_ms)| {
                        format!(
                            "projection {name} is {lag_ms} ms behind, over projection.ready_lag_ms {limit}"
                        )
                    })
                    .collect();
            }
            Err(error) => tracing::warn!(%error, "it cannot be seen how far the projections are"),
        }
        !behind.is_empty()
    }
}

//! The role `projector`: read models are filled.

use std::sync::Arc;
use std::time::Duration;

use annals_auth::Opener;
use annals_projection::{Limits, ProjectionRunner, RunnerSettings};
use annals_store::roles::DatabaseRole;

use crate::config::ConfigError;
use crate::node::Parts;
use crate::node::tasks::{Phase, Tasks};

/// Starts it.
pub(crate) async fn start(parts: &Parts, tasks: &mut Tasks) -> anyhow::Result<()> {
    let settings = &parts.settings.projection;
    let limits = Limits {
        statement_timeout: Duration::from_millis(settings.statement_timeout_ms),
    };
    let runner = RunnerSettings {
        batch_events: settings.batch_events,
        batch_bytes: settings.batch_bytes.usize(),
        rebuild_events: settings.rebuild_events,
        rebuild_bytes: settings.rebuild_bytes.usize(),
        batch_interval: Duration::from_millis(settings.batch_ms),
        limits,
        ..RunnerSettings::default()
    };
    runner.validate().map_err(|what| ConfigError(what.to_owned()))?;
    let pool = parts
        .databases
        .pool(DatabaseRole::Projector, "projector", settings.pool.max(2), None)
        .await?;
    let runner = ProjectionRunner::new(
        annals_projection::Parts {
            log: Arc::clone(&parts.log.log),
            catalog: parts.catalog.clone(),
            leases: parts.leases(pool.clone()),
            notifier: Some(parts.notifier.clone()),
            opener: Arc::new(Opener::new(parts.keys.subjects(pool.clone())?)),
            ambient: parts.ambient.clone(),
            settings: runner,
            pool,
        },
        parts.projections.clone(),
    );
    let stop = tasks.token(Phase::Work);
    tasks.spawn(Phase::Work, "projector", runner.run(stop));
    Ok(())
}

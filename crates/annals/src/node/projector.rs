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
    let connections = connections(settings.pool, parts.projections.iter().count());
    let pool = parts
        .databases
        .pool(DatabaseRole::Projector, "projector", connections, None)
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

/// `projection.pool`, or as many as can be of use: a build has one transaction at a time, and beside the builds there are
/// leases, the look for what is to be done, and whoever resumes parked streams while the build waits for its gate.
fn connections(set: u32, read_models: usize) -> u32 {
    match set {
        0 => u32::try_from(2 * read_models + 2).unwrap_or(u32::MAX),
        set => set.max(2),
    }
}

#[cfg(test)]
mod tests {
    use super::connections;

    #[test]
    fn a_live_build_and_one_beside_it_never_wait_for_a_connection() {
        assert_eq!(connections(0, 6), 14);
        assert_eq!(connections(0, 0), 2);
    }

    #[test]
    fn what_is_set_counts_but_for_one_that_could_not_work() {
        assert_eq!((connections(4, 6), connections(1, 6)), (4, 2));
    }
}

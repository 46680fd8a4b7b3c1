//! The role `query`: read models are served.

use std::sync::Arc;
use std::time::Duration;

use annals_query::resource::LoadError;
use annals_query::{Freshness, Limits, LiveLimits, LogIdentity, Queries, Resources, freshness};
use annals_store::notify::Listener;
use annals_store::pool::ConnectError;
use annals_store::roles::DatabaseRole;

use crate::config::ConfigError;
use crate::node::Parts;
use crate::node::tasks::{Phase, Tasks};

/// How often it is looked whether the projectors have made their builds.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the first builds may take.
const BUILT_WITHIN: Duration = Duration::from_secs(120);

/// What a standby answers to `LISTEN`: read_only_sql_transaction.
const READ_ONLY: &str = "25006";

/// Starts it; waits until every read model has a build.
pub(crate) async fn start(parts: &Parts, tasks: &mut Tasks) -> anyhow::Result<Arc<Queries>> {
    let settings = &parts.settings.query;
    let limits = Limits {
        max_page: settings.limit_max,
        connections: settings.pool,
        statement_timeout: Duration::from_millis(settings.statement_timeout_ms),
        cache_bytes: settings.cache_bytes.0,
        live: LiveLimits {
            connections: settings.live_connections,
            per_caller: settings.live_per_caller,
            rows: settings.live_rows,
            bytes: settings.live_bytes.0,
        },
        ..Limits::default()
    };
    limits.validate().map_err(|what| ConfigError(what.to_owned()))?;
    let base = parts
        .databases
        .settings(DatabaseRole::Query, "query", settings.pool)?;
    let mut pool_settings = limits.pool(base.url);
    pool_settings.role = base.role;
    // Mostly rows by their key, which cost less than planning for them would.
    pool_settings.cached_plans = true;
    let pool = parts
        .databases
        .connect(DatabaseRole::Query, pool_settings)
        .await?;
    let began = tokio::time::Instant::now();
    let resources = loop {
        match Resources::load(&pool, &parts.projections).await {
            Ok(resources) => break Arc::new(resources),
            Err(LoadError::NotBuilt { .. }) if began.elapsed() < BUILT_WITHIN => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let identity = LogIdentity {
        generation: parts.log.generation,
        shards: parts.log.shards,
    };
    let freshness = Arc::new(Freshness::new(pool.clone(), resources.projections(), identity));
    freshness.refresh().await?;
    let listening = parts
        .databases
        .settings(DatabaseRole::Query, "query-listener", 1)?;
    let listener = match Listener::connect(&listening, &[freshness::CHANNEL]).await {
        Ok(listener) => Some(listener),
        Err(ConnectError::Database { source, .. }) if source.sqlstate().as_deref() == Some(READ_ONLY) => {
            tracing::info!("the query database is a standby, which cannot notify: it is read every 100 ms");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let cursor = parts.keys.cursor.clone();
    let queries = Arc::new(Queries::new(
        pool,
        resources,
        freshness,
        cursor,
        parts.ambient.clone(),
        limits,
    ));
    let (kept, stop) = (Arc::clone(&queries), tasks.token(Phase::Work));
    tasks.spawn(Phase::Work, "queries", async move {
        tokio::select! {
            () = kept.run(listener) => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(queries)
}

//! What operators can have done here.

use std::sync::Arc;

use std::time::Duration;

use annals_domain::Ambient;
use annals_http::operations::{Admin, AdminError, ProjectionAction};
use annals_log::Log;
use annals_projection::lifecycle::{self, Direction, LifecycleError};
use annals_projection::{BuildError, Name, Projections, status};
use annals_store::roles::DatabaseRole;
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::PgPool;

use crate::node::Parts;
use crate::node::role::Role;

/// Reads how everything stands, as the database role of queries.
pub(crate) struct NodeAdmin {
    pool: PgPool,
    log: Arc<dyn Log>,
    ambient: Ambient,
    /// As the database role of processes; only where they run.
    processes: Option<PgPool>,
    /// Only where projections are filled.
    builds: Option<Builds>,
}

/// What is needed to ask for something to be done to a build.
struct Builds {
    /// As the database role of projectors.
    pool: PgPool,
    folder: Projections,
    grace: Duration,
}

impl NodeAdmin {
    pub(crate) async fn new(parts: &Parts) -> anyhow::Result<Self> {
        let role = match parts.has(Role::Query) {
            true => DatabaseRole::Query,
            false => parts.roles[0].database(),
        };
        let processes = match parts.has(Role::Process) {
            true => Some(
                parts
                    .databases
                    .pool(DatabaseRole::Process, "admin", 1, None)
                    .await?,
            ),
            false => None,
        };
        let builds = match parts.has(Role::Projector) {
            true => Some(Builds {
                pool: parts
                    .databases
                    .pool(DatabaseRole::Projector, "admin", 2, None)
                    .await?,
                folder: parts.projections.clone(),
                grace: Duration::from_secs(parts.settings.projection.grace_s),
            }),
            false => None,
        };
        Ok(Self {
            builds,
            processes,
            pool: parts.databases.pool(role, "admin", 2, None).await?,
            log: Arc::clone(&parts.log.log),
            ambient: parts.ambient.clone(),
        })
    }
}

impl Builds {
    /// Asks for a build or a resume, which the projectors bring about; a switch is done when this returns.
    async fn act(&self, name: &str, action: ProjectionAction) -> Result<(), LifecycleError> {
        let unknown = || LifecycleError::NotFound(format!("projection `{name}`"));
        let name_of = Name::parse(name).ok_or_else(unknown)?;
        let (pool, grace) = (&self.pool, self.grace);
        match action {
            ProjectionAction::Rebuild => {
                let manifest = self.folder.get(name).ok_or_else(unknown)?;
                lifecycle::ask_rebuild(pool, manifest).await.map(drop)
            }
            ProjectionAction::Switch => lifecycle::switch(pool, &name_of, Direction::Forward, grace)
                .await
                .map(drop),
            ProjectionAction::Rollback => lifecycle::switch(pool, &name_of, Direction::Back, grace)
                .await
                .map(drop),
            ProjectionAction::Resume => lifecycle::ask_resume(pool, &name_of, None, None).await.map(drop),
        }
    }
}

fn other_node(role: &str) -> AdminError {
    AdminError::Refused {
        code: "other_node".to_owned(),
        text: format!("this node has not the role `{role}`: ask one that has"),
    }
}

fn failed(error: impl std::fmt::Display) -> AdminError {
    tracing::error!(%error, "an operator's question cannot be answered");
    AdminError::Unavailable
}

impl Admin for NodeAdmin {
    fn projections(&self) -> BoxFuture<'_, Result<Vec<Value>, AdminError>> {
        Box::pin(async {
            let now_ms = self.ambient.now_ms();
            let found = status::status(&self.pool, self.log.as_ref(), now_ms)
                .await
                .map_err(failed)?;
            found
                .iter()
                .map(|build| serde_json::to_value(build).map_err(failed))
                .collect()
        })
    }

    fn act<'a>(&'a self, name: &'a str, action: ProjectionAction) -> BoxFuture<'a, Result<(), AdminError>> {
        Box::pin(async move {
            let Some(builds) = &self.builds else {
                return Err(other_node("projector"));
            };
            match builds.act(name, action).await {
                Ok(()) => Ok(()),
                Err(LifecycleError::NotFound(_)) => Err(AdminError::NotFound),
                Err(LifecycleError::Refused(refusal)) => Err(AdminError::Refused {
                    code: refusal.code.to_owned(),
                    text: refusal.text,
                }),
                Err(LifecycleError::Build(error @ BuildError::OtherFiles { .. })) => {
                    Err(AdminError::Refused {
                        code: "other_files".to_owned(),
                        text: error.to_string(),
                    })
                }
                Err(error) => Err(failed(error)),
            }
        })
    }

    fn processes(&self) -> BoxFuture<'_, Result<Vec<Value>, AdminError>> {
        Box::pin(async {
            let found = annals_process::Admin::new(self.pool.clone())
                .list()
                .await
                .map_err(failed)?;
            let with_name = |status: &annals_process::ProcessStatus| {
                let mut value = serde_json::to_value(status).map_err(failed)?;
                value["name"] = Value::String(status.process.clone());
                Ok(value)
            };
            found.iter().map(with_name).collect()
        })
    }

    fn resume<'a>(&'a self, name: &'a str, instance: &'a str) -> BoxFuture<'a, Result<(), AdminError>> {
        Box::pin(async move {
            let Some(pool) = &self.processes else {
                return Err(other_node("process"));
            };
            match annals_process::Admin::new(pool.clone())
                .resume(name, instance)
                .await
                .map_err(failed)?
            {
                true => Ok(()),
                false => Err(AdminError::NotFound),
            }
        })
    }
}

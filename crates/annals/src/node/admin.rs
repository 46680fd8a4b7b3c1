//! What operators can have done here.

use std::sync::Arc;

use annals_domain::Ambient;
use annals_http::operations::{Admin, AdminError, ProjectionAction};
use annals_log::Log;
use annals_projection::status;
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
        Ok(Self {
            processes,
            pool: parts.databases.pool(role, "admin", 2, None).await?,
            log: Arc::clone(&parts.log.log),
            ambient: parts.ambient.clone(),
        })
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
            let all = self.projections().await?;
            if !all.iter().any(|build| build["name"] == name) {
                return Err(AdminError::NotFound);
            }
            let text = format!("{action:?} of `{name}` is not offered by this release");
            Err(AdminError::Refused {
                code: "not_offered".to_owned(),
                text,
            })
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
                let text = "this node has not the role `process`: ask one that has".to_owned();
                return Err(AdminError::Refused {
                    code: "other_node".to_owned(),
                    text,
                });
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

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

/// Reads how everything stands, as the database role of queries.
pub(crate) struct NodeAdmin {
    pool: PgPool,
    log: Arc<dyn Log>,
    ambient: Ambient,
}

impl NodeAdmin {
    pub(crate) async fn new(parts: &Parts) -> anyhow::Result<Self> {
        let role = match parts.has(crate::node::role::Role::Query) {
            true => DatabaseRole::Query,
            false => parts.roles[0].database(),
        };
        Ok(Self {
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
        Box::pin(async { Ok(Vec::new()) })
    }

    fn resume<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), AdminError>> {
        Box::pin(async { Err(AdminError::NotFound) })
    }
}

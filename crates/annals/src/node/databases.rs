//! A pool for each database role, and the checks at start.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use annals_store::migrate;
use annals_store::pool::{DatabaseUrl, PoolSettings};
use annals_store::roles::{DatabaseRole, check_least_privilege};
use sqlx::PgPool;

use crate::config::{ConfigError, sections};

/// PostgreSQL as the settings have it.
pub(crate) struct Databases {
    settings: sections::Database,
    /// Whether a login that may do more than its work is refused.
    strict: bool,
    checked: Mutex<BTreeSet<&'static str>>,
}

impl Databases {
    pub(crate) fn new(settings: sections::Database, strict: bool) -> Self {
        Self {
            settings,
            strict,
            checked: Mutex::default(),
        }
    }

    fn url(&self, role: DatabaseRole) -> Result<DatabaseUrl, ConfigError> {
        let own = match role {
            DatabaseRole::Migrator => &self.settings.migrator,
            DatabaseRole::Command => &self.settings.command,
            DatabaseRole::Indexer => &self.settings.indexer,
            DatabaseRole::Projector => &self.settings.projector,
            DatabaseRole::Process => &self.settings.process,
            DatabaseRole::Query => &self.settings.query,
            DatabaseRole::Audit => &self.settings.audit,
        };
        let url = own.as_ref().or(self.settings.url.as_ref()).ok_or_else(|| {
            ConfigError(format!(
                "no database: set database.{role} or database.url (ANNALS_DATABASE_URL), as in postgres://user:password@host/name"
            ))
        })?;
        Ok(DatabaseUrl::new(url.reveal()))
    }

    /// Settings of a pool of a database role.
    pub(crate) fn settings(
        &self,
        role: DatabaseRole,
        purpose: &str,
        connections: u32,
    ) -> Result<PoolSettings, ConfigError> {
        let mut settings = PoolSettings::new(self.url(role)?, format!("annals-{purpose}"));
        settings.max_connections = connections;
        settings.role = role.group().map(str::to_owned);
        Ok(settings)
    }

    /// A pool of a database role. Outside `dev`, a login that may do more than its own work is refused.
    pub(crate) async fn pool(
        &self,
        role: DatabaseRole,
        purpose: &str,
        connections: u32,
        statement_timeout: Option<Duration>,
    ) -> anyhow::Result<PgPool> {
        let mut settings = self.settings(role, purpose, connections)?;
        if statement_timeout.is_some() {
            settings.statement_timeout = statement_timeout;
        }
        self.connect(role, settings).await
    }

    /// The same with settings that were made elsewhere.
    pub(crate) async fn connect(&self, role: DatabaseRole, settings: PoolSettings) -> anyhow::Result<PgPool> {
        let pool = settings.connect().await?;
        let first = self
            .checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(role.name());
        if self.strict && first && role != DatabaseRole::Migrator {
            let excess = check_least_privilege(&pool, role).await?;
            if !excess.is_empty() {
                let list: Vec<String> = excess.iter().map(ToString::to_string).collect();
                return Err(ConfigError(format!(
                    "database.{role}: this login may do more than its own work ({}); make a login that is only in group {}",
                    list.join("; "),
                    role.group().unwrap_or_default()
                ))
                .into());
            }
        }
        Ok(pool)
    }

    /// Whether every migration has been applied, so that nothing else fails with words that nobody understands.
    pub(crate) async fn check_migrated(&self, role: DatabaseRole) -> anyhow::Result<()> {
        let mut settings = self.settings(role, "start", 1)?;
        // The group may be missing before the first migration.
        settings.role = None;
        let pool = settings.connect().await?;
        match migrate::check(&pool).await {
            // This login may not look: whatever is missing will say so itself.
            Ok(()) | Err(migrate::Error::Database(_)) => Ok(()),
            Err(error) => Err(ConfigError(format!("{error}; run `migrate up`")).into()),
        }
    }
}

//! Pools of connections: time-outs, one database role, and a server that is new enough.

use std::fmt;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use crate::Error;

/// The oldest server that this program runs on: 14.0, as `server_version_num` has it. Older ones lack
/// lz4 for single columns, which the migrations ask for.
pub const OLDEST_SERVER: i32 = 140_000;

/// A URL of a database: prints without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Takes a URL as it is; whether it can be read shows when it is used.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password in it: for connecting only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// How to connect to it.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Url`] if it is no Postgres URL.
    pub fn options(&self) -> Result<PgConnectOptions, ConnectError> {
        let options = self.0.parse::<PgConnectOptions>();
        Ok(options.map_err(ConnectError::Url)?.disable_statement_logging())
    }
}

impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

/// The server and database without user, password and parameters.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(options) = self.0.parse::<PgConnectOptions>() else {
            return out.write_str("(not a Postgres URL)");
        };
        let database = options.get_database().unwrap_or_default();
        match options.get_socket() {
            Some(socket) => write!(out, "{} (socket {})", database, socket.display()),
            None => write!(out, "{database} at {}:{}", options.get_host(), options.get_port()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DatabaseUrl({self})")
    }
}

/// What a pool is like.
#[derive(Debug, Clone)]
pub struct PoolSettings {
    /// Where the database is, and as whom to log in.
    pub url: DatabaseUrl,
    /// At most so many connections at once; at least 1.
    pub max_connections: u32,
    /// How long a caller waits for a connection, and for a new one to be made, before it gets an error.
    pub acquire_timeout: Duration,
    /// The server ends a statement that takes longer; `None`: never.
    pub statement_timeout: Option<Duration>,
    /// What `pg_stat_activity` shows: `annals-command`.
    pub application_name: String,
    /// The database role that every connection takes on after login (`SET ROLE`); `None`: the login's own.
    pub role: Option<String>,
    /// Every transaction is read-only unless it says otherwise. A guard against mistakes; safety against
    /// attackers is the role.
    pub read_only: bool,
    /// Whether the server may keep one plan for all executions of a statement (`plan_cache_mode`). Long-lived
    /// connections prepare their statements when tables are still empty, and a plan kept from then reads whole
    /// tables until the first `ANALYZE`: only for statements by primary key, where planning is what costs.
    pub cached_plans: bool,
}

impl PoolSettings {
    /// Settings with the defaults: 8 connections, 5 s for a connection, 30 s for a statement, planned each time.
    pub fn new(url: impl Into<DatabaseUrl>, application_name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Some(Duration::from_secs(30)),
            application_name: application_name.into(),
            role: None,
            read_only: false,
            cached_plans: false,
        }
    }

    /// Whether the settings can work.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Settings`] or [`ConnectError::Url`].
    pub fn validate(&self) -> Result<(), ConnectError> {
        self.url.options()?;
        if self.max_connections == 0 {
            return Err(ConnectError::Settings("max_connections must be at least 1"));
        }
        if self.acquire_timeout.is_zero() {
            return Err(ConnectError::Settings("acquire_timeout must be more than 0"));
        }
        if self.statement_timeout.is_some_and(|limit| limit.as_millis() == 0) {
            return Err(ConnectError::Settings(
                "statement_timeout must be at least 1 ms, or none",
            ));
        }
        Ok(())
    }

    /// Makes one connection, checks the server's version, and returns the pool.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which says what to do about it.
    pub async fn connect(&self) -> Result<PgPool, ConnectError> {
        self.validate()?;
        let options = self.url.options()?.application_name(&self.application_name);
        let session = Session::of(self);
        let pool = PgPoolOptions::new()
            .max_connections(self.max_connections)
            .acquire_timeout(self.acquire_timeout)
            // A queue that moves is no news, and the end of its patience is an error.
            .acquire_slow_threshold(self.acquire_timeout)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move { session.apply(connection).await })
            })
            .connect_with(options.clone())
            .await;
        let pool = match pool {
            Ok(pool) => pool,
            Err(sqlx::Error::PoolTimedOut) => return Err(self.failed(reason(&options).await)),
            Err(source) => return Err(self.failed(source)),
        };
        let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
            .fetch_one(&pool)
            .await
            .map_err(|source| self.failed(source))?;
        if version < OLDEST_SERVER {
            return Err(ConnectError::ServerTooOld { version });
        }
        Ok(pool)
    }

    fn failed(&self, source: sqlx::Error) -> ConnectError {
        ConnectError::Database {
            at: self.url.to_string(),
            source: source.into(),
        }
    }
}

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be read. The cause does not repeat it.
    #[error("not a Postgres URL (postgres://user:password@host:5432/database): {0}")]
    Url(#[source] sqlx::Error),
    /// A setting cannot work.
    #[error("{0}")]
    Settings(&'static str),
    /// No connection, no login, or no such database role.
    #[error("cannot connect to database {at}: {source}")]
    Database {
        /// Where it was tried.
        at: String,
        /// What happened.
        source: Error,
    },
    /// The server is older than [`OLDEST_SERVER`].
    #[error("the server is PostgreSQL {}.{}; at least 14 is needed", version / 10_000, version % 10_000)]
    ServerTooOld {
        /// Its `server_version_num`.
        version: i32,
    },
}

/// Why a pool has no first connection: it tries until its time is over, and does not say what went wrong.
async fn reason(options: &PgConnectOptions) -> sqlx::Error {
    let direct = PgConnection::connect_with(options);
    match tokio::time::timeout(Duration::from_secs(1), direct).await {
        Ok(Err(reason)) => reason,
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    }
}

/// What every new connection of a pool is told, in one round trip.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    role: Option<String>,
    statement_timeout_ms: u128,
    read_only: bool,
    cached_plans: bool,
}

impl Session {
    pub(crate) fn of(settings: &PoolSettings) -> Self {
        Self {
            role: settings.role.clone(),
            statement_timeout_ms: settings.statement_timeout.map_or(0, |limit| limit.as_millis()),
            read_only: settings.read_only,
            cached_plans: settings.cached_plans,
        }
    }

    /// The role comes last: it may not be allowed to set the others.
    pub(crate) async fn apply(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "SELECT set_config('statement_timeout', $1, false),
                    set_config('default_transaction_read_only', $2, false),
                    set_config('plan_cache_mode', $3, false),
                    set_config('role', $4, false)",
        )
        .bind(self.statement_timeout_ms.to_string())
        .bind(if self.read_only { "on" } else { "off" })
        .bind(if self.cached_plans { "auto" } else { "force_custom_plan" })
        .bind(self.role.as_deref().unwrap_or("none"))
        .execute(connection)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prints_a_url_without_its_password() {
        let url = DatabaseUrl::from("postgres://ann:s3cret@db.example:5433/shop?sslmode=require");
        assert_eq!(url.to_string(), "shop at db.example:5433");
        let settings = PoolSettings::new(url, "annals-test");
        assert!(!format!("{settings:?}").contains("s3cret"));
        assert!(!format!("{settings:?}").contains("ann:"));
    }

    #[test]
    fn refuses_settings_that_cannot_work() {
        let mut settings = PoolSettings::new("postgres://localhost/x", "t");
        settings.validate().unwrap();
        settings.max_connections = 0;
        assert!(matches!(settings.validate(), Err(ConnectError::Settings(_))));
        let settings = PoolSettings::new("not a url", "t");
        let error = settings.validate().unwrap_err();
        assert!(matches!(error, ConnectError::Url(_)));
    }
}

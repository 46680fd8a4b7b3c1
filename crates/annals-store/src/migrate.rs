//! The embedded migrations of schema `annals`: up, down and their status.
//!
//! The files lie in the top-level folder `migrations/`, `NNNN_name.up.sql` beside `NNNN_name.down.sql`.
//! What has been applied is kept in the table `_sqlx_migrations`, first in the role's `search_path`
//! (usually `public`). The role that migrates must own the database and may create roles.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection, PgConnection, PgPool};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Why the database could not be migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database has a migration that this program does not know: it was migrated by a newer release.
    #[error(
        "the database has migration {version}, which this program does not know: it was migrated by a newer release"
    )]
    DatabaseIsNewer {
        /// The migration's number.
        version: i64,
    },
    /// A migration that has been applied reads differently now.
    #[error(
        "migration {version} was applied with other content than this program has: an applied migration must not be edited"
    )]
    Changed {
        /// The migration's number.
        version: i64,
    },
    /// There is no such migration to go down to.
    #[error("there is no migration {version}")]
    NoSuchVersion {
        /// The number asked for.
        version: i64,
    },
    /// Some migrations have not been applied yet.
    #[error("{pending} migrations have not been applied: run `migrate up`")]
    Pending {
        /// How many.
        pending: usize,
    },
    /// A migration's SQL failed; it was rolled back as a whole.
    #[error("migration {version} failed and was rolled back: {source}")]
    Failed {
        /// The migration's number.
        version: i64,
        /// What Postgres said.
        source: crate::Error,
    },
    /// Postgres could not be asked.
    #[error(transparent)]
    Database(#[from] crate::Error),
    /// The driver's migration machinery failed.
    #[error("the migrations could not be run: {0}")]
    Machinery(#[source] MigrateError),
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self::Database(source.into())
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(source) => source.into(),
            MigrateError::ExecuteMigration(source, version) => Self::Failed {
                version,
                source: source.into(),
            },
            MigrateError::VersionMissing(version) => Self::DatabaseIsNewer { version },
            MigrateError::VersionMismatch(version) => Self::Changed { version },
            other => Self::Machinery(other),
        }
    }
}

/// Where one migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not applied.
    Pending,
    /// Applied at this time, by the database's clock.
    Applied(DateTime<Utc>),
    /// Applied, but this program's file reads differently.
    Changed(DateTime<Utc>),
    /// Applied by a newer release; this program does not know it.
    Unknown(DateTime<Utc>),
}

/// One migration and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its number, from 1.
    pub version: i64,
    /// Its name, words apart: `schema and roles`.
    pub name: String,
    /// Whether it is applied.
    pub state: State,
}

/// Applies every migration that has not been applied, each in its own transaction. Safe to call from
/// several nodes at once: they wait for one another (an advisory lock of the database).
///
/// # Errors
///
/// [`Error::DatabaseIsNewer`] and [`Error::Changed`] before anything is done; [`Error::Failed`] with the
/// migrations before it applied.
pub async fn up(pool: &PgPool) -> Result<(), Error> {
    let mut connection = own_connection(pool).await?;
    let done = MIGRATIONS.run_direct(None, &mut connection, false).await;
    finish(connection, done).await
}

/// Takes the last applied migration back, with all that its tables hold. Returns its number, or `None`
/// if nothing is applied.
///
/// # Errors
///
/// As [`up`].
pub async fn down(pool: &PgPool) -> Result<Option<i64>, Error> {
    let applied: Vec<i64> = status(pool)
        .await?
        .into_iter()
        .filter(|migration| migration.state != State::Pending)
        .map(|migration| migration.version)
        .collect();
    let Some((last, before)) = applied.split_last() else {
        return Ok(None);
    };
    down_to(pool, before.last().copied().unwrap_or(0)).await?;
    Ok(Some(*last))
}

/// Takes back every migration above `version`; 0 takes back all. What their tables hold is lost.
///
/// # Errors
///
/// [`Error::NoSuchVersion`] if `version` is neither 0 nor a migration's number; else as [`up`].
pub async fn down_to(pool: &PgPool, version: i64) -> Result<(), Error> {
    if version != 0 && !MIGRATIONS.version_exists(version) {
        return Err(Error::NoSuchVersion { version });
    }
    let mut connection = own_connection(pool).await?;
    let done = MIGRATIONS.undo(&mut connection, version).await;
    finish(connection, done).await
}

/// Every migration that the program or the database knows, in order. Changes nothing.
///
/// # Errors
///
/// [`Error::Database`] if Postgres could not be asked.
pub async fn status(pool: &PgPool) -> Result<Vec<MigrationStatus>, Error> {
    let mut applied = applied(pool).await?;
    let mut found: Vec<MigrationStatus> = MIGRATIONS
        .iter()
        .filter(|migration| !migration.migration_type.is_down_migration())
        .map(|migration| MigrationStatus {
            version: migration.version,
            name: migration.description.clone().into_owned(),
            state: match applied.remove(&migration.version) {
                None => State::Pending,
                Some(row) if *row.checksum == *migration.checksum => State::Applied(row.at),
                Some(row) => State::Changed(row.at),
            },
        })
        .collect();
    found.extend(applied.into_iter().map(|(version, row)| MigrationStatus {
        version,
        name: row.name,
        state: State::Unknown(row.at),
    }));
    found.sort_by_key(|migration| migration.version);
    Ok(found)
}

/// Whether the database has every migration that this program knows, unchanged. More of them is fine:
/// a release runs beside the next one.
///
/// # Errors
///
/// [`Error::Pending`], [`Error::Changed`], or [`Error::Database`] if Postgres could not be asked.
pub async fn check(pool: &PgPool) -> Result<(), Error> {
    let mut pending = 0;
    for migration in status(pool).await? {
        match migration.state {
            State::Pending => pending += 1,
            State::Changed(_) => {
                return Err(Error::Changed {
                    version: migration.version,
                });
            }
            State::Applied(_) | State::Unknown(_) => {}
        }
    }
    match pending {
        0 => Ok(()),
        pending => Err(Error::Pending { pending }),
    }
}

/// The first 16 hex digits of SHA-256 over all migrations, up and down: changes when any of them does.
#[must_use]
pub fn digest() -> String {
    let mut hash = Sha256::new();
    for migration in MIGRATIONS.iter() {
        hash.update(migration.version.to_be_bytes());
        hash.update(&migration.checksum);
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chars().take(16).collect()
}

struct Applied {
    name: String,
    checksum: Vec<u8>,
    at: DateTime<Utc>,
}

async fn applied(pool: &PgPool) -> Result<BTreeMap<i64, Applied>, Error> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(pool)
        .await?;
    if !exists {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(i64, String, Vec<u8>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT version, description, checksum, installed_on FROM _sqlx_migrations WHERE success",
    )
    .fetch_all(pool)
    .await?;
    let rows = rows.into_iter().map(|(version, name, checksum, at)| {
        let row = Applied { name, checksum, at };
        (version, row)
    });
    Ok(rows.collect())
}

/// A connection that does not go back to the pool: after an error it would still hold the lock.
async fn own_connection(pool: &PgPool) -> Result<PgConnection, Error> {
    Ok(pool.acquire().await?.detach())
}

async fn finish(connection: PgConnection, done: Result<(), MigrateError>) -> Result<(), Error> {
    // The migrations stand, or not, whatever becomes of the connection.
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "the migration's connection did not close cleanly");
    }
    Ok(done?)
}

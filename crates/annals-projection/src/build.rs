//! Making a build: its schema, its tables, what the engine adds to them, who may read them, and its row.
//!
//! *Invariant:* a build's files never change under its number: their digest is stored beside it and compared.

mod columns;

use std::path::PathBuf;

use annals_log::{Checkpoint, CheckpointError};
use annals_record::Hash32;
use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool, SqlSafeStr};

pub(crate) use columns::describe;
pub use columns::{Column, Columns, describe_columns, missing_indexes};

use crate::apply::whole_relation_from;
use crate::manifest::{Build, BuildId, Manifest, Name, Rows, sql};

/// One build is made at a time in a database: they share the schema `read`, and nobody makes many.
const BUILD_LOCK: i64 = 0x616e_6e61_6c73_6264;

/// How long changes of tables and views wait for their readers, in ms; they are tried again.
const LOCK_TIMEOUT_MS: u32 = 2_000;

/// The column that the engine adds to tables with `rows = "stream"`.
pub const VERSION_COLUMN: &str = "_version";

/// Why a build could not be made or may not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Other files under a number that is taken.
    #[error(
        "build {id} was made from other files (digest {stored}, now {found}): raise `build` in projection.toml to {next}, and the new tables are made beside the old ones"
    )]
    OtherFiles {
        /// The build.
        id: BuildId,
        /// The digest it was made from.
        stored: Hash32,
        /// The digest of the files now.
        found: Hash32,
        /// A number that is free.
        next: Build,
    },
    /// A file does not fit the tables, or is no SQL that Postgres takes.
    #[error("{}: {what}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// Postgres.
    #[error(transparent)]
    Database(#[from] annals_store::Error),
}

impl From<sqlx::Error> for BuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl BuildError {
    fn file(manifest: &Manifest, file: &str, what: impl Into<String>) -> Self {
        Self::File {
            file: manifest.dir.join(file),
            what: what.into(),
        }
    }

    /// What Postgres says of a file's SQL; anything else is about the machinery.
    fn in_file(manifest: &Manifest, file: &str, error: sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(answer) if !is_transient(answer) => Self::file(manifest, file, answer.message().to_owned()),
            _ => error.into(),
        }
    }
}

/// Makes the build if it is not there. The first build of a projection goes live at once; a later one when it is
/// switched to. Safe to call from several nodes at once.
///
/// # Errors
/// [`BuildError`]; a build is made wholly or not at all.
pub async fn ensure(pool: &PgPool, manifest: &Manifest) -> Result<(), BuildError> {
    if stands(pool, manifest).await? == Stands::Made {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    lock_builds(&mut tx).await?;
    match stands(&mut *tx, manifest).await? {
        Stands::Made => return Ok(()),
        Stands::Asked => {}
        Stands::Nowhere => insert(&mut tx, manifest).await?,
    }
    make(&mut tx, manifest).await?;
    tx.commit().await?;
    Ok(())
}

/// Until the transaction ends, nobody else makes a build or decides which ones there are.
pub(crate) async fn lock_builds(connection: &mut PgConnection) -> Result<(), BuildError> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(BUILD_LOCK)
        .execute(connection)
        .await?;
    Ok(())
}

/// A row that asks for the build; its tables are made by whoever sees it.
pub(crate) async fn insert(connection: &mut PgConnection, manifest: &Manifest) -> Result<(), BuildError> {
    let id = &manifest.id;
    sqlx::query(
        "INSERT INTO annals.projection (name, build, digest, state, files) VALUES ($1, $2, $3, 'asked', $4)",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .bind(manifest.digest.as_ref())
    .bind(sqlx::types::Json(&manifest.files))
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes the tables of a build that was asked for.
async fn make(connection: &mut PgConnection, manifest: &Manifest) -> Result<(), BuildError> {
    let id = &manifest.id;
    // What a build of this number left behind that was dropped under a projector that did not know.
    forget(connection, id).await?;
    make_tables(connection, manifest).await?;
    check_statements(connection, manifest).await?;
    grant(connection, id).await?;
    let live: bool = sqlx::query_scalar(
        "UPDATE annals.projection p
         SET state = CASE WHEN first THEN 'running' ELSE 'building' END, live = first, made_at = now(),
             switched_at = CASE WHEN first THEN now() END, error = NULL
         FROM (SELECT NOT EXISTS (SELECT FROM annals.projection WHERE name = $1 AND live) AS first) AS f
         WHERE p.name = $1 AND p.build = $2 RETURNING p.live",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .fetch_one(&mut *connection)
    .await?;
    if live {
        make_views(connection, manifest).await?;
    }
    for what in missing_indexes(connection, manifest).await? {
        tracing::warn!(build = %id, "{what}");
    }
    tracing::info!(build = %id, live, "made a build");
    Ok(())
}

/// The build of a projection that queries read; none before its first build is made. To be read in one snapshot
/// with the rows and checkpoints.
///
/// # Errors
/// [`BuildError::Database`].
pub async fn live_build(
    executor: impl sqlx::PgExecutor<'_>,
    name: &Name,
) -> Result<Option<BuildId>, BuildError> {
    let build: Option<i32> =
        sqlx::query_scalar("SELECT build FROM annals.projection WHERE name = $1 AND live")
            .bind(name.as_str())
            .fetch_optional(executor)
            .await?;
    Ok(build.and_then(Build::new).map(|build| BuildId {
        name: name.clone(),
        build,
    }))
}

/// Makes a build that is only looked at: never live, without views. It must not be there.
///
/// # Errors
/// [`BuildError`].
pub(crate) async fn make_scratch(pool: &PgPool, manifest: &Manifest) -> Result<(), BuildError> {
    let mut tx = pool.begin().await?;
    make_tables(&mut tx, manifest).await?;
    check_statements(&mut tx, manifest).await?;
    grant(&mut tx, &manifest.id).await?;
    Ok(tx.commit().await?)
}

/// Drops a build: its tables, its row, what was parked of it, its checkpoints. Nothing if it is not there. Waits a
/// bounded time for whoever reads its tables.
///
/// # Errors
/// [`BuildError::Database`].
pub async fn drop_build(pool: &PgPool, id: &BuildId) -> Result<(), BuildError> {
    let mut tx = pool.begin().await?;
    run(&mut tx, format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'")).await?;
    crate::gate::alone(&mut tx, id).await?;
    run(
        &mut tx,
        format!("DROP SCHEMA IF EXISTS {} CASCADE", quote(&id.schema())),
    )
    .await?;
    forget(&mut tx, id).await?;
    sqlx::query("DELETE FROM annals.projection WHERE name = $1 AND build = $2")
        .bind(id.name.as_str())
        .bind(id.build.get())
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// Drops a scratch build: nothing but its tables is there.
pub(crate) async fn drop_scratch(pool: &PgPool, id: &BuildId) -> Result<(), BuildError> {
    let mut connection = pool.acquire().await?;
    let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", quote(&id.schema()));
    Ok(run(&mut connection, drop).await?)
}

/// Makes the tables of a scratch build in a transaction that will be rolled back: nobody else ever sees them.
pub(crate) async fn make_unseen(
    connection: &mut PgConnection,
    manifest: &Manifest,
) -> Result<(), BuildError> {
    make_tables(connection, manifest).await
}

/// Empties a scratch build.
pub(crate) async fn empty(pool: &PgPool, manifest: &Manifest) -> Result<(), BuildError> {
    let schema = quote(&manifest.id.schema());
    let mut tx = pool.begin().await?;
    for table in &manifest.tables {
        // Not TRUNCATE: it makes new files, and scratch tables hold a few rows.
        run(&mut tx, format!("DELETE FROM {schema}.{}", quote(&table.name))).await?;
    }
    forget(&mut tx, &manifest.id).await?;
    Ok(tx.commit().await?)
}

/// Forgets how far a build has got, and what was parked of it.
async fn forget(connection: &mut PgConnection, id: &BuildId) -> Result<(), BuildError> {
    sqlx::query("DELETE FROM annals.parked WHERE projection = $1 AND build = $2")
        .bind(id.name.as_str())
        .bind(id.build.get())
        .execute(&mut *connection)
        .await?;
    match Checkpoint::forget(connection, &id.reader()).await {
        Err(CheckpointError::Database(error)) => Err(error.into()),
        // Nothing is moved, so nothing else can be wrong.
        _ => Ok(()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Nowhere,
    Asked,
    Made,
}

async fn stands(executor: impl sqlx::PgExecutor<'_>, manifest: &Manifest) -> Result<Stands, BuildError> {
    let id = &manifest.id;
    let row: Option<(Vec<u8>, bool)> = sqlx::query_as(
        "SELECT digest, state IN ('asked', 'failed') FROM annals.projection WHERE name = $1 AND build = $2",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .fetch_optional(executor)
    .await?;
    let Some((stored, asked)) = row else {
        return Ok(Stands::Nowhere);
    };
    if stored != manifest.digest.as_ref() {
        return Err(other_files(manifest, &stored, id.build));
    }
    Ok(if asked { Stands::Asked } else { Stands::Made })
}

/// `highest` is the highest number that is taken.
pub(crate) fn other_files(manifest: &Manifest, stored: &[u8], highest: Build) -> BuildError {
    BuildError::OtherFiles {
        id: manifest.id.clone(),
        stored: Hash32::try_from(stored).unwrap_or_else(|_| Hash32::from([0; 32])),
        found: manifest.digest,
        next: Build::new(highest.get().saturating_add(1)).unwrap_or(highest),
    }
}

async fn make_tables(connection: &mut PgConnection, manifest: &Manifest) -> Result<(), BuildError> {
    let schema = quote(&manifest.id.schema());
    run(connection, format!("CREATE SCHEMA {schema}")).await?;
    run(connection, format!("SET LOCAL search_path = {schema}, pg_temp")).await?;
    run(connection, manifest.schema_sql.clone())
        .await
        .map_err(|error| BuildError::in_file(manifest, "schema.sql", error))?;
    if manifest.rows == Rows::Stream {
        for table in &manifest.tables {
            // No default: a statement that forgets it fails, and `projections check` shows it.
            let add = format!(
                "ALTER TABLE {} ADD COLUMN IF NOT EXISTS {VERSION_COLUMN} bigint NOT NULL",
                quote(&table.name)
            );
            run(connection, add)
                .await
                .map_err(|error| BuildError::in_file(manifest, "schema.sql", error))?;
        }
    }
    columns::check(connection, manifest).await
}

/// Prepares every statement, so that a wrong name is found now and not event by event.
async fn check_statements(connection: &mut PgConnection, manifest: &Manifest) -> Result<(), BuildError> {
    for statement in manifest.on.values().flat_map(|handler| &handler.statements) {
        let sql = format!(
            "/* check */ {}",
            sql::with_events(&statement.sql, &whole_relation_from(1))
        );
        prepare(connection, sql)
            .await
            .map_err(|error| BuildError::in_file(manifest, &statement.file, error))?;
    }
    for resource in &manifest.resources {
        let sql = format!(
            "SELECT FROM {} WHERE ({})",
            quote(&resource.table),
            resource.condition
        );
        prepare(connection, sql)
            .await
            .map_err(|error| match error.as_database_error() {
                Some(answer) => {
                    let what = format!("resource `{}`, key `where`: {}", resource.name, answer.message());
                    BuildError::file(manifest, "projection.toml", what)
                }
                None => error.into(),
            })?;
    }
    if let Some(lineage) = &manifest.lineage_sql {
        let sql = sql::with_events(lineage, &whole_relation_from(2));
        prepare(connection, format!("/* check */ {sql}"))
            .await
            .map_err(|error| BuildError::in_file(manifest, "lineage.sql", error))?;
    }
    Ok(())
}

async fn prepare(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    connection
        .prepare(AssertSqlSafe(sql).into_sql_str())
        .await
        .map(drop)
}

/// The projector fills the tables, whoever made them; query and audit nodes read them.
async fn grant(connection: &mut PgConnection, id: &BuildId) -> Result<(), BuildError> {
    let schema = quote(&id.schema());
    let grants = format!(
        "GRANT USAGE ON SCHEMA {schema} TO annals_projector, annals_query, annals_audit;
         GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA {schema} TO annals_projector;
         GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO annals_query, annals_audit;"
    );
    Ok(run(connection, grants).await?)
}

/// Makes the views of what is the live build now, if they are due. Waits a bounded time for whoever reads them.
///
/// # Errors
/// [`BuildError::Database`].
pub(crate) async fn renew_views(pool: &PgPool, manifest: &Manifest) -> Result<(), BuildError> {
    let mut tx = pool.begin().await?;
    run(&mut tx, format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'")).await?;
    let due = sqlx::query(
        "UPDATE annals.projection SET views_due = false WHERE name = $1 AND build = $2 AND live AND views_due",
    )
    .bind(manifest.id.name.as_str())
    .bind(manifest.id.build.get())
    .execute(&mut *tx)
    .await?;
    if due.rows_affected() > 0 {
        make_views(&mut tx, manifest).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Views of the live build for people, without private columns. Query nodes read the build's own schema:
/// replacing a view under a prepared statement breaks it.
pub(crate) async fn make_views(connection: &mut PgConnection, manifest: &Manifest) -> Result<(), BuildError> {
    let columns = columns::describe(connection, manifest).await?;
    let schema = quote(&manifest.id.schema());
    run(
        connection,
        "CREATE SCHEMA IF NOT EXISTS read; GRANT USAGE, CREATE ON SCHEMA read TO annals_projector".to_owned(),
    )
    .await?;
    for table in &manifest.tables {
        let name = quote(&table.name);
        let shown: Vec<String> = columns
            .get(&table.name)
            .into_iter()
            .flatten()
            .filter(|(column, _)| !table.private.contains(column))
            .map(|(column, _)| quote(column))
            .collect();
        let view = format!(
            "DROP VIEW IF EXISTS read.{name}; CREATE VIEW read.{name} AS SELECT {} FROM {schema}.{name}",
            shown.join(", ")
        );
        run(connection, view).await?;
    }
    Ok(())
}

/// A name in quotes, fit for SQL.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// SQL made of checked files and quoted names.
pub(crate) async fn run(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
}

fn is_transient(answer: &dyn sqlx::error::DatabaseError) -> bool {
    let code = answer.code().unwrap_or_default();
    matches!(
        annals_store::error::class_of_sqlstate(&code, answer.constraint()),
        annals_store::ErrorClass::Transient | annals_store::ErrorClass::Timeout
    )
}

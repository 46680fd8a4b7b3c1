//! The life of a build: asked for, made, fed beside the live one, switched to, kept for a while, dropped.
//!
//! What there should be stands in the table; the projectors bring it about ([`crate::runner`]). Whoever asks (the
//! command line, the operators' route) writes a row, as the projectors' database role, and looks at the status. Only a
//! switch is done by whoever asks for it: it is one transaction.
//!
//! *Invariant:* a projection has one live build, and it never goes back: a build goes live only at or past every
//! checkpoint of the one before it.

mod rules;
mod switch;

use annals_record::StreamId;
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};

pub use rules::{Refusal, State};
pub use switch::{Direction, Switched, switch};

use crate::build::{self, BuildError};
use crate::manifest::{Build, BuildId, Manifest, Name};

/// A build as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// Which one.
    pub id: BuildId,
    /// The digest of its files.
    pub digest: Vec<u8>,
    /// Where it is in its life.
    pub state: State,
    /// Whether queries read it.
    pub live: bool,
    /// Whether it is to be fed: it is the live one, or is being built, or its grace has not ended.
    pub fed: bool,
    /// Whether its files are stored with it.
    pub has_files: bool,
    /// Whether the views for people show another build.
    pub views_due: bool,
    /// When parked streams were asked to be resumed.
    pub resume_asked_at: Option<DateTime<Utc>>,
    /// Which of them; none: all.
    pub resume_stream: Option<String>,
    /// When it last went live or ceased to be.
    pub switched_at: Option<DateTime<Utc>>,
}

/// Why something was not done to a build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LifecycleError {
    /// There is no such projection or build.
    #[error("there is no {0}; `projections status` lists what there is")]
    NotFound(String),
    /// Not as things stand.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The files, or Postgres.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl From<sqlx::Error> for LifecycleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Build(error.into())
    }
}

type Row = (
    String,
    i32,
    Vec<u8>,
    String,
    bool,
    bool,
    bool,
    bool,
    Option<DateTime<Utc>>,
    Option<String>,
    Option<DateTime<Utc>>,
);

/// Every build of every projection, or of one.
///
/// # Errors
/// Postgres.
pub async fn builds(
    executor: impl sqlx::PgExecutor<'_>,
    name: Option<&Name>,
) -> Result<Vec<BuildRow>, BuildError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT name, build, digest, state, live,
                state IN ('building', 'running') OR state = 'retired' AND fed_until > clock_timestamp(),
                files IS NOT NULL, views_due, resume_asked_at, resume_stream, switched_at
         FROM annals.projection WHERE $1::text IS NULL OR name = $1 ORDER BY name, build",
    )
    .bind(name.map(Name::as_str))
    .fetch_all(executor)
    .await?;
    // A name or state of a later release is not this one's to tend.
    Ok(rows.into_iter().filter_map(row).collect())
}

fn row(row: Row) -> Option<BuildRow> {
    let (name, build, digest, state, live, fed, has_files, views_due, asked, stream, switched_at) = row;
    Some(BuildRow {
        id: BuildId {
            name: Name::parse(&name)?,
            build: Build::new(build)?,
        },
        digest,
        state: State::parse(&state)?,
        live,
        fed,
        has_files,
        views_due,
        resume_asked_at: asked,
        resume_stream: stream,
        switched_at,
    })
}

/// The manifest of a build from the files that are stored with it; none if it has none.
///
/// # Errors
/// [`BuildError`]: Postgres, or files that do not read.
pub async fn stored(
    executor: impl sqlx::PgExecutor<'_>,
    id: &BuildId,
) -> Result<Option<Manifest>, BuildError> {
    let files: Option<Option<Json<_>>> =
        sqlx::query_scalar("SELECT files FROM annals.projection WHERE name = $1 AND build = $2")
            .bind(id.name.as_str())
            .bind(id.build.get())
            .fetch_optional(executor)
            .await?;
    let Some(Json(files)) = files.flatten() else {
        return Ok(None);
    };
    let read = Manifest::of_files(id, files).map_err(|error| BuildError::File {
        file: error.file,
        what: error.what,
    });
    read.map(Some)
}

/// Stores the files of a build that was made before builds kept them.
pub(crate) async fn keep_files(pool: &PgPool, manifest: &Manifest) -> Result<(), BuildError> {
    sqlx::query(
        "UPDATE annals.projection SET files = $4
         WHERE name = $1 AND build = $2 AND digest = $3 AND files IS NULL",
    )
    .bind(manifest.id.name.as_str())
    .bind(manifest.id.build.get())
    .bind(manifest.digest.as_ref())
    .bind(Json(&manifest.files))
    .execute(pool)
    .await?;
    Ok(())
}

/// Asks for a new build from these files, beside the live one. Asked twice, it is the same build. It gets the
/// manifest's number, or, if a build was made of these very files already, the next free one.
///
/// # Errors
/// [`LifecycleError`]: other files under a number that is taken, or another build under way.
pub async fn ask_rebuild(pool: &PgPool, manifest: &Manifest) -> Result<BuildId, LifecycleError> {
    let mut tx = pool.begin().await?;
    build::lock_builds(&mut tx).await?;
    let rows = builds(&mut *tx, Some(&manifest.id.name)).await?;
    let build = match rules::rebuild(manifest, &rows)? {
        rules::Rebuild::UnderWay(build) => build,
        rules::Rebuild::Again(build) => {
            let sql =
                "UPDATE annals.projection SET state = 'asked', error = NULL WHERE name = $1 AND build = $2";
            one(&mut tx, sql, &manifest.id.name, build).await?;
            build
        }
        rules::Rebuild::New(build) => {
            let mut asked = manifest.clone();
            asked.id.build = build;
            build::insert(&mut tx, &asked).await?;
            build
        }
    };
    tx.commit().await?;
    let name = manifest.id.name.clone();
    Ok(BuildId { name, build })
}

/// Asks for a build to be dropped: it is fed no longer, then its tables go. The live one only if `even_live`: for a
/// projection that the program has no more.
///
/// # Errors
/// [`LifecycleError`].
pub async fn ask_drop(pool: &PgPool, id: &BuildId, even_live: bool) -> Result<(), LifecycleError> {
    let mut tx = pool.begin().await?;
    build::lock_builds(&mut tx).await?;
    let rows = builds(&mut *tx, Some(&id.name)).await?;
    let row = rows.iter().find(|row| row.id == *id);
    let row = row.ok_or_else(|| LifecycleError::NotFound(format!("build {id}")))?;
    if row.live && !even_live {
        return Err(Refusal::live(id).into());
    }
    let sql = "UPDATE annals.projection SET state = 'dropping', live = false WHERE name = $1 AND build = $2";
    one(&mut tx, sql, &id.name, id.build).await?;
    Ok(tx.commit().await?)
}

/// Asks for the parked streams of every fed build of a projection, or of one build, to be replayed; or one stream of
/// them. Returns the builds.
///
/// # Errors
/// [`LifecycleError`].
pub async fn ask_resume(
    pool: &PgPool,
    name: &Name,
    build: Option<Build>,
    stream: Option<&StreamId>,
) -> Result<Vec<BuildId>, LifecycleError> {
    let numbers: Vec<i32> = sqlx::query_scalar(
        "UPDATE annals.projection SET resume_asked_at = clock_timestamp(), resume_stream = $3
         WHERE name = $1 AND ($2::int IS NULL OR build = $2) AND state IN ('building', 'running', 'retired')
         RETURNING build",
    )
    .bind(name.as_str())
    .bind(build.map(Build::get))
    .bind(stream.map(StreamId::as_str))
    .fetch_all(pool)
    .await?;
    if numbers.is_empty() {
        let what = build.map_or_else(
            || format!("projection `{name}`"),
            |build| format!("build {name}/{build}"),
        );
        return Err(LifecycleError::NotFound(what));
    }
    let id = |build| BuildId {
        name: name.clone(),
        build,
    };
    Ok(numbers.into_iter().filter_map(Build::new).map(id).collect())
}

/// What was asked at that time has been done.
pub(crate) async fn resumed(pool: &PgPool, id: &BuildId, asked_at: DateTime<Utc>) -> Result<(), BuildError> {
    sqlx::query(
        "UPDATE annals.projection SET resume_asked_at = NULL, resume_stream = NULL
         WHERE name = $1 AND build = $2 AND resume_asked_at = $3",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .bind(asked_at)
    .execute(pool)
    .await?;
    Ok(())
}

/// A build that was asked for cannot be made: says so where whoever asked looks.
pub(crate) async fn failed(pool: &PgPool, id: &BuildId, error: &str) -> Result<(), BuildError> {
    sqlx::query(
        "UPDATE annals.projection SET state = 'failed', error = $3
         WHERE name = $1 AND build = $2 AND state = 'asked'",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .bind(error)
    .execute(pool)
    .await?;
    Ok(())
}

async fn one(
    connection: &mut PgConnection,
    sql: &'static str,
    name: &Name,
    build: Build,
) -> Result<(), sqlx::Error> {
    sqlx::query(sql)
        .bind(name.as_str())
        .bind(build.get())
        .execute(connection)
        .await
        .map(drop)
}

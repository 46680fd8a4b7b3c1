//! `projections check`: every test of every read model, on a real Postgres, in every order that must not matter.
//!
//! Each test runs one event at a time, as one set, again on an empty schema, with the same batch offered twice (the
//! checkpoint refuses it), and with its streams spread over shards that are interleaved in several ways.

mod case;
mod compare;
mod runs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_domain::Catalog;
use serde::Serialize;
use sqlx::{Connection, PgPool};

pub use crate::compare::Difference;
pub use case::{Case, CaseError, Given};

use crate::apply::ApplyError;
use crate::build::{self, BuildError};
use crate::manifest::{Build, BuildId, Manifest, Name, Projections};

/// Two checks at once in a database would share scratch schemas.
const CHECK_LOCK: i64 = 0x616e_6e61_6c73_636b;

/// What `projections check` found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// By projection; folders that do not load are under their folder's name.
    pub projections: Vec<ProjectionReport>,
}

/// What was found of one projection.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProjectionReport {
    /// The projection, or its folder.
    pub name: String,
    /// What is wrong without any test: the manifest, its SQL, missing indexes.
    pub findings: Vec<String>,
    /// Types of events that have a statement and occur in no test. No failure.
    pub untested: Vec<String>,
    /// Its tests.
    pub tests: Vec<TestReport>,
}

/// One test.
#[derive(Debug, Clone, Serialize)]
pub struct TestReport {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// None: it passed.
    pub failures: Vec<Failure>,
}

/// A run of a test that ended otherwise than it should.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Which run: "one event at a time".
    pub run: &'static str,
    /// What went wrong where it was not rows.
    pub error: Option<String>,
    /// Where rows differ.
    pub differences: Vec<Difference>,
}

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The folder cannot be read.
    #[error("{}: cannot be read: {source}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Postgres.
    #[error(transparent)]
    Database(#[from] annals_store::Error),
    /// Postgres, while a batch was applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Postgres, while a scratch build was made.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl From<sqlx::Error> for CheckError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.projections.iter().all(ProjectionReport::passed)
    }
}

impl ProjectionReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.findings.is_empty() && self.tests.iter().all(|test| test.failures.is_empty())
    }
}

/// Checks every projection of a folder, or the one named. Scratch schemas `check_{name}_b{n}` are made and dropped;
/// nothing else of the database is touched.
///
/// # Errors
/// [`CheckError`] if the database fails; what is wrong with a projection is in the report.
pub async fn check(
    pool: &PgPool,
    dir: &Path,
    catalog: &Catalog,
    only: Option<&str>,
) -> Result<Report, CheckError> {
    let mut guard = pool.acquire().await?.detach();
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(CHECK_LOCK)
        .execute(&mut guard)
        .await?;
    let report = check_all(pool, dir, catalog, only).await;
    guard.close().await.ok(); // the lock goes with the connection, however it ends
    report
}

async fn check_all(
    pool: &PgPool,
    dir: &Path,
    catalog: &Catalog,
    only: Option<&str>,
) -> Result<Report, CheckError> {
    let mut report = Report::default();
    let mut loaded = Vec::new();
    for folder in folders(dir)? {
        match Manifest::load(&folder) {
            Ok(manifest) => loaded.push(manifest),
            Err(error) => report.projections.push(broken(&folder, &error.to_string())),
        }
    }
    if let Err(error) = Projections::of(loaded.clone(), catalog) {
        report.projections.push(broken(dir, &error.to_string()));
    }
    let named = |manifest: &Manifest| only.is_none_or(|name| manifest.id.name.as_str() == name);
    if let Some(name) = only
        && !loaded.iter().any(named)
    {
        report
            .projections
            .push(broken(Path::new(name), "there is no such projection"));
    }
    for manifest in loaded.into_iter().filter(named) {
        report.projections.push(check_one(pool, manifest, catalog).await?);
    }
    Ok(report)
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>, CheckError> {
    let failed = |source| CheckError::Folder {
        dir: dir.to_owned(),
        source,
    };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

fn broken(path: &Path, what: &str) -> ProjectionReport {
    ProjectionReport {
        name: path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        findings: vec![what.to_owned()],
        ..ProjectionReport::default()
    }
}

async fn check_one(
    pool: &PgPool,
    manifest: Manifest,
    catalog: &Catalog,
) -> Result<ProjectionReport, CheckError> {
    let mut report = ProjectionReport {
        name: manifest.id.name.to_string(),
        ..ProjectionReport::default()
    };
    let first = scratch(&manifest, 1);
    build::drop_build(pool, &first.id).await?;
    match build::make_scratch(pool, &first).await {
        Ok(()) => {}
        Err(error @ BuildError::File { .. }) => {
            report.findings.push(error.to_string());
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    }
    let mut connection = pool.acquire().await?;
    report.findings = build::missing_indexes(&mut connection, &first).await?;
    drop(connection);
    let mut seen = std::collections::BTreeSet::new();
    for file in &manifest.tests {
        let case = match Case::load(file, catalog) {
            Ok(case) => case,
            Err(error) => {
                report.findings.push(error.to_string());
                continue;
            }
        };
        seen.extend(case.given.iter().map(|given| given.event_type.clone()));
        let failures = runs::run(pool, &first, &scratch(&manifest, 2), &case).await?;
        report.tests.push(TestReport {
            name: case.name,
            file: file.clone(),
            failures,
        });
    }
    report.untested = manifest
        .on
        .keys()
        .filter(|event| !seen.contains(*event))
        .cloned()
        .collect();
    build::drop_build(pool, &first.id).await?;
    Ok(report)
}

/// The same manifest under another name, so that nothing that lives is touched.
fn scratch(manifest: &Manifest, number: i32) -> Arc<Manifest> {
    let mut scratch = manifest.clone();
    scratch.id = BuildId {
        name: Name::scratch("check", &manifest.id.name),
        build: Build::new(number).unwrap_or(manifest.id.build),
    };
    Arc::new(scratch)
}

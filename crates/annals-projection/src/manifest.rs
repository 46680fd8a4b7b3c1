//! A read model as a folder: what it is called, which tables it fills from which events, and what may be asked of it.
//!
//! *Invariant:* a [`Manifest`] that was loaded is checked as far as text can be; what needs Postgres (columns,
//! indexes) is checked when its build is made ([`crate::build`]) and by [`crate::check`].

mod file;
mod load;
mod set;
pub mod sql;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_record::{Category, Hash32};

pub use set::Projections;

/// A read model's definition, read from its folder.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Name and number of the build.
    pub id: BuildId,
    /// What it is for, in a sentence.
    pub doc: String,
    /// Where its rows come from.
    pub rows: Rows,
    /// Its tables, in the manifest's order; at least one.
    pub tables: Vec<Table>,
    /// What HTTP serves of it, in the manifest's order.
    pub resources: Vec<Resource>,
    /// Its statements by type of event.
    pub on: BTreeMap<String, Handler>,
    /// `schema.sql`, as it is.
    pub schema_sql: String,
    /// `lineage.sql`: one query; `$1` is a row's key as text, its answer the streams behind the row.
    pub lineage_sql: Option<String>,
    /// SHA-256 over all files but the tests and `lineage.sql`: other files under the same number are refused.
    pub digest: Hash32,
    /// The files that it was read from, by path in the folder, without the tests: a build keeps them.
    pub files: BTreeMap<String, String>,
    /// Its folder.
    pub dir: PathBuf,
    /// The files under `tests/`, by name.
    pub tests: Vec<PathBuf>,
}

/// A projection's name: `[a-z][a-z0-9_]{0,47}`, short enough for a schema's name with the build's number.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// The number of a build, from 1: other tables for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Build(i32);

/// One build of one projection: `orders/3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId {
    /// The projection.
    pub name: Name,
    /// The number.
    pub build: Build,
}

/// Where a projection's rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rows {
    /// Each row from one stream; `_version` is that stream's version; shards run in parallel.
    Stream,
    /// From several streams; every statement is a commutative upsert; one worker.
    Shared,
}

/// A table that a projection fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name, unique over all projections.
    pub name: String,
    /// The columns of its key, in order; at least one.
    pub key: Vec<String>,
    /// How its rows name their stream; there exactly if `rows = "stream"`.
    pub stream: Option<StreamTemplate>,
    /// The column that says whose row it is.
    pub owner: Option<String>,
    /// Columns that hold personal data.
    pub private: Vec<String>,
}

/// `order-{order_id}`: the stream's category, and the column that holds the stream's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTemplate {
    /// Before the first hyphen.
    pub category: Category,
    /// The column with the key.
    pub column: String,
}

/// `GET /v1/{name}`: what may be asked of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name in the path, unique over all projections.
    pub name: String,
    /// The table.
    pub table: String,
    /// An SQL condition; rows for which it is not true are not shown.
    pub condition: String,
    /// Columns that can be filtered by; each begins an index.
    pub filter: Vec<String>,
    /// Columns that can be sorted by; each begins an index.
    pub sort: Vec<String>,
    /// What can be shown with a row, by name.
    pub expand: BTreeMap<String, Expand>,
}

/// `customer = "customers.customer_id"`: the row of another resource whose one key column has the value that the
/// column of the same name has here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expand {
    /// The other resource.
    pub resource: String,
    /// The column: here, and there its table's whole key.
    pub column: String,
}

/// What an event does.
#[derive(Debug, Clone)]
pub struct Handler {
    /// Its statements cope with several events of one stream at once.
    pub repeat: bool,
    /// In the order of their files: `{type}.sql`, then `{type}.{table}.sql` by table.
    pub statements: Vec<Statement>,
}

/// One file of `on/`.
#[derive(Debug, Clone)]
pub struct Statement {
    /// `on/order.placed.sql`.
    pub file: String,
    /// The table in the file's name; without one the first table.
    pub table: String,
    /// The statement without a closing semicolon.
    pub sql: String,
}

/// What is wrong with a folder: which file, which key of it, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub struct ManifestError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong and what to do.
    pub what: String,
}

impl ManifestError {
    pub(crate) fn new(file: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            what: what.into(),
        }
    }
}

impl Manifest {
    /// Reads and checks a projection's folder.
    ///
    /// # Errors
    /// [`ManifestError`] with the first thing that is wrong.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        load::load(dir)
    }

    /// The manifest of a build from the files that were stored with it, whatever number stands in them.
    ///
    /// # Errors
    /// [`ManifestError`] with the first thing that is wrong; its path begins with the build.
    pub fn of_files(id: &BuildId, files: BTreeMap<String, String>) -> Result<Self, ManifestError> {
        let dir = PathBuf::from(format!("(files of build {}) {}", id.build, id.name));
        let mut manifest = load::parse(&dir, files)?;
        if manifest.id.name != id.name {
            let what = format!("key `name`: `{}` is not `{}`", manifest.id.name, id.name);
            return Err(ManifestError::new(dir.join("projection.toml"), what));
        }
        manifest.id = id.clone();
        Ok(manifest)
    }

    /// A table by name.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Whether a column of it holds personal data.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.tables.iter().any(|table| !table.private.is_empty())
    }
}

impl Name {
    /// Reads a name; `None` if it is not of the grammar.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (is_identifier(text) && text.len() <= 48).then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a projection's copy that is made only to be looked at: `check_orders`, `attest_orders`.
    pub(crate) fn scratch(what: &str, name: &Self) -> Self {
        Self(format!("{what}_{name}").into())
    }
}

impl Build {
    /// A number from 1 on; `None` for others.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        (number >= 1).then_some(Self(number))
    }

    /// The bare number, at least 1.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }
}

impl BuildId {
    /// The Postgres schema that its tables lie in, `orders_b3`.
    #[must_use]
    pub fn schema(&self) -> String {
        format!("{}_b{}", self.name, self.build)
    }

    /// Its name as a reader of the log, `projection/orders/3`.
    #[must_use]
    pub fn reader(&self) -> String {
        format!("projection/{self}")
    }
}

impl StreamTemplate {
    /// Reads `{category}-{{column}}`; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (category, rest) = text.split_once('-')?;
        let column = rest.strip_prefix('{')?.strip_suffix('}')?;
        let column = is_identifier(column).then(|| column.to_owned())?;
        let category = Category::try_from(category).ok()?;
        Some(Self { category, column })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.build)
    }
}

impl fmt::Display for StreamTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{{{}}}", self.category, self.column)
    }
}

/// A name that needs no quotes in SQL unless it is a keyword: `[a-z_][a-z0-9_]{0,62}`.
pub(crate) fn is_identifier(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes
        .first()
        .is_some_and(|b| b.is_ascii_lowercase() || *b == b'_')
        && bytes.len() <= 63
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
}

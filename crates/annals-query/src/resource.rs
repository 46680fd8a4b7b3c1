//! Resources: what may be asked of a table, resolved against the columns of the build that is live.
//!
//! A manifest says what its own build offers, and the live build may still be an older one. So a resource is
//! resolved per live build: what the manifest's own build lacks is an error at the start, what an older one
//! lacks is not offered while that is live.
//!
//! *Invariant:* every name in a [`Resource`] was found in the catalog of Postgres or has the grammar of plain
//! names, so it may stand in a statement between double quotes.

mod catalog;
mod define;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use metrics::Counter;
use sqlx::PgPool;

use crate::value::SqlType;
use crate::{QueryError, metrics as names};

pub use define::{Definition, Expansion, definitions};

/// A column of the live build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: SqlType,
    /// Whether it can never be null.
    pub not_null: bool,
    /// Whether it holds personal data.
    pub private: bool,
}

/// What may be asked of a table of one build.
#[derive(Debug)]
pub struct Resource {
    /// What its manifest says.
    pub definition: Arc<Definition>,
    /// The live build that this was resolved against.
    pub build: i32,
    /// All columns that are shown, in the table's order. Names that begin with `_` are never shown.
    pub columns: Vec<Column>,
    /// The columns of the key, in order, as indexes into `columns`.
    pub key: Vec<usize>,
    /// The owner's column.
    pub owner: Option<usize>,
    /// Columns to filter by.
    pub filter: Vec<usize>,
    /// Columns to sort by.
    pub sort: Vec<usize>,
    /// What is counted of it.
    pub(crate) counted: Counted,
}

/// The counters of a resource: a look into the registry for each answer would cost more than to find the answer.
pub(crate) struct Counted {
    pub(crate) statements: Counter,
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) not_modified: Counter,
}

impl Counted {
    fn of(resource: &str) -> Self {
        let counter = |name| metrics::counter!(name, "resource" => resource.to_owned());
        Self {
            statements: counter(names::STATEMENTS),
            hits: counter(names::CACHE_HITS),
            misses: counter(names::CACHE_MISSES),
            not_modified: counter(names::NOT_MODIFIED),
        }
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

/// Why the resources cannot be served. Names the resource and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Neither the manifest's own build nor a live one is there yet: try again when the projector has made it.
    #[error("projection `{projection}` has no build yet: start a node with the role `projector`")]
    NotBuilt {
        /// The projection.
        projection: String,
    },
    /// A manifest names something that the build does not have, or that cannot be served.
    #[error("resource `{resource}`: {what}")]
    Wrong {
        /// The resource.
        resource: String,
        /// What is wrong.
        what: String,
    },
    /// Postgres.
    #[error("the read models' catalog cannot be read: {0}")]
    Database(#[from] annals_store::Error),
}

impl From<sqlx::Error> for LoadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<LoadError> for QueryError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NotBuilt { projection } => Self::NotBuilt { projection },
            LoadError::Wrong { resource, what } => {
                tracing::error!(resource, what, "a live build does not fit its manifest");
                Self::NotBuilt { projection: resource }
            }
            LoadError::Database(error) => Self::from(error.into_source()),
        }
    }
}

/// Every resource of a program.
#[derive(Debug)]
pub struct Resources {
    definitions: BTreeMap<String, Arc<Definition>>,
    live: RwLock<HashMap<String, Arc<Resource>>>,
}

impl Resources {
    /// Resolves every resource of the manifests against the live builds; where none is live yet, against the
    /// manifest's own.
    ///
    /// # Errors
    /// [`LoadError`] with the first thing that is wrong.
    pub async fn load(
        pool: &PgPool,
        projections: &annals_projection::Projections,
    ) -> Result<Self, LoadError> {
        let manifests = projections.iter();
        let all = manifests.flat_map(|manifest| definitions(manifest)).collect();
        Self::of(pool, all).await
    }

    /// As [`Resources::load`], from definitions.
    ///
    /// # Errors
    /// [`LoadError`] with the first thing that is wrong.
    pub async fn of(pool: &PgPool, definitions: Vec<Definition>) -> Result<Self, LoadError> {
        define::check(&definitions)?;
        let definitions: BTreeMap<_, _> = definitions
            .into_iter()
            .map(|definition| (definition.resource.clone(), Arc::new(definition)))
            .collect();
        let all: Vec<_> = definitions.values().cloned().collect();
        let live = catalog::resolve_all(pool, &all).await?;
        let resources = Self {
            definitions,
            live: RwLock::new(live),
        };
        resources.check_expansions()?;
        Ok(resources)
    }

    /// Every definition, by the resource's name.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.definitions.values()
    }

    /// The projections behind the resources, each once.
    #[must_use]
    pub fn projections(&self) -> Vec<String> {
        let mut names: Vec<_> = self.definitions().map(|d| d.projection.clone()).collect();
        names.sort();
        names.dedup();
        names
    }

    /// A resource as its live build has it. Never touches the database.
    ///
    /// # Errors
    /// [`QueryError::UnknownResource`].
    pub fn get(&self, name: &str) -> Result<Arc<Resource>, QueryError> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        let found = live.get(name).cloned();
        found.ok_or_else(|| QueryError::UnknownResource(name.chars().take(80).collect()))
    }

    /// Whether a resource of this projection is resolved against another build than this one.
    pub(crate) fn is_other(&self, projection: &str, build: i32) -> bool {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values()
            .any(|resource| resource.definition.projection == projection && resource.build != build)
    }

    /// Resolves the resources of these projections anew, after one of them got another live build.
    ///
    /// # Errors
    /// [`LoadError`]; then nothing has changed.
    pub(crate) async fn reload(&self, pool: &PgPool, projections: &[&str]) -> Result<(), LoadError> {
        let concerned: Vec<_> = self
            .definitions()
            .filter(|definition| projections.contains(&definition.projection.as_str()))
            .cloned()
            .collect();
        let fresh = catalog::resolve_all(pool, &concerned).await?;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.extend(fresh);
        Ok(())
    }

    /// Both sides of an expansion must have the same type, or their comparison could use no index.
    fn check_expansions(&self) -> Result<(), LoadError> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        for resource in live.values() {
            for (name, expansion) in &resource.definition.expand {
                let wrong = |what: String| LoadError::Wrong {
                    resource: resource.definition.resource.clone(),
                    what: format!("expansion `{name}`: {what}"),
                };
                let target = live
                    .get(&expansion.resource)
                    .ok_or_else(|| wrong(format!("there is no resource `{}`", expansion.resource)))?;
                let here = resource
                    .column(&expansion.column)
                    .map(|at| resource.columns[at].ty);
                let there = target.column(&expansion.column).map(|at| target.columns[at].ty);
                if here.is_none() || here != there {
                    let what = format!(
                        "column `{}` must be in both tables, with one type",
                        expansion.column
                    );
                    return Err(wrong(what));
                }
            }
        }
        Ok(())
    }
}

impl Resource {
    /// The place of a column among those shown.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// `"orders_b3"."orders"`.
    pub(crate) fn table_sql(&self) -> String {
        let definition = &self.definition;
        format!(
            "\"{}_b{}\".\"{}\"",
            definition.projection, self.build, definition.table
        )
    }
}

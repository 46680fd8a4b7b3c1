//! What Postgres says of a build's tables: columns, types, and which columns begin an index.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use sqlx::{PgConnection, PgPool};

use super::BuildError;
use crate::manifest::{Manifest, Table};

/// Columns by table, in the tables' own order.
pub type Columns = BTreeMap<String, IndexMap<String, Column>>;

/// A column as Postgres has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its type as SQL writes it: `uuid`, `timestamp with time zone`, `numeric(12,2)`.
    pub sql_type: String,
    /// Whether it can be null.
    pub nullable: bool,
}

/// The columns of a build's tables, those of the engine included.
///
/// # Errors
/// [`BuildError::Database`].
pub async fn describe_columns(pool: &PgPool, manifest: &Manifest) -> Result<Columns, BuildError> {
    let mut connection = pool.acquire().await?;
    describe(&mut connection, manifest).await
}

pub(crate) async fn describe(
    connection: &mut PgConnection,
    manifest: &Manifest,
) -> Result<Columns, BuildError> {
    let rows: Vec<(String, String, String, bool)> = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
           AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY c.relname, a.attnum",
    )
    .bind(super::quote(&manifest.id.schema()))
    .fetch_all(connection)
    .await?;
    let mut columns = Columns::new();
    for (table, column, sql_type, nullable) in rows {
        let column_of = Column { sql_type, nullable };
        columns.entry(table).or_default().insert(column, column_of);
    }
    Ok(columns)
}

/// Whether tables and manifest say the same.
pub(super) async fn check(connection: &mut PgConnection, manifest: &Manifest) -> Result<(), BuildError> {
    let columns = describe(connection, manifest).await?;
    for table in columns.keys() {
        if manifest.table(table).is_none() {
            let what = format!("makes table `{table}`, which projection.toml does not name: add a [[table]]");
            return Err(BuildError::file(manifest, "schema.sql", what));
        }
    }
    let wrong = |what: String| BuildError::file(manifest, "projection.toml", what);
    for table in &manifest.tables {
        let Some(of_table) = columns.get(&table.name) else {
            let what = format!("table `{}`: schema.sql does not make it", table.name);
            return Err(wrong(what));
        };
        let named = named_columns(manifest, table);
        if let Some((key, column)) = named.iter().find(|(_, column)| !of_table.contains_key(*column)) {
            let known: Vec<&str> = of_table.keys().map(String::as_str).collect();
            let what = format!(
                "table `{}`, key `{key}`: there is no column `{column}`; there are {}",
                table.name,
                known.join(", ")
            );
            return Err(wrong(what));
        }
        if !has_key(connection, manifest, table).await? {
            let what = format!(
                "table `{}`, key `key`: schema.sql has no primary key or unique index of exactly ({})",
                table.name,
                table.key.join(", ")
            );
            return Err(wrong(what));
        }
    }
    Ok(())
}

/// Every column that the manifest names of a table, with the key under which it does.
fn named_columns<'a>(manifest: &'a Manifest, table: &'a Table) -> Vec<(&'static str, &'a str)> {
    let mut named: Vec<(&'static str, &'a str)> = Vec::new();
    named.extend(table.key.iter().map(|column| ("key", column.as_str())));
    named.extend(table.private.iter().map(|column| ("private", column.as_str())));
    named.extend(table.owner.iter().map(|column| ("owner", column.as_str())));
    named.extend(
        table
            .stream
            .iter()
            .map(|stream| ("stream", stream.column.as_str())),
    );
    for resource in manifest
        .resources
        .iter()
        .filter(|resource| resource.table == table.name)
    {
        named.extend(resource.filter.iter().map(|column| ("filter", column.as_str())));
        named.extend(resource.sort.iter().map(|column| ("sort", column.as_str())));
        named.extend(
            resource
                .expand
                .values()
                .map(|expand| ("expand", expand.column.as_str())),
        );
    }
    named
}

async fn has_key(
    connection: &mut PgConnection,
    manifest: &Manifest,
    table: &Table,
) -> Result<bool, BuildError> {
    let keys: Vec<Vec<String>> = sqlx::query_scalar(
        "SELECT array_agg(a.attname::text)
         FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid, unnest(i.indkey) AS k(attnum)
         JOIN pg_attribute a ON a.attnum = k.attnum
         WHERE a.attrelid = i.indrelid AND c.relnamespace = to_regnamespace($1) AND c.relname = $2
           AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
         GROUP BY i.indexrelid",
    )
    .bind(super::quote(&manifest.id.schema()))
    .bind(&table.name)
    .fetch_all(connection)
    .await?;
    let wanted: BTreeSet<&String> = table.key.iter().collect();
    Ok(keys
        .iter()
        .any(|key| key.iter().collect::<BTreeSet<_>>() == wanted))
}

/// Every offered filter, sort, owner and stream column that begins no index, as a sentence each.
///
/// # Errors
/// [`BuildError::Database`].
pub async fn missing_indexes(
    connection: &mut PgConnection,
    manifest: &Manifest,
) -> Result<Vec<String>, BuildError> {
    let indexed: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text
         FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
         WHERE c.relnamespace = to_regnamespace($1) AND i.indpred IS NULL",
    )
    .bind(super::quote(&manifest.id.schema()))
    .fetch_all(connection)
    .await?;
    let indexed: BTreeSet<(String, String)> = indexed.into_iter().collect();
    let mut missing = BTreeSet::new();
    for table in &manifest.tables {
        for (key, column) in named_columns(manifest, table) {
            let pair = (table.name.clone(), column.to_owned());
            if ["filter", "sort", "owner", "stream"].contains(&key) && !indexed.contains(&pair) {
                missing.insert(format!(
                    "table `{}`, key `{key}`: no index begins with `{column}`; add one to schema.sql",
                    table.name
                ));
            }
        }
    }
    Ok(missing.into_iter().collect())
}

//! Which build is live, and what columns its tables have, read from Postgres.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgPool, Row};

use super::{Column, Counted, Definition, LoadError, Resource};
use crate::value::SqlType;

/// Columns of a table in order: name, type, never null.
type Columns = Vec<(String, SqlType, bool)>;

/// Resolves definitions against their live builds, with two statements for all, and one for each condition.
pub(super) async fn resolve_all(
    pool: &PgPool,
    definitions: &[Arc<Definition>],
) -> Result<HashMap<String, Arc<Resource>>, LoadError> {
    let builds = live_builds(pool, definitions).await?;
    let build_of = |definition: &Definition| {
        let live = builds.get(&definition.projection).copied();
        live.unwrap_or(definition.build)
    };
    let schemas: Vec<String> = definitions
        .iter()
        .map(|definition| format!("{}_b{}", definition.projection, build_of(definition)))
        .collect();
    let mut tables = columns(pool, &schemas).await?;
    let mut resources = HashMap::new();
    for (definition, schema) in definitions.iter().zip(schemas) {
        let table = (schema, definition.table.clone());
        let Some(columns) = tables.get_mut(&table) else {
            return Err(missing(definition, build_of(definition), &tables, &table));
        };
        let resource = resolve(definition, build_of(definition), columns)?;
        check_condition(pool, &resource).await?;
        resources.insert(definition.resource.clone(), Arc::new(resource));
    }
    Ok(resources)
}

/// A build without this table: a wrong manifest if the build is there, else it is not built yet.
fn missing(
    definition: &Definition,
    build: i32,
    tables: &HashMap<(String, String), Columns>,
    table: &(String, String),
) -> LoadError {
    if tables.keys().any(|(schema, _)| *schema == table.0) {
        return LoadError::Wrong {
            resource: definition.resource.clone(),
            what: format!("build {build} has no table `{}`", table.1),
        };
    }
    LoadError::NotBuilt {
        projection: definition.projection.clone(),
    }
}

async fn live_builds(
    pool: &PgPool,
    definitions: &[Arc<Definition>],
) -> Result<HashMap<String, i32>, LoadError> {
    let names: Vec<&str> = definitions.iter().map(|d| d.projection.as_str()).collect();
    let rows = sqlx::query(annals_projection::fragment::LIVE_BUILDS)
        .bind(names)
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

async fn columns(pool: &PgPool, schemas: &[String]) -> Result<HashMap<(String, String), Columns>, LoadError> {
    let rows = sqlx::query(
        "SELECT n.nspname::text, c.relname::text, a.attname::text, coalesce(b.typname, t.typname)::text,
                a.attnotnull
         FROM pg_namespace n
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         JOIN pg_type t ON t.oid = a.atttypid
         LEFT JOIN pg_type b ON b.oid = t.typbasetype
         WHERE n.nspname = ANY($1) ORDER BY c.oid, a.attnum",
    )
    .bind(schemas)
    .fetch_all(pool)
    .await?;
    let mut tables: HashMap<(String, String), Columns> = HashMap::new();
    for row in &rows {
        let table = (row.try_get(0)?, row.try_get(1)?);
        let ty: String = row.try_get(3)?;
        let column = (row.try_get(2)?, SqlType::of(&ty), row.try_get(4)?);
        tables.entry(table).or_default().push(column);
    }
    Ok(tables)
}

fn resolve(definition: &Arc<Definition>, build: i32, found: &Columns) -> Result<Resource, LoadError> {
    let wrong = |what: String| LoadError::Wrong {
        resource: definition.resource.clone(),
        what,
    };
    let own = build == definition.build;
    let columns: Vec<Column> = found
        .iter()
        .filter(|(name, _, _)| !name.starts_with('_'))
        .map(|(name, ty, not_null)| Column {
            name: name.clone(),
            ty: *ty,
            not_null: *not_null,
            private: definition.private.contains(name),
        })
        .collect();
    let place = |name: &String| columns.iter().position(|column| column.name == *name);
    let needed = |what: &str, name: &String| {
        place(name).ok_or_else(|| wrong(format!("{what} `{name}` is no column of build {build}")))
    };
    // What is offered: missing is wrong in the manifest's own build, and not offered by an older one.
    let offered = |what: &str, names: &[String]| -> Result<Vec<usize>, LoadError> {
        let mut places = Vec::new();
        for name in names {
            match needed(what, name) {
                Ok(at) if columns[at].ty == SqlType::Other => {
                    return Err(wrong(format!(
                        "{what} `{name}` has a type that cannot be compared"
                    )));
                }
                Ok(at) => places.push(at),
                Err(error) if own => return Err(error),
                Err(error) => tracing::warn!(%error, "not offered while that build is live"),
            }
        }
        Ok(places)
    };
    let key = definition.key.iter().map(|name| needed("key column", name));
    let key = key.collect::<Result<Vec<_>, _>>()?;
    if let Some(&at) = key.iter().find(|&&at| !columns[at].not_null) {
        let what = format!("key column `{}` can be null: make it NOT NULL", columns[at].name);
        return Err(wrong(what));
    }
    let owner = definition.owner.as_ref().map(|name| needed("owner", name));
    if own {
        for name in &definition.private {
            needed("private column", name)?;
        }
    }
    for (name, expansion) in &definition.expand {
        needed("expansion column", &expansion.column)?;
        if place(name).is_some() {
            return Err(wrong(format!("expansion `{name}` has the name of a column")));
        }
    }
    let has_version = found.iter().any(|(name, _, _)| name == "_version");
    if definition.versioned && !has_version {
        return Err(wrong(format!("build {build} has no column `_version`")));
    }
    let (filter, sort) = (
        offered("filter", &definition.filter)?,
        offered("sort", &definition.sort)?,
    );
    Ok(Resource {
        counted: Counted::of(&definition.resource),
        definition: Arc::clone(definition),
        build,
        owner: owner.transpose()?,
        columns,
        key,
        filter,
        sort,
    })
}

/// Lets Postgres read the condition, without reading a row.
async fn check_condition(pool: &PgPool, resource: &Resource) -> Result<(), LoadError> {
    let definition = &resource.definition;
    let sql = format!(
        "SELECT 1 FROM {} AS \"{}\" WHERE ({}) LIMIT 0",
        resource.table_sql(),
        definition.table,
        definition.condition
    );
    match sqlx::query(AssertSqlSafe(sql)).execute(pool).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(answer)) if answer.code().is_some_and(|code| code.starts_with("42")) => {
            Err(LoadError::Wrong {
                resource: definition.resource.clone(),
                what: format!("its condition cannot be used: {}", answer.message()),
            })
        }
        Err(error) => Err(error.into()),
    }
}

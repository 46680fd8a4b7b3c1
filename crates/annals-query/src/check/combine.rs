//! Combinations of filters, sorts, pages and rights, as the planner sees them with the data that are there.
//!
//! What is looked for is a table read from end to end. With a filter that lets few rows through and a sort of another
//! column there are two honest plans (the filter's index and a sort of what it finds, or the sort's index and a look
//! at each row) and the planner chooses by its statistics; both begin at an index.

use std::sync::Arc;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool, Row};

use super::{Unserved, children, plan};
use crate::queries::Limits;
use crate::request::{Prepared, Request};
use crate::{Access, CursorKey, QueryError, Resource, Resources, Scope, sql};

/// Operators that an index can begin at.
const COMPARED: [&str; 6] = ["eq", "gt", "gte", "lt", "lte", "in"];

/// What a look at all combinations found.
#[derive(Debug, Default)]
pub struct Survey {
    /// How many plans were looked at.
    pub plans: usize,
    /// Those that read a table from end to end.
    pub unserved: Vec<Unserved>,
}

/// Looks at the plans of every offered filter alone and every two of them, with every sort and without, on a first and
/// a later page, for a caller of all rows and for an owner, expansions included. Values are taken from the middle of
/// each column, so the tables should be large and analyzed.
///
/// # Errors
/// If a statement cannot be planned: a defect.
pub async fn survey(pool: &PgPool, resources: &Resources, key: &CursorKey) -> Result<Survey, QueryError> {
    let mut survey = Survey::default();
    for definition in resources.definitions() {
        let resource = resources.get(&definition.resource)?;
        let values = Values::read(pool, &resource).await?;
        for (query, request, later) in values.requests(&resource) {
            let mut prepared = Prepared::new(Arc::new(request), resources, key, &Limits::default())?;
            if later {
                prepared.begin_behind_something();
            }
            let mut connection = pool.acquire().await?;
            let plan = plan(&mut connection, sql::statement(&prepared), "FORMAT JSON").await?;
            survey.plans += 1;
            let expanded = prepared.expand.iter().map(|expanded| &expanded.resource);
            let tables: Vec<&str> = std::iter::once(&prepared.resource)
                .chain(expanded)
                .map(|resource| resource.definition.table.as_str())
                .collect();
            if let Some(table) = scanned(&plan[0]["Plan"], &tables) {
                survey.unserved.push(Unserved {
                    resource: definition.resource.clone(),
                    query,
                    plan: format!("Seq Scan on {table}"),
                });
            }
        }
    }
    Ok(survey)
}

/// A value from the middle of each column that may be asked for; none if it has none.
struct Values {
    of: Vec<(usize, String)>,
    owner: Option<String>,
}

impl Values {
    async fn read(pool: &PgPool, resource: &Resource) -> Result<Self, QueryError> {
        let mut of = Vec::new();
        for &at in &resource.filter {
            if let Some(value) = middle(pool, resource, at).await? {
                of.push((at, value));
            }
        }
        let owner = match resource.owner {
            Some(at) => middle(pool, resource, at).await?,
            None => None,
        };
        Ok(Self { of, owner })
    }

    fn requests(&self, resource: &Resource) -> Vec<(String, Request, bool)> {
        let name = &resource.definition.resource;
        let mut scopes = vec![("", Access::all())];
        if let Some(owner) = &self.owner {
            scopes.push((" of an owner", Access::own(owner)));
        }
        let mut requests = Vec::new();
        for (who, access) in scopes {
            let mut scope = Scope::default().with(name, access);
            for expansion in resource.definition.expand.values() {
                scope = scope.with(&expansion.resource, Access::all());
            }
            let mut list = Request::list(name, scope);
            if !resource.definition.expand.is_empty() {
                let names: Vec<_> = resource.definition.expand.keys().map(String::as_str).collect();
                list = list.with("expand", &names.join(","));
            }
            for filters in self.filters(resource) {
                for sort in sorts(resource) {
                    let parameters = filters.iter().chain(&sort);
                    let request = parameters.fold(list.clone(), |list, (name, value)| list.with(name, value));
                    let text: Vec<_> = filters
                        .iter()
                        .chain(&sort)
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect();
                    for later in [false, true] {
                        let page = if later { " later" } else { "" };
                        requests.push((format!("{}{who}{page}", text.join("&")), request.clone(), later));
                    }
                }
            }
        }
        requests
    }

    /// No filter, each with every operator that an index can begin at, and every two that compare for equality.
    fn filters(&self, resource: &Resource) -> Vec<Vec<(String, String)>> {
        let column = |at: usize| &resource.columns[at];
        let mut all = vec![Vec::new()];
        for (at, value) in &self.of {
            for operator in COMPARED {
                all.push(vec![(format!("{}.{operator}", column(*at).name), value.clone())]);
            }
            if !column(*at).not_null {
                all.push(vec![(format!("{}.is", column(*at).name), "null".to_owned())]);
            }
        }
        for (number, (first, value)) in self.of.iter().enumerate() {
            for (second, other) in &self.of[number + 1..] {
                all.push(vec![
                    (column(*first).name.clone(), value.clone()),
                    (column(*second).name.clone(), other.clone()),
                ]);
            }
        }
        all
    }
}

/// No sort, and each offered one in both directions.
fn sorts(resource: &Resource) -> Vec<Option<(String, String)>> {
    let both = resource.sort.iter().flat_map(|&at| {
        let name = &resource.columns[at].name;
        [name.clone(), format!("-{name}")]
    });
    let some = both.map(|sort| Some(("sort".to_owned(), sort)));
    std::iter::once(None).chain(some).collect()
}

async fn middle(pool: &PgPool, resource: &Resource, at: usize) -> Result<Option<String>, QueryError> {
    let (table, column) = (resource.table_sql(), &resource.columns[at]);
    let place = format!("\"{}\"", column.name);
    let sql = format!(
        "SELECT {} FROM {table} WHERE {place} IS NOT NULL ORDER BY {place}
         OFFSET (SELECT count({place}) / 2 FROM {table}) LIMIT 1",
        column.ty.exact(&place)
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_optional(pool).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// The first of these tables that a plan reads from end to end.
fn scanned(node: &Value, tables: &[&str]) -> Option<String> {
    let relation = node["Relation Name"].as_str().unwrap_or_default();
    if node["Node Type"] == "Seq Scan" && tables.contains(&relation) {
        return Some(relation.to_owned());
    }
    children(node).find_map(|child| scanned(child, tables))
}

//! Whether every offered filter and sort is served by an index: asks Postgres for the plans of the very statements
//! that would run.
//!
//! Small tables are read whole whatever indexes they have, so sequential scans and full sorts are made unattractive
//! first; a plan that has one all the same has no index to use.

use std::sync::Arc;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::queries::Limits;
use crate::request::{Prepared, Request};
use crate::sql::{self, Bind};
use crate::value::SqlType;
use crate::{Access, CursorKey, QueryError, Resource, Resources, Scope};

/// An offered filter, sort or key that no index serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// The resource.
    pub resource: String,
    /// The query string: `status=…`, `sort=-total`, or `key`.
    pub query: String,
    /// What the plan does instead: `Seq Scan on orders`.
    pub plan: String,
}

/// Every offered filter, sort (both directions, first and later pages) and key of every resource that no index serves.
///
/// # Errors
/// If a statement cannot be planned: a defect.
pub async fn unserved(pool: &PgPool, resources: &Resources, key: &CursorKey) -> Result<Vec<Unserved>, QueryError> {
    let mut unserved = Vec::new();
    for definition in resources.definitions() {
        let resource = resources.get(&definition.resource)?;
        for (query, request, cursor) in requests(&resource) {
            let mut prepared = Prepared::new(Arc::new(request), resources, key, &Limits::default())?;
            if cursor {
                prepared.begin_behind_something();
            }
            let plan = explain(pool, &prepared).await?;
            if let Some(plan) = fault(&plan[0]["Plan"], &resource.definition.table) {
                unserved.push(Unserved {
                    resource: definition.resource.clone(),
                    query,
                    plan,
                });
            }
        }
    }
    Ok(unserved)
}

/// What a caller may send, as text, as a request, and whether it is a later page.
fn requests(resource: &Resource) -> Vec<(String, Request, bool)> {
    let name = &resource.definition.resource;
    let scope = || Scope::default().with(name, Access::all());
    let list = || Request::list(name, scope());
    let key: Vec<_> = resource.key.iter().map(|&at| some_value(resource.columns[at].ty)).collect();
    let mut requests = vec![
        ("key".to_owned(), Request::row(name, key.join(","), scope()), false),
        ("cursor=…".to_owned(), list(), true),
    ];
    for &at in &resource.filter {
        let column = &resource.columns[at];
        let request = list().with(&column.name, some_value(column.ty));
        requests.push((format!("{}=…", column.name), request, false));
    }
    for &at in &resource.sort {
        for direction in ["", "-"] {
            let sort = format!("{direction}{}", resource.columns[at].name);
            for cursor in [false, true] {
                let query = if cursor { format!("sort={sort}&cursor=…") } else { format!("sort={sort}") };
                requests.push((query, list().with("sort", &sort), cursor));
            }
        }
    }
    requests
}

/// A value of each type.
pub(crate) fn some_value(ty: SqlType) -> &'static str {
    match ty {
        SqlType::Uuid => "0192f000-0000-7000-8000-000000000000",
        SqlType::Text | SqlType::Char | SqlType::Other => "x",
        SqlType::SmallInt | SqlType::Int | SqlType::BigInt | SqlType::Numeric | SqlType::Double => "1",
        SqlType::Bool => "true",
        SqlType::Date => "1996-01-02",
        SqlType::Timestamptz | SqlType::Timestamp => "1996-01-02T00:00:00.000000Z",
    }
}

async fn explain(pool: &PgPool, prepared: &Prepared) -> Result<Value, QueryError> {
    let statement = sql::statement(prepared);
    let mut transaction = pool.begin().await?;
    for setting in ["enable_seqscan", "enable_sort", "enable_bitmapscan"] {
        sqlx::query("SELECT set_config($1, 'off', true)")
            .bind(setting)
            .execute(&mut *transaction)
            .await?;
    }
    let explain = format!("EXPLAIN (FORMAT JSON) {}", statement.sql);
    let mut query = sqlx::query(AssertSqlSafe(explain));
    for bind in statement.binds {
        query = match bind {
            Bind::Text(text) => query.bind(text),
            Bind::Texts(texts) => query.bind(texts),
            Bind::Number(number) => query.bind(number),
        };
    }
    let row = query.fetch_one(&mut *transaction).await?;
    let plan = row.try_get(0)?;
    transaction.rollback().await?;
    Ok(plan)
}

/// The first node that reads all of the table: a scan without a condition on its index below a full sort, or a
/// sequential scan.
fn fault(node: &Value, table: &str) -> Option<String> {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    if kind == "Seq Scan" && node["Relation Name"] == table {
        return Some(format!("Seq Scan on {table}"));
    }
    if kind == "Sort" && reads_all(node, table) {
        return Some(format!("Sort of all of {table}"));
    }
    if kind.starts_with("Index") && node["Relation Name"] == table && !node["Filter"].is_null() && !is_bound(node) {
        return Some(format!("{kind} of all of {table}, filtered"));
    }
    children(node).find_map(|child| fault(child, table))
}

/// Whether a node below gives the table's rows without a bound: an index without a condition and no limit over it.
fn reads_all(node: &Value, table: &str) -> bool {
    children(node).any(|child| {
        let kind = child["Node Type"].as_str().unwrap_or_default();
        let scan = child["Relation Name"] == table && !is_bound(child);
        kind != "Limit" && (scan || reads_all(child, table))
    })
}

fn is_bound(node: &Value) -> bool {
    !node["Index Cond"].is_null()
}

fn children(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

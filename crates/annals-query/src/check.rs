//! Whether every offered filter and sort is served by an index: asks Postgres for the plans of the very statements
//! that would run.
//!
//! Small tables are read whole whatever indexes they have, so sequential scans and full sorts are made unattractive
//! first; a plan that has one all the same has no index to use.

mod combine;

use std::sync::Arc;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

use crate::queries::Limits;
use crate::request::{Prepared, Request};
use crate::sql::{self, Bind, Statement};
use crate::value::SqlType;
use crate::{Access, CursorKey, QueryError, Resource, Resources, Scope};

pub use combine::{Survey, survey};

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

/// What a request is for, and so what its plan must be like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// The rows of a filter, or the row of a key: found by an index's condition.
    Found,
    /// A first page: read in order.
    First,
    /// A later page: read in order, begun by an index's condition.
    Later,
}

/// Every offered filter, sort (both directions, first and later pages) and key of every resource that no index serves.
///
/// # Errors
/// If a statement cannot be planned: a defect.
pub async fn unserved(
    pool: &PgPool,
    resources: &Resources,
    key: &CursorKey,
) -> Result<Vec<Unserved>, QueryError> {
    let mut unserved = Vec::new();
    for definition in resources.definitions() {
        let resource = resources.get(&definition.resource)?;
        for (query, request, ask) in requests(&resource) {
            let mut prepared = Prepared::new(Arc::new(request), resources, key, &Limits::default())?;
            if ask == Ask::Later {
                prepared.begin_behind_something();
            }
            let plan = explain(pool, &prepared, ask).await?;
            if let Some(plan) = fault(&plan[0]["Plan"], &definition.table, ask) {
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

/// What a caller may send, as text and as a request.
fn requests(resource: &Resource) -> Vec<(String, Request, Ask)> {
    let name = &resource.definition.resource;
    let scope = || Scope::default().with(name, Access::all());
    let list = || Request::list(name, scope());
    let key: Vec<_> = resource
        .key
        .iter()
        .map(|&at| some_value(resource.columns[at].ty))
        .collect();
    let mut requests = vec![
        (
            "key".to_owned(),
            Request::row(name, key.join(","), scope()),
            Ask::Found,
        ),
        ("limit=…".to_owned(), list(), Ask::First),
        ("cursor=…".to_owned(), list(), Ask::Later),
    ];
    for &at in &resource.filter {
        let column = &resource.columns[at];
        let request = list().with(&column.name, some_value(column.ty));
        requests.push((format!("{}=…", column.name), request, Ask::Found));
    }
    for &at in &resource.sort {
        for direction in ["", "-"] {
            let sort = format!("{direction}{}", resource.columns[at].name);
            let request = list().with("sort", &sort);
            requests.push((format!("sort={sort}"), request.clone(), Ask::First));
            requests.push((format!("sort={sort}&cursor=…"), request, Ask::Later));
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

/// The cursor behind a row, whose sort column and key have these values: what the page that ends with it gives.
#[must_use]
pub fn cursor(key: &CursorKey, prepared: &Prepared, values: &[Option<String>]) -> String {
    key.seal(&prepared.query, values)
}

/// How many blocks running a request's statement reads, from memory or disk.
///
/// # Errors
/// As running it.
pub async fn blocks(pool: &PgPool, prepared: &Prepared) -> Result<i64, QueryError> {
    let mut connection = pool.acquire().await?;
    let options = "ANALYZE, BUFFERS, FORMAT JSON";
    let plan = plan(&mut connection, sql::statement(prepared), options).await?;
    let number = |key: &str| plan[0]["Plan"][key].as_i64().unwrap_or(0);
    Ok(number("Shared Hit Blocks") + number("Shared Read Blocks"))
}

async fn explain(pool: &PgPool, prepared: &Prepared, ask: Ask) -> Result<Value, QueryError> {
    let statement = match ask {
        Ask::Found => sql::filters_alone(prepared),
        Ask::First | Ask::Later => sql::statement(prepared),
    };
    let mut transaction = pool.begin().await?;
    for setting in ["enable_seqscan", "enable_sort", "enable_bitmapscan"] {
        sqlx::query("SELECT set_config($1, 'off', true)")
            .bind(setting)
            .execute(&mut *transaction)
            .await?;
    }
    let plan = plan(&mut transaction, statement, "FORMAT JSON").await?;
    transaction.rollback().await?;
    Ok(plan)
}

async fn plan(
    connection: &mut PgConnection,
    statement: Statement,
    options: &str,
) -> Result<Value, QueryError> {
    let sql = format!("EXPLAIN ({options}) {}", statement.sql);
    let query = statement
        .binds
        .into_iter()
        .fold(sqlx::query(AssertSqlSafe(sql)), Bind::add);
    Ok(query.fetch_one(connection).await?.try_get(0)?)
}

/// What is wrong with the first node that reads more of the table than it gives.
fn fault(node: &Value, table: &str, ask: Ask) -> Option<String> {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    if node["Relation Name"] == table {
        if kind == "Seq Scan" {
            return Some(format!("Seq Scan on {table}"));
        }
        if !is_bound(node) && ask != Ask::First {
            return Some(format!("{kind} of all of {table}"));
        }
    }
    if kind == "Sort" && reads_all(node, table) {
        return Some(format!("Sort of all of {table}"));
    }
    children(node).find_map(|child| fault(child, table, ask))
}

/// Whether the table's rows come from below without a limit.
fn reads_all(node: &Value, table: &str) -> bool {
    children(node)
        .filter(|child| child["Node Type"] != "Limit")
        .any(|child| child["Relation Name"] == table || reads_all(child, table))
}

fn is_bound(node: &Value) -> bool {
    !node["Index Cond"].is_null()
}

fn children(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

//! Rows as they are against rows as they should be, column by column.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgPool};

use super::{Case, CheckError};
use crate::build::{VERSION_COLUMN, quote};
use crate::compare::{Difference, key_of, text_of};
use crate::manifest::{Manifest, Table};

type Rows = BTreeMap<String, Map<String, Value>>;

pub(super) async fn differences(
    pool: &PgPool,
    manifest: &Manifest,
    case: &Case,
) -> Result<Vec<Difference>, CheckError> {
    let mut found = Vec::new();
    for (name, rows) in &case.then {
        if manifest.table(name).is_none() {
            found.push(Difference {
                table: name.clone(),
                key: "this projection has no such table".to_owned(),
                column: None,
                expected: Some(Value::from(rows.len())),
                actual: None,
            });
        }
    }
    let columns = crate::build::describe_columns(pool, manifest).await?;
    for table in &manifest.tables {
        let expected = case.then.get(&table.name).map_or(&[][..], Vec::as_slice);
        let known = columns.get(&table.name);
        for (row, column) in expected
            .iter()
            .flat_map(|row| row.keys().map(move |column| (row, column)))
        {
            if known.is_none_or(|known| !known.contains_key(column)) {
                found.push(Difference {
                    table: table.name.clone(),
                    key: key_of(table, row),
                    column: Some(column.clone()),
                    expected: Some(Value::from("no such column: remove it from `then`")),
                    actual: None,
                });
            }
        }
        let actual = actual_rows(pool, manifest, table).await?;
        let expected = expected_rows(pool, manifest, table, expected).await?;
        versions(table, &actual, case, &mut found);
        rows(table, &expected, &actual, &mut found);
    }
    Ok(found)
}

async fn actual_rows(pool: &PgPool, manifest: &Manifest, table: &Table) -> Result<Rows, CheckError> {
    let sql = format!("SELECT to_jsonb(t) FROM {} t", name_of(manifest, table));
    let rows: Vec<Json<Map<String, Value>>> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(pool).await?;
    Ok(keyed(table, rows))
}

/// The test's rows as Postgres itself would print them, so that `1.50` and `1.5`, `Z` and `+00:00` are the same.
async fn expected_rows(
    pool: &PgPool,
    manifest: &Manifest,
    table: &Table,
    rows: &[Map<String, Value>],
) -> Result<Rows, CheckError> {
    let sql = format!(
        "SELECT to_jsonb(r) FROM jsonb_populate_recordset(NULL::{}, $1) r",
        name_of(manifest, table)
    );
    let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(Json(rows));
    let rows: Vec<Json<Map<String, Value>>> = query.fetch_all(pool).await?;
    Ok(keyed(table, rows))
}

fn name_of(manifest: &Manifest, table: &Table) -> String {
    format!("{}.{}", quote(&manifest.id.schema()), quote(&table.name))
}

fn keyed(table: &Table, rows: Vec<Json<Map<String, Value>>>) -> Rows {
    rows.into_iter()
        .map(|Json(row)| (key_of(table, &row), row))
        .collect()
}

fn versions(table: &Table, actual: &Rows, case: &Case, found: &mut Vec<Difference>) {
    let Some(template) = &table.stream else { return };
    let versions = case.versions();
    for (key, row) in actual {
        let stream = format!("{}-{}", template.category, text_of(row.get(&template.column)));
        let expected = versions.get(stream.as_str()).copied().map(Value::from);
        let actual = row.get(VERSION_COLUMN).cloned();
        if expected != actual {
            found.push(Difference {
                table: table.name.clone(),
                key: key.clone(),
                column: Some(VERSION_COLUMN.to_owned()),
                expected,
                actual,
            });
        }
    }
}

fn rows(table: &Table, expected: &Rows, actual: &Rows, found: &mut Vec<Difference>) {
    let mut add = |key: &String, column: Option<&String>, expected: Option<Value>, actual: Option<Value>| {
        found.push(Difference {
            table: table.name.clone(),
            key: key.clone(),
            column: column.cloned(),
            expected,
            actual,
        });
    };
    for (key, row) in expected {
        let Some(there) = actual.get(key) else {
            add(key, None, Some(Value::Object(row.clone())), None);
            continue;
        };
        for (column, value) in row.iter().filter(|(column, _)| *column != VERSION_COLUMN) {
            let actual = there.get(column);
            if actual != Some(value) {
                add(key, Some(column), Some(value.clone()), actual.cloned());
            }
        }
    }
    for (key, row) in actual.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        add(key, None, None, Some(Value::Object(row.clone())));
    }
}

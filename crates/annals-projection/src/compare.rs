//! Two builds' tables compared row by row, inside the database, in the snapshot of one transaction.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::build::{self, BuildError, Columns, quote};
use crate::manifest::{Manifest, Table};

/// At most so many rows that differ are told of each table; all are counted.
pub const ROWS_TOLD: u32 = 1_000;

/// What stands in the place of a private column's value.
const HIDDEN: &str = "(private)";

/// One place where rows differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The row's key, its columns joined by a comma.
    pub key: String,
    /// The column; none if the whole row is missing or too many.
    pub column: Option<String>,
    /// What should be there; none: nothing.
    pub expected: Option<Value>,
    /// What is there; none: nothing.
    pub actual: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
        write!(f, "{} {}", self.table, self.key)?;
        if let Some(column) = &self.column {
            write!(f, ", {column}")?;
        }
        write!(
            f,
            ": expected {}, found {}",
            shown(&self.expected),
            shown(&self.actual)
        )
    }
}

/// What came of comparing two builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Table by table.
    pub tables: Vec<TableComparison>,
    /// Where rows differ, at most [`ROWS_TOLD`] rows a table.
    pub differences: Vec<Difference>,
}

/// What came of comparing one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableComparison {
    /// The table.
    pub table: String,
    /// How many rows should be there.
    pub expected_rows: i64,
    /// How many rows are there.
    pub actual_rows: i64,
    /// How many rows are missing, too many, or different in a column that both have.
    pub differing_rows: i64,
    /// Tables and columns that only one of the two has, as sentences.
    pub shape: Vec<String>,
}

impl Comparison {
    /// Whether nothing differs: neither rows nor shape.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.tables
            .iter()
            .all(|table| table.differing_rows == 0 && table.shape.is_empty())
    }
}

/// Compares all tables of two builds as the connection's transaction sees them: with `REPEATABLE READ`, at one moment.
/// Values of private columns are not told.
///
/// # Errors
/// [`BuildError`]: Postgres.
pub async fn compare(
    connection: &mut PgConnection,
    expected: &Manifest,
    actual: &Manifest,
) -> Result<Comparison, BuildError> {
    let columns = (
        build::describe(connection, expected).await?,
        build::describe(connection, actual).await?,
    );
    let mut found = Comparison::default();
    let names: BTreeSet<&str> = [expected, actual]
        .iter()
        .flat_map(|manifest| manifest.tables.iter().map(|table| table.name.as_str()))
        .collect();
    for name in names {
        let mut of_table = TableComparison {
            table: name.to_owned(),
            ..TableComparison::default()
        };
        match (expected.table(name), actual.table(name)) {
            (Some(left), Some(right)) if left.key == right.key => {
                let common = common(name, &columns, &mut of_table.shape);
                let pair = Pair {
                    expected,
                    actual,
                    left,
                    right,
                };
                pair.rows(connection, &common, &mut of_table, &mut found.differences)
                    .await?;
            }
            (Some(left), Some(right)) => of_table.shape.push(format!(
                "its key was ({}) and is ({}): rows cannot be compared",
                left.key.join(", "),
                right.key.join(", ")
            )),
            (Some(_), None) => of_table.shape.push("the table is missing".to_owned()),
            (None, _) => of_table.shape.push("the table is new".to_owned()),
        }
        found.tables.push(of_table);
    }
    Ok(found)
}

/// The columns that both have; what only one has is told.
fn common(table: &str, columns: &(Columns, Columns), shape: &mut Vec<String>) -> Vec<String> {
    let (Some(left), Some(right)) = (columns.0.get(table), columns.1.get(table)) else {
        return Vec::new();
    };
    for column in left.keys().filter(|column| !right.contains_key(*column)) {
        shape.push(format!("column `{column}` is missing"));
    }
    for column in right.keys().filter(|column| !left.contains_key(*column)) {
        shape.push(format!("column `{column}` is new"));
    }
    left.keys()
        .filter(|column| right.contains_key(*column))
        .cloned()
        .collect()
}

struct Pair<'a> {
    expected: &'a Manifest,
    actual: &'a Manifest,
    left: &'a Table,
    right: &'a Table,
}

type Object = Json<Map<String, Value>>;

impl Pair<'_> {
    async fn rows(
        &self,
        connection: &mut PgConnection,
        common: &[String],
        of_table: &mut TableComparison,
        differences: &mut Vec<Difference>,
    ) -> Result<(), BuildError> {
        let (left, right) = (place(self.expected, self.left), place(self.actual, self.right));
        let columns: Vec<String> = common.iter().map(|column| quote(column)).collect();
        let columns = columns.join(", ");
        let keys = self.left.key.iter().map(|column| {
            let column = quote(column);
            format!("a.{column} = b.{column}")
        });
        let keys = keys.collect::<Vec<_>>().join(" AND ");
        let counts = format!("SELECT (SELECT count(*) FROM {left}), (SELECT count(*) FROM {right})");
        let counts: (i64, i64) = sqlx::query_as(AssertSqlSafe(counts))
            .fetch_one(&mut *connection)
            .await?;
        (of_table.expected_rows, of_table.actual_rows) = counts;
        let sql = format!(
            "SELECT e, f, count(*) OVER () FROM (
                 SELECT to_jsonb(a) AS e, to_jsonb(b) AS f
                 FROM (SELECT {columns} FROM {left}) AS a FULL JOIN (SELECT {columns} FROM {right}) AS b ON {keys}
             ) AS pair WHERE e IS DISTINCT FROM f ORDER BY coalesce(e, f) LIMIT {ROWS_TOLD}"
        );
        let rows: Vec<(Option<Object>, Option<Object>, i64)> =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(connection).await?;
        of_table.differing_rows = rows.first().map_or(0, |(.., count)| *count);
        for (expected, actual, _) in rows {
            self.row(expected, actual, differences);
        }
        Ok(())
    }

    fn row(&self, expected: Option<Object>, actual: Option<Object>, differences: &mut Vec<Difference>) {
        let key = expected.as_ref().or(actual.as_ref());
        let key = key.map(|Json(row)| key_of(self.left, row)).unwrap_or_default();
        let mut tell = |column: Option<&String>, expected: Option<Value>, actual: Option<Value>| {
            differences.push(Difference {
                table: self.left.name.clone(),
                key: key.clone(),
                column: column.cloned(),
                expected,
                actual,
            });
        };
        match (expected, actual) {
            (Some(Json(expected)), Some(Json(actual))) => {
                for (column, value) in &expected {
                    let other = actual.get(column);
                    if other != Some(value) {
                        let shown = |value: &Value| self.shown(column, value.clone());
                        tell(Some(column), Some(shown(value)), other.map(shown));
                    }
                }
            }
            (expected, actual) => tell(
                None,
                expected.map(|Json(row)| self.whole(row)),
                actual.map(|Json(row)| self.whole(row)),
            ),
        }
    }

    fn whole(&self, row: Map<String, Value>) -> Value {
        let shown = row.into_iter().map(|(column, value)| {
            let value = self.shown(&column, value);
            (column, value)
        });
        Value::Object(shown.collect())
    }

    fn shown(&self, column: &String, value: Value) -> Value {
        let private = self.left.private.contains(column) || self.right.private.contains(column);
        if private && !value.is_null() {
            return Value::from(HIDDEN);
        }
        value
    }
}

fn place(manifest: &Manifest, table: &Table) -> String {
    format!("{}.{}", quote(&manifest.id.schema()), quote(&table.name))
}

/// A row's key as text, its columns joined by a comma.
pub(crate) fn key_of(table: &Table, row: &Map<String, Value>) -> String {
    let parts: Vec<String> = table.key.iter().map(|column| text_of(row.get(column))).collect();
    parts.join(",")
}

pub(crate) fn text_of(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

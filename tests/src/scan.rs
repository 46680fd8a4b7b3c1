//! Searching all that was stored and written for a text that must not be there.

use std::path::Path;

use sqlx::{AssertSqlSafe, PgPool, Row};

/// Where `needle` stands in any table of these schemas, or of all with `%`: `schema.table.column (n rows)`. Bytes are
/// searched as they are, also where they are JSON in a `bytea`.
///
/// # Panics
/// If the database cannot be read.
pub async fn tables(pool: &PgPool, schema: &str, needle: &str) -> Vec<String> {
    let columns = sqlx::query(
        "SELECT table_schema::text, table_name::text, column_name::text, data_type::text
         FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
         WHERE table_type = 'BASE TABLE' AND table_schema LIKE $1
           AND table_schema NOT IN ('pg_catalog', 'information_schema')",
    );
    let columns = columns
        .bind(schema)
        .fetch_all(pool)
        .await
        .expect("the catalog can be read");
    assert!(!columns.is_empty(), "no table to search in schema {schema}");
    let mut found = Vec::new();
    for column in columns {
        let [schema, table, name, kind] = std::array::from_fn(|at| column.get::<String, _>(at));
        let (place, needle_sql) = match kind.as_str() {
            "bytea" => (format!("\"{name}\""), "convert_to($1, 'UTF8')"),
            _ => (
                format!("convert_to(\"{name}\"::text, 'UTF8')"),
                "convert_to($1, 'UTF8')",
            ),
        };
        let sql = format!(
            "SELECT count(*) FROM \"{schema}\".\"{table}\" WHERE position({needle_sql} IN {place}) > 0"
        );
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(needle)
            .fetch_one(pool)
            .await
            .unwrap_or_else(|error| panic!("{schema}.{table}.{name}: {error}"));
        if count > 0 {
            found.push(format!("{schema}.{table}.{name} ({count} rows)"));
        }
    }
    found
}

/// The files under a folder that hold `needle`.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn files(folder: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("the folder can be read")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path)
                && contains(&bytes, needle.as_bytes())
            {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// Whether the bytes stand in there.
#[must_use]
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

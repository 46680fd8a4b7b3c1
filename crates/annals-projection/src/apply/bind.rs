//! The relation `events`: arrays, one for each column, that a statement sees as rows.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Postgres};
use std::sync::Arc;
use uuid::Uuid;

use super::events::encoded;
use super::plan::Statement;
use super::{ApplyError, Prepared};
use crate::manifest::sql;

/// The columns of `events` with their types, in the design's order.
const COLUMNS: [(&str, &str); 9] = [
    ("stream", "text"),
    ("key", "text"),
    ("version", "bigint"),
    ("shard", "int"),
    ("log_offset", "bigint"),
    ("event_id", "uuid"),
    ("occurred_at", "timestamptz"),
    ("actor", "text"),
    ("data", "jsonb"),
];

/// Every column, in parameters from this number on: what a statement is checked against.
pub(crate) fn whole_relation_from(number: usize) -> String {
    relation_from(number, &COLUMNS.map(|(name, _)| name))
}

/// What stands between `WITH events AS (` and `)`. A column that is not read is not sent.
pub(super) fn relation(read: &[&str]) -> String {
    relation_from(1, read)
}

/// The same with the parameters from this number on.
pub(crate) fn relation_from(number: usize, read: &[&str]) -> String {
    let read: Vec<_> = COLUMNS.iter().filter(|(name, _)| read.contains(name)).collect();
    let arrays: Vec<String> = read
        .iter()
        .zip(number..)
        .map(|((_, sql_type), number)| format!("${number}::{sql_type}[]"))
        .collect();
    let names: Vec<&str> = read.iter().map(|(name, _)| *name).collect();
    format!(
        "SELECT * FROM UNNEST({}) AS e({})",
        arrays.join(", "),
        names.join(", ")
    )
}

/// The columns that a statement reads; at least one, since they make the rows.
pub(crate) fn columns_read(statement: &str) -> Vec<&'static str> {
    let read = sql::columns_read(statement, &COLUMNS.map(|(name, _)| name));
    if read.is_empty() { vec!["version"] } else { read }
}

/// Some events by column.
#[derive(Default)]
pub(crate) struct Columns<'a> {
    stream: Vec<&'a str>,
    key: Vec<&'a str>,
    version: Vec<i64>,
    shard: Vec<i32>,
    offset: Vec<i64>,
    id: Vec<Uuid>,
    occurred_at: Vec<DateTime<Utc>>,
    actor: Vec<&'a str>,
    data: Vec<Json<&'a RawValue>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(prepared: &'a Prepared, at: &[usize]) -> Result<Self, ApplyError> {
        let mut columns = Self::default();
        for &at in at {
            let Some(event) = prepared.events.get(at) else {
                continue;
            };
            let Some(decoded) = event.decoded() else { continue };
            let entry = &*event.entry;
            columns.stream.push(entry.stream.as_str());
            columns.key.push(entry.stream.key());
            columns.version.push(encoded(i64::try_from(decoded.version))?);
            columns.shard.push(encoded(i32::try_from(event.shard))?);
            columns.offset.push(encoded(i64::try_from(event.offset))?);
            columns.id.push(decoded.id.get());
            columns.occurred_at.push(entry.time);
            columns.actor.push(&entry.actor.sub);
            columns.data.push(Json(prepared.data(at, decoded)));
        }
        Ok(columns)
    }

    /// A statement with the arrays that it reads, prepared once a connection.
    pub(super) fn bind(&self, statement: &Statement) -> Query<'_, Postgres, PgArguments> {
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&statement.sql)));
        self.bind_to(query, &statement.read)
    }

    /// Adds the arrays of these columns to a query.
    pub(crate) fn bind_to<'q>(
        &'q self,
        query: Query<'q, Postgres, PgArguments>,
        read: &[&str],
    ) -> Query<'q, Postgres, PgArguments> {
        read.iter().fold(query, |query, column| match *column {
            "stream" => query.bind(&self.stream),
            "key" => query.bind(&self.key),
            "version" => query.bind(&self.version),
            "shard" => query.bind(&self.shard),
            "log_offset" => query.bind(&self.offset),
            "event_id" => query.bind(&self.id),
            "occurred_at" => query.bind(&self.occurred_at),
            "actor" => query.bind(&self.actor),
            _ => query.bind(&self.data),
        })
    }
}

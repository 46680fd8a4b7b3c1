//! The relation `events`: arrays, one for each column, that a statement sees as rows.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::postgres::PgArguments;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Postgres};
use std::sync::Arc;
use uuid::Uuid;

use super::events::encoded;
use super::{ApplyError, Prepared};

/// What stands between `WITH events AS (` and `)`.
pub(crate) const RELATION: &str = "SELECT * FROM UNNEST($1::text[], $2::text[], $3::bigint[], $4::int[], \
    $5::bigint[], $6::uuid[], $7::timestamptz[], $8::text[], $9::jsonb[]) \
    AS e(stream, key, version, shard, log_offset, event_id, occurred_at, actor, data)";

/// Some events by column.
#[derive(Default)]
pub(super) struct Columns<'a> {
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
    pub(super) fn of(prepared: &'a Prepared, at: &[usize]) -> Result<Self, ApplyError> {
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

    /// The statement with its arrays, prepared once a connection.
    pub(super) fn bind(&self, sql: Arc<str>) -> sqlx::query::Query<'_, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(sql))
            .bind(&self.stream)
            .bind(&self.key)
            .bind(&self.version)
            .bind(&self.shard)
            .bind(&self.offset)
            .bind(&self.id)
            .bind(&self.occurred_at)
            .bind(&self.actor)
            .bind(&self.data)
    }
}

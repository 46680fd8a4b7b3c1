//! The rows of the search table, and the shapes of records that they refer to.

use std::collections::{BTreeMap, BTreeSet};

use annals_log::{Accepted, Batch};
use annals_record::Shard;
use annals_record::record::Kind;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// What many records have in common and are searched by: a few hundred of them exist, however long the log is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    kind: i16,
    /// Empty for claims and closes.
    category: Box<str>,
    /// The types of the events, each once, in the order of their names, joined by a blank, which they never hold:
    /// Postgres has no arrays of arrays of different lengths.
    types: Box<str>,
}

impl Shape {
    fn of(accepted: &Accepted) -> Self {
        let record = accepted.record();
        let mut types: Vec<&str> = match accepted.entry().map(|entry| &entry.outcome) {
            Some(Ok(events)) => events.iter().map(|event| &*event.event_type).collect(),
            Some(Err(_)) | None => Vec::new(),
        };
        types.sort_unstable();
        types.dedup();
        Self {
            kind: match record.kind() {
                Kind::Commit => 1,
                Kind::Refusal => 2,
                Kind::Claim => 3,
                Kind::Close => 4,
            },
            category: record
                .stream
                .as_ref()
                .map_or("", |stream| stream.category())
                .into(),
            types: types.join(" ").into(),
        }
    }
}

/// The numbers of the shapes that this node has met. A shape never gets another number.
#[derive(Debug, Default)]
pub(super) struct Shapes(BTreeMap<Shape, i32>);

impl Shapes {
    /// Learns the numbers of these shapes; new ones get theirs, in a transaction of their own.
    async fn learn(&mut self, pool: &PgPool, shapes: &BTreeSet<Shape>) -> Result<(), sqlx::Error> {
        let unknown: Vec<&Shape> = shapes
            .iter()
            .filter(|shape| !self.0.contains_key(shape))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let kinds: Vec<i16> = unknown.iter().map(|shape| shape.kind).collect();
        let categories: Vec<&str> = unknown.iter().map(|shape| &*shape.category).collect();
        let types: Vec<&str> = unknown.iter().map(|shape| &*shape.types).collect();
        sqlx::query(
            "INSERT INTO annals.audit_shape (kind, category, types)
             SELECT kind, category, string_to_array(types, ' ')
             FROM UNNEST($1::smallint[], $2::text[], $3::text[]) AS s(kind, category, types)
             ON CONFLICT (kind, category, types) DO NOTHING",
        )
        .bind(&kinds)
        .bind(&categories)
        .bind(&types)
        .execute(pool)
        .await?;
        let numbers: Vec<i32> = sqlx::query_scalar(
            "SELECT known.shape
             FROM UNNEST($1::smallint[], $2::text[], $3::text[]) WITH ORDINALITY AS s(kind, category, types, n)
             JOIN annals.audit_shape known
               ON known.kind = s.kind AND known.category = s.category
              AND known.types = string_to_array(s.types, ' ')
             ORDER BY n",
        )
        .bind(&kinds)
        .bind(&categories)
        .bind(&types)
        .fetch_all(pool)
        .await?;
        if numbers.len() != unknown.len() {
            return Err(sqlx::Error::RowNotFound);
        }
        self.0.extend(unknown.into_iter().cloned().zip(numbers));
        Ok(())
    }
}

/// Rows by column, as `UNNEST` takes them, in the order of their places.
#[derive(Default)]
pub(super) struct Rows<'a> {
    records: Vec<Uuid>,
    times: Vec<DateTime<Utc>>,
    offsets: Vec<i64>,
    shards: Vec<i32>,
    shapes: Vec<i32>,
    actors: Vec<Option<&'a str>>,
}

impl<'a> Rows<'a> {
    /// The rows of these batches, each of another shard, in the order of the shards.
    pub(super) async fn of(
        pool: &PgPool,
        shapes: &mut Shapes,
        batches: &[&'a Batch],
    ) -> Result<Self, sqlx::Error> {
        let all = || {
            batches
                .iter()
                .flat_map(|batch| batch.records.iter().map(|one| (batch.shard, one)))
        };
        let of_rows: Vec<Shape> = all().map(|(_, accepted)| Shape::of(accepted)).collect();
        shapes.learn(pool, &of_rows.iter().cloned().collect()).await?;
        let mut rows = Self::default();
        for ((shard, accepted), shape) in all().zip(&of_rows) {
            let shape = shapes.0.get(shape).ok_or(sqlx::Error::RowNotFound)?;
            rows.push(shard, accepted, *shape);
        }
        Ok(rows)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    fn push(&mut self, shard: Shard, accepted: &'a Accepted, shape: i32) {
        let record = accepted.record();
        self.records.push(record.id().get());
        self.times
            .push(DateTime::from_timestamp_millis(record.timestamp_ms).unwrap_or_default());
        self.offsets
            .push(i64::try_from(accepted.offset().get()).unwrap_or(i64::MAX));
        self.shards.push(i32::try_from(shard.get()).unwrap_or(i32::MAX));
        self.shapes.push(shape);
        self.actors.push(accepted.entry().map(|entry| &*entry.actor.sub));
    }

    pub(super) async fn insert(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.records.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO annals.audit_record (record, time, log_offset, shard, shape, actor)
             SELECT * FROM UNNEST($1::uuid[], $2::timestamptz[], $3::bigint[], $4::int[], $5::int[], $6::text[])",
        )
        .bind(self.records)
        .bind(self.times)
        .bind(self.offsets)
        .bind(self.shards)
        .bind(self.shapes)
        .bind(self.actors)
        .execute(connection)
        .await?;
        Ok(())
    }
}

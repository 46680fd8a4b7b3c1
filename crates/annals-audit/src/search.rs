//! Search over every accepted record, by a table of its own.

use std::collections::HashMap;

use annals_record::record::Record;
use annals_record::{Offset, Position, RecordId, Shard};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Postgres, QueryBuilder, Row};

use crate::{Audit, AuditError, Item, Page};

/// What to search for; everything that is given must hold.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The kind of aggregate.
    pub category: Option<String>,
    /// A type of event that the record holds.
    pub event_type: Option<String>,
    /// Who sent the command.
    pub actor: Option<String>,
    /// The kind of record.
    pub kind: Option<RecordKind>,
    /// Decided at or after.
    pub from: Option<DateTime<Utc>>,
    /// Decided before.
    pub to: Option<DateTime<Utc>>,
    /// Behind this record: a page's `next`.
    pub after: Option<String>,
}

/// The kind of a record, as auditors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A command's events.
    Commit,
    /// A rule's no.
    Refusal,
    /// The beginning of an ownership term.
    Claim,
    /// The end of a shard.
    Close,
}

impl RecordKind {
    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "commit" => Self::Commit,
            "refusal" => Self::Refusal,
            "claim" => Self::Claim,
            "close" => Self::Close,
            _ => return None,
        })
    }

    fn number(self) -> i16 {
        match self {
            Self::Commit => 1,
            Self::Refusal => 2,
            Self::Claim => 3,
            Self::Close => 4,
        }
    }
}

/// A cursor that no page gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`after` is not the `next` of a page")]
pub struct InvalidCursor;

/// Time in microseconds and place of the last record of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor(i64, i32, i64);

impl Cursor {
    fn parse(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (time, place) = bytes.split_first_chunk::<8>().ok_or(InvalidCursor)?;
        let (shard, offset) = place.split_first_chunk::<4>().ok_or(InvalidCursor)?;
        let offset = offset.try_into().map_err(|_| InvalidCursor)?;
        Ok(Self(
            i64::from_be_bytes(*time),
            i32::from_be_bytes(*shard),
            i64::from_be_bytes(offset),
        ))
    }

    fn write(self) -> String {
        let Self(time, shard, offset) = self;
        let (time, shard, offset) = (time.to_be_bytes(), shard.to_be_bytes(), offset.to_be_bytes());
        URL_SAFE_NO_PAD.encode([time.as_slice(), &shard, &offset].concat())
    }
}

impl Audit {
    /// Records by what is known of them, oldest first; those of one moment in the order of their places.
    ///
    /// # Errors
    /// [`AuditError::Cursor`], or the database.
    pub async fn records(&self, search: &Search, limit: u32) -> Result<Page, AuditError> {
        let mut query = statement("", search, i64::from(limit) + 1)?;
        let mut transaction = self.pool.begin().await?;
        by_index(&mut transaction).await?;
        let rows = query.build().fetch_all(&mut *transaction).await?;
        transaction.rollback().await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut places = Vec::new();
        for row in rows.iter().take(limit) {
            places.push(place(row)?);
        }
        let next = match rows.get(limit.saturating_sub(1)) {
            Some(last) if rows.len() > limit => {
                let time: DateTime<Utc> = last.try_get("time")?;
                let (shard, offset) = (last.try_get("shard")?, last.try_get("log_offset")?);
                Some(Cursor(time.timestamp_micros(), shard, offset).write())
            }
            _ => None,
        };
        let mut found = self.journal.records_at(&places).await?;
        let order: HashMap<(Shard, Offset), usize> = places.iter().copied().zip(0..).collect();
        found.sort_by_key(|(shard, offset, _)| order.get(&(*shard, *offset)).copied());
        let items = found
            .iter()
            .map(|(shard, offset, record)| Item::of(self.position(*shard, *offset), record));
        Ok(Page {
            data: items.collect::<Result<_, _>>()?,
            next,
        })
    }

    pub(crate) async fn find(&self, id: RecordId) -> Result<(Position, Record), AuditError> {
        let row = sqlx::query("SELECT shard, log_offset FROM annals.audit_record WHERE record = $1")
            .bind(id.get())
            .fetch_optional(&self.pool)
            .await?;
        let place = place(&row.ok_or(AuditError::NotFound("record"))?)?;
        let found = self.journal.records_at(&[place]).await?.pop();
        let (shard, offset, record) = found.ok_or(AuditError::NotFound("record"))?;
        Ok((self.position(shard, offset), record))
    }
}

/// Until the end of the transaction Postgres reads along an index or not at all: without statistics, or with old ones, it
/// believes that collecting and sorting all that matches is cheap.
async fn by_index(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
                set_config('jit', 'off', true)",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The places of the first `most` records that are searched for, behind `prefix` (a test's `EXPLAIN`).
///
/// Shape by shape the index gives the first ones in order, and the first of all of them are the answer: what is read
/// is bounded by shapes times `most`, however many records there are and however rare those that are searched for.
fn statement(prefix: &str, search: &Search, most: i64) -> Result<QueryBuilder<Postgres>, InvalidCursor> {
    let mut query = QueryBuilder::new(prefix);
    query.push(
        "SELECT r.time, r.shard, r.log_offset
         FROM annals.audit_shape s CROSS JOIN LATERAL (
             SELECT time, shard, log_offset FROM annals.audit_record WHERE shape = s.shape",
    );
    if let Some(actor) = &search.actor {
        query.push(" AND actor = ").push_bind(actor.clone());
    }
    if let Some(from) = search.from {
        query.push(" AND time >= ").push_bind(from);
    }
    if let Some(to) = search.to {
        query.push(" AND time < ").push_bind(to);
    }
    if let Some(after) = &search.after {
        let Cursor(micros, shard, offset) = Cursor::parse(after)?;
        let time = DateTime::from_timestamp_micros(micros).ok_or(InvalidCursor)?;
        query.push(" AND (time, shard, log_offset) > (").push_bind(time);
        query.push(", ").push_bind(shard);
        query.push(", ").push_bind(offset).push(")");
    }
    query
        .push(" ORDER BY time, shard, log_offset LIMIT ")
        .push_bind(most);
    query.push(") r WHERE true");
    if let Some(kind) = search.kind {
        query.push(" AND s.kind = ").push_bind(kind.number());
    }
    if let Some(category) = &search.category {
        // Claims and closes have none, which is no category's name.
        query
            .push(" AND s.category <> '' AND s.category = ")
            .push_bind(category.clone());
    }
    if let Some(event_type) = &search.event_type {
        query.push(" AND s.types @> ").push_bind(vec![event_type.clone()]);
    }
    query
        .push(" ORDER BY time, shard, log_offset LIMIT ")
        .push_bind(most);
    Ok(query)
}

fn place(row: &sqlx::postgres::PgRow) -> Result<(Shard, Offset), sqlx::Error> {
    let negative = |error: std::num::TryFromIntError| sqlx::Error::Decode(Box::new(error));
    let shard = Shard::try_from(row.try_get::<i32, _>("shard")?).map_err(negative)?;
    let offset = Offset::try_from(row.try_get::<i64, _>("log_offset")?).map_err(negative)?;
    Ok((shard, offset))
}

#[cfg(test)]
mod plans;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let cursor = Cursor(1_790_000_000_000_123, 15, 1 << 40);
        let text = cursor.write();
        assert_eq!(Cursor::parse(&text), Ok(cursor));
        let cursor = text;
        for wrong in ["", "x", "AAAA", &cursor[1..], &format!("{cursor}AA")] {
            assert!(Cursor::parse(wrong).is_err(), "{wrong}");
        }
    }
}

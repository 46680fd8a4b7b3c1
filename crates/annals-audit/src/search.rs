//! Search over every accepted record, by a table of its own.

use annals_record::record::Record;
use annals_record::{Offset, Position, RecordId, Shard};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder, Row};
use uuid::Uuid;

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

/// Time in microseconds and id of the last record of a page.
struct Cursor(i64, Uuid);

impl Cursor {
    fn parse(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (time, id) = bytes.split_first_chunk::<8>().ok_or(InvalidCursor)?;
        let id = Uuid::from_slice(id).map_err(|_| InvalidCursor)?;
        Ok(Self(i64::from_be_bytes(*time), id))
    }

    fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode([self.0.to_be_bytes().as_slice(), self.1.as_bytes()].concat())
    }
}

impl Audit {
    /// Records by what is known of them, oldest first.
    ///
    /// # Errors
    /// [`AuditError::Cursor`], or the database.
    pub async fn records(&self, search: &Search, limit: u32) -> Result<Page, AuditError> {
        let mut query = sql(search)?;
        query
            .push(" ORDER BY time, record LIMIT ")
            .push_bind(i64::from(limit) + 1);
        let rows = query.build().fetch_all(&self.pool).await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut places = Vec::new();
        for row in rows.iter().take(limit) {
            places.push(place(row)?);
        }
        let next = match rows.get(limit.saturating_sub(1)) {
            Some(last) if rows.len() > limit => {
                let time: DateTime<Utc> = last.try_get("time")?;
                Some(Cursor(time.timestamp_micros(), last.try_get("record")?).write())
            }
            _ => None,
        };
        let mut found = self.journal.records_at(&places).await?;
        let order = |shard: Shard, offset: Offset| places.iter().position(|place| *place == (shard, offset));
        found.sort_by_key(|(shard, offset, _)| order(*shard, *offset));
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

fn sql(search: &Search) -> Result<QueryBuilder<Postgres>, AuditError> {
    let mut query =
        QueryBuilder::new("SELECT record, shard, log_offset, time FROM annals.audit_record WHERE true");
    if let Some(category) = &search.category {
        query.push(" AND category = ").push_bind(category.clone());
    }
    if let Some(event_type) = &search.event_type {
        query.push(" AND types @> ").push_bind(vec![event_type.clone()]);
    }
    if let Some(actor) = &search.actor {
        query.push(" AND actor = ").push_bind(actor.clone());
    }
    if let Some(kind) = search.kind {
        query.push(" AND kind = ").push_bind(kind.number());
    }
    if let Some(from) = search.from {
        query.push(" AND time >= ").push_bind(from);
    }
    if let Some(to) = search.to {
        query.push(" AND time < ").push_bind(to);
    }
    if let Some(after) = &search.after {
        let Cursor(micros, record) = Cursor::parse(after)?;
        let time = DateTime::from_timestamp_micros(micros).ok_or(InvalidCursor)?;
        query
            .push(" AND (time, record) > (")
            .push_bind(time)
            .push(", ")
            .push_bind(record)
            .push(")");
    }
    Ok(query)
}

fn place(row: &sqlx::postgres::PgRow) -> Result<(Shard, Offset), sqlx::Error> {
    let negative = |error: std::num::TryFromIntError| sqlx::Error::Decode(Box::new(error));
    let shard = Shard::try_from(row.try_get::<i32, _>("shard")?).map_err(negative)?;
    let offset = Offset::try_from(row.try_get::<i64, _>("log_offset")?).map_err(negative)?;
    Ok((shard, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        let cursor = Cursor(1_790_000_000_000_123, Uuid::from_u128(7)).write();
        let Cursor(time, id) = Cursor::parse(&cursor).unwrap();
        assert_eq!((time, id), (1_790_000_000_000_123, Uuid::from_u128(7)));
        for wrong in ["", "x", "AAAA", &cursor[1..], &format!("{cursor}AA")] {
            assert!(Cursor::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! Rows of the journal and the exact bytes of records, both ways.
//!
//! The header grammar is fixed and c(0) follows from the log's identity, so nothing is lost: a test takes every
//! kind of record through a row and back and compares the bytes.

use annals_record::record::{Claim, Close, Entry, Kind, Meta, Record, Seen};
use annals_record::{Hash32, KeyHash, Offset, RecordId, StreamId, Version};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};
use uuid::Uuid;

use crate::checkpoint::{decoded, encoded, signed_shard};

/// Records by column, as one `UNNEST` takes them.
#[derive(Default)]
pub(crate) struct Columns<'a> {
    offset: Vec<i64>,
    time: Vec<i64>,
    epoch: Vec<i64>,
    version: Vec<Option<i64>>,
    id: Vec<Uuid>,
    shard: Vec<i32>,
    count: Vec<Option<i32>>,
    kind: Vec<i16>,
    prev: Vec<Option<&'a [u8]>>,
    stream: Vec<Option<&'a str>>,
    key: Vec<Option<&'a [u8]>>,
    traceparent: Vec<Option<String>>,
    seen: Vec<Option<String>>,
    value: Vec<&'a [u8]>,
}

type Scalar<'q, T> = sqlx::query::QueryScalar<'q, sqlx::Postgres, T, PgArguments>;

impl<'a> Columns<'a> {
    /// Adds a record at its place.
    ///
    /// # Errors
    /// A number beyond its column's range; the record has then been added in part, and the columns are of no use.
    pub(crate) fn add(
        &mut self,
        shard: annals_record::Shard,
        offset: Offset,
        record: &'a Record,
    ) -> Result<(), sqlx::Error> {
        self.offset.push(encoded(offset.try_into())?);
        self.time.push(record.timestamp_ms);
        self.epoch.push(encoded(record.epoch().try_into())?);
        self.id.push(record.id().get());
        self.shard.push(signed_shard(shard)?);
        self.kind.push(kind_number(record.kind()));
        self.stream.push(record.stream.as_ref().map(StreamId::as_str));
        self.value.push(&record.value);
        let entry = record.entry();
        let version = entry.map(|entry| i64::try_from(entry.version)).transpose();
        self.version.push(encoded(version)?);
        let count = entry.map(|entry| i32::try_from(entry.count)).transpose();
        self.count.push(encoded(count)?);
        self.key
            .push(entry.map(|entry| entry.idempotency_key.as_bytes().as_slice()));
        self.traceparent
            .push(entry.and_then(|entry| entry.traceparent).map(|t| t.to_string()));
        let (prev, seen) = match &record.meta {
            Meta::Commit(entry) | Meta::Refusal(entry) => (Some(&entry.prev), None),
            Meta::Close(close) => (Some(&close.prev), None),
            Meta::Claim(claim) => (None, Some(claim.seen.to_string())),
        };
        self.prev.push(prev.map(|prev| prev.as_bytes().as_slice()));
        self.seen.push(seen);
        Ok(())
    }

    /// Binds fourteen arrays: log_offset, time_ms, epoch, version, id, shard, count, kind, prev, stream,
    /// idempotency_key, traceparent, seen, value.
    pub(crate) fn bind<T>(self, query: Scalar<'a, T>) -> Scalar<'a, T> {
        query
            .bind(self.offset)
            .bind(self.time)
            .bind(self.epoch)
            .bind(self.version)
            .bind(self.id)
            .bind(self.shard)
            .bind(self.count)
            .bind(self.kind)
            .bind(self.prev)
            .bind(self.stream)
            .bind(self.key)
            .bind(self.traceparent)
            .bind(self.seen)
            .bind(self.value)
    }
}

/// The record of a row that has all columns but `shard`, and its offset. `genesis` is c(0) of its shard.
pub(crate) fn read(row: &PgRow, genesis: Hash32) -> Result<(Offset, Record), sqlx::Error> {
    let offset = decoded(row.try_get::<i64, _>("log_offset")?.try_into())?;
    let kind: i16 = row.try_get("kind")?;
    let id: RecordId = decoded(row.try_get::<Uuid, _>("id")?.try_into())?;
    let epoch = decoded(row.try_get::<i64, _>("epoch")?.try_into())?;
    let prev = || decoded(row.try_get::<&[u8], _>("prev")?.try_into());
    let meta = match kind {
        1 | 2 => {
            let traceparent = row.try_get::<Option<&str>, _>("traceparent")?;
            let entry = Entry {
                id,
                epoch,
                prev: prev()?,
                version: Version::new(decoded(row.try_get::<i64, _>("version")?.try_into())?),
                count: decoded(row.try_get::<i32, _>("count")?.try_into())?,
                idempotency_key: KeyHash::new(decoded(
                    row.try_get::<&[u8], _>("idempotency_key")?.try_into(),
                )?),
                traceparent: decoded(traceparent.map(str::parse).transpose())?,
            };
            if kind == 1 {
                Meta::Commit(entry)
            } else {
                Meta::Refusal(entry)
            }
        }
        3 => Meta::Claim(Claim {
            id,
            epoch,
            seen: parse_seen(row.try_get("seen")?)?,
            genesis,
        }),
        4 => Meta::Close(Close {
            id,
            epoch,
            prev: prev()?,
        }),
        other => return Err(sqlx::Error::Decode(format!("kind {other} of a record").into())),
    };
    let stream = row.try_get::<Option<&str>, _>("stream")?;
    let record = Record {
        stream: decoded(stream.map(StreamId::try_from).transpose())?,
        timestamp_ms: row.try_get("time_ms")?,
        meta,
        value: bytes::Bytes::copy_from_slice(row.try_get("value")?),
    };
    Ok((offset, record))
}

fn parse_seen(text: &str) -> Result<Seen, sqlx::Error> {
    let wrong = || sqlx::Error::Decode(format!("`{text}` is not what a claim saw").into());
    let (accepted, chain) = text.split_once(':').ok_or_else(wrong)?;
    Ok(Seen {
        accepted: accepted.parse().map_err(|_| wrong())?,
        chain: chain.parse().map_err(|_| wrong())?,
    })
}

/// As the column `kind` says it.
fn kind_number(kind: Kind) -> i16 {
    match kind {
        Kind::Commit => 1,
        Kind::Refusal => 2,
        Kind::Claim => 3,
        Kind::Close => 4,
    }
}

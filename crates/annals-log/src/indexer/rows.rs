//! Accepted records as rows of the journal, by column.

use annals_record::record::{Kind, Meta};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Accepted, Batch};

/// Rows a statement: large enough that its cost is that of the rows.
const ROWS: usize = 4_000;

const INSERT: &str = "
INSERT INTO annals.journal (log_offset, time_ms, epoch, version, id, shard, count, kind, prev, stream,
                            idempotency_key, traceparent, seen, value)
SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::int[], $7::int[],
                     $8::smallint[], $9::bytea[], $10::text[], $11::bytea[], $12::text[], $13::text[], $14::bytea[])";

#[derive(Default)]
struct Columns<'a> {
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
    key: Vec<Option<[u8; 32]>>,
    traceparent: Vec<Option<String>>,
    seen: Vec<Option<String>>,
    value: Vec<&'a [u8]>,
}

/// Inserts the records of all batches; says how many there were.
pub(super) async fn insert(connection: &mut PgConnection, batches: &[Batch]) -> Result<usize, sqlx::Error> {
    let rows: Vec<(i32, &Accepted)> = batches
        .iter()
        .map(|batch| Ok((encoded(i32::try_from(batch.shard))?, batch)))
        .collect::<Result<Vec<_>, sqlx::Error>>()?
        .into_iter()
        .flat_map(|(shard, batch)| batch.records.iter().map(move |record| (shard, record)))
        .collect();
    for some in rows.chunks(ROWS) {
        let mut columns = Columns::default();
        for (shard, accepted) in some {
            columns.push(*shard, accepted)?;
        }
        columns.insert(connection).await?;
    }
    Ok(rows.len())
}

impl<'a> Columns<'a> {
    fn push(&mut self, shard: i32, accepted: &'a Accepted) -> Result<(), sqlx::Error> {
        let record = accepted.record();
        self.offset.push(encoded(i64::try_from(accepted.offset()))?);
        self.time.push(record.timestamp_ms);
        self.epoch.push(encoded(i64::try_from(record.epoch()))?);
        self.id.push(record.id().get());
        self.shard.push(shard);
        self.kind.push(match record.kind() {
            Kind::Commit => 1,
            Kind::Refusal => 2,
            Kind::Claim => 3,
            Kind::Close => 4,
        });
        self.stream
            .push(record.stream.as_ref().map(|stream| stream.as_str()));
        self.value.push(&record.value);
        let (entry, prev, seen) = match &record.meta {
            Meta::Commit(entry) | Meta::Refusal(entry) => (Some(entry), Some(&entry.prev), None),
            Meta::Claim(claim) => (None, None, Some(claim.seen.to_string())),
            Meta::Close(close) => (None, Some(&close.prev), None),
        };
        self.prev.push(prev.map(|prev| prev.as_bytes().as_slice()));
        self.seen.push(seen);
        let version = entry.map(|entry| encoded(i64::try_from(entry.version)));
        self.version.push(version.transpose()?);
        let count = entry.map(|entry| encoded(i32::try_from(entry.count)));
        self.count.push(count.transpose()?);
        let key = entry.map(|entry| *entry.idempotency_key.get().as_bytes());
        self.key.push(key);
        let traceparent = entry.and_then(|entry| entry.traceparent);
        self.traceparent
            .push(traceparent.map(|parent| parent.to_string()));
        Ok(())
    }

    async fn insert(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(INSERT)
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
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// The grammar keeps numbers below 2^63, and a count below the events that a record has room for.
fn encoded<T, E>(value: Result<T, E>) -> Result<T, sqlx::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    value.map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

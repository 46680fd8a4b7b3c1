//! Journal rows for auditors: a stream's records page by page, and single records by their places.

use annals_record::record::Record;
use annals_record::{Offset, Shard, StreamId};
use sqlx::Row;

use super::row;
use super::streams::{PgStreamStore, store_error};
use crate::StoreError;
use crate::checkpoint::{decoded, encoded, signed_shard};

impl PgStreamStore {
    /// Commits and refusals of a stream from an offset on, by offset, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page_of_stream(
        &self,
        stream: &StreamId,
        from: Offset,
        limit: u32,
    ) -> Result<Vec<(Offset, Record)>, StoreError> {
        let genesis = self.genesis(self.shards.shard_of(stream));
        let rows = sqlx::query(
            "SELECT * FROM annals.journal WHERE stream = $1 AND log_offset >= $2 ORDER BY log_offset LIMIT $3",
        )
        .bind(stream.as_str())
        .bind(encoded::<i64, _>(from.try_into()).map_err(store_error)?)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(store_error)?;
        rows.iter()
            .map(|row| row::read(row, genesis).map_err(store_error))
            .collect()
    }

    /// The accepted records at these places, in any order; places without one are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn records_at(
        &self,
        places: &[(Shard, Offset)],
    ) -> Result<Vec<(Shard, Offset, Record)>, StoreError> {
        let (mut shards, mut offsets) = (Vec::new(), Vec::new());
        for (shard, offset) in places {
            shards.push(signed_shard(*shard).map_err(store_error)?);
            offsets.push(encoded::<i64, _>((*offset).try_into()).map_err(store_error)?);
        }
        let rows = sqlx::query(
            "SELECT j.* FROM UNNEST($1::int[], $2::bigint[]) AS q(shard, log_offset)
             JOIN annals.journal j ON j.shard = q.shard AND j.log_offset = q.log_offset",
        )
        .bind(shards)
        .bind(offsets)
        .fetch_all(&self.pool)
        .await
        .map_err(store_error)?;
        let read = |row: &sqlx::postgres::PgRow| {
            let shard: Shard = decoded(row.try_get::<i32, _>("shard")?.try_into())?;
            let (offset, record) = row::read(row, self.genesis(shard))?;
            Ok((shard, offset, record))
        };
        rows.iter().map(|row| read(row).map_err(store_error)).collect()
    }
}

//! What waits for parked instances.

use annals_record::{Offset, Shard};
use sqlx::{PgConnection, PgPool, Row};

use crate::react::{Changes, Place, Waited};

/// A record that waits for its instance.
#[derive(Debug, Clone)]
pub(crate) struct HeldRow {
    pub(crate) waited: Waited,
    pub(crate) place: Place,
}

/// What waited for instances that were resumed, but for those in `away`, in order; the rows are locked, so that one
/// runner takes them.
pub(crate) async fn resumed(
    connection: &mut PgConnection,
    process: &str,
    away: &[String],
    most: i64,
) -> Result<Vec<HeldRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT h.instance, h.n, h.shard, h.log_offset, h.own
         FROM annals.process_instance i JOIN annals.process_held h USING (process, instance)
         WHERE i.process = $1 AND i.parked AND i.stuck IS NULL AND i.instance <> ALL($2)
         ORDER BY h.instance, h.n LIMIT $3 FOR UPDATE OF h",
    )
    .bind(process)
    .bind(away)
    .bind(most)
    .fetch_all(connection)
    .await?;
    let number = |value: i64| u64::try_from(value).map_err(|error| sqlx::Error::Decode(Box::new(error)));
    let row = |row: &sqlx::postgres::PgRow| {
        let shard = u32::try_from(row.try_get::<i32, _>("shard")?);
        Ok(HeldRow {
            waited: Waited {
                instance: row.try_get("instance")?,
                n: row.try_get("n")?,
            },
            place: Place {
                shard: Shard::new(shard.map_err(|error| sqlx::Error::Decode(Box::new(error)))?),
                offset: Offset::new(number(row.try_get("log_offset")?)?),
                own: row.try_get("own")?,
            },
        })
    };
    rows.iter().map(row).collect()
}

/// Instances that were resumed and for which nothing waits take part again; what never began is gone: it stood for a
/// record that did not read, or that concerns nobody any more. Gives whether anything may be left to do for others.
pub(crate) async fn unpark(pool: &PgPool, process: &str) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let resumed: Vec<String> = sqlx::query_scalar(
        "SELECT instance FROM annals.process_instance WHERE process = $1 AND parked AND stuck IS NULL
         ORDER BY instance FOR UPDATE",
    )
    .bind(process)
    .fetch_all(&mut *transaction)
    .await?;
    if resumed.is_empty() {
        return Ok(false);
    }
    // By a statement of its own, whose snapshot is taken under the locks: another runner may have put something down
    // for one of them while this one waited.
    sqlx::query(
        "WITH done AS MATERIALIZED (
             SELECT i.instance, octet_length(i.state) = 0 AS never_began FROM annals.process_instance i
             WHERE i.process = $1 AND i.instance = ANY($2)
               AND NOT EXISTS (SELECT FROM annals.process_held h WHERE h.process = $1 AND h.instance = i.instance)),
         gone AS (
             DELETE FROM annals.process_instance i USING done d
             WHERE i.process = $1 AND i.instance = d.instance AND d.never_began)
         UPDATE annals.process_instance i SET parked = false FROM done d
         WHERE i.process = $1 AND i.instance = d.instance AND NOT d.never_began",
    )
    .bind(process)
    .bind(&resumed)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Keeps what waits from now on, and forgets what waits no more.
pub(super) async fn keep(
    connection: &mut PgConnection,
    process: &str,
    changes: &Changes,
) -> Result<(), sqlx::Error> {
    if !changes.held.is_empty() {
        let number = |value: u64| i64::try_from(value).map_err(|error| sqlx::Error::Encode(Box::new(error)));
        let (mut instances, mut shards, mut offsets, mut own) = (vec![], vec![], vec![], vec![]);
        for (instance, place) in &changes.held {
            instances.push(instance.as_str());
            shards.push(number(place.shard.get().into())?);
            offsets.push(number(place.offset.get())?);
            own.push(place.own);
        }
        sqlx::query(
            "INSERT INTO annals.process_held (process, instance, shard, log_offset, own)
             SELECT $1, h.instance, h.shard::int, h.log_offset, h.own
             FROM UNNEST($2::text[], $3::bigint[], $4::bigint[], $5::bool[]) WITH ORDINALITY
                  AS h(instance, shard, log_offset, own, place) ORDER BY h.place",
        )
        .bind(process)
        .bind(instances)
        .bind(shards)
        .bind(offsets)
        .bind(own)
        .execute(&mut *connection)
        .await?;
    }
    if !changes.released.is_empty() {
        let released = &changes.released;
        sqlx::query(
            "DELETE FROM annals.process_held h USING UNNEST($2::text[], $3::bigint[]) AS r(instance, n)
             WHERE h.process = $1 AND h.instance = r.instance AND h.n = r.n",
        )
        .bind(process)
        .bind(
            released
                .iter()
                .map(|row| row.instance.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(released.iter().map(|row| row.n).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    }
    Ok(())
}

//! Leases in the table `annals.lease`: each operation is one statement.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::postgres::types::PgInterval;

use super::{Lease, LeaseKey, LeaseKind, Leases, Node, NodeId};
use crate::{Error, metrics as names};

/// Leases of one node in Postgres.
#[derive(Debug, Clone)]
pub struct PgLeases {
    pool: PgPool,
    node: NodeId,
    url: String,
    ttl: Duration,
}

impl PgLeases {
    /// Leases for `node`, which listens for other nodes at `url`. A ttl below 1 ms counts as 1 ms.
    pub fn new(pool: PgPool, node: NodeId, url: impl Into<String>, ttl: Duration) -> Self {
        Self {
            pool,
            node,
            url: url.into(),
            ttl: ttl.max(Duration::from_millis(1)),
        }
    }

    fn interval(&self) -> PgInterval {
        PgInterval {
            months: 0,
            days: 0,
            microseconds: i64::try_from(self.ttl.as_micros()).unwrap_or(i64::MAX),
        }
    }
}

/// The columns of keys, sorted, so that two nodes lock rows in the same order and never deadlock.
struct Columns {
    kinds: Vec<&'static str>,
    names: Vec<String>,
    shards: Vec<i32>,
}

impl Columns {
    fn of(keys: &[LeaseKey]) -> Self {
        // Sorted as the table's primary key compares; each once, or one statement would meet a row twice.
        let sorted: BTreeSet<(&'static str, &str, u32)> = keys
            .iter()
            .map(|key| (key.kind.as_str(), key.name.as_str(), key.shard))
            .collect();
        Self {
            kinds: sorted.iter().map(|key| key.0).collect(),
            names: sorted.iter().map(|key| key.1.to_owned()).collect(),
            shards: sorted.iter().map(|key| shard_to_db(key.2)).collect(),
        }
    }
}

/// A shard number beyond the column's range cannot exist; the largest stands for all of them.
fn shard_to_db(shard: u32) -> i32 {
    i32::try_from(shard).unwrap_or(i32::MAX)
}

/// Those of `asked` that the statement returned, by key.
fn among(asked: &[LeaseKey], rows: &[(String, String, i32)]) -> Vec<LeaseKey> {
    let rows: BTreeSet<(&str, &str, i32)> = rows
        .iter()
        .map(|row| (row.0.as_str(), row.1.as_str(), row.2))
        .collect();
    let found: BTreeSet<LeaseKey> = asked
        .iter()
        .filter(|key| rows.contains(&(key.kind.as_str(), key.name.as_str(), shard_to_db(key.shard))))
        .cloned()
        .collect();
    found.into_iter().collect()
}

fn count(name: &'static str, keys: &[LeaseKey]) {
    for key in keys {
        metrics::counter!(name, "kind" => key.kind.as_str()).increment(1);
    }
}

type LeaseRow = (String, i32, String, String, i64, Option<DateTime<Utc>>, bool, i64);

fn lease_of(kind: LeaseKind, row: LeaseRow) -> Lease {
    let (name, shard, node, url, epoch, expires_at, live, remaining_ms) = row;
    Lease {
        // Only `shard_to_db` writes these two, and it never writes a negative number.
        key: LeaseKey::new(kind, name, u32::try_from(shard).unwrap_or(0)),
        node: NodeId::new(node),
        url,
        epoch_hint: u64::try_from(epoch).unwrap_or(0),
        expires_at,
        live,
        remaining: millis(remaining_ms),
    }
}

/// A row that is a node's or a lease's.
#[derive(sqlx::FromRow)]
struct SurveyRow {
    kind: String,
    roles: Vec<String>,
    name: String,
    shard: i32,
    node: String,
    url: String,
    epoch_hint: i64,
    expires_at: Option<DateTime<Utc>>,
    live: bool,
    remaining_ms: i64,
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[async_trait]
impl Leases for PgLeases {
    fn node(&self) -> &NodeId {
        &self.node
    }

    fn ttl(&self) -> Duration {
        self.ttl
    }

    async fn keep_node(&self, roles: &[String]) -> Result<(), Error> {
        sqlx::query("SELECT annals.keep_node($1, $2, $3, $4)")
            .bind(self.node.as_str())
            .bind(&self.url)
            .bind(roles)
            .bind(self.interval())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn drop_node(&self) -> Result<(), Error> {
        sqlx::query("SELECT annals.drop_node($1)")
            .bind(self.node.as_str())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let rows: Vec<(String, String, Vec<String>, DateTime<Utc>, i64)> = sqlx::query_as(
            "SELECT node, url, roles, expires_at, (extract(epoch FROM expires_at - now()) * 1000)::bigint
             FROM annals.lease
             WHERE kind = 'node' AND expires_at > now() ORDER BY node",
        )
        .fetch_all(&self.pool)
        .await?;
        let nodes = rows
            .into_iter()
            .map(|(id, url, roles, expires_at, remaining_ms)| Node {
                id: NodeId::new(id),
                url,
                roles,
                expires_at,
                remaining: millis(remaining_ms),
            });
        Ok(nodes.collect())
    }

    async fn list(&self, kind: LeaseKind, name: &str) -> Result<Vec<Lease>, Error> {
        let rows: Vec<LeaseRow> = sqlx::query_as(
            "SELECT name, shard, node, url, epoch_hint, nullif(expires_at, '-infinity'), expires_at > now(),
                 CASE WHEN expires_at > now() THEN (extract(epoch FROM expires_at - now()) * 1000)::bigint ELSE 0 END
             FROM annals.lease WHERE kind = $1 AND name = $2 ORDER BY shard",
        )
        .bind(kind.as_str())
        .bind(name)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| lease_of(kind, row)).collect())
    }

    async fn survey(&self, kind: LeaseKind, name: &str) -> Result<(Vec<Node>, Vec<Lease>), Error> {
        let rows: Vec<SurveyRow> = sqlx::query_as(
            "SELECT kind, roles, name, shard, node, url, epoch_hint, nullif(expires_at, '-infinity') AS expires_at,
                 expires_at > now() AS live,
                 CASE WHEN expires_at > now() THEN (extract(epoch FROM expires_at - now()) * 1000)::bigint ELSE 0 END
                     AS remaining_ms
             FROM annals.lease
             WHERE (kind = 'node' AND expires_at > now()) OR (kind = $1 AND name = $2) ORDER BY node, shard",
        )
        .bind(kind.as_str())
        .bind(name)
        .fetch_all(&self.pool)
        .await?;
        let (mut nodes, mut leases) = (Vec::new(), Vec::new());
        for row in rows {
            match (row.kind == "node", row.expires_at) {
                (true, Some(expires_at)) => nodes.push(Node {
                    id: NodeId::new(row.node),
                    url: row.url,
                    roles: row.roles,
                    expires_at,
                    remaining: millis(row.remaining_ms),
                }),
                (true, None) => {}
                (false, expires_at) => leases.push(lease_of(
                    kind,
                    (
                        row.name,
                        row.shard,
                        row.node,
                        row.url,
                        row.epoch_hint,
                        expires_at,
                        row.live,
                        row.remaining_ms,
                    ),
                )),
            }
        }
        leases.sort_by_key(|lease| lease.key.shard);
        Ok((nodes, leases))
    }

    async fn acquire(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let columns = Columns::of(keys);
        let rows: Vec<(String, String, i32)> = sqlx::query_as(
            "INSERT INTO annals.lease AS l (kind, name, shard, node, url, expires_at)
             SELECT kind, name, shard, $4, $5, now() + $6
             FROM unnest($1::text[], $2::text[], $3::int[]) AS k (kind, name, shard)
             ORDER BY kind COLLATE \"C\", name COLLATE \"C\", shard
             ON CONFLICT (kind, name, shard) DO UPDATE
                 SET node = excluded.node, url = excluded.url, expires_at = excluded.expires_at
                 WHERE l.node = excluded.node OR l.expires_at <= now()
             RETURNING kind, name, shard",
        )
        .bind(&columns.kinds)
        .bind(&columns.names)
        .bind(&columns.shards)
        .bind(self.node.as_str())
        .bind(&self.url)
        .bind(self.interval())
        .fetch_all(&self.pool)
        .await?;
        let acquired = among(keys, &rows);
        count(names::LEASES_ACQUIRED, &acquired);
        Ok(acquired)
    }

    async fn renew(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let columns = Columns::of(keys);
        // Locked in order first: an UPDATE alone takes its rows in whatever order the plan has.
        let rows: Vec<(String, String, i32)> = sqlx::query_as(
            "WITH mine AS MATERIALIZED (
                 SELECT l.kind, l.name, l.shard FROM annals.lease l
                 JOIN unnest($1::text[], $2::text[], $3::int[]) AS k (kind, name, shard)
                   ON l.kind = k.kind AND l.name = k.name AND l.shard = k.shard
                 WHERE l.node = $4 AND l.expires_at > '-infinity'
                 ORDER BY l.kind, l.name, l.shard FOR UPDATE OF l)
             UPDATE annals.lease l SET expires_at = now() + $6, url = $5
             FROM mine WHERE (l.kind, l.name, l.shard) = (mine.kind, mine.name, mine.shard)
             RETURNING l.kind, l.name, l.shard",
        )
        .bind(&columns.kinds)
        .bind(&columns.names)
        .bind(&columns.shards)
        .bind(self.node.as_str())
        .bind(&self.url)
        .bind(self.interval())
        .fetch_all(&self.pool)
        .await?;
        let renewed = among(keys, &rows);
        let lost: Vec<LeaseKey> = keys
            .iter()
            .filter(|key| !renewed.contains(key))
            .cloned()
            .collect();
        count(names::LEASES_LOST, &lost);
        Ok(renewed)
    }

    async fn release(&self, keys: &[LeaseKey]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let columns = Columns::of(keys);
        let rows: Vec<(String, String, i32)> = sqlx::query_as(
            "WITH mine AS MATERIALIZED (
                 SELECT l.kind, l.name, l.shard FROM annals.lease l
                 JOIN unnest($1::text[], $2::text[], $3::int[]) AS k (kind, name, shard)
                   ON l.kind = k.kind AND l.name = k.name AND l.shard = k.shard
                 WHERE l.node = $4
                 ORDER BY l.kind, l.name, l.shard FOR UPDATE OF l)
             UPDATE annals.lease l SET expires_at = '-infinity'
             FROM mine WHERE (l.kind, l.name, l.shard) = (mine.kind, mine.name, mine.shard)
             RETURNING l.kind, l.name, l.shard",
        )
        .bind(&columns.kinds)
        .bind(&columns.names)
        .bind(&columns.shards)
        .bind(self.node.as_str())
        .fetch_all(&self.pool)
        .await?;
        count(names::LEASES_RELEASED, &among(keys, &rows));
        Ok(())
    }

    async fn hint_epoch(&self, key: &LeaseKey, epoch: u64) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE annals.lease SET epoch_hint = $5 WHERE kind = $1 AND name = $2 AND shard = $3 AND node = $4",
        )
        .bind(key.kind.as_str())
        .bind(&key.name)
        .bind(shard_to_db(key.shard))
        .bind(self.node.as_str())
        .bind(i64::try_from(epoch).unwrap_or(i64::MAX))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

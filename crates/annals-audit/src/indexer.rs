//! Fills the auditors' search table, by a reader of its own.

use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_log::{
    Accepted, Batch, Checkpoint, CheckpointError, Log, ReaderError, ReaderSettings, ShardReader,
};
use annals_record::fold::Head;
use annals_record::record::Kind;
use annals_record::{Offset, Shard, ShardCount};
use annals_store::lease::{LeaseKey, LeaseKind, Leases, balance};
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics;

/// The reader's name in `checkpoint`.
pub const READER: &str = "audit";

/// What comes in meanwhile shares a shard's next transaction: one a record would take the disk away from the log.
const GATHER: Duration = Duration::from_millis(100);
/// Between two attempts after something failed.
const RETRY: Duration = Duration::from_secs(1);

/// Fills the search table for the shards whose leases are this node's.
pub struct AuditIndexer {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The aggregates.
    pub catalog: Catalog,
    /// The audit role's database.
    pub pool: PgPool,
    /// Who reads which shard.
    pub leases: Arc<dyn Leases>,
    /// How many shards there are.
    pub shards: ShardCount,
    /// How the readers read.
    pub reader: ReaderSettings,
}

/// Why a shard's reader stopped.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Reader(#[from] ReaderError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl AuditIndexer {
    /// Runs until `stop` is cancelled. A shard whose reader halts stays where it is, with an alarm.
    pub async fn run(self, stop: CancellationToken) {
        let me = Arc::new(self);
        let third = (me.leases.ttl() / 3).max(Duration::from_millis(100));
        let mut round = tokio::time::interval(third);
        let mut running: Vec<(Shard, CancellationToken)> = Vec::new();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = round.tick() => {}
            }
            let mine = match me.mine().await {
                Ok(mine) => mine,
                Err(error) => {
                    tracing::warn!(%error, "the audit reader's leases cannot be read or renewed");
                    continue;
                }
            };
            running.retain(|(shard, token)| {
                let keep = mine.contains(shard);
                if !keep {
                    token.cancel();
                }
                keep
            });
            for shard in mine {
                if !running.iter().any(|(known, _)| *known == shard) {
                    let token = stop.child_token();
                    running.push((shard, token.clone()));
                    let me = Arc::clone(&me);
                    tasks.spawn(async move { me.keep_reading(shard, token).await });
                }
            }
        }
        while tasks.join_next().await.is_some() {}
        let keys: Vec<_> = me.keys();
        if let Err(error) = me.leases.release(&keys).await {
            tracing::debug!(%error, "the audit reader's leases could not be given back; they expire");
        }
    }

    fn keys(&self) -> Vec<LeaseKey> {
        self.shards
            .shards()
            .map(|shard| LeaseKey::new(LeaseKind::Audit, "", shard.get()))
            .collect()
    }

    async fn mine(&self) -> Result<Vec<Shard>, annals_store::Error> {
        let keys = self.keys();
        let has_role = |node: &annals_store::lease::Node| node.roles.iter().any(|role| role == "audit");
        let nodes: Vec<_> = self
            .leases
            .nodes()
            .await?
            .into_iter()
            .filter(has_role)
            .map(|node| node.id)
            .collect();
        let leases = self.leases.list(LeaseKind::Audit, "").await?;
        let plan = balance(self.leases.node(), &nodes, &keys, &leases);
        let mut mine = self.leases.renew(&plan.keep).await?;
        mine.extend(self.leases.acquire(&plan.acquire).await?);
        self.leases.release(&plan.release).await?;
        Ok(mine.into_iter().map(|key| Shard::new(key.shard)).collect())
    }

    async fn keep_reading(&self, shard: Shard, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.read(shard) => ended,
            };
            match ended {
                Stopped::Reader(error @ (ReaderError::Halted(_) | ReaderError::Version { .. })) => {
                    metrics::halted();
                    tracing::error!(%shard, %error, "the audit reader of a shard has halted");
                    return stop.cancelled().await;
                }
                error => tracing::warn!(%shard, %error, "the audit reader goes on from its checkpoint"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn read(&self, shard: Shard) -> Stopped {
        match self.try_read(shard).await {
            Ok(never) => match never {},
            Err(stopped) => stopped,
        }
    }

    async fn try_read(&self, shard: Shard) -> Result<std::convert::Infallible, Stopped> {
        let at = match Checkpoint::load(&self.pool, READER, shard).await? {
            Some(checkpoint) => checkpoint,
            None => Checkpoint::genesis(Head::genesis(self.catalog.app(), shard, self.shards)),
        };
        let (log, catalog) = (Arc::clone(&self.log), self.catalog.clone());
        let mut reader = ShardReader::open(log, catalog, shard, at, self.reader).await?;
        loop {
            if let Some(batch) = reader.next().await? {
                self.keep(&batch).await?;
                tokio::time::sleep(GATHER).await;
            }
        }
    }

    /// Rows and checkpoint in one transaction (L8).
    async fn keep(&self, batch: &Batch) -> Result<(), Stopped> {
        let rows = Rows::of(batch);
        let mut transaction = self.pool.begin().await?;
        rows.insert(&mut transaction).await?;
        Checkpoint::advance(&mut transaction, READER, batch.shard, &batch.from, &batch.to).await?;
        transaction.commit().await?;
        metrics::indexed(batch.records.len());
        Ok(())
    }
}

#[derive(Default)]
struct Rows {
    records: Vec<Uuid>,
    shards: Vec<i32>,
    offsets: Vec<i64>,
    times: Vec<DateTime<Utc>>,
    kinds: Vec<i16>,
    categories: Vec<Option<String>>,
    streams: Vec<Option<String>>,
    actors: Vec<Option<String>>,
    commands: Vec<Option<String>>,
    /// Postgres has no arrays of arrays of different lengths: types are joined by a blank, which they never hold.
    types: Vec<String>,
}

impl Rows {
    fn of(batch: &Batch) -> Self {
        let mut rows = Self::default();
        for accepted in &batch.records {
            rows.push(batch.shard, accepted);
        }
        rows
    }

    fn push(&mut self, shard: Shard, accepted: &Accepted) {
        let record = accepted.record();
        let entry = accepted.entry();
        self.records.push(record.id().get());
        self.shards.push(i32::try_from(shard.get()).unwrap_or(i32::MAX));
        self.offsets
            .push(i64::try_from(accepted.offset().get()).unwrap_or(i64::MAX));
        self.times
            .push(DateTime::from_timestamp_millis(record.timestamp_ms).unwrap_or_default());
        self.kinds.push(match record.kind() {
            Kind::Commit => 1,
            Kind::Refusal => 2,
            Kind::Claim => 3,
            Kind::Close => 4,
        });
        self.categories
            .push(record.stream.as_ref().map(|stream| stream.category().to_owned()));
        self.streams.push(record.stream.as_ref().map(ToString::to_string));
        self.actors.push(entry.map(|entry| entry.actor.sub.to_string()));
        self.commands.push(entry.map(|entry| entry.command.to_string()));
        let mut types: Vec<&str> = match entry.map(|entry| &entry.outcome) {
            Some(Ok(events)) => events.iter().map(|event| &*event.event_type).collect(),
            Some(Err(_)) | None => Vec::new(),
        };
        types.sort_unstable();
        types.dedup();
        self.types.push(types.join(" "));
    }

    async fn insert(self, connection: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO annals.audit_record
                (record, shard, log_offset, time, kind, category, stream, actor, command, types)
             SELECT record, shard, log_offset, time, kind, category, stream, actor, command,
                    string_to_array(types, ' ')
             FROM UNNEST($1::uuid[], $2::int[], $3::bigint[], $4::timestamptz[], $5::smallint[], $6::text[],
                         $7::text[], $8::text[], $9::text[], $10::text[])
                  AS r(record, shard, log_offset, time, kind, category, stream, actor, command, types)",
        )
        .bind(self.records)
        .bind(self.shards)
        .bind(self.offsets)
        .bind(self.times)
        .bind(self.kinds)
        .bind(self.categories)
        .bind(self.streams)
        .bind(self.actors)
        .bind(self.commands)
        .bind(self.types)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// How far the search table goes for a shard.
pub(crate) async fn next_offset(pool: &PgPool, shard: Shard) -> Result<Offset, sqlx::Error> {
    match Checkpoint::load(pool, READER, shard).await {
        Ok(checkpoint) => Ok(checkpoint.map_or(Offset::new(0), |checkpoint| checkpoint.head.next)),
        Err(CheckpointError::Database(error)) => Err(error),
        Err(error) => Err(sqlx::Error::Protocol(error.to_string())),
    }
}

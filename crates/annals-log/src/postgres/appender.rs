//! The one task of a process that appends: whatever all shards have waiting goes into one statement, and the next
//! one is assembled while that is under way.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use annals_record::Shard;
use annals_store::Happened;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep, timeout};

use super::batch::{Batch, Group, not_written, record_of};
use super::identity::LogIdentity;
use super::row::Columns;
use super::{Shared, log_error};
use crate::checkpoint::{encoded, head_of_row, shard_of, signed_shard};
use crate::metrics as names;
use crate::{Appended, LogError};

/// Moves the heads that are where each group begins, and inserts the rows of those that moved. A shard whose head
/// is elsewhere is not named in the answer, and nothing of it is written.
const APPEND: &str = "
WITH moved AS (
    UPDATE annals.log_head h
    SET next_offset = g.next, accepted = g.accepted, epoch = g.epoch, chain = g.chain, time_ms = g.time,
        closed = g.closed, last_hash = g.hash
    FROM UNNEST($1::int[],
        $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bool[],
        $8::bigint[], $9::bigint[], $10::bigint[], $11::bytea[], $12::bigint[], $13::bool[], $14::bytea[])
        AS g(shard, f_next, f_accepted, f_epoch, f_chain, f_time, f_closed,
             next, accepted, epoch, chain, time, closed, hash)
    WHERE h.shard = g.shard AND h.next_offset = g.f_next AND h.accepted = g.f_accepted AND h.epoch = g.f_epoch
      AND h.chain = g.f_chain AND h.time_ms = g.f_time AND h.closed = g.f_closed
    RETURNING h.shard
), written AS (
    INSERT INTO annals.journal (log_offset, time_ms, epoch, version, id, shard, count, kind, prev, stream,
                                idempotency_key, traceparent, seen, value)
    SELECT r.* FROM UNNEST($15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::uuid[], $20::int[],
        $21::int[], $22::smallint[], $23::bytea[], $24::text[], $25::bytea[], $26::text[], $27::text[], $28::bytea[])
        AS r(log_offset, time_ms, epoch, version, id, shard, count, kind, prev, stream,
             idempotency_key, traceparent, seen, value)
    WHERE r.shard IN (SELECT shard FROM moved)
)
SELECT shard FROM moved";

/// Every append waits for the disk, and for the standbys if there are any. The server must not cut that wait short:
/// it would report a commit that the standbys do not have. One plan serves every size of batch.
const SESSION: &str = "SET synchronous_commit = on; SET statement_timeout = 0; SET lock_timeout = 0; SET jit = off; \
     SET plan_cache_mode = force_generic_plan";

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

pub(super) struct Appender {
    pub(super) shared: Arc<Shared>,
}

impl Appender {
    /// Runs until the log is dropped and everything that waits has its answer.
    pub(super) async fn run(self) {
        let (mut connection, mut next, mut retry) = (None, Batch::default(), FIRST_RETRY);
        while self.shared.fill(&mut next).await {
            let batch = mem::take(&mut next);
            let live = match connection.take() {
                Some(live) => Ok(live),
                None => self.connect().await,
            };
            match live {
                Ok(live) => {
                    retry = FIRST_RETRY;
                    connection = self.write(live, batch, &mut next).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the appender cannot connect");
                    self.give_up(batch, &error);
                    sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// A connection of its own, with the pool's database role.
    async fn connect(&self) -> Result<PgConnection, LogError> {
        let connected = async {
            let mut connection = self.shared.pool.acquire().await?.detach();
            sqlx::raw_sql(SESSION).execute(&mut connection).await?;
            let safe: bool = sqlx::query_scalar(
                "SELECT current_setting('synchronous_commit') = 'on' AND NOT pg_is_in_recovery()",
            )
            .fetch_one(&mut connection)
            .await?;
            Ok((connection, safe))
        };
        let (mut connection, safe) = connected.await.map_err(|error| log_error(&error))?;
        if !safe {
            let why = "synchronous_commit is not on, or the server is a standby";
            return Err(LogError::Unavailable(why.to_owned()));
        }
        // Behind a fail-over or a restore there may be another database.
        match LogIdentity::load_any(&mut connection).await? {
            Some((identity, unfinished))
                if identity == self.shared.identity && unfinished == self.shared.unfinished => {}
            Some((identity, _)) => return Err(identity.refused()),
            None => return Err(LogError::Refused("the database holds no log any more".to_owned())),
        }
        ::metrics::counter!(names::RECONNECTS, "task" => "appender").increment(1);
        Ok(connection)
    }

    /// Sends one batch and answers it, taking in the next meanwhile. Gives the connection back if it is whole.
    async fn write(
        &self,
        mut connection: PgConnection,
        mut batch: Batch,
        next: &mut Batch,
    ) -> Option<PgConnection> {
        let began = Instant::now();
        let moved = {
            let sent = timeout(
                self.shared.settings.patience,
                execute(&mut connection, batch.groups.values()),
            );
            tokio::pin!(sent);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut sent => break answer,
                    () = self.shared.queued() => self.shared.absorb(next),
                }
            }
        };
        let moved = match moved {
            Ok(Ok(moved)) => moved,
            Ok(Err(error)) => return self.failed(&error, batch, connection),
            Err(_) => {
                let why = format!("no answer within {:?}", self.shared.settings.patience);
                self.unknown(batch, &why);
                return None;
            }
        };
        ::metrics::histogram!(names::APPEND_SECONDS).record(began.elapsed().as_secs_f64());
        ::metrics::counter!(names::APPEND_BATCHES).increment(1);
        for shard in moved {
            if let Some(group) = batch.groups.remove(&shard) {
                self.landed(group);
            }
        }
        if batch.is_empty() {
            return Some(connection);
        }
        self.tell_heads(connection, batch).await
    }

    /// Makes the records known in this process, to others, and to who waits for the append, in this order.
    fn landed(&self, group: Group) {
        ::metrics::counter!(names::APPENDED).increment(u64::try_from(group.placed.len()).unwrap_or(u64::MAX));
        self.shared.recent.push(group.shard, &group.placed);
        self.shared.notify(group.shard, group.to.next);
        group.landed();
    }

    /// What is left of a batch was not written: its shards' heads are elsewhere, and the answer says where.
    async fn tell_heads(&self, mut connection: PgConnection, batch: Batch) -> Option<PgConnection> {
        let mut shards: Vec<Shard> = batch.groups.keys().copied().collect();
        shards.extend(batch.refused.iter().map(|(shard, _)| *shard));
        let heads = match heads(&mut connection, &shards).await {
            Ok(heads) => heads,
            Err(error) => {
                let why = format!("the head has moved, and cannot be read: {error}");
                count_failed("not-written");
                batch.answer_all(|| not_written(&why));
                return None;
            }
        };
        count_failed("head-moved");
        let answer = |shard: Shard| match heads.iter().find(|(of, _)| *of == shard) {
            Some((_, head)) => Appended::HeadMoved(*head),
            None => Appended::NotWritten(LogError::Refused(format!("shard {shard} has no head"))),
        };
        for (shard, group) in batch.groups {
            group.answer_all(|| answer(shard));
        }
        for (shard, refused) in batch.refused {
            refused.send(answer(shard)).ok();
        }
        Some(connection)
    }

    fn failed(&self, error: &sqlx::Error, batch: Batch, connection: PgConnection) -> Option<PgConnection> {
        match annals_store::error::happened(error) {
            Happened::Unknown => {
                self.unknown(batch, &error.to_string());
                None
            }
            Happened::No => {
                tracing::warn!(%error, "an append was not written");
                count_failed("not-written");
                batch.answer_all(|| Appended::NotWritten(log_error(error)));
                // An answer of the server leaves the connection whole.
                error.as_database_error().is_some().then_some(connection)
            }
        }
    }

    fn unknown(&self, batch: Batch, why: &str) {
        tracing::warn!(why, "an append may have been written or not");
        count_failed("unknown");
        batch.answer_all(|| Appended::Unknown(LogError::Unavailable(why.to_owned())));
    }

    /// The database cannot be reached: neither this batch nor what waits behind it was sent.
    fn give_up(&self, mut batch: Batch, error: &LogError) {
        loop {
            count_failed("not-written");
            batch.answer_all(|| Appended::NotWritten(error.clone()));
            batch = Batch::default();
            self.shared.absorb(&mut batch);
            if batch.is_empty() {
                return;
            }
        }
    }
}

fn count_failed(outcome: &'static str) {
    ::metrics::counter!(names::APPENDS_FAILED, "outcome" => outcome).increment(1);
}

/// Sends the statement; the shards whose heads moved.
async fn execute(
    connection: &mut PgConnection,
    groups: impl ExactSizeIterator<Item = &Group>,
) -> Result<Vec<Shard>, sqlx::Error> {
    if groups.len() == 0 {
        return Ok(Vec::new());
    }
    let (mut heads, mut rows) = (Heads::default(), Columns::default());
    for group in groups {
        heads.add(group)?;
        for placed in &group.placed {
            rows.add(group.shard, placed.offset, record_of(placed))?;
        }
    }
    let query = rows.bind(heads.bind(sqlx::query_scalar(APPEND)));
    let moved: Vec<i32> = query.fetch_all(connection).await?;
    moved
        .into_iter()
        .map(|shard| crate::checkpoint::decoded(shard.try_into()))
        .collect()
}

async fn heads(
    connection: &mut PgConnection,
    shards: &[Shard],
) -> Result<Vec<(Shard, annals_record::Head)>, sqlx::Error> {
    let shards: Vec<i32> = shards
        .iter()
        .map(|shard| signed_shard(*shard))
        .collect::<Result<_, _>>()?;
    let rows = sqlx::query("SELECT * FROM annals.log_head WHERE shard = ANY($1)")
        .bind(shards)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((shard_of(row)?, head_of_row(row)?.0)))
        .collect()
}

type Scalar<'q> = sqlx::query::QueryScalar<'q, sqlx::Postgres, i32, sqlx::postgres::PgArguments>;

/// From where to where each group moves its head, by column.
#[derive(Default)]
struct Heads<'a> {
    shard: Vec<i32>,
    from: Side<'a>,
    to: Side<'a>,
    hash: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Side<'a> {
    next: Vec<i64>,
    accepted: Vec<i64>,
    epoch: Vec<i64>,
    chain: Vec<&'a [u8]>,
    time: Vec<i64>,
    closed: Vec<bool>,
}

impl<'a> Heads<'a> {
    fn add(&mut self, group: &'a Group) -> Result<(), sqlx::Error> {
        self.shard.push(signed_shard(group.shard)?);
        self.from.add(&group.from)?;
        self.to.add(&group.to)?;
        self.hash.push(group.last_hash.as_ref());
        Ok(())
    }

    fn bind(self, query: Scalar<'a>) -> Scalar<'a> {
        self.to
            .bind(self.from.bind(query.bind(self.shard)))
            .bind(self.hash)
    }
}

impl<'a> Side<'a> {
    fn add(&mut self, head: &'a annals_record::Head) -> Result<(), sqlx::Error> {
        self.next.push(encoded(head.next.try_into())?);
        self.accepted.push(encoded(head.accepted.try_into())?);
        self.epoch.push(encoded(head.epoch.try_into())?);
        self.chain.push(head.chain.as_ref());
        self.time.push(head.time_ms);
        self.closed.push(head.closed);
        Ok(())
    }

    fn bind(self, query: Scalar<'a>) -> Scalar<'a> {
        query
            .bind(self.next)
            .bind(self.accepted)
            .bind(self.epoch)
            .bind(self.chain)
            .bind(self.time)
            .bind(self.closed)
    }
}

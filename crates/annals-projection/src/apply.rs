//! Applying a batch: one transaction in which every statement of every wave runs, and the checkpoints move.
//!
//! *Invariant:* rows and checkpoints commit together or not at all (L8). A checkpoint is a compare-and-set, so a
//! second projector of the same build fails here, whatever it believed.

mod bind;
mod error;
mod events;
mod opener;
mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use annals_log::Checkpoint;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

pub(crate) use bind::{Columns as BoundColumns, columns_read, relation_from, whole_relation_from};
pub use error::{ApplyError, Trouble};
pub(crate) use events::Prepared;
pub use events::{Closed, Delivery, Event, OpenError, OpenPersonal, Sealed};
pub(crate) use plan::Plan;

use crate::manifest::{BuildId, Manifest, Rows};
use crate::{build, gate, metrics, parking, waves};

/// What the engine needs to know beside a manifest.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `projection.statement_timeout_ms`: the server ends a statement that takes longer.
    pub statement_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_timeout: Duration::from_secs(30),
        }
    }
}

/// Applies events to one build of one projection.
pub struct Projector {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) pool: PgPool,
    pub(crate) plan: Arc<Plan>,
    limits: Limits,
    opener: Arc<dyn OpenPersonal>,
    /// Whether batches pass the gate. Not where somebody else holds it for them.
    gated: bool,
}

/// What a committed batch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Events that statements ran for, or that raised a version.
    pub events: usize,
    /// Events that were parked by this batch.
    pub parked: usize,
}

impl Projector {
    /// Makes the build if it is not there, and prepares to fill it.
    ///
    /// # Errors
    /// [`build::BuildError`]; nothing is half made.
    pub async fn open(
        pool: PgPool,
        manifest: Arc<Manifest>,
        opener: Arc<dyn OpenPersonal>,
        limits: Limits,
    ) -> Result<Self, build::BuildError> {
        build::ensure(&pool, &manifest).await?;
        Self::of_made(pool, manifest, opener, limits).await
    }

    /// For a build that is made already.
    pub(crate) async fn of_made(
        pool: PgPool,
        manifest: Arc<Manifest>,
        opener: Arc<dyn OpenPersonal>,
        limits: Limits,
    ) -> Result<Self, build::BuildError> {
        let columns = build::describe_columns(&pool, &manifest).await?;
        Ok(Self::with_columns(pool, manifest, &columns, opener, limits))
    }

    /// For tables that only a transaction sees, whose columns are known.
    pub(crate) fn with_columns(
        pool: PgPool,
        manifest: Arc<Manifest>,
        columns: &build::Columns,
        opener: Arc<dyn OpenPersonal>,
        limits: Limits,
    ) -> Self {
        let plan = Arc::new(Plan::new(&manifest, columns));
        Self {
            manifest,
            pool,
            plan,
            limits,
            opener,
            gated: true,
        }
    }

    /// The same for whoever is in the build's gate alone already, with another connection.
    pub(crate) fn within_gate(self) -> Self {
        Self { gated: false, ..self }
    }

    /// Which build of which projection.
    #[must_use]
    pub fn id(&self) -> &BuildId {
        &self.manifest.id
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Applies what was read of some shards, each at most once, in one transaction. An event that cannot be
    /// applied is parked with the rest of its stream; everything else goes on.
    ///
    /// Not cancel safe: if this is dropped, the transaction may have been committed; the checkpoints say.
    ///
    /// # Errors
    /// [`ApplyError`]: nothing was committed, except where it says that this is not known.
    pub async fn apply(&self, deliveries: &[Delivery]) -> Result<Applied, ApplyError> {
        let mut events = Vec::new();
        for delivery in deliveries {
            delivery.collect(&self.plan, &mut events);
        }
        let prepared = self.prepare(events).await?;
        match self.whole(deliveries, &prepared).await {
            Err(ApplyError::Poison(trouble)) => {
                tracing::debug!(build = %self.id(), %trouble, "looking for the event that cannot be applied");
                self.piecewise(deliveries, &prepared).await
            }
            done => done,
        }
    }

    pub(crate) async fn prepare(&self, events: Vec<Event>) -> Result<Prepared, ApplyError> {
        Prepared::new(events, self.manifest.is_private(), &*self.opener).await
    }

    /// A trouble as it is stored: without the server's words where they may quote personal data.
    pub(crate) fn shown(&self, trouble: &Trouble) -> String {
        if !self.manifest.is_private() {
            return trouble.to_string();
        }
        let code = trouble.error.sqlstate().unwrap_or_default();
        let constraint = trouble.error.constraint().unwrap_or_default();
        format!("{}: SQLSTATE {code} {constraint}", trouble.place)
            .trim_end()
            .to_owned()
    }

    /// The usual way: everything at once.
    async fn whole(&self, deliveries: &[Delivery], prepared: &Prepared) -> Result<Applied, ApplyError> {
        let (mut tx, parked) = self.begin().await?;
        let (go, behind) = prepared.apart(&parked);
        self.apply_set(&mut tx, prepared, &go).await?;
        parking::park_behind(&mut tx, self.id(), prepared, &behind).await?;
        self.advance(&mut tx, deliveries).await?;
        tx.commit().await.map_err(ApplyError::of)?;
        self.count(go.len(), behind.len())
    }

    /// The careful way, after an event was found that cannot be applied: it is sought by halving, under
    /// savepoints, parked, and the rest goes on.
    async fn piecewise(&self, deliveries: &[Delivery], prepared: &Prepared) -> Result<Applied, ApplyError> {
        let (mut tx, mut parked) = self.begin().await?;
        if !self.is_there(&mut tx).await? {
            return Err(ApplyError::Gone(self.id().clone()));
        }
        let (go, mut behind) = prepared.apart(&parked);
        let newly = parking::isolate(self, &mut tx, prepared, go, &mut parked).await?;
        behind.extend(newly.behind);
        parking::park_behind(&mut tx, self.id(), prepared, &behind).await?;
        self.advance(&mut tx, deliveries).await?;
        tx.commit().await.map_err(ApplyError::of)?;
        self.count(newly.applied, newly.culprits + behind.len())
    }

    fn count(&self, events: usize, parked: usize) -> Result<Applied, ApplyError> {
        metrics::applied(self.id(), events, parked);
        Ok(Applied { events, parked })
    }

    /// A transaction in the build's schema and in its gate, with the streams that are parked: nobody resumes them, and
    /// nobody makes the build stand still, in its course.
    async fn begin(&self) -> Result<(Transaction, ParkedStreams), ApplyError> {
        let mut tx = self
            .begin_in_schema(self.gated.then_some("pg_advisory_xact_lock_shared"))
            .await?;
        // A statement of its own: its snapshot is of the time after the wait for the gate.
        let any_parked: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM annals.parked WHERE projection = $1 AND build = $2)",
        )
        .bind(self.id().name.as_str())
        .bind(self.id().build.get())
        .fetch_one(&mut *tx)
        .await
        .map_err(ApplyError::of)?;
        if !any_parked {
            return Ok((tx, ParkedStreams::new()));
        }
        let parked = parking::parked_streams(&mut tx, self.id()).await?;
        Ok((tx, parked))
    }

    /// A transaction in the build's schema, alone in its gate.
    pub(crate) async fn begin_alone(&self) -> Result<Transaction, ApplyError> {
        self.begin_in_schema(Some("pg_advisory_xact_lock")).await
    }

    async fn begin_in_schema(&self, lock: Option<&str>) -> Result<Transaction, ApplyError> {
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
        let mut tx = self.pool.begin_with(begin).await.map_err(ApplyError::of)?;
        self.enter(&mut tx, lock).await?;
        Ok(tx)
    }

    /// Sets what statements rely on until the transaction ends, and takes the gate's lock by this function.
    pub(crate) async fn enter(
        &self,
        connection: &mut PgConnection,
        lock: Option<&str>,
    ) -> Result<(), ApplyError> {
        let gate = lock.map_or(String::new(), |lock| {
            format!(", {lock}({})", gate::key(self.id()))
        });
        let sql = format!(
            "SELECT set_config('search_path', $1, true), set_config('statement_timeout', $2, true),
                    set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO', true){gate}"
        );
        let done = sqlx::query(AssertSqlSafe(sql))
            .bind(&self.plan.search_path)
            .bind(self.limits.statement_timeout.as_millis().to_string())
            .execute(connection)
            .await;
        done.map(drop).map_err(ApplyError::of)
    }

    /// Whether the build's schema is there still.
    async fn is_there(&self, connection: &mut PgConnection) -> Result<bool, ApplyError> {
        let found = sqlx::query_scalar("SELECT to_regnamespace($1) IS NOT NULL")
            .bind(build::quote(&self.id().schema()))
            .fetch_one(connection)
            .await;
        found.map_err(ApplyError::of)
    }

    /// Runs the statements of some events, which are in the order of their shards, wave by wave.
    pub(crate) async fn apply_set(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        events: &[usize],
    ) -> Result<(), ApplyError> {
        let handled: Vec<usize> = events
            .iter()
            .copied()
            .filter(|&at| {
                prepared
                    .event_type(at)
                    .is_some_and(|name| self.plan.handles(name))
            })
            .collect();
        let steps = handled.iter().filter_map(|&at| {
            let event_type = prepared.event_type(at)?;
            Some(waves::Step {
                stream: prepared.stream(at),
                event_type,
                repeat: self.plan.repeats(event_type),
            })
        });
        let mut settled = Settled::new();
        for wave in waves::split(steps) {
            for (event_type, steps) in wave {
                let at: Vec<usize> = steps
                    .iter()
                    .filter_map(|step| handled.get(*step).copied())
                    .collect();
                let columns = bind::Columns::of(prepared, &at)?;
                for statement in self.plan.statements(event_type) {
                    let done = columns.bind(statement).execute(&mut *connection).await;
                    let done = done.map_err(|error| ApplyError::in_statement(&statement.file, error))?;
                    self.settle(&mut settled, statement, prepared, &at, done.rows_affected());
                }
            }
        }
        if self.manifest.rows == Rows::Stream {
            self.raise_versions(connection, prepared, events, &settled)
                .await?;
        }
        Ok(())
    }

    /// Where a stream has one row, a statement that names `_version` and touched as many rows as it saw streams has
    /// brought them there: that it writes the right number is what `projections check` looks at.
    fn settle<'a>(
        &self,
        settled: &mut Settled<'a>,
        statement: &'a plan::Statement,
        prepared: &'a Prepared,
        at: &[usize],
        rows: u64,
    ) {
        let single = self
            .plan
            .raises
            .iter()
            .any(|raise| raise.single && raise.table == statement.table);
        if !single || !statement.versions {
            return;
        }
        let streams: HashMap<&str, usize> = at.iter().map(|&at| (prepared.stream(at), at)).collect();
        if u64::try_from(streams.len()) == Ok(rows) {
            settled
                .entry(statement.table.as_str())
                .or_default()
                .extend(streams);
        }
    }

    /// Raises `_version` in every row of a touched stream where it is lower.
    async fn raise_versions(
        &self,
        connection: &mut PgConnection,
        prepared: &Prepared,
        events: &[usize],
        settled: &Settled<'_>,
    ) -> Result<(), ApplyError> {
        for raise in &self.plan.raises {
            let settled = settled.get(raise.table.as_str());
            let (keys, versions) = prepared.newest_versions(events, &raise.category, settled)?;
            if keys.is_empty() {
                continue;
            }
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&raise.sql)));
            let done = query.bind(keys).bind(versions).execute(&mut *connection).await;
            done.map_err(|error| ApplyError::in_statement(&raise.table, error))?;
        }
        Ok(())
    }

    async fn advance(
        &self,
        connection: &mut PgConnection,
        deliveries: &[Delivery],
    ) -> Result<(), ApplyError> {
        let moves: Vec<_> = deliveries
            .iter()
            .filter(|delivery| delivery.from != delivery.to)
            .map(|delivery| (delivery.shard, &delivery.from, &delivery.to))
            .collect();
        if moves.is_empty() {
            return Ok(());
        }
        Checkpoint::advance_all(connection, &self.plan.reader, &moves).await?;
        Ok(())
    }
}

/// By table and stream: up to which event its row's version is right.
type Settled<'a> = HashMap<&'a str, HashMap<&'a str, usize>>;

type Transaction = sqlx::Transaction<'static, sqlx::Postgres>;

/// The streams of a build that are parked.
pub(crate) type ParkedStreams = HashSet<Box<str>>;

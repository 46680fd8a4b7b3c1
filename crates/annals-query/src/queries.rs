//! Answers requests: waits for freshness, looks into the cache, runs the one statement, and checks what it saw.

mod live;

use std::sync::Arc;
use std::time::Duration;

use annals_domain::Ambient;
use annals_record::{Position, Version};
use annals_store::notify::Listener;
use annals_store::pool::{DatabaseUrl, PoolSettings};
use annals_store::{ErrorClass, error};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tokio::time::Instant;

use crate::answer::{self, ListAnswer, Meta, RowAnswer};
use crate::cache::{Answers, CacheStats, Found};
use crate::freshness::{self, COLUMNS, Freshness, Seen, State};
use crate::lanes::Lanes;
use crate::live::{Hub, LiveLimits};
use crate::request::{Prepared, Request, Selection};
use crate::sql::{self, Statement};
use crate::{CursorKey, QueryError, Resources, metrics as names};

/// Connections beside those for queries: one reads checkpoints, one the catalog of a new build.
const OWN_CONNECTIONS: u32 = 2;

/// How often the cache's gauges are set.
const GAUGES: Duration = Duration::from_secs(5);

/// Bounds of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a page without `limit`; at least 1.
    pub default_page: u32,
    /// `query.limit_max`: the largest `limit`.
    pub max_page: u32,
    /// `query.pool`: connections for queries; two more are the node's own.
    pub connections: u32,
    /// `query.statement_timeout_ms`: the server ends a statement that takes longer.
    pub statement_timeout: Duration,
    /// `query.cache_bytes`: answers kept in memory; 0: none.
    pub cache_bytes: u64,
    /// Of live changes.
    pub live: LiveLimits,
}

impl Default for Limits {
    /// 50 rows, at most 500; 16 connections; 2 s; 64 MiB; live changes as [`LiveLimits`] has them.
    fn default() -> Self {
        Self {
            default_page: 50,
            max_page: 500,
            connections: 16,
            statement_timeout: Duration::from_secs(2),
            cache_bytes: 64 << 20,
            live: LiveLimits::default(),
        }
    }
}

impl Limits {
    /// The settings of the pool that keeps these limits: read-only, and a caller waits for a connection no longer
    /// than a statement may take.
    pub fn pool(&self, url: impl Into<DatabaseUrl>) -> PoolSettings {
        let mut settings = PoolSettings::new(url, "annals-query");
        settings.max_connections = self.connections.saturating_add(OWN_CONNECTIONS);
        settings.acquire_timeout = self.statement_timeout;
        settings.statement_timeout = Some(self.statement_timeout);
        settings.read_only = true;
        settings
    }

    /// Whether the limits can work.
    ///
    /// # Errors
    /// What is wrong, and with which key.
    pub fn validate(&self) -> Result<(), &'static str> {
        if self.max_page == 0 {
            return Err("query.limit_max must be at least 1");
        }
        if self.default_page == 0 || self.default_page > self.max_page {
            return Err("the default page must be from 1 to query.limit_max");
        }
        if self.connections == 0 {
            return Err("query.pool must be at least 1");
        }
        if self.statement_timeout.is_zero() {
            return Err("query.statement_timeout_ms must be at least 1");
        }
        self.live.validate()
    }
}

/// Answers requests for rows. Shared by all requests of a node.
#[derive(Debug)]
pub struct Queries {
    /// For what is not a query: the catalog of a new build.
    pool: PgPool,
    lanes: Lanes,
    resources: Arc<Resources>,
    freshness: Arc<Freshness>,
    cursors: CursorKey,
    ambient: Ambient,
    limits: Limits,
    answers: Answers,
    live: Hub,
}

impl Queries {
    /// From its parts; the pool as [`Limits::pool`] says.
    #[must_use]
    pub fn new(
        pool: PgPool,
        resources: Arc<Resources>,
        freshness: Arc<Freshness>,
        cursors: CursorKey,
        ambient: Ambient,
        limits: Limits,
    ) -> Self {
        Self {
            lanes: Lanes::new(pool.clone(), limits.connections, limits.statement_timeout),
            pool,
            resources,
            freshness,
            cursors,
            ambient,
            limits,
            answers: Answers::new(limits.cache_bytes),
            live: Hub::new(limits.live),
        }
    }

    /// The resources.
    #[must_use]
    pub fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    /// Understands a request, without touching the database.
    ///
    /// # Errors
    /// What the caller did wrong: an unknown resource, parameter or position, a wrong value, another query's cursor;
    /// [`QueryError::NotFound`] for a key that cannot be one.
    pub fn prepare(&self, request: Request) -> Result<Prepared, QueryError> {
        self.freshness.check(&request.after)?;
        self.understand(Arc::new(request))
    }

    /// What to answer with 304 to a request with this `If-None-Match`: if nothing has changed as far as is known,
    /// and that is as fresh as was asked for. Never touches the database, and never waits.
    #[must_use]
    pub fn not_modified(&self, prepared: &Prepared, if_none_match: &str) -> Option<Meta> {
        let sources = prepared.sources();
        let states = self.freshness.known(&sources)?;
        let etag = answer::etag(&prepared.whole, &states);
        if !answer::names(if_none_match, &etag) {
            return None;
        }
        freshness::check_folded(&states, &prepared.request.after).ok()?;
        prepared.resource.counted.not_modified.increment(1);
        let now_ms = self.ambient.now_ms();
        Some(Meta::with_tag(etag, &sources, &states, &self.freshness, now_ms))
    }

    /// The row that was asked for.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`QueryError`]; [`QueryError::NotFound`] also if a list was asked for.
    pub async fn row(&self, prepared: Prepared) -> Result<RowAnswer, QueryError> {
        let (prepared, found) = self.find(prepared).await?;
        let data = found
            .data
            .filter(|_| matches!(prepared.selection, Selection::Row(_)));
        Ok(RowAnswer {
            data: data.ok_or(QueryError::NotFound)?,
            version: found.version,
            meta: self.meta(&prepared, &found.states),
        })
    }

    /// The page that was asked for.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`QueryError`]; [`QueryError::NotFound`] if a row was asked for.
    pub async fn list(&self, prepared: Prepared) -> Result<ListAnswer, QueryError> {
        let (prepared, found) = self.find(prepared).await?;
        let data = found
            .data
            .filter(|_| matches!(prepared.selection, Selection::Page(_)));
        Ok(ListAnswer {
            data: data.ok_or(QueryError::NotFound)?,
            next: found.next,
            count: found.count,
            meta: self.meta(&prepared, &found.states),
        })
    }

    /// Keeps checkpoints, live builds and feeds of live changes up to date, for ever: to be run once, as a task named
    /// `queries`. The listener is one of [`crate::CHANNEL`]; none where the server cannot notify, being a standby.
    ///
    /// Cancel safe.
    pub async fn run(&self, listener: Option<Listener>) {
        tokio::join!(
            self.freshness.run(listener),
            self.follow(),
            self.keep_feeds(),
            self.show()
        );
    }

    /// What the cache has done, and what it holds.
    #[must_use]
    pub fn cache(&self) -> CacheStats {
        self.answers.stats()
    }

    /// Sets the gauges.
    async fn show(&self) {
        let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        loop {
            let stats = self.answers.stats();
            metrics::gauge!(names::CACHE_ENTRIES).set(number(stats.entries));
            // In steps of 1 KiB, so that more than 4 GiB can be told.
            metrics::gauge!(names::CACHE_BYTES).set(number(stats.bytes >> 10) * 1024.0);
            metrics::gauge!(names::CACHE_HIT_RATIO).set(stats.hit_ratio());
            tokio::time::sleep(GAUGES).await;
        }
    }

    /// Resolves resources anew when another build becomes live, so that what it offers can be asked for at once.
    async fn follow(&self) {
        let mut watch = self.freshness.watch();
        loop {
            let builds = self.freshness.live_builds();
            let moved: Vec<&str> = builds
                .iter()
                .filter(|(name, build)| self.resources.is_other(name, *build))
                .map(|(name, _)| name.as_str())
                .collect();
            if !moved.is_empty()
                && let Err(error) = self.resources.reload(&self.pool, &moved).await
            {
                tracing::warn!(%error, ?moved, "the resources of a new live build cannot be read");
            }
            watch.next().await;
        }
    }

    fn understand(&self, request: Arc<Request>) -> Result<Prepared, QueryError> {
        Prepared::new(request, &self.resources, &self.cursors, &self.limits)
    }

    fn meta(&self, prepared: &Prepared, states: &[Arc<State>]) -> Meta {
        let now_ms = self.ambient.now_ms();
        Meta::new(
            &prepared.whole,
            &prepared.sources(),
            states,
            &self.freshness,
            now_ms,
        )
    }

    async fn find(&self, prepared: Prepared) -> Result<(Prepared, Found), QueryError> {
        let deadline = Instant::now() + prepared.request.wait;
        let request = Arc::clone(&prepared.request);
        self.settle(prepared, &request.after, deadline).await
    }

    /// Waits, looks, asks; and once more if another build has become live in between.
    async fn settle<T: Reading>(
        &self,
        mut prepared: Prepared,
        after: &[Position],
        deadline: Instant,
    ) -> Result<(Prepared, T), QueryError> {
        let mut switched = false;
        loop {
            if !after.is_empty() {
                self.freshness.wait(&prepared.sources(), after, deadline).await?;
            }
            if let Some(found) = T::remembered(self, &prepared) {
                return Ok((prepared, found));
            }
            match self.ask::<T>(&prepared).await? {
                Asked::Found(found) => match freshness::check_folded(found.states(), after) {
                    Ok(()) => {
                        found.remember(self, &prepared);
                        return Ok((prepared, found));
                    }
                    // What was known was another build's: this one is not as far.
                    Err(behind) if Instant::now() >= deadline => return Err(behind),
                    Err(_) => self.freshness.refresh().await.map_err(QueryError::Unavailable)?,
                },
                Asked::Switched if switched => {
                    let projection = prepared.resource.definition.projection.clone();
                    return Err(QueryError::NotBuilt { projection });
                }
                Asked::Switched => {
                    switched = true;
                    metrics::counter!(names::BUILD_SWITCHES).increment(1);
                    let sources = prepared.sources();
                    let projections: Vec<&str> = sources.iter().map(|(name, _)| *name).collect();
                    self.resources.reload(&self.pool, &projections).await?;
                    prepared = T::understand(self, Arc::clone(&prepared.request))?;
                }
            }
        }
    }

    fn cached(&self, prepared: &Prepared) -> Option<Found> {
        let states = self.freshness.known(&prepared.sources());
        let states = states.filter(|states| freshness::check_folded(states, &prepared.request.after).is_ok());
        let found = self.answers.get(&prepared.whole, states.as_deref());
        let counted = &prepared.resource.counted;
        match &found {
            Some(_) => counted.hits.increment(1),
            None => counted.misses.increment(1),
        }
        found
    }

    async fn ask<T: Reading>(&self, prepared: &Prepared) -> Result<Asked<T>, QueryError> {
        prepared.resource.counted.statements.increment(1);
        match self.lanes.fetch_one(&T::statement(prepared)).await {
            Ok(row) => self.read(prepared, &row),
            // The build's schema was dropped after a switch.
            Err(error) if error::class(&error) == ErrorClass::MissingObject => {
                tracing::info!(%error, "a statement met a build that is gone");
                Ok(Asked::Switched)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The states first, then what was asked for.
    fn read<T: Reading>(&self, prepared: &Prepared, row: &PgRow) -> Result<Asked<T>, QueryError> {
        let sources = prepared.sources();
        let mut states = Vec::with_capacity(sources.len());
        for (at, (projection, build)) in sources.iter().enumerate() {
            let state = self.freshness.observe(projection, Seen::read(row, at * COLUMNS)?);
            if state.build() != Some(*build) {
                return Ok(Asked::Switched);
            }
            states.push(state);
        }
        let at = sources.len() * COLUMNS;
        Ok(Asked::Found(T::read(self, prepared, row, at, states.into())?))
    }
}

/// What a statement gave.
enum Asked<T> {
    Found(T),
    /// Another build is live than the one that was asked.
    Switched,
}

/// What is read of the one line of a statement.
trait Reading: Sized {
    fn statement(prepared: &Prepared) -> Statement;
    /// From the column `at` on; the states come before.
    fn read(
        queries: &Queries,
        prepared: &Prepared,
        row: &PgRow,
        at: usize,
        states: Arc<[Arc<State>]>,
    ) -> Result<Self, sqlx::Error>;
    fn states(&self) -> &[Arc<State>];
    fn understand(queries: &Queries, request: Arc<Request>) -> Result<Prepared, QueryError>;
    fn remembered(queries: &Queries, prepared: &Prepared) -> Option<Self>;
    fn remember(&self, queries: &Queries, prepared: &Prepared);
}

impl Reading for Found {
    fn statement(prepared: &Prepared) -> Statement {
        sql::statement(prepared)
    }

    fn read(
        queries: &Queries,
        prepared: &Prepared,
        row: &PgRow,
        at: usize,
        states: Arc<[Arc<State>]>,
    ) -> Result<Self, sqlx::Error> {
        let data: Option<&str> = row.try_get(at)?;
        let mut found = Self {
            data: data.map(Arc::from),
            version: None,
            next: None,
            count: None,
            states,
        };
        match &prepared.selection {
            Selection::Row(_) => {
                let version: Option<i64> = row.try_get(at + 1)?;
                found.version = version.and_then(|version| Version::try_from(version).ok());
            }
            Selection::Page(page) => {
                let rows: i64 = row.try_get(at + 1)?;
                let last: Option<Vec<Option<String>>> = row.try_get(at + 2)?;
                let count: Option<i64> = row.try_get(at + 3)?;
                let last = last.filter(|_| rows > i64::from(page.limit));
                found.next = last.map(|last| queries.cursors.seal(&prepared.query, &last).into());
                found.count = count.and_then(|count| u64::try_from(count).ok());
            }
        }
        Ok(found)
    }

    fn states(&self) -> &[Arc<State>] {
        &self.states
    }

    fn understand(queries: &Queries, request: Arc<Request>) -> Result<Prepared, QueryError> {
        queries.understand(request)
    }

    fn remembered(queries: &Queries, prepared: &Prepared) -> Option<Self> {
        queries.cached(prepared)
    }

    fn remember(&self, queries: &Queries, prepared: &Prepared) {
        queries.answers.put(prepared.whole, self.clone());
    }
}

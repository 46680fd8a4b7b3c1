//! Live changes: subscriptions, and the one task that keeps all feeds up to date.

use std::sync::Arc;
use std::time::Duration;

use annals_record::{Position, Version};
use futures_util::{StreamExt, stream};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tokio::time::Instant;

use super::{Limits, Queries, Reading};
use crate::freshness::State;
use crate::live::{LiveId, Hub, Listing, Row, Shared, Subscription};
use crate::request::{Prepared, Request, Selection};
use crate::sql::{self, Statement};
use crate::{QueryError, metrics as names};

/// So many feeds are read at a time: what is left of the pool is for requests.
const AT_ONCE: usize = 4;
/// How long the pause is before a feed that could not be read is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How often feeds that nobody follows are looked at, to forget them.
const TIDY: Duration = Duration::from_secs(30);

impl Queries {
    /// Follows a row or a list: what there is, then what changes. `last` is the id of the last event that the caller has
    /// seen, if it comes back.
    ///
    /// A list without `limit` is followed whole; with one it is its first rows in its order, as they are at any time.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As for a plain query; a list of more rows than [`crate::LiveLimits::rows`] without `limit` is
    /// [`QueryError::InvalidParameter`], and so is a cursor; [`QueryError::TooManySubscribers`],
    /// [`QueryError::TooManyOfCaller`].
    pub async fn subscribe(
        &self,
        request: Request,
        caller: &str,
        last: Option<LiveId>,
    ) -> Result<Subscription, QueryError> {
        self.freshness.check(&request.after)?;
        // Of a log that was replaced nothing is known: a new beginning.
        let last = last.filter(|id| self.freshness.check(&id.positions).is_ok());
        let prepared = Listing::understand(self, Arc::new(request))?;
        let window = prepared.request.parameters.iter().any(|(name, _)| name == "limit");
        let place = self.live.place(caller)?;
        let following = self.live.follow(&prepared, window);
        let deadline = Instant::now() + prepared.request.wait;
        let mut after = prepared.request.after.clone();
        after.extend(last.iter().flat_map(|id| id.positions.iter()));
        let shared = Arc::clone(&following.0);
        let _one = shared.loading.lock().await;
        let listing = self.load(&shared, after, deadline).await?;
        let key = match &prepared.selection {
            Selection::Row(key) => Some(key.join(",")),
            Selection::Page(_) => None,
        };
        let (first, at) = shared.begin(&listing, last.as_ref(), key.as_deref())?;
        let meta = self.meta(&prepared, &listing.states);
        self.live.added.notify_one();
        Ok(Subscription::new(meta, first, at, following, place))
    }

    /// Reads the rows of a feed and takes them in. The caller holds its `loading`.
    async fn load(
        &self,
        shared: &Shared,
        mut after: Vec<Position>,
        deadline: Instant,
    ) -> Result<Listing, QueryError> {
        // Not back in time, also where a build is switched back to that is not as far.
        after.extend(shared.positions().iter());
        let prepared = shared.prepared();
        let checked = self.freshness.known(&prepared.sources());
        let (prepared, listing) = self.settle::<Listing>(prepared, &after, deadline).await?;
        if listing.more && !shared.is_window() {
            let limit = self.limits.live.rows;
            let expected = format!("given, or filters that leave no more than the {limit} rows that may be followed");
            return Err(QueryError::invalid("limit", expected));
        }
        let meta = self.meta(&prepared, &listing.states);
        shared.take(prepared, &listing, &meta, checked, self.live.share());
        Ok(listing)
    }

    /// Reads each feed again when it may have changed, for ever.
    pub(super) async fn keep_feeds(&self) {
        let mut watch = self.freshness.watch();
        loop {
            let stale: Vec<_> = self.live.followed().into_iter().filter(|shared| self.is_stale(shared)).collect();
            if stale.is_empty() {
                tokio::select! {
                    () = watch.next() => {}
                    () = self.live.added.notified() => {}
                    () = tokio::time::sleep(TIDY) => {}
                }
                continue;
            }
            let readings = stream::iter(stale).map(|shared| self.keep(shared));
            let all_read = readings
                .buffer_unordered(AT_ONCE)
                .fold(true, async |all, read| all && read)
                .await;
            if !all_read {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn is_stale(&self, shared: &Shared) -> bool {
        let known = self.freshness.known(&shared.prepared().sources());
        !shared.is_current(known.as_deref())
    }

    /// Reads a feed again; whether that is done with.
    async fn keep(&self, shared: Arc<Shared>) -> bool {
        let _one = shared.loading.lock().await;
        if !self.is_stale(&shared) {
            return true;
        }
        match self.load(&shared, Vec::new(), Instant::now()).await {
            Ok(_) => true,
            Err(
                error @ (QueryError::Behind { .. }
                | QueryError::NotBuilt { .. }
                | QueryError::Timeout
                | QueryError::Unavailable(_)
                | QueryError::Internal(_)),
            ) => {
                metrics::counter!(names::LIVE_FAILURES).increment(1);
                tracing::debug!(%error, "live changes cannot be read now");
                false
            }
            Err(error) => {
                Hub::end(&self.live, &shared, error);
                true
            }
        }
    }
}

impl Reading for Listing {
    fn statement(prepared: &Prepared) -> Statement {
        sql::live_statement(prepared)
    }

    fn read(
        queries: &Queries,
        prepared: &Prepared,
        row: &PgRow,
        at: usize,
        states: Arc<[Arc<State>]>,
    ) -> Result<Self, sqlx::Error> {
        let keys: Option<Vec<String>> = row.try_get(at)?;
        let versions: Option<Vec<Option<i64>>> = row.try_get(at + 1)?;
        let data: Option<Vec<String>> = row.try_get(at + 2)?;
        let resource = &prepared.resource.definition.resource;
        let all = keys
            .unwrap_or_default()
            .into_iter()
            .zip(versions.unwrap_or_default())
            .zip(data.unwrap_or_default());
        let row = |((key, version), data): ((String, Option<i64>), String)| {
            let version = version.and_then(|version| Version::try_from(version).ok());
            let number = version.map(|version| version.to_string()).unwrap_or_default();
            Row {
                digest: queries.cursors.digest([resource.as_str(), &key, &number, &data]),
                key: key.into(),
                version,
                data: data.into(),
            }
        };
        let mut rows: Vec<Row> = all.map(row).collect();
        let limit = match &prepared.selection {
            Selection::Row(_) => 1,
            Selection::Page(page) => usize::try_from(page.limit).unwrap_or(usize::MAX),
        };
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok(Self { rows, more, states })
    }

    fn states(&self) -> &[Arc<State>] {
        &self.states
    }

    /// As of a plain query, but that a list is not of pages.
    fn understand(queries: &Queries, request: Arc<Request>) -> Result<Prepared, QueryError> {
        if request.parameters.iter().any(|(name, _)| name == "cursor") {
            let expected = "left out: live changes have no pages";
            return Err(QueryError::invalid("cursor", expected));
        }
        let most = queries.limits.live.rows;
        let limits = Limits {
            default_page: most,
            max_page: most,
            ..queries.limits
        };
        Prepared::new(request, &queries.resources, &queries.cursors, &limits)
    }

    fn remembered(_: &Queries, _: &Prepared) -> Option<Self> {
        None
    }

    fn remember(&self, _: &Queries, _: &Prepared) {}
}

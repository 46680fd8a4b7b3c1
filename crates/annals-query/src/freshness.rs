//! How far the live projections are: known in memory for all requests, kept by one task.
//!
//! The task hears the projectors' notifications (channel [`CHANNEL`]), and reads everything again with one statement:
//! on each notification, at most every 10 ms while somebody waits for a position, else every 100 ms; without any, every
//! 100 ms while somebody waits, and every second anyhow. No request reads checkpoints in a loop. What a query sees in its own snapshot is taken in too.
//!
//! **Lag** is the age of the oldest record that the projection has not folded, 0 if there is none. The same statement
//! reads that record's time from the journal, one index probe a shard. It can be a second old when the projector
//! does nothing, and it knows only what the journal has: with Kafka, what the indexer has read. On a standby that has
//! not replayed all that it has, it is at least the age of the last transaction that it has replayed.
//!
//! A standby cannot be notified (`LISTEN` is refused there): without a listener everything is read every 100 ms.

mod state;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annals_record::{Generation, Offset, Position, Shard, ShardCount};
use annals_store::notify::Listener;
use sqlx::{AssertSqlSafe, PgPool, Row};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::{QueryError, metrics as names, sql};

pub use state::State;
pub(crate) use state::{COLUMNS, Seen};

/// The channel on which projectors tell that a checkpoint has moved. Key and value are not looked at.
pub const CHANNEL: &str = "annals_projection";

/// Without a notification, everything is read again this often.
const IDLE: Duration = Duration::from_secs(1);
/// The same while a request waits; and the least between two readings while none does.
const WAITING: Duration = Duration::from_millis(100);
/// Never more often, however many notifications come: one reading costs Postgres about a millisecond.
const PAUSE: Duration = Duration::from_millis(10);
/// What is older is not used to answer without the database.
const STALE: Duration = Duration::from_secs(5);

/// Which log the positions are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogIdentity {
    /// Which copy.
    pub generation: Generation,
    /// How many shards.
    pub shards: ShardCount,
}

/// How far the live projections are.
#[derive(Debug)]
pub struct Freshness {
    pool: PgPool,
    projections: Vec<String>,
    sql: String,
    log: LogIdentity,
    known: watch::Sender<Known>,
    poke: Notify,
    waiting: AtomicUsize,
}

/// Waits for changes; one that happens between two waits is not missed.
pub(crate) struct Watch(watch::Receiver<Known>);

impl Watch {
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The sender lives as long as whoever waits.
            std::future::pending::<()>().await;
        }
    }
}

/// What is known, and since when.
#[derive(Debug, Default)]
struct Known {
    read_at: Option<Instant>,
    /// How far a standby is behind, ms; 0 elsewhere.
    replay_ms: u64,
    projections: HashMap<String, Progress>,
}

/// A live projection.
#[derive(Debug, Clone)]
struct Progress {
    state: Arc<State>,
    /// The oldest record of each shard that was not folded when it was read.
    unfolded: Arc<[Unfolded]>,
}

#[derive(Debug, Clone, Copy)]
struct Unfolded {
    shard: Shard,
    offset: Offset,
    time_ms: i64,
}

impl Freshness {
    /// Knows nothing until the first [`Freshness::refresh`].
    #[must_use]
    pub fn new(pool: PgPool, projections: Vec<String>, log: LogIdentity) -> Self {
        Self {
            pool,
            projections,
            sql: refresh_sql(),
            log,
            known: watch::Sender::default(),
            poke: Notify::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Keeps itself up to date for ever: to be run once, as a task named `freshness`. The listener is one of
    /// [`CHANNEL`].
    ///
    /// Cancel safe.
    pub async fn run(&self, mut listener: Option<Listener>) {
        let idle = if listener.is_some() { IDLE } else { WAITING };
        loop {
            let read_at = Instant::now();
            if let Err(error) = self.refresh().await {
                metrics::counter!(names::REFRESH_FAILURES).increment(1);
                tracing::warn!(%error, "the projections' checkpoints cannot be read");
            }
            let until = read_at + if self.is_awaited() { WAITING } else { idle };
            tokio::select! {
                () = heard(listener.as_mut()) => {}
                () = self.poke.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
            // Nobody waits: what was heard can wait too, until somebody does.
            if !self.is_awaited() {
                tokio::select! {
                    () = self.poke.notified() => {}
                    () = tokio::time::sleep_until(read_at + WAITING) => {}
                }
            }
            tokio::time::sleep_until(read_at + PAUSE).await;
        }
    }

    fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Reads everything again, in one snapshot.
    ///
    /// # Errors
    /// As the driver says; what was known stays.
    pub async fn refresh(&self) -> Result<(), annals_store::Error> {
        metrics::counter!(names::REFRESHES).increment(1);
        let shards = i32::try_from(self.log.shards.get()).unwrap_or(i32::MAX);
        let rows = sqlx::query(AssertSqlSafe(self.sql.clone()))
            .bind(&self.projections)
            .bind(shards)
            .fetch_all(&self.pool)
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        let mut replay_ms = 0;
        for row in &rows {
            let behind: Option<i64> = row.try_get(2 + COLUMNS)?;
            replay_ms = behind.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
            let seen = Seen::read(row, 1)?;
            let unfolded: Option<String> = row.try_get(1 + COLUMNS)?;
            found.push((row.try_get(0)?, seen, read_unfolded(unfolded.as_deref())));
        }
        self.known.send_if_modified(|known| {
            known.read_at = Some(Instant::now());
            known.replay_ms = replay_ms;
            let mut moved = false;
            for (name, seen, unfolded) in found {
                moved |= known.take(name, seen, unfolded);
            }
            moved
        });
        Ok(())
    }

    /// Takes in what a query saw of a projection's live build.
    pub(crate) fn observe(&self, projection: &str, seen: Seen) -> Arc<State> {
        if let Some(progress) = self.known.borrow().projections.get(projection)
            && *progress.state.seen() == seen
        {
            return Arc::clone(&progress.state);
        }
        let state = Arc::new(State::new(seen));
        self.known.send_if_modified(|known| {
            let Some(progress) = known.projections.get_mut(projection) else {
                return false;
            };
            // Another build is for the task to find: an old query may still see the one before.
            let newer = progress.state.build() == state.build() && progress.state.is_before(&state);
            if newer {
                progress.state = Arc::clone(&state);
            }
            newer
        });
        state
    }

    /// What is known of these projections; `None` if one is not known, or all of it is more than 5 s old.
    pub(crate) fn known(&self, sources: &[(&str, i32)]) -> Option<Vec<Arc<State>>> {
        let known = self.known.borrow();
        if known.read_at?.elapsed() > STALE {
            return None;
        }
        let state = |(name, build): &(&str, i32)| {
            let progress = known.projections.get(*name)?;
            (progress.state.build() == Some(*build)).then(|| Arc::clone(&progress.state))
        };
        sources.iter().map(state).collect()
    }

    /// How old the oldest record is that one of these projections had not folded in these states, in ms.
    pub(crate) fn lag_ms(&self, sources: &[(&str, i32)], states: &[Arc<State>], now_ms: i64) -> u64 {
        let known = self.known.borrow();
        let ages = sources.iter().zip(states).flat_map(|((name, _), state)| {
            let unfolded = known
                .projections
                .get(*name)
                .map(|progress| Arc::clone(&progress.unfolded));
            let state = Arc::clone(state);
            let missing = unfolded.into_iter().flat_map(|all| all.to_vec());
            missing
                .filter(move |record| state.next(record.shard) <= record.offset)
                // A record from a clock ahead of this one is not folded either.
                .map(move |record| u64::try_from(now_ms - record.time_ms).unwrap_or(0).max(1))
        });
        ages.max().unwrap_or(0).max(known.replay_ms)
    }

    /// Checks that these are positions of this log.
    ///
    /// # Errors
    /// [`QueryError::UnknownPosition`] with the first that is not.
    pub fn check(&self, after: &[Position]) -> Result<(), QueryError> {
        let unknown = after.iter().find(|position| {
            position.generation != self.log.generation || !self.log.shards.contains(position.shard)
        });
        unknown.map_or(Ok(()), |position| Err(QueryError::UnknownPosition(*position)))
    }

    /// To wait for the next change of any of it.
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.known.subscribe())
    }

    /// The live build of each projection, as far as is known.
    pub(crate) fn live_builds(&self) -> Vec<(String, i32)> {
        let known = self.known.borrow();
        let build = |(name, progress): (&String, &Progress)| Some((name.clone(), progress.state.build()?));
        known.projections.iter().filter_map(build).collect()
    }

    /// Which log the positions are of.
    #[must_use]
    pub fn log(&self) -> LogIdentity {
        self.log
    }

    /// Waits until these projections are known to have folded all of these positions.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`QueryError::Behind`] at the deadline, with the position that is farthest.
    pub(crate) async fn wait(
        &self,
        projections: &[(&str, i32)],
        after: &[Position],
        deadline: Instant,
    ) -> Result<(), QueryError> {
        let mut watch = self.known.subscribe();
        let behind = |known: &Known| farthest(known, projections, after);
        if behind(&watch.borrow_and_update()).is_none() {
            return Ok(());
        }
        let _waiting = Waiting::new(&self.waiting);
        self.poke.notify_one();
        let seen = watch.wait_for(|known| behind(known).is_none());
        // The sender lives in `self`, so the wait ends with the condition or with the time.
        if matches!(tokio::time::timeout_at(deadline, seen).await, Ok(Ok(_))) {
            return Ok(());
        }
        let known = self.known.borrow();
        match behind(&known) {
            None => Ok(()),
            Some(behind) => {
                metrics::counter!(names::BEHIND).increment(1);
                Err(behind.into_error())
            }
        }
    }
}

impl Known {
    /// Takes in a state that was read; whether that changed anything. Of one build only what is not older.
    fn take(&mut self, name: String, seen: Seen, unfolded: Arc<[Unfolded]>) -> bool {
        let old = self.projections.get_mut(&name);
        if let Some(old) = old
            && *old.state.seen() == seen
        {
            old.unfolded = unfolded;
            return false;
        }
        let state = Arc::new(State::new(seen));
        if let Some(old) = self.projections.get(&name)
            && old.state.build() == state.build()
            && state.is_before(&old.state)
        {
            return false;
        }
        self.projections.insert(name, Progress { state, unfolded });
        true
    }
}

/// A position that has not been folded.
struct Short {
    position: Position,
    next: Offset,
}

impl Short {
    fn distance(&self) -> u64 {
        (self.position.offset.get() + 1).saturating_sub(self.next.get())
    }

    fn into_error(self) -> QueryError {
        let last = self.next.get().checked_sub(1).map(Offset::new);
        QueryError::Behind {
            position: self.position,
            at: last.map(|last| Position::new(self.position.generation, self.position.shard, last)),
            distance: self.distance(),
        }
    }
}

/// The position that is farthest ahead of one of the projections.
fn farthest(known: &Known, projections: &[(&str, i32)], after: &[Position]) -> Option<Short> {
    let all = projections.iter().flat_map(|(name, _)| {
        let state = known.projections.get(*name).map(|progress| &progress.state);
        after.iter().map(move |position| Short {
            position: *position,
            next: state.map_or(Offset::new(0), |state| state.next(position.shard)),
        })
    });
    all.filter(|short| short.distance() > 0)
        .max_by_key(Short::distance)
}

/// As [`farthest`], for what a query itself saw.
pub(crate) fn check_folded(states: &[Arc<State>], after: &[Position]) -> Result<(), QueryError> {
    let all = states.iter().flat_map(|state| {
        after.iter().map(|position| Short {
            position: *position,
            next: state.next(position.shard),
        })
    });
    let farthest = all
        .filter(|short| short.distance() > 0)
        .max_by_key(Short::distance);
    farthest.map_or(Ok(()), |short| Err(short.into_error()))
}

/// Counts itself as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Pends for ever without a listener.
async fn heard(listener: Option<&mut Listener>) {
    match listener {
        Some(listener) => drop(listener.next().await),
        None => std::future::pending().await,
    }
}

/// How far a standby is behind, ms, null elsewhere: nothing if it has replayed all that it has received and that is not
/// long ago, else the age of the last transaction that it has replayed. (Without a connection to its primary it
/// receives nothing; an idle cluster renews its leases every few seconds. One that has replayed nothing has what it was
/// started with.)
const REPLAY: &str = "CASE WHEN pg_is_in_recovery() THEN (SELECT CASE \
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND r.age < 30000 THEN 0 ELSE r.age END \
    FROM (SELECT (extract(epoch FROM \
    clock_timestamp() - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())) * 1000)::bigint AS age) AS r) END";

/// Name, state and oldest unfolded record by shard of each live projection in `$1`; `$2` is the number of shards.
fn refresh_sql() -> String {
    let (columns, checkpoints) = sql::state_of_row();
    let unfolded = annals_log::fragment::unfolded("'projection/' || p.name || '/' || p.build", "$2");
    let live = annals_projection::fragment::live_relation();
    format!(
        "SELECT p.name, {columns}, {unfolded}, {REPLAY} {live} CROSS JOIN LATERAL {checkpoints} WHERE p.name = ANY($1)"
    )
}

fn read_unfolded(text: Option<&str>) -> Arc<[Unfolded]> {
    let one = |part: &str| {
        let (shard, rest) = part.split_once(':')?;
        let (offset, time_ms) = rest.split_once(':')?;
        Some(Unfolded {
            shard: shard.parse().ok()?,
            offset: offset.parse().ok()?,
            time_ms: time_ms.parse().ok()?,
        })
    };
    text.unwrap_or_default().split(',').filter_map(one).collect()
}

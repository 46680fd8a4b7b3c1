//! The feeds of a node, and those who follow them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::feed::{Feed, Forgotten, Missed, Row};
use super::{Event, LiveId, LiveLimits};
use crate::answer::Meta;
use crate::cursor::Fingerprint;
use crate::freshness::State;
use crate::request::Prepared;
use crate::{QueryError, metrics as names};

/// How long a feed that nobody follows is remembered, for whoever comes back.
const REMEMBERED: Duration = Duration::from_secs(300);
/// The most events that are handed out at once.
const AT_ONCE: usize = 64;

/// Why there are no more events. Whoever is told may come back with the last id.
#[derive(Debug, Clone)]
pub enum End {
    /// So many changes came that those which this subscriber has not taken yet are forgotten.
    TooSlow,
    /// The request has no answer any more.
    Failed(Arc<QueryError>),
}

/// What a subscriber is given.
#[derive(Debug, Clone)]
pub enum Next {
    /// In order; at least one.
    Events(Vec<Event>),
    /// The last of all.
    End(End),
}

/// A feed and all who share it.
#[derive(Debug)]
pub(crate) struct Shared {
    key: FeedKey,
    /// One reading at a time.
    pub(crate) loading: tokio::sync::Mutex<()>,
    state: Mutex<Current>,
    grown: watch::Sender<()>,
    followers: AtomicUsize,
}

/// Request with its rights, and whether a limit was asked for.
pub(crate) type FeedKey = (Fingerprint, bool);

#[derive(Debug)]
struct Current {
    prepared: Prepared,
    feed: Feed,
    /// What was known before the last reading: as long as it is, there is nothing new.
    checked: Option<Vec<Arc<State>>>,
    ended: Option<Arc<QueryError>>,
    left: Instant,
}

/// What a reading gave.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) rows: Vec<Row>,
    /// There are more than the limit.
    pub(crate) more: bool,
    pub(crate) states: Arc<[Arc<State>]>,
}

/// All feeds of a node.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) limits: LiveLimits,
    feeds: Mutex<HashMap<FeedKey, Arc<Shared>>>,
    places: Arc<Semaphore>,
    callers: Arc<Callers>,
    /// Somebody has come.
    pub(crate) added: Notify,
}

/// How many places each caller has.
#[derive(Debug, Default)]
struct Callers(Mutex<HashMap<String, usize>>);

/// A subscriber's place.
#[derive(Debug)]
pub(crate) struct Place {
    caller: String,
    callers: Arc<Callers>,
    _permit: OwnedSemaphorePermit,
}

/// Counts as a follower of a feed.
#[derive(Debug)]
pub(crate) struct Following(pub(crate) Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn new(limits: LiveLimits) -> Self {
        Self {
            limits,
            feeds: Mutex::default(),
            places: Arc::new(Semaphore::new(limits.connections)),
            callers: Arc::default(),
            added: Notify::new(),
        }
    }

    /// A place for one more subscriber.
    ///
    /// # Errors
    /// [`QueryError::TooManySubscribers`], [`QueryError::TooManyOfCaller`].
    pub(crate) fn place(&self, caller: &str) -> Result<Place, QueryError> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_| QueryError::TooManySubscribers)?;
        let mut callers = lock(&self.callers.0);
        let count = callers.entry(caller.to_owned()).or_default();
        // At least one is allowed, so that no caller is kept here without a place.
        if *count >= self.limits.per_caller {
            return Err(QueryError::TooManyOfCaller {
                limit: self.limits.per_caller,
            });
        }
        *count += 1;
        metrics::gauge!(names::LIVE_CONNECTIONS).increment(1.0);
        Ok(Place {
            caller: caller.to_owned(),
            callers: Arc::clone(&self.callers),
            _permit: permit,
        })
    }

    /// The feed of a request, made if it is new.
    pub(crate) fn follow(&self, prepared: &Prepared, window: bool) -> Following {
        let key = (prepared.whole, window);
        let mut feeds = lock(&self.feeds);
        let shared = feeds
            .entry(key)
            .or_insert_with(|| Arc::new(Shared::new(key, prepared)));
        shared.followers.fetch_add(1, Ordering::Relaxed);
        Following(Arc::clone(shared))
    }

    /// The feeds that somebody follows. Forgets others after a while, and changes beyond the limit.
    pub(crate) fn followed(&self) -> Vec<Arc<Shared>> {
        let mut feeds = lock(&self.feeds);
        let count = feeds.len();
        feeds.retain(|_, shared| {
            let idle = !shared.is_followed();
            // With more feeds than subscribers are allowed, only followed ones stay.
            !(idle && (count > self.limits.connections || lock(&shared.state).left.elapsed() > REMEMBERED))
        });
        let share = self.share_of(feeds.len());
        for shared in feeds.values() {
            lock(&shared.state).feed.forget(share);
        }
        let all = feeds.values();
        all.filter(|shared| shared.is_followed()).cloned().collect()
    }

    /// How many bytes of changes a feed may remember now.
    pub(crate) fn share(&self) -> u64 {
        self.share_of(lock(&self.feeds).len())
    }

    fn share_of(&self, feeds: usize) -> u64 {
        self.limits.bytes / u64::try_from(feeds).unwrap_or(u64::MAX).max(1)
    }

    /// Ends a feed for all who follow it.
    pub(crate) fn end(&self, shared: &Arc<Shared>, why: QueryError) {
        let mut feeds = lock(&self.feeds);
        // Another one of the same request may have taken its place.
        if feeds
            .get(&shared.key)
            .is_some_and(|known| Arc::ptr_eq(known, shared))
        {
            feeds.remove(&shared.key);
        }
        drop(feeds);
        lock(&shared.state).ended = Some(Arc::new(why));
        shared.grown.send_replace(());
    }
}

impl Shared {
    fn new(key: FeedKey, prepared: &Prepared) -> Self {
        Self {
            key,
            loading: tokio::sync::Mutex::default(),
            state: Mutex::new(Current {
                prepared: prepared.clone(),
                feed: Feed::default(),
                checked: None,
                ended: None,
                left: Instant::now(),
            }),
            grown: watch::Sender::default(),
            followers: AtomicUsize::new(0),
        }
    }

    fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }

    /// Whether more than a limit that was not asked for ends it.
    pub(crate) fn is_window(&self) -> bool {
        self.key.1
    }

    pub(crate) fn prepared(&self) -> Prepared {
        lock(&self.state).prepared.clone()
    }

    /// How fresh the next reading must be at least.
    pub(crate) fn positions(&self) -> Arc<[annals_record::Position]> {
        lock(&self.state).feed.id().positions
    }

    /// Whether nothing has changed since the last reading, as far as is known.
    pub(crate) fn is_current(&self, known: Option<&[Arc<State>]>) -> bool {
        let state = lock(&self.state);
        match (known, &state.checked) {
            (None, None) => state.feed.has_begun(),
            (Some(now), Some(then)) => {
                now.len() == then.len() && now.iter().zip(then).all(|(now, then)| now.seen() == then.seen())
            }
            _ => false,
        }
    }

    /// Takes in a reading, made with `prepared`; `checked` was known before it.
    pub(crate) fn take(
        &self,
        prepared: Prepared,
        listing: &Listing,
        meta: &Meta,
        checked: Option<Vec<Arc<State>>>,
        share: u64,
    ) {
        let grew = {
            let mut state = lock(&self.state);
            state.prepared = prepared;
            state.checked = checked;
            let before = state.feed.end();
            state.feed.advance(&listing.rows, Arc::from(&*meta.positions));
            state.feed.forget(share);
            state.feed.end() > before
        };
        if grew {
            self.grown.send_replace(());
        }
    }

    /// What somebody gets first, and where it goes on: right after [`Shared::take`], while nobody else may read.
    pub(crate) fn begin(
        &self,
        listing: &Listing,
        resumed: Option<&LiveId>,
        key: Option<&str>,
    ) -> Result<(Vec<Event>, u64), QueryError> {
        let state = lock(&self.state);
        let single = key.map(|key| (key, listing.rows.first()));
        let (how, events) = match resumed.map(|id| state.feed.missed(id, single)) {
            Some(Missed::Events(events)) => ("exact", events),
            // Nothing of a row that is not there has ever been seen.
            None if single.is_some() && state.feed.is_empty() => return Err(QueryError::NotFound),
            missed => {
                let how = if missed.is_some() { "snapshot" } else { "new" };
                (how, vec![Event::snapshot(state.feed.id(), &listing.rows)])
            }
        };
        metrics::counter!(names::LIVE_BEGINNINGS, "how" => how).increment(1);
        Ok((events, state.feed.end()))
    }
}

/// Follows a feed. Dropping it gives its place back.
#[derive(Debug)]
pub struct Subscription {
    /// How fresh the beginning is.
    pub meta: Meta,
    first: VecDeque<Event>,
    at: u64,
    grown: watch::Receiver<()>,
    following: Following,
    _place: Place,
}

impl Subscription {
    pub(crate) fn new(meta: Meta, first: Vec<Event>, at: u64, following: Following, place: Place) -> Self {
        Self {
            meta,
            first: first.into(),
            at,
            grown: following.0.grown.subscribe(),
            following,
            _place: place,
        }
    }

    /// Waits for what comes next. After [`Next::End`] there is nothing.
    ///
    /// Cancel safe: what was not handed out comes the next time.
    pub async fn next(&mut self) -> Next {
        loop {
            if !self.first.is_empty() {
                let count = self.first.len().min(AT_ONCE);
                return hand_out(self.first.drain(..count).collect());
            }
            self.grown.borrow_and_update();
            let (read, ended) = {
                let state = lock(&self.following.0.state);
                (state.feed.read(self.at, AT_ONCE), state.ended.clone())
            };
            match (read, ended) {
                (Err(Forgotten), _) => {
                    metrics::counter!(names::LIVE_TOO_SLOW).increment(1);
                    return Next::End(End::TooSlow);
                }
                (Ok(events), _) if !events.is_empty() => {
                    self.at += u64::try_from(events.len()).unwrap_or(u64::MAX);
                    return hand_out(events);
                }
                (Ok(_), Some(why)) => return Next::End(End::Failed(why)),
                (Ok(_), None) => {
                    if self.grown.changed().await.is_err() {
                        // The sender lives as long as the feed, which is held here.
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }
}

fn hand_out(events: Vec<Event>) -> Next {
    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
    metrics::counter!(names::LIVE_EVENTS).increment(count);
    Next::Events(events)
}

impl Drop for Following {
    fn drop(&mut self) {
        lock(&self.0.state).left = Instant::now();
        self.0.followers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!(names::LIVE_CONNECTIONS).decrement(1.0);
        let mut callers = lock(&self.callers.0);
        if let Some(count) = callers.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

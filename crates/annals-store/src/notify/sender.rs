//! Sends dirty keys in rounds: whatever became dirty during one round goes out with the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::Notify;

use super::{ALL, Notice, NotifyError, payload};
use crate::metrics as names;
use crate::pool::{ConnectError, PoolSettings, Session};

/// Bounds of a notifier.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At most so many dirty keys wait; beyond it a channel's keys become one "read everything again".
    pub keys: usize,
    /// At most so many go out in one round (one statement).
    pub round: usize,
    /// Between two rounds, and so the longest that a notice waits for its turn (the first after silence waits for
    /// nothing); bounds the notifications' share of the server's commits.
    pub pause: Duration,
}

impl Default for Limits {
    /// 10,000 keys, 500 a round, 20 ms.
    fn default() -> Self {
        Self {
            keys: 10_000,
            round: 500,
            pause: Duration::from_millis(20),
        }
    }
}

/// Marks keys dirty for one [`Sending`] task. Clones share it.
#[derive(Debug, Clone)]
pub struct Notifier {
    handle: Arc<Handle>,
}

impl Notifier {
    /// A notifier and the task that sends for it, which the caller runs in its task group under the name
    /// `notifier`. Until it runs, keys wait (within [`Limits::keys`]).
    ///
    /// # Errors
    ///
    /// If the settings cannot work. Whether the server can be reached does not matter here.
    pub fn new(settings: &PoolSettings, limits: Limits) -> Result<(Self, Sending), ConnectError> {
        settings.validate()?;
        let shared = Arc::new(Shared {
            limits,
            dirty: Mutex::default(),
            wake: Notify::new(),
            idle: Notify::new(),
        });
        let sending = Sending {
            options: settings
                .url
                .options()?
                .application_name(&settings.application_name),
            session: Session::of(settings),
            patience: settings.acquire_timeout,
            shared: Arc::clone(&shared),
            connection: None,
        };
        let handle = Arc::new(Handle(shared));
        Ok((Self { handle }, sending))
    }

    /// Marks a key dirty. Returns at once; never waits for Postgres.
    ///
    /// # Errors
    ///
    /// If the notice cannot be carried; see [`Notice::new`].
    pub fn notify(&self, channel: &str, key: &str, value: &str) -> Result<(), NotifyError> {
        let notice = Notice::new(channel, key, value)?;
        self.handle.0.dirty().insert(notice, self.handle.0.limits.keys);
        self.handle.0.wake.notify_one();
        Ok(())
    }

    /// Waits until everything marked so far has been sent, at most for `within`. Returns whether it was.
    pub async fn flush(&self, within: Duration) -> bool {
        let sent = async {
            loop {
                let idle = self.handle.0.idle.notified();
                tokio::pin!(idle);
                // Enabled before looking, so that a round that ends in between is not missed.
                idle.as_mut().enable();
                if self.handle.0.dirty().is_idle() {
                    return;
                }
                idle.await;
            }
        };
        tokio::time::timeout(within, sent).await.is_ok()
    }
}

/// What all clones of a notifier share; when the last one goes, the task ends.
#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.dirty().closed = true;
        self.0.wake.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    dirty: Mutex<Dirty>,
    wake: Notify,
    idle: Notify,
}

impl Shared {
    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        // Nothing panics while it is locked, and a set of hints is never half-changed.
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys that wait to be sent, by channel, with their latest value.
#[derive(Debug, Default)]
struct Dirty {
    channels: BTreeMap<String, BTreeMap<String, String>>,
    keys: usize,
    sending: bool,
    closed: bool,
}

impl Dirty {
    fn is_idle(&self) -> bool {
        self.keys == 0 && !self.sending
    }

    fn insert(&mut self, notice: Notice, limit: usize) {
        let waiting = self.channels.entry(notice.channel).or_default();
        if waiting.contains_key(ALL) {
            return; // that says it already
        }
        if waiting.insert(notice.key, notice.value).is_none() {
            self.keys += 1;
        }
        if self.keys > limit {
            metrics::counter!(names::NOTIFY_OVERFLOWS).increment(1);
            // Every channel, since another one's keys may be what fills it.
            self.keys = self.channels.len();
            for waiting in self.channels.values_mut() {
                *waiting = BTreeMap::from([(ALL.to_owned(), String::new())]);
            }
        }
    }

    /// Takes up to `most` of them out.
    fn take(&mut self, most: usize) -> Vec<Notice> {
        let mut taken = Vec::new();
        while taken.len() < most.max(1) {
            let Some(mut entry) = self.channels.first_entry() else {
                break;
            };
            let channel = entry.key().clone();
            match entry.get_mut().pop_first() {
                Some((key, value)) => {
                    self.keys -= 1;
                    taken.push(Notice { channel, key, value });
                }
                None => drop(entry.remove()),
            }
        }
        self.channels.retain(|_, waiting| !waiting.is_empty());
        self.sending = !taken.is_empty();
        taken
    }

    /// Puts back what could not be sent; a value that came meanwhile is newer and stays.
    fn put_back(&mut self, notices: Vec<Notice>, limit: usize) {
        for notice in notices {
            let waiting = self.channels.get(&notice.channel);
            if waiting.is_none_or(|waiting| !waiting.contains_key(&notice.key)) {
                self.insert(notice, limit);
            }
        }
    }
}

/// Sends what a [`Notifier`] marks, on a connection of its own, made when there is something to send and
/// made anew when it breaks.
#[must_use = "nothing is sent unless this runs"]
#[derive(Debug)]
pub struct Sending {
    options: sqlx::postgres::PgConnectOptions,
    session: Session,
    patience: Duration,
    shared: Arc<Shared>,
    connection: Option<PgConnection>,
}

/// Between attempts to connect: doubled after each failure.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

impl Sending {
    /// Runs until the last clone of the notifier is gone and what it marked was sent, or could not be.
    pub async fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let (notices, closed) = {
                let mut dirty = self.shared.dirty();
                (dirty.take(self.shared.limits.round), dirty.closed)
            };
            if notices.is_empty() {
                self.shared.idle.notify_waiters();
                if closed {
                    return;
                }
                self.shared.wake.notified().await;
                continue;
            }
            match self.send(&notices).await {
                Ok(()) => {
                    retry = FIRST_RETRY;
                    self.shared.dirty().sending = false;
                    tokio::time::sleep(self.shared.limits.pause).await;
                }
                Err(error) => {
                    metrics::counter!(names::NOTIFY_FAILURES).increment(1);
                    tracing::warn!(%error, "notifications wait: they could not be sent");
                    self.connection = None;
                    {
                        let mut dirty = self.shared.dirty();
                        dirty.put_back(notices, self.shared.limits.keys);
                        dirty.sending = false;
                    }
                    if closed {
                        return;
                    }
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    /// A round that was sent but whose answer was lost is sent again: a hint may come twice.
    async fn send(&mut self, notices: &[Notice]) -> Result<(), crate::Error> {
        let (channels, payloads): (Vec<&str>, Vec<String>) = notices
            .iter()
            .map(|notice| (notice.channel.as_str(), payload(&notice.key, &notice.value)))
            .unzip();
        let patience = self.patience;
        let round = async {
            let connection = self.connected().await?;
            sqlx::query("SELECT pg_notify(c, p) FROM unnest($1::text[], $2::text[]) AS n (c, p)")
                .bind(&channels)
                .bind(&payloads)
                .execute(connection)
                .await
        };
        tokio::time::timeout(patience, round)
            .await
            .map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))??;
        metrics::counter!(names::NOTIFY_ROUNDS).increment(1);
        let sent = u64::try_from(notices.len()).unwrap_or(u64::MAX);
        metrics::counter!(names::NOTIFY_SENT).increment(sent);
        Ok(())
    }

    async fn connected(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut new = self.options.connect().await?;
                self.session.apply(&mut new).await?;
                // NOTIFY holds the server's notification lock until its commit is written: a lost hint
                // costs less than others' commits waiting for this one's disk.
                sqlx::query("SET synchronous_commit = off")
                    .execute(&mut new)
                    .await?;
                new.ping().await?;
                new
            }
        };
        Ok(self.connection.insert(connection))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn notice(channel: &str, key: &str, value: &str) -> Notice {
        Notice::new(channel, key, value).unwrap()
    }

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        let mut dirty = Dirty::default();
        for value in ["1", "2", "3"] {
            dirty.insert(notice("c", "k", value), 10);
        }
        assert_eq!(dirty.take(10), [notice("c", "k", "3")]);
        assert!(!dirty.is_idle(), "a round is under way");
        assert!(dirty.take(10).is_empty());
        assert!(dirty.is_idle());
    }

    #[test]
    fn too_many_keys_become_one_read_everything_again_a_channel() {
        let mut dirty = Dirty::default();
        dirty.insert(notice("a", "k", ""), 3);
        for n in 0..50 {
            dirty.insert(notice("b", &n.to_string(), ""), 3);
        }
        let sent: Vec<(String, String)> = dirty
            .take(100)
            .into_iter()
            .map(|notice| (notice.channel, notice.key))
            .collect();
        assert_eq!(sent, [("a".into(), "*".into()), ("b".into(), "*".into())]);
        assert_eq!(dirty.keys, 0);
    }

    #[test]
    fn what_failed_is_kept_unless_something_newer_came() {
        let mut dirty = Dirty::default();
        dirty.insert(notice("c", "a", "1"), 10);
        dirty.insert(notice("c", "b", "1"), 10);
        let failed = dirty.take(10);
        dirty.insert(notice("c", "a", "2"), 10);
        dirty.put_back(failed, 10);
        assert_eq!(dirty.take(10), [notice("c", "a", "2"), notice("c", "b", "1")]);
        assert_eq!(dirty.keys, 0);
    }

    #[test]
    fn a_round_is_bounded_and_the_rest_waits() {
        let mut dirty = Dirty::default();
        for n in 0..10 {
            dirty.insert(notice("c", &n.to_string(), ""), 100);
        }
        assert_eq!(dirty.take(4).len(), 4);
        assert_eq!(dirty.keys, 6);
        assert_eq!(dirty.take(100).len(), 6);
    }
}

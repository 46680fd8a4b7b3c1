//! Hears notices, and says when it may have missed some.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::Notice;
use crate::metrics as names;
use crate::pool::{ConnectError, PoolSettings};

/// What a listener heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Notices may have been missed: read again whatever they are about. Comes first of all, after each
    /// loss of the connection, and when a notifier had more dirty keys than it may keep.
    Reread,
    /// This was notified.
    Notice(Notice),
}

/// Listens on a connection of its own, which it makes anew as often as needed. It has no task: it
/// listens while [`Listener::next`] is polled.
///
/// A connection that is dead without saying so is not noticed: whoever listens polls as well.
#[derive(Debug)]
pub struct Listener {
    settings: PoolSettings,
    channels: Vec<String>,
    inner: Option<PgListener>,
    reread: bool,
    retry: Duration,
}

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

impl Listener {
    /// Connects and listens.
    ///
    /// # Errors
    ///
    /// If the first connection fails; later ones are retried for ever.
    pub async fn connect(settings: &PoolSettings, channels: &[&str]) -> Result<Self, ConnectError> {
        settings.validate()?;
        let mut listener = Self {
            settings: settings.clone(),
            channels: channels.iter().map(|&channel| channel.to_owned()).collect(),
            inner: None,
            reread: true,
            retry: FIRST_RETRY,
        };
        listener.inner = Some(listener.open().await?);
        Ok(listener)
    }

    /// Waits for what comes next. The first answer is [`Heard::Reread`].
    ///
    /// Cancel safe: a dropped future loses nothing without a [`Heard::Reread`] to follow.
    pub async fn next(&mut self) -> Heard {
        loop {
            if self.inner.is_none() {
                self.reread = true;
                self.reconnect().await;
            }
            let Some(inner) = self.inner.as_mut() else {
                continue;
            };
            if std::mem::take(&mut self.reread) {
                return Heard::Reread;
            }
            // Any error, and `None` (the connection was lost), means: make a new one and read again. The
            // driver reconnects by itself only after some of the errors.
            match inner.try_recv().await {
                Ok(Some(heard)) => {
                    return match Notice::parse(heard.channel(), heard.payload()) {
                        Some(notice) => Heard::Notice(notice),
                        None => Heard::Reread,
                    };
                }
                Ok(None) => tracing::info!("the listener's connection was lost"),
                Err(error) => tracing::warn!(%error, "the listener's connection failed"),
            }
            self.inner = None;
        }
    }

    async fn reconnect(&mut self) {
        match self.open().await {
            Ok(inner) => {
                self.inner = Some(inner);
                self.retry = FIRST_RETRY;
                metrics::counter!(names::LISTENER_RECONNECTS).increment(1);
            }
            Err(error) => {
                tracing::warn!(%error, "the listener cannot connect");
                let pause = self.retry;
                self.retry = (pause * 2).min(LAST_RETRY);
                tokio::time::sleep(pause).await;
            }
        }
    }

    async fn open(&self) -> Result<PgListener, ConnectError> {
        let failed = |source: sqlx::Error| ConnectError::Database {
            at: self.settings.url.to_string(),
            source: source.into(),
        };
        // A pool of one, since the driver's listener takes a pool; no role is needed for LISTEN.
        let options = self
            .settings
            .url
            .options()?
            .application_name(&self.settings.application_name);
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(self.settings.acquire_timeout)
            .connect_with(options)
            .await
            .map_err(failed)?;
        let mut inner = PgListener::connect_with(&pool).await.map_err(failed)?;
        inner.eager_reconnect(false);
        inner
            .listen_all(self.channels.iter().map(String::as_str))
            .await
            .map_err(failed)?;
        Ok(inner)
    }
}

//! Why a runner ends, and how long a round may take.

use std::sync::Mutex;
use std::time::Duration;

use annals_log::{CheckpointError, LogError, ReaderError};
use tokio::time::Instant;

/// A round that takes longer ends the run, and so the lease is kept no more.
pub(super) const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// When the last round ended.
pub(super) struct Turned(Mutex<Instant>);

impl Default for Turned {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Turned {
    /// One has just ended.
    pub(super) fn now(&self) {
        *self.0.lock().expect("nobody panics while holding it") = Instant::now();
    }

    /// How long ago that was.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.lock().expect("nobody panics while holding it").elapsed()
    }
}

/// Why a runner stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The lease is another node's, or another runner moved the checkpoint.
    #[error("another node runs this process")]
    Superseded,
    /// A round does not end: its connection may be dead without saying so.
    #[error("a round has taken longer than {} s", LONGEST_ROUND.as_secs())]
    Stuck,
    /// A record cannot be read.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Postgres.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// Postgres, about leases.
    #[error(transparent)]
    Lease(#[from] annals_store::Error),
}

impl From<CheckpointError> for RunnerError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Moved { .. } => Self::Superseded,
            CheckpointError::Database(error) => Self::Database(error),
            #[allow(unreachable_patterns)]
            other => Self::Database(sqlx::Error::Protocol(other.to_string())),
        }
    }
}

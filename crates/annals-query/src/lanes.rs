//! The connections that queries run on, taken and given back without a word to the server.
//!
//! The driver's pool asks the server twice about each use: before a connection is handed out, and when it comes back.
//! That is two round trips beside the one that the query is. So connections are taken from the pool once and kept here.
//! One that broke while nobody used it shows when it is used; a query changes nothing, so it runs again on another.
//!
//! *Invariant:* only a connection whose last query was answered whole is kept; all others go back to the pool, which
//! looks at them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use annals_store::{ErrorClass, error};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgPool, Postgres};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::metrics as names;
use crate::sql::{Bind, Statement};

/// After this a connection goes back to the pool, which ends old ones.
const KEPT: Duration = Duration::from_secs(600);

/// Connections for queries.
#[derive(Debug)]
pub(crate) struct Lanes {
    pool: PgPool,
    free: Mutex<Vec<Lane>>,
    places: Semaphore,
    wait: Duration,
}

#[derive(Debug)]
struct Lane {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Lanes {
    /// At most so many; who finds none free waits at most `wait`.
    pub(crate) fn new(pool: PgPool, connections: u32, wait: Duration) -> Self {
        Self {
            pool,
            free: Mutex::default(),
            places: Semaphore::new(usize::try_from(connections).unwrap_or(usize::MAX)),
            wait,
        }
    }

    /// Runs a statement and reads its one line.
    ///
    /// Cancel safe: a connection in the middle of a query is not kept.
    ///
    /// # Errors
    /// As the driver says; [`sqlx::Error::PoolTimedOut`] if no connection is free in time.
    pub(crate) async fn fetch_one(&self, statement: &Statement) -> Result<PgRow, sqlx::Error> {
        let place = tokio::time::timeout(self.wait, self.places.acquire()).await;
        // The semaphore is never closed.
        let Ok(Ok(_place)) = place else {
            return Err(sqlx::Error::PoolTimedOut);
        };
        loop {
            let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let was_kept = kept.is_some();
            let mut lane = match kept {
                Some(lane) => lane,
                None => Lane {
                    connection: self.pool.acquire().await?,
                    since: Instant::now(),
                },
            };
            let query = sqlx::query(AssertSqlSafe(statement.sql.clone()));
            let query = statement.binds.iter().cloned().fold(query, Bind::add);
            match query.fetch_one(&mut *lane.connection).await {
                Ok(row) => {
                    if lane.since.elapsed() < KEPT {
                        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
                    }
                    return Ok(row);
                }
                // Each turn loses one that was kept: in the end a new one answers, or nobody.
                Err(broken) if was_kept && is_broken(&broken) => {
                    metrics::counter!(names::BROKEN_CONNECTIONS).increment(1);
                    tracing::debug!(error = %broken, "a connection broke while nobody used it");
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether it is the connection, and not the query.
fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error::class(error), ErrorClass::Transient)
        && !matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
}

//! Another build goes live: one transaction that changes the live build's number.
//!
//! The live build stands still for the moment in which the other one passes it, so that under load too the new
//! checkpoints are at or past the old ones. Readers wait for nobody: they see one build or the other, whole.

use std::time::Duration;

use annals_log::{Checkpoint, CheckpointError};
use annals_record::{Offset, Shard};
use sqlx::{PgConnection, PgPool};
use tokio::time::{Instant, sleep};

use super::{LifecycleError, Refusal, builds, rules};
use crate::build;
use crate::gate;
use crate::manifest::{Build, BuildId, Name};
use crate::runner::CHANNEL;

/// How long the other build may take to come to where the live one was when the switch was asked for.
const NEAR_WITHIN: Duration = Duration::from_secs(5);
/// How long the live build stands still at most.
const PASS_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks at checkpoints.
const LOOK: Duration = Duration::from_millis(10);

/// Which build is to go live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The newest that was built beside the live one.
    Forward,
    /// The one that was live before.
    Back,
    /// The one of this number.
    To(Build),
}

/// What a switch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// The build that was live.
    pub from: BuildId,
    /// The build that is.
    pub to: BuildId,
    /// How long the former one stood still.
    pub stood_still: Duration,
}

/// Makes another build the live one, if every checkpoint of it is at or past the live one's. The former one is fed on
/// for `grace`.
///
/// Not cancel safe: if this is dropped, it may have been done; the status says.
///
/// # Errors
/// [`LifecycleError`]; nothing has changed then, unless the answer to the commit was lost.
pub async fn switch(
    pool: &PgPool,
    name: &Name,
    direction: Direction,
    grace: Duration,
) -> Result<Switched, LifecycleError> {
    come_near(pool, name, direction).await?;
    let mut tx = pool.begin().await?;
    build::lock_builds(&mut tx).await?;
    let (from, to) = choose(&mut tx, name, direction).await?;
    gate::alone(&mut tx, &from).await?;
    let began = Instant::now();
    wait(&mut tx, &from, &to, PASS_WITHIN).await?;
    if direction != Direction::Back {
        check_parked(&mut tx, &from, &to).await?;
    }
    // One live build at every moment: the index allows no second one.
    sqlx::query(
        "UPDATE annals.projection
         SET live = false, state = 'retired', switched_at = clock_timestamp(), views_due = false,
             fed_until = clock_timestamp() + make_interval(secs => $3)
         WHERE name = $1 AND build = $2",
    )
    .bind(name.as_str())
    .bind(from.build.get())
    .bind(grace.as_secs_f64())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE annals.projection
         SET live = true, state = 'running', switched_at = clock_timestamp(), views_due = true, fed_until = NULL
         WHERE name = $1 AND build = $2",
    )
    .bind(name.as_str())
    .bind(to.build.get())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    let stood_still = began.elapsed();
    tracing::info!(%from, %to, stood_still_ms = stood_still.as_millis(), "another build is live");
    tell(pool, &to).await;
    Ok(Switched {
        from,
        to,
        stood_still,
    })
}

/// Waits without holding anything up until the build is where the live one is now.
async fn come_near(pool: &PgPool, name: &Name, direction: Direction) -> Result<(), LifecycleError> {
    let mut connection = pool.acquire().await?;
    let (from, to) = choose(&mut connection, name, direction).await?;
    let goal = checkpoints(&mut connection, &from).await?;
    until_past(&mut connection, &to, &goal, NEAR_WITHIN).await
}

async fn choose(
    connection: &mut PgConnection,
    name: &Name,
    direction: Direction,
) -> Result<(BuildId, BuildId), LifecycleError> {
    let rows = builds(connection, Some(name)).await?;
    if rows.is_empty() {
        return Err(LifecycleError::NotFound(format!("projection `{name}`")));
    }
    let (live, to) = rules::target(&rows, direction)?;
    Ok((live.id.clone(), to.id.clone()))
}

async fn wait(
    connection: &mut PgConnection,
    from: &BuildId,
    to: &BuildId,
    within: Duration,
) -> Result<(), LifecycleError> {
    let goal = checkpoints(connection, from).await?;
    until_past(connection, to, &goal, within).await
}

/// Each look is a statement of its own, so each sees what was committed before it.
async fn until_past(
    connection: &mut PgConnection,
    build: &BuildId,
    goal: &[(Shard, Offset)],
    within: Duration,
) -> Result<(), LifecycleError> {
    let until = Instant::now() + within;
    loop {
        let behind = rules::behind(&checkpoints(connection, build).await?, goal);
        if behind.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Refusal::behind(build, &behind).into());
        }
        sleep(LOOK).await;
    }
}

async fn checkpoints(
    connection: &mut PgConnection,
    id: &BuildId,
) -> Result<Vec<(Shard, Offset)>, LifecycleError> {
    match Checkpoint::load_all(connection, &id.reader()).await {
        Ok(all) => Ok(all
            .into_iter()
            .map(|(shard, checkpoint)| (shard, checkpoint.head.next))
            .collect()),
        Err(CheckpointError::Database(error)) => Err(error.into()),
        // Nothing is moved, so nothing else can be wrong.
        Err(other) => Err(sqlx::Error::Protocol(other.to_string()).into()),
    }
}

/// Rows that the live build has must not be missing in the other one.
async fn check_parked(
    connection: &mut PgConnection,
    from: &BuildId,
    to: &BuildId,
) -> Result<(), LifecycleError> {
    let only: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT stream FROM annals.parked p
         WHERE projection = $1 AND build = $3 AND NOT EXISTS (
             SELECT FROM annals.parked o WHERE o.projection = $1 AND o.build = $2 AND o.stream = p.stream)
         ORDER BY stream",
    )
    .bind(from.name.as_str())
    .bind(from.build.get())
    .bind(to.build.get())
    .fetch_all(connection)
    .await?;
    match only.is_empty() {
        true => Ok(()),
        false => Err(Refusal::parked(to, &only).into()),
    }
}

/// Query nodes look at once; without it they would within a second.
async fn tell(pool: &PgPool, to: &BuildId) {
    let told = sqlx::query("SELECT pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(to.to_string())
        .execute(pool)
        .await;
    if let Err(error) = told {
        tracing::debug!(%error, "nobody is told of the switch");
    }
}

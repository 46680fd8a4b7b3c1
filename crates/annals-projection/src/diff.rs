//! A new build compared with the live one at equal checkpoints, while both are fed.
//!
//! The new build stands still; once the live one has passed it, that one stands still too for a moment, in which the
//! new one is brought to exactly where it is and a snapshot is taken. Both go on then, and the rows are compared in the
//! snapshot. The live build is never moved by anybody but its own projector.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_log::Checkpoint;
use annals_record::{Offset, Shard};
use sqlx::{PgConnection, PgPool};
use tokio::time::{Instant, sleep};

use crate::apply::Projector;
use crate::compare::{Comparison, compare};
use crate::gate;
use crate::manifest::{BuildId, Manifest};
use crate::refold::{Readers, RefoldError, Source, checkpoints};

/// How long the new build may be short of where the live one was, and the other way round.
const NEAR_WITHIN: Duration = Duration::from_secs(10);
/// By how many records the new build may be moved while the live one stands still.
const MOST_BEHIND: u64 = 20_000;
/// Between two looks at checkpoints.
const LOOK: Duration = Duration::from_millis(10);

/// What a comparison found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Diff {
    /// The live build, whose rows are the expected ones.
    pub live: i32,
    /// The other build.
    pub other: i32,
    /// The next offset of each shard that both had folded up to.
    pub at: BTreeMap<Shard, Offset>,
    /// How long the live build stood still, in ms.
    pub stood_still_ms: u64,
    /// The rows.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Compares `other` with `live`, both builds of one projection that are being fed.
///
/// # Errors
/// [`RefoldError`]; [`RefoldError::Refused`] if one does not come near the other in time.
pub async fn diff(
    pool: &PgPool,
    source: &Source,
    live: &Manifest,
    other: Arc<Manifest>,
) -> Result<Diff, RefoldError> {
    let other_id = other.id.clone();
    let opener = Arc::clone(&source.opener);
    let projector = Projector::of_made(pool.clone(), Arc::clone(&other), opener, source.limits).await?;
    let projector = projector.within_gate();
    near(pool, &other_id, &live.id).await?;
    let mut gates = pool.begin().await?;
    gate::alone(&mut gates, &other_id).await?;
    // It stands still: the live one passes it.
    near(pool, &live.id, &other_id).await?;
    // Most of the way while the live one goes on, so that little is left for when it does not.
    let mut readers = Readers::new(source.clone());
    let goal = checkpoints(&mut gates, &live.id).await?;
    bring_to(&mut gates, &mut readers, &projector, &goal).await?;
    gate::alone(&mut gates, &live.id).await?;
    let began = Instant::now();
    let goal = checkpoints(&mut gates, &live.id).await?;
    bring_to(&mut gates, &mut readers, &projector, &goal).await?;
    let mut snapshot = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    // The first statement takes the snapshot.
    let at = next_of(&checkpoints(&mut snapshot, &live.id).await?);
    gates.rollback().await?;
    let stood_still_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if at != next_of(&checkpoints(&mut snapshot, &other_id).await?) {
        let text = format!("build {other_id} could not be brought to where the live one is: try again");
        return Err(RefoldError::Refused(text));
    }
    // As long as the tables are large; everything else goes on meanwhile.
    sqlx::query("SET LOCAL statement_timeout = 0")
        .execute(&mut *snapshot)
        .await?;
    let comparison = compare(&mut snapshot, live, &other).await?;
    snapshot.rollback().await?;
    Ok(Diff {
        live: live.id.build.get(),
        other: other_id.build.get(),
        at,
        stood_still_ms,
        comparison,
    })
}

fn next_of(all: &BTreeMap<Shard, Checkpoint>) -> BTreeMap<Shard, Offset> {
    let next = all
        .iter()
        .map(|(shard, checkpoint)| (*shard, checkpoint.head.next));
    next.collect()
}

/// Waits until a build is where another one is now.
async fn near(pool: &PgPool, build: &BuildId, than: &BuildId) -> Result<(), RefoldError> {
    let mut connection = pool.acquire().await?;
    let goal = next_of(&checkpoints(&mut connection, than).await?);
    let until = Instant::now() + NEAR_WITHIN;
    loop {
        let at = next_of(&checkpoints(&mut connection, build).await?);
        let behind: u64 = goal
            .iter()
            .map(|(shard, next)| {
                let at = at.get(shard).map_or(0, |next| next.get());
                next.get().saturating_sub(at)
            })
            .sum();
        if behind == 0 {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(RefoldError::Refused(format!(
                "build {build} is {behind} records behind build {than}: wait until it has caught up"
            )));
        }
        sleep(LOOK).await;
    }
}

/// Applies to a build that stands still what it lacks of `goal`.
async fn bring_to(
    connection: &mut PgConnection,
    readers: &mut Readers,
    projector: &Projector,
    goal: &BTreeMap<Shard, Checkpoint>,
) -> Result<(), RefoldError> {
    let at = checkpoints(connection, projector.id()).await?;
    let next = |checkpoint: Option<&Checkpoint>| checkpoint.map_or(0, |at| at.head.next.get());
    let missing: u64 = goal
        .iter()
        .map(|(shard, goal)| goal.head.next.get().saturating_sub(next(at.get(shard))))
        .sum();
    if missing > MOST_BEHIND {
        return Err(RefoldError::Refused(format!(
            "build {} is {missing} records behind the live one, more than {MOST_BEHIND}: wait until it has caught up",
            projector.id()
        )));
    }
    for (shard, goal) in goal {
        while let Some(delivery) = readers.next(*shard, at.get(shard), goal.head.next).await? {
            projector.apply(&[delivery]).await?;
        }
    }
    Ok(())
}

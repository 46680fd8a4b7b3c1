//! Attestation: proof that a build's tables are the fold of the log, or the list of rows that are not.
//!
//! The log is folded again into a scratch schema. Most of it in rounds, while the build is fed; the rest, and the
//! comparison, in the snapshot of one transaction. In each round checkpoints and parked events are read in one
//! snapshot, so what is left out is exactly what the build has parked.
//!
//! *Invariant:* nothing of the build is changed, and its projector never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use annals_log::Checkpoint;
use annals_record::{Offset, Shard};
use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};

use crate::apply::{Event, Projector};
use crate::build;
use crate::compare::{Comparison, compare};
use crate::manifest::{BuildId, Manifest, Name};
use crate::parking::{self, FromLog, Place};
use crate::refold::{Readers, RefoldError, Source, checkpoints};

/// Two attestations of one projection at once would share the scratch schema.
const ATTEST_LOCK: i64 = 0x616e_6e61_6c73_6174;
/// What is left for the snapshot: with fewer records to fold, the last round begins.
const LAST_ROUND: u64 = 20_000;
/// At most so many rounds before the last one: a build that is fed faster than it is folded here is met halfway.
const ROUNDS: u32 = 8;

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Attestation {
    /// The projection.
    pub name: String,
    /// Its build.
    pub build: i32,
    /// Whether nothing was found: the tables are the fold of the log up to the checkpoint.
    pub attested: bool,
    /// The next offset of each shard: everything below was folded.
    pub at: BTreeMap<Shard, Offset>,
    /// How many records were folded.
    pub records: u64,
    /// Checkpoints that are none of the fold of the log.
    pub checkpoints: Vec<WrongCheckpoint>,
    /// Events that cannot be applied and are not parked.
    pub unapplied: Vec<Unapplied>,
    /// How many events the build has parked: left out.
    pub parked_events: usize,
    /// The rows.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// A checkpoint that the fold of the log has not at that offset.
#[derive(Debug, Clone, Serialize)]
pub struct WrongCheckpoint {
    /// The shard.
    pub shard: Shard,
    /// What is wrong: the field.
    pub field: &'static str,
    /// What the fold has.
    pub expected: String,
    /// What is stored.
    pub actual: String,
}

/// An event that the build must have applied and that cannot be.
#[derive(Debug, Clone, Serialize)]
pub struct Unapplied {
    /// `shard:offset`.
    pub position: String,
    /// Which of the record's events.
    pub index: i32,
    /// The stream.
    pub stream: String,
    /// Why.
    pub error: String,
}

/// Folds the log again and compares. `progress` is told how many records are done, and of how many.
///
/// # Errors
/// [`RefoldError`] if it could not be found out.
pub async fn attest(
    pool: &PgPool,
    source: &Source,
    manifest: &Manifest,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Attestation, RefoldError> {
    let mut guard = pool.acquire().await?.detach();
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(ATTEST_LOCK)
        .execute(&mut guard)
        .await?;
    let mut scratch = manifest.clone();
    scratch.id.name = Name::scratch("attest", &manifest.id.name);
    // What one that was killed left behind.
    build::drop_scratch(pool, &scratch.id).await?;
    let found = attest_into(pool, source, manifest, Arc::new(scratch.clone()), progress).await;
    let dropped = build::drop_scratch(pool, &scratch.id).await;
    guard.close().await.ok(); // the lock goes with the connection, however it ends
    let found = found?;
    dropped?;
    Ok(found)
}

async fn attest_into(
    pool: &PgPool,
    source: &Source,
    manifest: &Manifest,
    scratch: Arc<Manifest>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Attestation, RefoldError> {
    build::make_scratch(pool, &scratch).await?;
    let opener = Arc::clone(&source.opener);
    let projector = Projector::of_made(pool.clone(), Arc::clone(&scratch), opener, source.limits).await?;
    let mut folding = Folding {
        of: manifest.id.clone(),
        readers: Readers::new(source.clone()),
        source,
        projector,
        left_out: BTreeSet::new(),
        stopped: BTreeSet::new(),
        unapplied: BTreeMap::new(),
        records: 0,
        progress,
    };
    for _ in 0..ROUNDS {
        let mut snapshot = begin_snapshot(pool).await?;
        let goal = folding.goal(&mut snapshot).await?;
        snapshot.rollback().await?;
        if folding.missing(&goal) <= LAST_ROUND {
            break;
        }
        folding.round(&goal, Some(pool), None).await?;
    }
    let mut snapshot = begin_snapshot(pool).await?;
    let goal = folding.goal(&mut snapshot).await?;
    folding.round(&goal, None, Some(&mut snapshot)).await?;
    sqlx::query("SET LOCAL statement_timeout = 0")
        .execute(&mut *snapshot)
        .await?;
    let comparison = compare(&mut snapshot, &scratch, manifest).await?;
    let wrong = folding.wrong_checkpoints(&goal);
    snapshot.rollback().await?;
    let parked = |place: &Place| goal.parked.contains(place);
    let unapplied: Vec<Unapplied> = folding
        .unapplied
        .into_iter()
        .filter(|(place, _)| !parked(place))
        .map(|(_, unapplied)| unapplied)
        .collect();
    Ok(Attestation {
        name: manifest.id.name.to_string(),
        build: manifest.id.build.get(),
        attested: comparison.equal() && wrong.is_empty() && unapplied.is_empty(),
        at: goal
            .checkpoints
            .iter()
            .map(|(shard, at)| (*shard, at.head.next))
            .collect(),
        records: folding.records,
        checkpoints: wrong,
        unapplied,
        parked_events: goal.parked.len(),
        comparison,
    })
}

async fn begin_snapshot(pool: &PgPool) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, sqlx::Error> {
    pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await
}

/// Up to where to fold, and without what: of one snapshot.
struct Goal {
    checkpoints: BTreeMap<Shard, Checkpoint>,
    /// By shard; never beyond the log's end.
    next: BTreeMap<Shard, Offset>,
    parked: BTreeSet<Place>,
}

struct Folding<'a> {
    of: BuildId,
    source: &'a Source,
    readers: Readers,
    projector: Projector,
    /// Events that were parked when they were passed.
    left_out: BTreeSet<Place>,
    /// Streams with an event that cannot be applied: what follows is left out.
    stopped: BTreeSet<String>,
    unapplied: BTreeMap<Place, Unapplied>,
    records: u64,
    progress: &'a mut (dyn FnMut(u64, u64) + Send),
}

impl Folding<'_> {
    async fn goal(&self, snapshot: &mut PgConnection) -> Result<Goal, RefoldError> {
        let stored = checkpoints(snapshot, &self.of).await?;
        let parked = parking::places(snapshot, &self.of).await?;
        let mut next = BTreeMap::new();
        for (shard, checkpoint) in &stored {
            let end = self.source.log.end(*shard).await?;
            next.insert(*shard, checkpoint.head.next.min(end));
        }
        Ok(Goal {
            checkpoints: stored,
            next,
            parked: parked.into_iter().collect(),
        })
    }

    fn missing(&self, goal: &Goal) -> u64 {
        let missing = goal.next.iter().map(|(shard, next)| {
            let at = self.readers.at(*shard).map_or(0, |at| at.head.next.get());
            next.get().saturating_sub(at)
        });
        missing.sum()
    }

    /// Folds up to the goal: each step in a transaction of its own from the pool, or all of it in the snapshot.
    async fn round(
        &mut self,
        goal: &Goal,
        pool: Option<&PgPool>,
        mut snapshot: Option<&mut PgConnection>,
    ) -> Result<(), RefoldError> {
        let total = self.records + self.missing(goal);
        // Resumed since they were passed: they come before what their streams have had after it.
        let resumed: Vec<Place> = self.left_out.difference(&goal.parked).copied().collect();
        let mut events = Vec::new();
        for place in resumed {
            let from = FromLog {
                log: Arc::clone(&self.source.log),
                catalog: self.source.catalog.clone(),
            };
            events.push(parking::event_at(&from, place).await?);
        }
        self.put(events, pool, snapshot.as_deref_mut()).await?;
        self.left_out.clone_from(&goal.parked);
        for (shard, to) in &goal.next {
            // Opened even where there is nothing to read: its checkpoint is compared.
            self.readers.reader(*shard, None).await?;
            while let Some(delivery) = self.readers.next(*shard, None, *to).await? {
                let count = delivery.to.head.next.get() - delivery.from.head.next.get();
                let mut events = Vec::new();
                delivery.collect(&self.projector.plan, &mut events);
                let mut kept = Vec::with_capacity(events.len());
                for event in events {
                    if !goal.parked.contains(&event.place()?) {
                        kept.push(event);
                    }
                }
                self.put(kept, pool, snapshot.as_deref_mut()).await?;
                self.records += count;
                (self.progress)(self.records, total);
            }
        }
        Ok(())
    }

    async fn put(
        &mut self,
        events: Vec<Event>,
        pool: Option<&PgPool>,
        snapshot: Option<&mut PgConnection>,
    ) -> Result<(), RefoldError> {
        if events.is_empty() {
            return Ok(());
        }
        match (snapshot, pool) {
            (Some(connection), _) => self.put_on(connection, events).await,
            (None, Some(pool)) => {
                let mut tx = pool.begin().await?;
                self.put_on(&mut tx, events).await?;
                Ok(tx.commit().await?)
            }
            (None, None) => Ok(()),
        }
    }

    async fn put_on(&mut self, connection: &mut PgConnection, events: Vec<Event>) -> Result<(), RefoldError> {
        self.projector.enter(connection, None).await?;
        let prepared = self.projector.prepare(events).await?;
        let all: Vec<usize> = (0..prepared.events.len())
            .filter(|&at| !self.stopped.contains(prepared.stream(at)))
            .collect();
        if parking::attempt(&self.projector, connection, &prepared, &all)
            .await?
            .is_none()
        {
            return Ok(());
        }
        // One of them cannot be applied: one by one, so that it is known which.
        for at in all {
            if self.stopped.contains(prepared.stream(at)) {
                continue;
            }
            let trouble = parking::attempt(&self.projector, connection, &prepared, &[at]).await?;
            let (Some(trouble), Some(event)) = (trouble, prepared.events.get(at)) else {
                continue;
            };
            self.stopped.insert(prepared.stream(at).to_owned());
            let place = event.place()?;
            let unapplied = Unapplied {
                position: format!("{}:{}", event.shard, event.offset),
                index: place.2,
                stream: prepared.stream(at).to_owned(),
                error: self.projector.shown(&trouble),
            };
            self.unapplied.insert(place, unapplied);
        }
        Ok(())
    }

    /// Every field of every stored checkpoint that is not as the fold has it there.
    fn wrong_checkpoints(&self, goal: &Goal) -> Vec<WrongCheckpoint> {
        let mut wrong = Vec::new();
        for (shard, stored) in &goal.checkpoints {
            let Some(folded) = self.readers.at(*shard) else {
                continue;
            };
            let (is, should) = (&stored.head, &folded.head);
            let fields = [
                ("next_offset", should.next.to_string(), is.next.to_string()),
                ("accepted", should.accepted.to_string(), is.accepted.to_string()),
                ("epoch", should.epoch.to_string(), is.epoch.to_string()),
                ("chain", should.chain.to_string(), is.chain.to_string()),
                ("time_ms", should.time_ms.to_string(), is.time_ms.to_string()),
                ("closed", should.closed.to_string(), is.closed.to_string()),
                (
                    "last_hash",
                    folded.last_hash.to_string(),
                    stored.last_hash.to_string(),
                ),
                (
                    "last_ghost",
                    folded.last_ghost.to_string(),
                    stored.last_ghost.to_string(),
                ),
            ];
            for (field, expected, actual) in fields {
                if expected != actual {
                    wrong.push(WrongCheckpoint {
                        shard: *shard,
                        field,
                        expected,
                        actual,
                    });
                }
            }
        }
        wrong
    }
}

//! The orders in which a test's events are applied, none of which may matter.

use std::sync::Arc;

use annals_log::Checkpoint;
use annals_record::fold::Head;
use annals_record::{Epoch, Hash32, Offset, Shard, ShardCount, StreamId};
use async_trait::async_trait;
use serde_json::Value;
use sqlx::PgPool;

use super::{Case, CheckError, Failure, compare};
use crate::apply::{ApplyError, Delivery, Limits, OpenError, OpenPersonal, Projector, Sealed};
use crate::build;
use crate::manifest::Manifest;
use crate::parking;

/// One transaction's deliveries after the other's.
type Schedule = Vec<Vec<Delivery>>;

const ONE_BY_ONE: &str = "one event at a time";
const ONE_SET: &str = "as one set";
const TWICE: &str = "the same batch offered twice";
const EMPTY_SCHEMA: &str = "again on an empty schema";

/// Opens a sealed value to its own text: tests write plain values in the place of ciphertext.
struct Plain;

#[async_trait]
impl OpenPersonal for Plain {
    async fn open(&self, sealed: &[Box<Sealed>]) -> Result<Vec<Option<Value>>, OpenError> {
        Ok(sealed.iter().map(|text| Some(Value::from(&**text))).collect())
    }
}

/// Runs a test in every way. `first` is made already; `second` is made and dropped.
pub(super) async fn run(
    pool: &PgPool,
    first: &Arc<Manifest>,
    second: &Arc<Manifest>,
    case: &Case,
) -> Result<Vec<Failure>, CheckError> {
    let mut failures = Vec::new();
    let projector = scratch_projector(pool, first).await?;
    let events = sequence(case, 1);
    let whole = as_one_set(&events);
    failures.extend(run_one(&projector, case, ONE_BY_ONE, &one_by_one(&events)).await?);
    failures.extend(run_one(&projector, case, ONE_SET, &whole).await?);
    failures.extend(offer_again(&projector, case, &whole).await?);
    let three = sequence(case, 3);
    let interleaved = [
        ("shards in one transaction", as_one_set(&three)),
        ("shards one after the other, backwards", shard_by_shard(&three)),
        ("shards taking turns", taking_turns(&sequence(case, 5))),
    ];
    for (name, schedule) in &interleaved {
        failures.extend(run_one(&projector, case, name, schedule).await?);
    }
    build::drop_build(pool, &second.id).await?;
    build::make_scratch(pool, second).await?;
    let fresh = scratch_projector(pool, second).await?;
    failures.extend(run_one(&fresh, case, EMPTY_SCHEMA, &whole).await?);
    build::drop_build(pool, &second.id).await?;
    Ok(failures)
}

async fn scratch_projector(pool: &PgPool, manifest: &Arc<Manifest>) -> Result<Projector, CheckError> {
    let opener = Arc::new(Plain);
    let projector = Projector::of_made(pool.clone(), Arc::clone(manifest), opener, Limits::default());
    Ok(projector.await?)
}

async fn run_one(
    projector: &Projector,
    case: &Case,
    run: &'static str,
    schedule: &Schedule,
) -> Result<Option<Failure>, CheckError> {
    build::empty(&projector.pool, projector.manifest()).await?;
    for deliveries in schedule {
        match projector.apply(deliveries).await {
            Ok(_) => {}
            Err(error @ (ApplyError::Technical(_) | ApplyError::Setup(_))) => return Err(error.into()),
            Err(error) => return Ok(Some(Failure::error(run, error.to_string()))),
        }
    }
    result(projector, case, run).await
}

/// The transaction that was committed last, once more: the checkpoints refuse it, and the rows stay.
async fn offer_again(
    projector: &Projector,
    case: &Case,
    schedule: &Schedule,
) -> Result<Option<Failure>, CheckError> {
    let Some(last) = schedule.last() else {
        return Ok(None);
    };
    match projector.apply(last).await {
        Err(ApplyError::Zombie(_)) => result(projector, case, TWICE).await,
        Err(error) => Ok(Some(Failure::error(TWICE, error.to_string()))),
        Ok(_) => {
            let error = "the checkpoint did not refuse it".to_owned();
            Ok(Some(Failure::error(TWICE, error)))
        }
    }
}

async fn result(
    projector: &Projector,
    case: &Case,
    run: &'static str,
) -> Result<Option<Failure>, CheckError> {
    let parked = parking::list(&projector.pool, projector.id(), 10).await?;
    if let Some(parked) = parked.first() {
        let error = format!(
            "{} of {} was parked: {}",
            parked.event_type,
            parked.stream,
            parked.error.as_deref().unwrap_or_default()
        );
        return Ok(Some(Failure::error(run, error)));
    }
    let differences = compare::differences(&projector.pool, projector.manifest(), case).await?;
    Ok((!differences.is_empty()).then_some(Failure {
        run,
        error: None,
        differences,
    }))
}

impl Failure {
    fn error(run: &'static str, error: String) -> Self {
        Self {
            run,
            error: Some(error),
            differences: Vec::new(),
        }
    }
}

/// Every event as a delivery of its own, in the test's order, its stream's shard being one of `shards`.
fn sequence(case: &Case, shards: u32) -> Vec<Delivery> {
    let count = ShardCount::try_from(shards).unwrap_or(ShardCount::MAX);
    let shard_of = |stream: &StreamId| count.shard_of(stream);
    let mut next: std::collections::BTreeMap<Shard, u64> = std::collections::BTreeMap::new();
    let deliveries = case.entries.iter().map(|entry| {
        let shard = shard_of(&entry.stream);
        let offset = next.entry(shard).or_insert(0);
        let delivery = Delivery {
            shard,
            from: checkpoint(*offset),
            to: checkpoint(*offset + 1),
            entries: vec![(Offset::new(*offset), Arc::clone(entry))],
        };
        *offset += 1;
        delivery
    });
    deliveries.collect()
}

/// A checkpoint that differs from every other offset's; no log is behind it.
fn checkpoint(offset: u64) -> Checkpoint {
    let mut chain = [0; 32];
    chain[..8].copy_from_slice(&offset.to_be_bytes());
    let head = Head {
        next: Offset::new(offset),
        accepted: offset,
        epoch: Epoch::new(1),
        ..Head::at_genesis(Hash32::new(chain))
    };
    Checkpoint {
        last_hash: Hash32::new(if offset == 0 { [0; 32] } else { chain }),
        ..Checkpoint::genesis(head)
    }
}

fn one_by_one(events: &[Delivery]) -> Schedule {
    events.iter().map(|event| vec![event.clone()]).collect()
}

fn as_one_set(events: &[Delivery]) -> Schedule {
    vec![by_shard(events)]
}

fn shard_by_shard(events: &[Delivery]) -> Schedule {
    by_shard(events)
        .into_iter()
        .rev()
        .map(|shard| vec![shard])
        .collect()
}

/// The first event of each shard, then the second of each, and so on; the last shard first.
fn taking_turns(events: &[Delivery]) -> Schedule {
    let mut rounds: Schedule = Vec::new();
    for event in events {
        let round = usize::try_from(event.from.head.next.get()).unwrap_or(usize::MAX);
        if rounds.len() <= round {
            rounds.resize_with(round + 1, Vec::new);
        }
        if let Some(of_round) = rounds.get_mut(round) {
            of_round.insert(0, event.clone());
        }
    }
    rounds
}

/// One delivery a shard.
fn by_shard(events: &[Delivery]) -> Vec<Delivery> {
    let mut shards: Vec<Delivery> = Vec::new();
    for event in events {
        match shards.iter_mut().find(|delivery| delivery.shard == event.shard) {
            Some(delivery) => delivery.extend(event.clone()),
            None => shards.push(event.clone()),
        }
    }
    shards
}

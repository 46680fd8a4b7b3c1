//! The faulty log does what its plan says, the same each time.

use std::sync::Arc;
use std::time::Duration;

use annals_log::faulty::{Fault, Faulty, Plan};
use annals_log::testing::Chained;
use annals_log::{Appended, Log, MemoryLog, Plays};
use annals_record::{AppName, Shard, ShardCount};

const SHARD: Shard = Shard::new(0);

fn memory() -> Arc<MemoryLog> {
    let one = ShardCount::try_from(1).unwrap();
    Arc::new(MemoryLog::new(
        AppName::try_from("example").unwrap(),
        one,
        Plays::Kafka,
    ))
}

/// Appends a claim and a commit under a fault; the answer, if one comes, and how many records stand and count.
async fn under(fault: Fault) -> (Option<Appended>, usize, u64) {
    let (memory, mut writer) = (memory(), Chained::example());
    let faulty = Faulty::memory(&memory, Plan::of([Some(fault)]));
    let at = writer.head();
    let answer = faulty.append(SHARD, at, vec![writer.claim(), writer.commit("order-1", 1, 1)]);
    let answer = tokio::time::timeout(Duration::from_millis(1), answer).await.ok();
    assert_eq!(faulty.done(), [fault]);
    (
        answer,
        memory.placed(SHARD).len(),
        memory.fold(SHARD).head().accepted,
    )
}

#[tokio::test(start_paused = true)]
async fn each_fault_does_what_it_says() {
    use Appended::{Landed, NotWritten, Unknown};
    for fault in Fault::ALL {
        let (answer, stand, count) = under(fault).await;
        let right = match fault {
            Fault::Refuse => matches!(answer, Some(NotWritten(_))) && stand == 0,
            Fault::FailBefore | Fault::WriteLate => matches!(answer, Some(Unknown(_))) && stand == 0,
            Fault::FailAfter => matches!(answer, Some(Unknown(_))) && (stand, count) == (2, 2),
            Fault::LoseAnswer | Fault::DelayAnswer => answer.is_none() && (stand, count) == (2, 2),
            Fault::Duplicate => matches!(answer, Some(Landed(_))) && (stand, count) == (4, 2),
            Fault::Hole => matches!(answer, Some(Unknown(_))) && (stand, count) == (1, 0),
            // The other's claim counts, ours is lost, and our commit has no epoch.
            Fault::SecondWriter => matches!(answer, Some(Landed(_))) && (stand, count) == (3, 1),
            Fault::Truncate => matches!(answer, Some(Unknown(_))) && (stand, count) == (1, 1),
        };
        assert!(right, "{fault:?}: {answer:?}, {stand} stand, {count} count");
    }
}

#[tokio::test]
async fn what_is_late_lands_behind_what_came_meanwhile() {
    let (memory, mut writer) = (memory(), Chained::example());
    let plan = [Some(Fault::WriteLate), Some(Fault::DelayAnswer)];
    let faulty = Faulty::memory(&memory, Plan::of(plan));
    let mut rival = writer.another(1);
    let at = writer.head();
    assert!(matches!(
        faulty.append(SHARD, at, vec![writer.claim()]).await,
        Appended::Unknown(_)
    ));
    let answer = faulty.append(SHARD, at, vec![rival.claim()]);
    faulty.release();
    assert!(matches!(answer.await, Appended::Landed(_)));
    let ids: Vec<_> = memory
        .placed(SHARD)
        .iter()
        .map(|p| p.slot.known().unwrap().id())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(memory.fold(SHARD).head().chain, rival.head().chain);
}

#[tokio::test]
async fn a_seed_draws_the_same_faults_again() {
    let mut drawn = Vec::new();
    for seed in [1, 1, 2] {
        let (memory, mut writer) = (memory(), Chained::example());
        let faulty = Faulty::memory(&memory, Plan::seeded(seed, 300, &Fault::ALL));
        for version in 1..200 {
            let at = writer.head();
            drop(faulty.append(SHARD, at, vec![writer.commit("order-1", version, 1)]));
        }
        drawn.push(faulty.done());
    }
    assert_eq!(drawn[0], drawn[1]);
    assert_ne!(drawn[0], drawn[2]);
    assert!(drawn[0].len() > 20, "{:?}", drawn[0]);
}

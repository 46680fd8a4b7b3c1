//! Kills, lost answers, lost requests, halted shards, two runners: the final state is the same.

use std::sync::atomic::Ordering;
use std::time::Duration;

use annals_record::Shard;
use annals_record::record::{RawHeader, RawRecord};
use bytes::Bytes;

use crate::domain::told;
use crate::world::{Way, World, draw};

const TAKES: [i64; 5] = [4, 0, 100, 2, 6];

/// Every job is over with all its answers in order, and no command of it has two records.
async fn assert_all_over(world: &World, jobs: usize) {
    let expected: Vec<String> = TAKES.iter().copied().map(told).collect();
    for n in 0..jobs {
        let work = world.over(&format!("j{n}")).await;
        assert_eq!(work.answers, expected, "job {n}");
        assert_eq!((work.disturbed, work.others, work.fired), (0, 0, 0), "job {n}");
        assert_eq!(world.takes_of(&format!("a{n}")), TAKES, "job {n}");
    }
    world.assert_each_command_once();
    world.read_to_the_end().await;
    assert_eq!(
        world
            .number("SELECT count(*) FROM annals.process_outbox WHERE state <> 'done'")
            .await,
        0
    );
    assert_eq!(
        world
            .number("SELECT count(*) FROM annals.process_instance WHERE stuck IS NOT NULL")
            .await,
        0
    );
}

/// A way by the toss of a coin, the same for the same command and attempt.
fn toss(seed: u64, key: &str, before: usize) -> Way {
    let mut state = key
        .bytes()
        .fold(seed, |state, byte| state.wrapping_mul(31) ^ u64::from(byte));
    state ^= u64::try_from(before).unwrap() << 32;
    match draw(&mut state) % 100 {
        0..15 => Way::LoseAnswer,
        15..25 => Way::Drop,
        25..30 => Way::Later,
        _ => Way::Send,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_ends_in_the_same_state_with_no_command_doubled() {
    for seed in [1, 2] {
        let Some(world) = World::new(4).await else { return };
        world.choose(move |sent, before| toss(seed, &sent.idempotency_key, before));
        let mut moments = seed;
        for round in 0..12 {
            let runner = world.runner();
            for n in 0..2 {
                let n = 2 * round + n;
                world
                    .begin(&format!("j{n}"), &format!("a{n}"), &TAKES, 0, "")
                    .await;
            }
            tokio::time::sleep(Duration::from_millis(draw(&mut moments) % 60)).await;
            runner.kill().await;
        }
        let runner = world.runner();
        assert_all_over(&world, 24).await;
        runner.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_commit_and_send_it_sends_after_the_deadline() {
    let Some(world) = World::new(4).await else { return };
    world.choose(|_, _| Way::Hang);
    let runner = world.runner();
    world.begin("j0", "a0", &TAKES, 0, "").await;
    world
        .wait("the first attempt", || async {
            !world.sender.attempts.lock().unwrap().is_empty()
        })
        .await;
    runner.kill().await;
    assert_eq!(
        world
            .number("SELECT count(*) FROM annals.process_outbox WHERE state = 'sent'")
            .await,
        1
    );
    world.choose(|_, _| Way::Send);
    let runner = world.runner();
    assert_all_over(&world, 1).await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_under_way_is_not_late() {
    let Some(world) = World::new(1).await else { return };
    world.choose(|_, _| Way::Hang);
    let runner = world.runner();
    world.begin("j", "a", &[1], 0, "").await;
    rounds(&world, 5).await;
    assert_eq!(
        world.sender.attempts.lock().unwrap().len(),
        1,
        "the first attempt still runs"
    );
    let attempts = "SELECT max(attempts)::bigint FROM annals.process_outbox";
    assert_eq!(world.number(attempts).await, 1);
    runner.stop().await;
}

/// Waits until the one late command was looked at so often.
async fn rounds(world: &World, rounds: usize) {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4_000 {
        let at = "SELECT (extract(epoch FROM max(deadline_at)) * 1000000)::bigint FROM annals.process_outbox WHERE state = 'sent'";
        let at: Option<i64> = sqlx::query_scalar(at).fetch_one(&world.pool).await.unwrap();
        seen.extend(at);
        if seen.len() > rounds {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the command was never late so often: {seen:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_command_is_sent_again_only_after_its_shard_was_read_to_the_end() {
    let Some(world) = World::new(4).await else { return };
    world.choose(|_, _| Way::LoseAnswer);
    let account = world.name_in(Shard::new(3), "account", 0);
    let job = world.name_in(Shard::new(1), "job", 0);
    world.log.hold(Shard::new(3));
    let runner = world.runner();
    world.begin(&job, &account, &[1], 0, "").await;
    world
        .wait("the record", || async { world.takes_of(&account) == [1] })
        .await;
    rounds(&world, 8).await;
    assert_eq!(
        world.sender.attempts.lock().unwrap().len(),
        1,
        "the record stands, unread"
    );
    world.log.open();
    world.until(&job, |work| work.answers == ["1"]).await;
    let takes = "SELECT max(attempts)::bigint FROM annals.process_outbox WHERE command = 'take'";
    assert_eq!(world.number(takes).await, 1);
    world.over(&job).await;
    world.assert_each_command_once();
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_never_arrived_is_sent_again_when_the_log_has_been_read() {
    let Some(world) = World::new(4).await else { return };
    world.choose(|_, before| if before < 2 { Way::Drop } else { Way::Send });
    let runner = world.runner();
    world.begin("j0", "a0", &TAKES, 0, "").await;
    assert_all_over(&world, 1).await;
    let sent = world.sender.sent.lock().unwrap().clone();
    assert!(sent.values().all(|sent| *sent == 3), "{sent:?}");
    assert_eq!(
        world
            .number("SELECT min(attempts)::bigint FROM annals.process_outbox")
            .await,
        3
    );
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_cannot_be_learnt_is_waited_for() {
    let Some(world) = World::new(2).await else { return };
    world.choose(|_, before| if before == 0 { Way::Drop } else { Way::Send });
    world.log.endless.store(true, Ordering::Relaxed);
    let runner = world.runner();
    world.begin("j", "a", &[1], 0, "").await;
    rounds(&world, 5).await;
    assert_eq!(
        world.sender.attempts.lock().unwrap().len(),
        1,
        "nobody knows what was read"
    );
    world.log.endless.store(false, Ordering::Relaxed);
    world.over("j").await;
    world.assert_each_command_once();
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runners_the_checkpoint_lets_one_go_on_at_a_time() {
    let Some(world) = World::new(4).await else { return };
    world.choose(|sent, before| toss(5, &sent.idempotency_key, before));
    let (one, other) = (world.runner(), world.runner());
    for n in 0..16 {
        world
            .begin(&format!("j{n}"), &format!("a{n}"), &TAKES, 60_000, "")
            .await;
    }
    assert_all_over(&world, 16).await;
    assert_eq!(world.number("SELECT count(*) FROM annals.timer").await, 0);
    one.stop().await;
    other.stop().await;
}

/// A record of a format that no program knows yet.
fn from_the_future() -> RawRecord {
    let header = RawHeader {
        name: Bytes::from_static(b"annals"),
        value: Some(Bytes::from_static(b"2")),
    };
    RawRecord {
        key: None,
        timestamp_ms: 1_790_000_000_000,
        value: None,
        headers: vec![header],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_shard_stops_neither_the_others_nor_their_timers() {
    let Some(mut world) = World::new(4).await else {
        return;
    };
    // With a permit held while they wait, the commands to the halted shard would keep all others for minutes.
    (world.settings.sends, world.settings.retry_max_s) = (2, 60);
    let halted = Shard::new(2);
    let account = world.name_in(halted, "account", 0);
    world.memory.insert(halted, from_the_future());
    world.choose(move |sent, _| {
        if sent.key == account {
            Way::Later
        } else {
            Way::Send
        }
    });
    let account = world.name_in(halted, "account", 0);
    let runner = world.runner();
    for n in 0..20 {
        world
            .begin(&world.name_in(Shard::new(1), "job", n), &account, &[1], 0, "")
            .await;
    }
    let (job, healthy) = (
        world.name_in(Shard::new(3), "job", 0),
        world.name_in(Shard::new(0), "account", 0),
    );
    world.begin(&job, &healthy, &TAKES, 0, "").await;
    assert_eq!(world.over(&job).await.answers.len(), TAKES.len());
    let job = world.name_in(Shard::new(0), "job", 1);
    world.begin(&job, &account, &[1], 20, "").await;
    let work = world.over(&job).await;
    assert_eq!((work.over.as_str(), work.fired), ("expired", 1));
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_was_halted_is_read_again_once_it_is_mended() {
    let Some(mut world) = World::new(4).await else {
        return;
    };
    world.settings.reopen = Duration::from_millis(100);
    world.choose(|sent, _| {
        if sent.key == "never" {
            Way::Later
        } else {
            Way::Send
        }
    });
    let shard = Shard::new(2);
    let runner = world.runner();
    let before = world.name_in(shard, "job", 0);
    world.begin(&before, "a0", &[1], 0, "").await;
    world.over(&before).await;
    world.read_to_the_end().await;
    let at = world.memory.insert(shard, from_the_future());
    // Elsewhere a timer fires only when the shard is known to have halted.
    let elsewhere = world.name_in(Shard::new(0), "job", 1);
    world.begin(&elsewhere, "never", &[1], 20, "").await;
    assert_eq!(world.over(&elsewhere).await.fired, 1);
    world.memory.truncate(shard, at);
    // Idle as it is, timers wait for it again: each notes the shards it waits for, and stays while another one is held.
    let (held, mut jobs) = (Shard::new(3), 2..100);
    world.log.hold(held);
    world
        .begin(&world.name_in(held, "job", 0), "never", &[1], 0, "")
        .await;
    world
        .wait("timers to wait for the shard", || {
            let job = world.name_in(Shard::new(0), "job", jobs.next().unwrap());
            let world = &world;
            async move {
                world.begin(&job, "never", &[1], 1, "").await;
                world
                    .wait("the timer to wait", || async {
                        let waiting = "SELECT count(*) - count(waits) FROM annals.timer";
                        world.until(&job, |work| work.takes == 1).await;
                        world.number(waiting).await == 0
                    })
                    .await;
                world
                    .number("SELECT count(*) FROM annals.timer WHERE waits ? '2'")
                    .await
                    > 0
            }
        })
        .await;
    world.log.open();
    let after = world.name_in(shard, "job", 2);
    world.begin(&after, "a1", &[1], 0, "").await;
    assert_eq!(world.over(&after).await.answers.len(), 1);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_takes_longer_than_a_lease_does_not_lose_it() {
    let Some(world) = World::new(1).await else { return };
    let running = world.runner();
    world.begin("j0", "a0", &TAKES, 0, "").await;
    world.over("j0").await;
    // Whatever it keeps now waits.
    let mut transaction = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE annals.process_instance IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    world.begin("j1", "a1", &TAKES, 0, "").await;
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                 AND relation = 'annals.process_instance'::regclass";
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while world.number(waits).await == 0 {
        assert!(tokio::time::Instant::now() < until, "no round waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A third of a second each, so this is longer than a lease.
    let goal = world.renewed.load(Ordering::SeqCst) + 5;
    while world.renewed.load(Ordering::SeqCst) < goal {
        assert!(
            tokio::time::Instant::now() < until,
            "the lease is not renewed while a round waits"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(world.number(waits).await > 0, "the round is the same");
    transaction.rollback().await.unwrap();
    world.over("j1").await;
    running.stop().await;
}

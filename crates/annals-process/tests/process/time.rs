//! Timers: fired once, not before everything up to then was read, moved, withdrawn.

use annals_record::Shard;

use crate::world::{Way, World};

const FIRED: &str =
    "SELECT count(*) FROM annals.process_instance WHERE convert_from(state, 'UTF8')::json->>'fired' <> '0'";

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_fires_once_at_its_time_and_is_gone() {
    let Some(world) = World::new(4).await else { return };
    world.choose(|sent, _| {
        if sent.command == "take" {
            Way::Drop
        } else {
            Way::Send
        }
    });
    let runner = world.runner();
    for n in 0..10 {
        world.begin(&format!("j{n}"), "a", &[1], 30, "").await;
    }
    for n in 0..10 {
        let work = world.over(&format!("j{n}")).await;
        assert_eq!((work.over.as_str(), work.fired), ("expired", 1), "job {n}");
    }
    world.read_to_the_end().await;
    assert_eq!(world.number("SELECT count(*) FROM annals.timer").await, 0);
    runner.stop().await;
    for n in 0..10 {
        let stream = format!("job-j{n}");
        let records: Vec<_> = world
            .accepted()
            .into_iter()
            .filter(|record| record.stream.as_ref().unwrap().as_str() == stream)
            .collect();
        let [began, expired] = &records[..] else {
            panic!("{stream}: {records:?}")
        };
        assert!(
            expired.timestamp_ms >= began.timestamp_ms + 30,
            "{stream}: not before its time"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_waits_until_every_shard_is_read_up_to_its_time_and_what_was_withdrawn_never_fires() {
    let Some(world) = World::new(4).await else { return };
    let shard = Shard::new(2);
    let (job, late) = (
        world.name_in(shard, "job", 0),
        world.name_in(Shard::new(0), "job", 0),
    );
    world.choose(|_, _| Way::Hang);
    let runner = world.runner();
    world.begin(&job, "a", &[1], 300, "").await;
    world.begin(&late, "b", &[1], 300, "").await;
    world
        .wait("both timers", || async {
            world.number("SELECT count(*) FROM annals.timer").await == 2
        })
        .await;
    // One job is finished before its timer is due, but in a shard that is not read.
    world.log.hold(shard);
    world
        .ask(&format!("job-{job}"), "finish", r#"{"text":"by hand"}"#)
        .await;
    let waiting = "SELECT count(*) FROM annals.timer WHERE waits IS NOT NULL";
    world
        .wait("both to be due", || async { world.number(waiting).await == 2 })
        .await;
    // Whatever else goes on, neither fires: the other one too has to hear of every shard.
    let held = world.name_in(Shard::new(1), "job", 0);
    world.begin(&held, "c", &[], 0, "").await;
    world.until(&held, |_| true).await;
    assert_eq!(world.number(FIRED).await, 0);
    assert_eq!(world.number(waiting).await, 2);
    world.choose(|_, _| Way::Send);
    world.log.open();
    assert_eq!(world.over(&late).await.over, "expired");
    let work = world.over(&job).await;
    assert_eq!((work.over.as_str(), work.fired), ("by hand", 0));
    world.read_to_the_end().await;
    assert_eq!(world.number("SELECT count(*) FROM annals.timer").await, 0);
    assert_eq!(world.number(FIRED).await, 1);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_is_set_again_moves_and_fires_once() {
    let Some(world) = World::new(2).await else { return };
    world.choose(|sent, _| {
        if sent.command == "take" {
            Way::Drop
        } else {
            Way::Send
        }
    });
    let runner = world.runner();
    world.begin("j", "a", &[1], 400, "").await;
    world.until("j", |_| true).await;
    let due = "SELECT (extract(epoch FROM due_at) * 1000)::bigint FROM annals.timer";
    let first = world.number(due).await;
    world.ask("job-j", "extend", "{}").await;
    world.until("j", |work| work.extended == 1).await;
    assert!(world.number(due).await > first);
    assert_eq!(
        world.number("SELECT n FROM annals.timer").await,
        2,
        "numbers never come twice"
    );
    let work = world.over("j").await;
    assert_eq!((work.over.as_str(), work.fired), ("expired", 1));
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_outlives_the_runner_that_set_it() {
    let Some(world) = World::new(2).await else { return };
    world.choose(|sent, _| {
        if sent.command == "take" {
            Way::Drop
        } else {
            Way::Send
        }
    });
    let runner = world.runner();
    world.begin("j", "a", &[1], 50, "").await;
    world.until("j", |_| true).await;
    runner.kill().await;
    let (one, other) = (world.runner(), world.runner());
    let work = world.over("j").await;
    assert_eq!(
        (work.over.as_str(), work.fired),
        ("expired", 1),
        "two runners, fired once"
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_the_program_does_not_know_lists_its_instance() {
    let Some(world) = World::new(2).await else { return };
    let runner = world.runner();
    world.begin("j", "a", &[], 60_000, "").await;
    world.until("j", |_| true).await;
    sqlx::query("UPDATE annals.timer SET name = 'older', due_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    let stuck = "SELECT count(*) FROM annals.process_instance WHERE stuck LIKE 'timer `older`%'";
    world
        .wait("the instance to be stuck", || async {
            world.number(stuck).await == 1
        })
        .await;
    assert_eq!(world.number("SELECT count(*) FROM annals.timer").await, 0);
    runner.stop().await;
}

//! Records that do not concern the process: read without a transaction each, and not read again after an orderly stop.

use std::time::Duration;

use annals_log::{Checkpoint, Log};
use annals_record::Shard;

use crate::world::{Way, World};

/// Counts the statements that move checkpoints.
const COUNT: &str = "
    CREATE SEQUENCE moves;
    CREATE FUNCTION count_moves() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM nextval('moves'); RETURN NULL; END$$;
    CREATE TRIGGER count_moves AFTER UPDATE ON annals.checkpoint EXECUTE FUNCTION count_moves()";
const MOVES: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM moves";

/// A world whose runner stores nothing by itself within a test.
async fn world() -> Option<World> {
    let mut world = World::new(4).await?;
    world.settings.passed_every = Duration::from_secs(3_600);
    sqlx::raw_sql(COUNT).execute(&world.pool).await.unwrap();
    Some(world)
}

/// Somebody asks for nothing: commits without events, which no process sees.
async fn irrelevant(world: &World, records: usize) {
    for n in 0..records {
        let account = format!("account-z{}", n % 8);
        world.ask(&account, "take", r#"{"job":"none","amount":0}"#).await;
    }
}

/// Waits until the runner has read all that the log holds: a timer fires no sooner.
async fn read_all(world: &World, job: &str) {
    world.choose(|sent, _| {
        if sent.command == "take" {
            Way::Later
        } else {
            Way::Send
        }
    });
    world.begin(job, "never", &[1], 1, "").await;
    assert_eq!(world.over(job).await.fired, 1);
}

/// Waits until the readers ask for what comes after the end: everything before it is with the runner.
async fn all_asked(world: &World) {
    world
        .wait("the end to be asked for", || async {
            world.log.asked() == ends(world).await
        })
        .await;
}

async fn stored(world: &World) -> Vec<(Shard, u64)> {
    let all = Checkpoint::load_all(&world.pool, "process/work").await.unwrap();
    all.into_iter()
        .map(|(shard, at)| (shard, at.head.next.get()))
        .collect()
}

async fn ends(world: &World) -> Vec<(Shard, u64)> {
    let mut ends = Vec::new();
    for shard in world.shards.shards() {
        ends.push((shard, world.memory.end(shard).await.unwrap().get()));
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_do_not_concern_the_process_cost_no_transactions() {
    let Some(world) = world().await else { return };
    let runner = world.runner();
    read_all(&world, "j0").await;
    world.read_to_the_end().await;
    let before = world.number(MOVES).await;
    for _ in 0..20 {
        irrelevant(&world, 20).await;
        all_asked(&world).await;
    }
    read_all(&world, "j1").await;
    let moves = world.number(MOVES).await - before;
    // The job began, its timer fired, it expired, and nothing else.
    assert!(moves <= 6, "{moves} statements for 400 records");
    runner.stop().await;
    assert_eq!(stored(&world).await, ends(&world).await);
    assert_eq!(
        world.number("SELECT count(*) FROM annals.process_instance").await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_stores_how_far_was_read() {
    let Some(world) = world().await else { return };
    let runner = world.runner();
    irrelevant(&world, 40).await;
    all_asked(&world).await;
    assert_eq!(world.number(MOVES).await, 0);
    runner.stop().await;
    assert_eq!(stored(&world).await, ends(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_stored_by_themselves_after_a_while_or_many_records() {
    let Some(mut world) = world().await else { return };
    world.settings.passed_every = Duration::from_millis(200);
    let runner = world.runner();
    irrelevant(&world, 10).await;
    world.read_to_the_end().await;
    runner.kill().await;
    world.settings.passed_every = Duration::from_secs(3_600);
    world.settings.passed_records = 20;
    let runner = world.runner();
    let before = world.number(MOVES).await;
    irrelevant(&world, 30).await;
    world
        .wait("twenty of them to be stored", || async {
            world.number(MOVES).await > before
        })
        .await;
    runner.kill().await;
    // What was read and not stored is read again, and is nobody's again.
    let runner = world.runner();
    read_all(&world, "j").await;
    runner.stop().await;
    assert_eq!(stored(&world).await, ends(&world).await);
}

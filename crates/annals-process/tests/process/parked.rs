//! Instances that cannot react and records that do not read: parked, all others go on, and resumed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_domain::{ReadError, RecordView};
use annals_process::erased::{self, AnyInput, AnyProcess, ErasedProcess, ReactError, Reaction};
use annals_record::Shard;
use annals_store::testing::TestDatabase;
use chrono::{DateTime, Utc};

use crate::domain::{Work, told};
use crate::world::{Running, Way, World, draw};

const TAKES: [i64; 5] = [4, 0, 100, 2, 6];
const HELD: &str = "SELECT count(*) FROM annals.process_held";
const PARKED: &str = "SELECT count(*) FROM annals.process_instance WHERE parked AND stuck IS NOT NULL";
const LEFT: &str =
    "SELECT (SELECT count(*) FROM annals.process_held) + count(*) FROM annals.process_instance WHERE parked";

/// A process that reads no `extend`, or cannot react, while a test wants it so.
struct Flaky {
    inner: AnyProcess,
    reads: AtomicBool,
    reacts: AtomicBool,
}

impl ErasedProcess for Flaky {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn categories(&self) -> &'static [&'static str] {
        self.inner.categories()
    }
    fn of_record(&self, record: &RecordView<'_>) -> Result<Option<(String, AnyInput)>, ReadError> {
        if record.command == "extend" && !self.reads.load(Ordering::SeqCst) {
            let name = record.command.to_owned();
            return Err(ReadError::Unknown { name });
        }
        self.inner.of_record(record)
    }
    fn of_timer(&self, timer: &str, instance: &str) -> Option<AnyInput> {
        self.inner.of_timer(timer, instance)
    }
    fn react(
        &self,
        instance: &str,
        state: Option<&[u8]>,
        input: &AnyInput,
        time: DateTime<Utc>,
    ) -> Result<Reaction, ReactError> {
        if !self.reacts.load(Ordering::SeqCst) {
            return Err(ReactError::Id(instance.to_owned()));
        }
        self.inner.react(instance, state, input, time)
    }
}

/// A world whose process is flaky and whose commands to `never` never go out.
async fn flaky() -> Option<(World, Arc<Flaky>)> {
    let mut world = World::new(4).await?;
    let flaky = Arc::new(Flaky {
        inner: erased::process::<Work>(()),
        reads: AtomicBool::new(true),
        reacts: AtomicBool::new(true),
    });
    world.process = flaky.clone();
    world.choose(|sent, _| {
        if sent.key == "never" {
            Way::Later
        } else {
            Way::Send
        }
    });
    Some((world, flaky))
}

impl World {
    async fn number_is(&self, what: &str, sql: &'static str, expected: i64) {
        self.wait(what, || async { self.number(sql).await == expected })
            .await;
    }

    /// Begins a job that waits for ever, or for its timer.
    async fn begin_waiting(&self, job: &str, wait_ms: u64) {
        self.begin(job, "never", &[1], wait_ms, "").await;
        self.until(job, |work| work.takes == 1).await;
    }

    async fn extend(&self, job: &str) {
        self.ask(&format!("job-{job}"), "extend", "{}").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_does_not_read_parks_its_instance_and_resume_makes_up_for_everything() {
    let Some(world) = World::new(4).await else { return };
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    // The third answer waits until the state is broken.
    world.choose(move |sent, _| {
        let waits = sent.key == "a0" && sent.data.get().contains("100") && !is_open.load(Ordering::SeqCst);
        if waits { Way::Later } else { Way::Send }
    });
    let runner = world.runner();
    for n in 0..2 {
        world
            .begin(&format!("j{n}"), &format!("a{n}"), &TAKES, 0, "")
            .await;
    }
    world.until("j0", |work| work.answers.len() == 2).await;
    let state: Vec<u8> =
        sqlx::query_scalar("SELECT state FROM annals.process_instance WHERE instance = 'j0'")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    let set = |state: Vec<u8>| {
        sqlx::query("UPDATE annals.process_instance SET state = $1 WHERE instance = 'j0'")
            .bind(state)
            .execute(&world.pool)
    };
    set(b"[\"of another release\"]".to_vec()).await.unwrap();
    open.store(true, Ordering::SeqCst);
    world.number_is("the instance to be parked", PARKED, 1).await;
    let expected: Vec<String> = TAKES.iter().copied().map(told).collect();
    assert_eq!(world.over("j1").await.answers, expected, "all others go on");
    world.extend("j0").await;
    // What it decided before still goes out, and the answers wait with the rest.
    world.number_is("three answers and it to wait", HELD, 4).await;

    // Resumed in vain it is parked again, and nothing is lost.
    assert!(world.admin.resume("work", "j0").await.unwrap());
    world.number_is("it to be parked again", PARKED, 1).await;
    assert_eq!(world.number(HELD).await, 4);

    set(state).await.unwrap();
    assert!(world.admin.resume("work", "j0").await.unwrap());
    let work = world.over("j0").await;
    assert_eq!((work.answers, work.extended), (expected, 1));
    world.number_is("it to take part again", LEFT, 0).await;
    world.assert_each_command_once();
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_does_not_read_waits_by_itself_and_reaches_its_instance_when_it_reads() {
    let Some((world, process)) = flaky().await else {
        return;
    };
    let runner = world.runner();
    world.begin_waiting("j0", 0).await;
    process.reads.store(false, Ordering::SeqCst);
    world.extend("j0").await;
    world.number_is("the record to be parked", PARKED, 1).await;
    let (name, why): (String, String) =
        sqlx::query_as("SELECT instance, stuck FROM annals.process_instance WHERE parked")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert!(why.contains("`extend` is not known to this program"), "{why}");
    let shown = world.admin.show("work", &name).await.unwrap().unwrap();
    assert_eq!((shown.state.get(), &*shown.status.step), ("\"\"", "unreadable"));
    world.begin("j1", "a1", &TAKES, 0, "").await;
    assert_eq!(
        world.over("j1").await.answers.len(),
        TAKES.len(),
        "all others go on"
    );

    assert!(world.admin.resume("work", &name).await.unwrap());
    world.number_is("it to be parked again", PARKED, 1).await;
    assert_eq!(world.number(HELD).await, 1);

    process.reads.store(true, Ordering::SeqCst);
    assert!(world.admin.resume("work", &name).await.unwrap());
    world.until("j0", |work| work.extended == 1).await;
    world.number_is("nothing to be left", LEFT, 0).await;
    world
        .wait("what stood for the record to be gone", || async {
            world.admin.show("work", &name).await.unwrap().is_none()
        })
        .await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_cannot_react_to_its_timer_does_so_once_it_is_resumed() {
    let Some((world, process)) = flaky().await else {
        return;
    };
    let runner = world.runner();
    world.begin_waiting("j0", 600_000).await;
    process.reacts.store(false, Ordering::SeqCst);
    sqlx::query("UPDATE annals.timer SET due_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    world.number_is("the instance to be parked", PARKED, 1).await;
    process.reacts.store(true, Ordering::SeqCst);
    assert_eq!(world.state("j0").await.unwrap().fired, 0);
    assert!(world.admin.resume("work", "j0").await.unwrap());
    let work = world.over("j0").await;
    assert_eq!((work.over.as_str(), work.fired), ("expired", 1));
    assert_eq!(world.number("SELECT count(*) FROM annals.timer").await, 0);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_makes_up_for_what_waited_it_reacts_to_each_record_once() {
    let Some((world, process)) = flaky().await else {
        return;
    };
    let mut runner = world.runner();
    world.begin_waiting("j0", 0).await;
    let mut moments = 7;
    for round in 1..=4 {
        process.reacts.store(false, Ordering::SeqCst);
        for _ in 0..10 {
            world.extend("j0").await;
        }
        world.number_is("all to wait", HELD, 10).await;
        process.reacts.store(true, Ordering::SeqCst);
        assert!(world.admin.resume("work", "j0").await.unwrap());
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(draw(&mut moments) % 15)).await;
            runner.kill().await;
            runner = world.runner();
        }
        world.number_is("nothing to be left", LEFT, 0).await;
        assert_eq!(world.state("j0").await.unwrap().extended, 10 * round);
    }
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_shard_that_is_away_keeps_no_other_instance() {
    let Some((world, process)) = flaky().await else {
        return;
    };
    let runner = world.runner();
    let shards =
        BTreeMap::from([0, 1].map(|shard| (world.name_in(Shard::new(shard), "job", 0), Shard::new(shard))));
    for job in shards.keys() {
        world.begin_waiting(job, 0).await;
    }
    process.reacts.store(false, Ordering::SeqCst);
    for job in shards.keys() {
        world.extend(job).await;
    }
    world.number_is("both to be parked", PARKED, 2).await;
    process.reacts.store(true, Ordering::SeqCst);
    // The first in the order in which they are looked at.
    let ((first, shard), (second, _)) = (
        shards.first_key_value().unwrap(),
        shards.last_key_value().unwrap(),
    );
    world.log.away.lock().unwrap().insert(*shard);
    for job in [first, second] {
        assert!(world.admin.resume("work", job).await.unwrap());
    }
    world.until(second, |work| work.extended == 1).await;
    assert_eq!(world.state(first).await.unwrap().extended, 0);
    assert_eq!(world.number(HELD).await, 1);
    world.log.away.lock().unwrap().clear();
    world.until(first, |work| work.extended == 1).await;
    world.number_is("nothing to be left", LEFT, 0).await;
    runner.stop().await;
}

/// Parks an instance by hand, resumed and with nothing that waits, then puts a record down for it as another runner would
/// while the one that is to look after it waits for the instance's lock.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_runner_puts_down_for_an_instance_at_the_last_moment_is_not_forgotten() {
    let Some((world, _)) = flaky().await else { return };
    let runner: Running = world.runner();
    world.begin_waiting("j0", 0).await;
    world.extend("j0").await;
    world.until("j0", |work| work.extended == 1).await;
    runner.stop().await;

    let mut other = world.pool.begin().await.unwrap();
    sqlx::query("UPDATE annals.process_instance SET parked = true, stuck = NULL WHERE instance = 'j0'")
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("SELECT 1 FROM annals.process_instance WHERE instance = 'j0' FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let runner = world.runner();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    world
        .number_is("the runner to wait for the instance", waits, 1)
        .await;
    let shard = world.shard("job-j0");
    let extended = world.memory.placed(shard).into_iter().rfind(|placed| {
        let record = placed.slot.known();
        record.is_some_and(|record| {
            record
                .stream
                .as_ref()
                .is_some_and(|stream| stream.as_str() == "job-j0")
        })
    });
    sqlx::query("INSERT INTO annals.process_held (process, instance, shard, log_offset, own) VALUES ('work', 'j0', $1, $2, false)")
        .bind(i32::try_from(shard.get()).unwrap())
        .bind(i64::try_from(extended.unwrap().offset.get()).unwrap())
        .execute(&mut *other)
        .await
        .unwrap();
    other.commit().await.unwrap();
    world.until("j0", |work| work.extended == 2).await;
    world.number_is("nothing to be left", LEFT, 0).await;
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_cannot_be_carried_to_a_copy_whose_offsets_are_others() {
    let Some((world, process)) = flaky().await else {
        return;
    };
    let runner = world.runner();
    world.begin_waiting("j0", 0).await;
    process.reacts.store(false, Ordering::SeqCst);
    world.extend("j0").await;
    world.number_is("the record to wait", HELD, 1).await;
    let copy = TestDatabase::create().await.unwrap();
    let copy = copy.pool().await;
    let (mut from, mut to) = (world.pool.acquire().await.unwrap(), copy.acquire().await.unwrap());
    let ends = BTreeMap::new();
    let refused = annals_process::carry(&mut from, &mut to, &ends)
        .await
        .unwrap_err();
    assert!(refused.to_string().starts_with("1 records wait"), "{refused}");
    process.reacts.store(true, Ordering::SeqCst);
    assert!(world.admin.resume("work", "j0").await.unwrap());
    world.number_is("nothing to be left", LEFT, 0).await;
    let carried = annals_process::carry(&mut from, &mut to, &ends).await.unwrap();
    assert_eq!(carried.instances, 1);
    runner.stop().await;
}

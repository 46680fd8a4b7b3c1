//! Commands in order, answers from the log, parking, and how it all is listed.

use annals_record::Kind;

use crate::domain::told;
use crate::world::{Way, World};

#[tokio::test(flavor = "multi_thread")]
async fn drives_its_commands_in_order_and_sees_its_own_refusals_and_quiet_commits() {
    let Some(world) = World::new(4).await else { return };
    let runner = world.runner();
    let takes = [5, 0, 100, 3, 7];
    for n in 0..20 {
        // Half of them share an account: order holds per instance and stream, not across instances.
        let account = if n % 2 == 0 {
            "shared".to_owned()
        } else {
            format!("own{n}")
        };
        world.begin(&format!("j{n}"), &account, &takes, 0, "").await;
    }
    let expected: Vec<String> = takes.iter().copied().map(told).collect();
    for n in 0..20 {
        let work = world.over(&format!("j{n}")).await;
        assert_eq!(work.answers, expected, "job {n}");
        assert_eq!(
            (work.disturbed, work.others, work.over),
            (0, 0, expected.join(", ")),
            "job {n}"
        );
    }
    assert_eq!(world.takes_of("own1"), takes);
    assert_eq!(world.takes_of("shared").len(), 50);
    world.assert_each_command_once();
    world.read_to_the_end().await;
    assert_eq!(
        world
            .number("SELECT count(*) FROM annals.process_outbox WHERE state <> 'done'")
            .await,
        0
    );
    assert!(
        world.sender.sent.lock().unwrap().values().all(|sent| *sent == 1),
        "nothing was sent twice"
    );
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_name_their_cause_and_their_deadline() {
    let Some(world) = World::new(1).await else { return };
    let runner = world.runner();
    // An instance whose id could be a record's: a timer's key holds it where a record's key holds the record.
    let job = "0192f1c0-0000-7000-8000-000000000001";
    world.begin(job, "a", &[], 20, "").await;
    world.begin("other", "a", &[1], 0, "").await;
    world.over(job).await;
    world.over("other").await;
    let began = world
        .accepted()
        .into_iter()
        .find(|r| r.stream.as_ref().unwrap().as_str() == "job-other")
        .unwrap();
    let attempts = world.sender.attempts.lock().unwrap().clone();
    let of = |name: &str| attempts.iter().find(|sent| sent.command == name).unwrap().clone();
    let take = of("take");
    assert_eq!(
        (take.resource.as_str(), take.key.as_str(), take.process.as_str()),
        ("accounts", "a", "work")
    );
    assert_eq!(take.causation, Some(began.id().to_string()));
    assert_eq!(take.idempotency_key, format!("work:{}:0", began.id()));
    assert_eq!(take.deadline, world.settings.deadline);
    let expire = of("expire");
    assert_eq!(
        expire.causation, None,
        "a timer is no record: {}",
        expire.idempotency_key
    );
    assert!(
        expire
            .idempotency_key
            .starts_with(&format!("work:{job}:timed_out:"))
    );
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_ask_disturbs_it_only_if_something_happened() {
    let Some(world) = World::new(4).await else { return };
    // Its own take waits until the others have had their say.
    world.choose(|_, before| if before < 3 { Way::Later } else { Way::Send });
    let runner = world.runner();
    world.begin("j", "a", &[1], 0, "").await;
    for amount in [100, 0, 9, 200] {
        world
            .ask(
                "account-a",
                "take",
                &format!(r#"{{"job":"j","amount":{amount}}}"#),
            )
            .await;
    }
    world
        .ask(
            "job-j",
            "begin",
            r#"{"account":"a","takes":[2],"wait_ms":0,"ask":""}"#,
        )
        .await;
    let work = world.over("j").await;
    world.read_to_the_end().await;
    assert_eq!((work.others, work.disturbed), (1, 0));
    assert_eq!(world.state("j").await.unwrap().answers, ["1"]);
    let refusals = world
        .accepted()
        .into_iter()
        .filter(|record| record.kind() == Kind::Refusal)
        .count();
    assert_eq!(refusals, 3, "the others were refused, on the record");
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_record_parks_and_a_resumed_instance_goes_on() {
    let Some(world) = World::new(4).await else { return };
    world.choose(|sent, _| {
        if sent.key == "closed" {
            Way::Never
        } else {
            Way::Send
        }
    });
    let runner = world.runner();
    world.begin("stuck", "closed", &[1, 2], 0, "").await;
    world.begin("free", "open", &[1, 2], 0, "").await;
    world.over("free").await;
    world
        .wait("the instance to be listed", || async {
            let list = world.admin.list().await.unwrap();
            list.first().is_some_and(|work| work.stuck.len() == 1)
        })
        .await;
    let work = world.admin.list().await.unwrap().remove(0);
    assert_eq!(
        (work.process.as_str(), work.stuck[0].instance.as_str()),
        ("work", "stuck")
    );
    assert_eq!(work.stuck[0].stuck.as_deref(), Some("forbidden"));
    assert_eq!(work.steps, [("over".to_owned(), 1), ("working".to_owned(), 1)]);
    assert_eq!(
        work.open_commands, 1,
        "the second take waits behind the parked one"
    );
    // An input that it gets meanwhile neither frees it nor sends what waits.
    world.ask("job-stuck", "extend", "{}").await;
    world.until("stuck", |work| work.extended == 1).await;
    let detail = world.admin.show("work", "stuck").await.unwrap().unwrap();
    let states: Vec<_> = detail
        .outbox
        .iter()
        .map(|line| (line.name.as_str(), line.state.as_str()))
        .collect();
    assert_eq!(states, [("take", "parked"), ("take", "pending")]);
    assert_eq!(detail.status.stuck.as_deref(), Some("forbidden"));
    assert_eq!(detail.outbox[0].last_error.as_deref(), Some("forbidden"));

    assert!(
        !world.admin.resume("work", "free").await.unwrap(),
        "there is nothing to resume"
    );
    assert!(!world.admin.resume("work", "nobody").await.unwrap());
    world.choose(|_, _| Way::Send);
    assert!(world.admin.resume("work", "stuck").await.unwrap());
    assert_eq!(world.over("stuck").await.answers, ["1", "2"]);
    assert_eq!(world.takes_of("closed"), [1, 2]);
    world.assert_each_command_once();
    assert!(world.admin.list().await.unwrap()[0].stuck.is_empty());
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_forgotten_after_a_while_and_numbers_go_on() {
    let Some(mut world) = World::new(1).await else {
        return;
    };
    world.settings.keep_done = std::time::Duration::from_secs(3_600);
    let runner = world.runner();
    world.begin("j", "a", &[1, 2], 0, "").await;
    world.over("j").await;
    world.read_to_the_end().await;
    runner.stop().await;
    assert_eq!(
        world.number("SELECT count(*) FROM annals.process_outbox").await,
        3,
        "nothing is old"
    );
    sqlx::query("UPDATE annals.process_outbox SET created_at = now() - interval '2 hours', state = CASE seq WHEN 2 THEN 'parked' ELSE 'done' END")
        .execute(&world.pool)
        .await
        .unwrap();
    let runner = world.runner();
    world
        .wait("old rows to go", || async {
            world.number("SELECT count(*) FROM annals.process_outbox").await == 1
        })
        .await;
    assert_eq!(
        world.number("SELECT seq FROM annals.process_outbox").await,
        2,
        "what is not over stays"
    );
    assert_eq!(
        world.number("SELECT last_seq FROM annals.process_instance").await,
        3
    );
    runner.stop().await;
}

/// With `--nocapture` it says how fast it went.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_jobs_at_once_send_each_command_once() {
    let Some(mut world) = World::new(16).await else {
        return;
    };
    let real = annals_process::ProcessSettings::default();
    (world.settings.deadline, world.settings.tick) = (real.deadline, real.tick);
    let world = std::sync::Arc::new(world);
    let mut begins = tokio::task::JoinSet::new();
    for n in 0..200 {
        let world = std::sync::Arc::clone(&world);
        begins.spawn(async move {
            world
                .begin(&format!("j{n}"), &format!("a{n}"), &[1, 2, 3, 4], 600_000, "")
                .await
        });
    }
    begins.join_all().await;
    let began = std::time::Instant::now();
    let runner = world.runner();
    let over = "SELECT count(*) FROM annals.process_instance WHERE step = 'over'";
    world
        .wait("all to be over", || async { world.number(over).await == 200 })
        .await;
    let took = began.elapsed();
    eprintln!("200 jobs, 1,000 commands, 1,200 inputs in {took:?}");
    world.assert_each_command_once();
    runner.stop().await;
}

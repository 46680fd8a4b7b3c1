//! Effects: tried until they answer, withdrawn, refused, and their answer on the record once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_domain::{EffectError, EffectFuture, Retry, SendCommand};
use annals_process::{EffectSettings, Effects, erased};

use crate::domain::{Ask, Job, JobCommand, Note, Question};
use crate::world::{Way, World};

/// Whom the tests ask: what is said depends on how often it was asked before.
struct Asked {
    calls: AtomicUsize,
    keys: Mutex<BTreeSet<String>>,
}

type Said = Result<bool, Retry>;

fn effects(
    settings: EffectSettings,
    say: impl Fn(&Question, usize) -> Said + Send + Sync + 'static,
) -> (Effects, Arc<Asked>) {
    let asked = Arc::new(Asked {
        calls: AtomicUsize::new(0),
        keys: Mutex::default(),
    });
    let of_effect = Arc::clone(&asked);
    let ask = move |question: &Question, key: &str| -> EffectFuture<'static> {
        let before = of_effect.calls.fetch_add(1, Ordering::Relaxed);
        of_effect.keys.lock().unwrap().insert(key.to_owned());
        let said = say(question, before);
        let of_effect = Arc::clone(&of_effect);
        let question = question.clone();
        Box::pin(async move {
            // Two runners at once: both have an answer before either keeps it.
            while question.whom == "both" && of_effect.calls.load(Ordering::Relaxed) < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            match said {
                Ok(true) => {
                    let job = annals_domain::AggregateKey::parse(&question.job).unwrap();
                    let note = Note {
                        text: format!("yes from {}", question.whom),
                    };
                    Ok(Some(SendCommand::to::<Job>(&job, &JobCommand::Answer(note))))
                }
                Ok(false) => std::future::pending().await,
                Err(retry) => Err(EffectError {
                    retry,
                    message: "not now".to_owned(),
                }),
            }
        })
    };
    (
        Effects::new([erased::effect(Ask(Arc::new(ask)))], settings),
        asked,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_is_tried_until_it_answers_and_the_answer_is_on_the_record_once() {
    let Some(world) = World::new(4).await else { return };
    let (effects, asked) = effects(EffectSettings::default(), |_, before| match before {
        0 => Err(Retry::Later),
        1 => Err(Retry::Unknown),
        _ => Ok(true),
    });
    // The answer's command too is lost once and answered in vain once.
    world.choose(|_, before| match before {
        0 => Way::Drop,
        1 => Way::LoseAnswer,
        _ => Way::Send,
    });
    let runner = world.runner_with(effects);
    world.begin("j", "a", &[], 0, "bank").await;
    let work = world.until("j", |work| !work.asked.is_empty()).await;
    world.read_to_the_end().await;
    assert_eq!(work.asked, ["yes from bank"]);
    assert_eq!(world.state("j").await.unwrap().asked.len(), 1);
    assert_eq!(
        (
            asked.calls.load(Ordering::Relaxed),
            asked.keys.lock().unwrap().len()
        ),
        (3, 1),
        "one key throughout"
    );
    let attempts =
        "SELECT attempts::bigint FROM annals.process_outbox WHERE kind = 'effect' AND state = 'done'";
    assert_eq!(world.number(attempts).await, 3);
    let sent: Vec<_> = world.sender.sent.lock().unwrap().keys().cloned().collect();
    let key = asked.keys.lock().unwrap().first().unwrap().clone();
    assert_eq!(sent, [format!("{key}:answer")]);
    let answer = world.sender.attempts.lock().unwrap()[0].clone();
    assert_eq!(
        answer.causation.as_deref(),
        key.split(':').nth(1),
        "it follows from what the effect follows from"
    );
    world.assert_each_command_once();
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_asking_the_next_runner_asks_again_with_the_same_key() {
    let Some(world) = World::new(2).await else { return };
    let (effects, asked) = effects(EffectSettings::default(), |_, before| Ok(before > 0));
    let runner = world.runner_with(effects.clone());
    world.begin("j", "a", &[], 0, "both").await;
    world
        .wait("the question", || async {
            asked.calls.load(Ordering::Relaxed) == 1
        })
        .await;
    runner.kill().await;
    let (one, other) = (world.runner_with(effects.clone()), world.runner_with(effects));
    world.until("j", |work| !work.asked.is_empty()).await;
    world.read_to_the_end().await;
    assert_eq!(
        world.state("j").await.unwrap().asked.len(),
        1,
        "two runners, one answer"
    );
    let answers = "SELECT count(*) FROM annals.process_outbox WHERE command = 'answer'";
    assert_eq!(world.number(answers).await, 1);
    assert_eq!(asked.keys.lock().unwrap().len(), 1);
    world.assert_each_command_once();
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_effect_is_asked_no_more_whether_it_fails_or_hangs() {
    let Some(mut world) = World::new(4).await else {
        return;
    };
    // One at a time: what hangs would keep everybody else.
    world.settings.performs = 1;
    let settings = EffectSettings {
        timeout: Duration::from_secs(600),
        ..EffectSettings::default()
    };
    let (effects, asked) = effects(settings, |question, _| match question.whom.as_str() {
        "failing" => Err(Retry::Later),
        _ => Ok(false),
    });
    world.choose(|_, _| Way::Hang);
    let runner = world.runner_with(effects);
    for (n, whom) in [(1, "failing"), (2, "hanging")] {
        world.begin(whom, "a", &[1], 0, whom).await;
        world
            .wait("the question", || async { asked.keys.lock().unwrap().len() == n })
            .await;
    }
    for whom in ["failing", "hanging"] {
        world
            .ask(&format!("job-{whom}"), "finish", r#"{"text":"by hand"}"#)
            .await;
        world.over(whom).await;
    }
    let withdrawn =
        "SELECT count(*) FROM annals.process_outbox WHERE kind = 'effect' AND state = 'withdrawn'";
    assert_eq!(world.number(withdrawn).await, 2);
    let calls = asked.calls.load(Ordering::Relaxed);
    // Due at once, if they were still wanted; and one more round of everything has gone by.
    sqlx::query("UPDATE annals.process_outbox SET due_at = now()")
        .execute(&world.pool)
        .await
        .unwrap();
    world.begin("later", "b", &[], 0, "failing").await;
    world
        .wait("a later question", || async {
            asked.calls.load(Ordering::Relaxed) > calls + 1
        })
        .await;
    assert_eq!(asked.keys.lock().unwrap().len(), 3);
    assert_eq!(world.number(withdrawn).await, 2);
    assert!(
        world
            .sender
            .attempts
            .lock()
            .unwrap()
            .iter()
            .all(|sent| sent.command == "take"),
        "no answer was sent"
    );
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_no_and_a_target_that_is_not_allowed_park_the_effect() {
    let Some(world) = World::new(4).await else { return };
    let settings = EffectSettings {
        allowed: Some(vec!["bank".to_owned()]),
        ..EffectSettings::default()
    };
    let (effects, asked) = effects(
        settings,
        |_, before| if before == 0 { Err(Retry::Never) } else { Ok(true) },
    );
    let runner = world.runner_with(effects);
    world.begin("no", "a", &[], 0, "bank").await;
    world.begin("evil", "a", &[], 0, "elsewhere").await;
    let parked = "SELECT count(*) FROM annals.process_outbox WHERE kind = 'effect' AND state = 'parked'";
    world
        .wait("both to be parked", || async { world.number(parked).await == 2 })
        .await;
    assert_eq!(asked.calls.load(Ordering::Relaxed), 1, "nobody else was asked");
    let stuck = world.admin.list().await.unwrap().remove(0).stuck;
    assert_eq!(stuck.len(), 2);
    assert!(
        stuck[0]
            .stuck
            .as_deref()
            .unwrap()
            .contains("`elsewhere` is not allowed"),
        "{stuck:?}"
    );
    assert!(world.admin.resume("work", "no").await.unwrap());
    world.until("no", |work| work.asked == ["yes from bank"]).await;
    assert_eq!(world.number(parked).await, 1);
    runner.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_opens_for_its_target_only_and_closes_when_it_answers() {
    let Some(world) = World::new(4).await else { return };
    let settings = EffectSettings {
        breaker_failures: 3,
        breaker_open: Duration::from_millis(900),
        timeout: Duration::from_millis(100),
        ..EffectSettings::default()
    };
    let well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (of_bank, bank_calls) = (Arc::clone(&well), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&bank_calls);
    let (effects, _) = effects(settings, move |question, _| {
        if question.whom == "post" {
            return Ok(true);
        }
        counted.fetch_add(1, Ordering::Relaxed);
        // Hanging is a failure too: the time-out says so.
        Ok(of_bank.load(Ordering::Relaxed))
    });
    let runner = world.runner_with(effects);
    for n in 0..3 {
        world.begin(&format!("b{n}"), "a", &[], 0, "bank").await;
    }
    let open = "SELECT count(*) FROM annals.process_outbox WHERE last_error LIKE '%circuit breaker is open%'";
    world
        .wait("the breaker to open", || async { world.number(open).await > 0 })
        .await;
    world.begin("p", "a", &[], 0, "post").await;
    world.until("p", |work| work.asked == ["yes from post"]).await;
    let while_open = bank_calls.load(Ordering::Relaxed);
    assert!(
        while_open <= 4,
        "{while_open} calls: three to open it, and one that was let through"
    );
    well.store(true, Ordering::Relaxed);
    for n in 0..3 {
        world
            .until(&format!("b{n}"), |work| work.asked == ["yes from bank"])
            .await;
    }
    world.assert_each_command_once();
    runner.stop().await;
}

//! The engine over a log in memory, through its shell: one node, and nodes that take shards from each other.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

#[path = "engine/support.rs"]
mod support;
#[path = "engine/watch.rs"]
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;

use annals_command::{Answer, EngineSettings, Outcome, SendError};
use annals_domain::{Permission, Precondition};
use annals_log::Plays;
use annals_log::faulty::{Fault, Faulty, Plan};
use annals_record::{Kind, Version};
use futures_util::future::join_all;
use support::{Ask, CAP, World, add, committed};

const BOTH: [Plays; 2] = [Plays::Kafka, Plays::Postgres];

fn settings(plays: Plays) -> EngineSettings {
    let mut settings = EngineSettings::default();
    settings.writer.keep_tail = matches!(plays, Plays::Kafka);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_sends_of_one_command_with_one_key_are_one_event_and_equal_answers() {
    for plays in BOTH {
        let world = World::new(plays, 4);
        let node = world.only_node(settings(plays));
        let answers = join_all((0..100).map(|_| node.send(add("counter-1", "k", 1)))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        let first = &answers[0];
        for answer in &answers {
            assert_eq!(
                (answer.record, answer.position, answer.version),
                (first.record, first.position, Version::new(1))
            );
            assert_eq!(committed(answer), 1);
        }
        assert_eq!(
            answers.iter().filter(|answer| !answer.replayed).count(),
            1,
            "one was the first"
        );
        assert_eq!(world.accepted().len(), 1);
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_commands_on_one_stream_get_versions_without_a_gap() {
    for plays in BOTH {
        let world = World::new(plays, 4);
        let node = world.only_node(settings(plays));
        let answers = join_all((0..1_000).map(|n| node.send(add("counter-1", n, 1)))).await;
        let versions: BTreeSet<u64> = answers
            .into_iter()
            .map(|answer| answer.unwrap().version.get())
            .collect();
        assert_eq!(versions, (1..=1_000).collect());
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_with_the_same_if_match_one_is_accepted() {
    let world = World::new(Plays::Kafka, 1);
    let node = world.only_node(settings(Plays::Kafka));
    node.send(add("counter-1", "first", 1)).await.unwrap();
    let asks = (0..1_000).map(|n| {
        let precondition = Precondition::Version(Version::new(1));
        node.send(Ask {
            precondition,
            ..add("counter-1", n, 1)
        })
    });
    let (mut accepted, mut mismatched) = (0, 0);
    for answer in join_all(asks).await {
        match answer.unwrap().outcome {
            Outcome::Committed(_) => accepted += 1,
            Outcome::VersionMismatch { current } => {
                assert_eq!(current, Version::new(2));
                mismatched += 1;
            }
            Outcome::Rejected { .. } => panic!("no rule says no"),
        }
    }
    assert_eq!((accepted, mismatched), (1, 999));
    let refusals = world
        .accepted()
        .iter()
        .filter(|record| record.kind() == Kind::Refusal)
        .count();
    assert_eq!(refusals, 999, "each 412 is on the record");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_answer_says_what_its_record_says() {
    let world = World::new(Plays::Postgres, 1);
    let node = world.only_node(settings(Plays::Postgres));
    let asks: [fn() -> Ask; 4] = [
        || add("counter-1", "one event", 1),
        || add("counter-1", "no event", 0),
        || add("counter-1", "refused", CAP + 1),
        || Ask {
            precondition: Precondition::Version(Version::new(7)),
            ..add("counter-1", "stale", 1)
        },
    ];
    for ask in asks {
        let first = node.send(ask()).await.unwrap();
        // A repeat's answer is read from the record.
        let again = node.send(ask()).await.unwrap();
        assert!(!first.replayed && again.replayed);
        let told = Answer {
            replayed: true,
            ..first
        };
        assert_eq!(format!("{told:?}"), format!("{again:?}"));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_record_and_its_repeat_gets_the_same_one() {
    let world = World::new(Plays::Postgres, 1);
    let node = world.only_node(settings(Plays::Postgres));
    let first = node.send(add("counter-1", "k", CAP + 1)).await.unwrap();
    let Outcome::Rejected { code, detail } = &first.outcome else {
        panic!("{first:?}")
    };
    assert_eq!((code.as_str(), detail.get()), ("full", r#"{"room":1000000}"#));
    assert_eq!((first.version, first.replayed), (Version::new(0), false));
    node.send(add("counter-1", "other", 1)).await.unwrap();
    let again = node.send(add("counter-1", "k", CAP + 1)).await.unwrap();
    assert!(again.replayed);
    assert_eq!((again.record, again.position), (first.record, first.position));
    assert_eq!(world.accepted().len(), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_another_commands_and_a_stream_is_not_another_callers() {
    let world = World::new(Plays::Kafka, 1);
    let node = world.only_node(settings(Plays::Kafka));
    node.send(add("counter-ada", "k", 1)).await.unwrap();
    assert_eq!(
        node.send(add("counter-ada", "k", 2)).await.unwrap_err(),
        SendError::KeyReused
    );
    let bob = Ask {
        caller: "bob",
        ..add("counter-ada", "k", 1)
    };
    assert_eq!(node.send(bob).await.unwrap_err(), SendError::KeyReused);
    let bob = Ask {
        caller: "bob",
        permission: Permission::IfOwner,
        ..add("counter-ada", "new", 1)
    };
    assert_eq!(node.send(bob).await.unwrap_err(), SendError::Forbidden);
    let ada = Ask {
        permission: Permission::IfOwner,
        ..add("counter-ada", "new", 1)
    };
    assert_eq!(node.send(ada).await.unwrap().version, Version::new(2));
    assert_eq!(world.accepted().len(), 2, "what was forbidden left no record");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_is_a_commit_without_events() {
    let world = World::new(Plays::Postgres, 1);
    let node = world.only_node(settings(Plays::Postgres));
    let answer = node.send(add("counter-1", "k", 0)).await.unwrap();
    assert_eq!(
        (committed(&answer), answer.version, answer.began()),
        (0, Version::new(0), false)
    );
    let answer = node.send(add("counter-1", "l", 5)).await.unwrap();
    assert_eq!(
        (committed(&answer), answer.version, answer.began()),
        (1, Version::new(1), true)
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_knows_everything_that_its_predecessor_answered() {
    for plays in BOTH {
        let world = World::new(plays, 4);
        let mut settings = settings(plays);
        settings.snapshot_every = 7;
        let node = world.only_node(settings.clone());
        let mut first = Vec::new();
        for n in 0..60 {
            first.push(node.send(add(&format!("counter-{}", n % 5), n, n)).await.unwrap());
        }
        node.kill();
        world.table.give_all("b", 4);
        let successor = world.node("b", settings);
        for (n, first) in (0..).zip(&first) {
            let again = successor
                .send(add(&format!("counter-{}", n % 5), n, n))
                .await
                .unwrap();
            assert!(again.replayed, "command {n}");
            assert_eq!(
                (again.record, again.position, again.version),
                (first.record, first.position, first.version)
            );
        }
        let next = successor.send(add("counter-0", "next", 1)).await.unwrap();
        assert_eq!(next.version, Version::new(12), "n = 0 changed nothing");
        let kept = async {
            while world.store.snapshot(&next.stream).is_none() {
                tokio::task::yield_now().await;
            }
        };
        let within = std::time::Duration::from_secs(10);
        tokio::time::timeout(within, kept)
            .await
            .expect("a snapshot is kept");
        successor.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gets_a_shard_back_knows_what_was_written_meanwhile() {
    for plays in BOTH {
        let world = World::new(plays, 1);
        world.table.give_all("a", 1);
        let nodes = [world.node("a", settings(plays)), world.node("b", settings(plays))];
        for round in 0..6 {
            let (name, node) = if round % 2 == 0 {
                ("a", &nodes[0])
            } else {
                ("b", &nodes[1])
            };
            world.table.give_all(name, 1);
            // The first makes the node notice that it was fenced; the second has nothing of its own in flight then.
            for stream in ["counter-2", "counter-1"] {
                let version = loop {
                    match node.send(add(stream, round, 1)).await {
                        Ok(answer) => break answer.version,
                        // Until it hears that the lease is its own.
                        Err(SendError::NotOwner { .. }) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                };
                assert_eq!(version, Version::new(round + 1), "{plays:?} {stream}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_both_believe_to_own_lose_and_double_nothing() {
    for plays in BOTH {
        let world = Arc::new(World::new(plays, 1));
        world.table.give_all("a", 1);
        let nodes = Arc::new([world.node("a", settings(plays)), world.node("b", settings(plays))]);
        let (answered, mut count) = tokio::sync::watch::channel(0u32);
        let flips = async {
            // The shard changes hands each time that so many more commands were answered.
            for round in 1..=12 {
                world.table.give_all(if round % 2 == 0 { "a" } else { "b" }, 1);
                count
                    .wait_for(|count| *count >= round * 320 / 13)
                    .await
                    .expect("clients go on");
            }
        };
        let clients = (0..8).map(|client| {
            let (nodes, answered) = (Arc::clone(&nodes), answered.clone());
            async move {
                for n in 0..40 {
                    let ask = || add("counter-1", format!("{client}-{n}"), 1);
                    let mut at = client % 2;
                    while let Err(error) = nodes[at].send(ask()).await {
                        assert!(matches!(error, SendError::NotOwner { .. }), "{error:?}");
                        at = 1 - at;
                        tokio::task::yield_now().await;
                    }
                    answered.send_modify(|count| *count += 1);
                }
            }
        });
        tokio::join!(flips, join_all(clients));
        let accepted = world.accepted();
        let keys: BTreeSet<_> = accepted
            .iter()
            .map(|record| record.entry().unwrap().idempotency_key)
            .collect();
        assert_eq!((accepted.len(), keys.len()), (320, 320), "{plays:?}");
        let versions: Vec<u64> = accepted
            .iter()
            .map(|record| record.entry().unwrap().version.get())
            .collect();
        assert_eq!(versions, (1..=320).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_cache_forgets_streams_and_answers_as_before() {
    let world = World::new(Plays::Kafka, 2);
    let mut settings = settings(Plays::Kafka);
    settings.cache_bytes = 4_000;
    settings.snapshot_every = 2;
    settings.verify_loads = 3;
    let node = world.only_node(settings);
    for round in 0..6u64 {
        let answers =
            join_all((0..50).map(|n| node.send(add(&format!("counter-{n}"), format!("{n}-{round}"), 1))))
                .await;
        for answer in answers {
            assert_eq!(answer.unwrap().version, Version::new(round + 1));
        }
    }
    let again = node.send(add("counter-7", "7-0", 1)).await.unwrap();
    assert!(again.replayed && again.version == Version::new(1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_paid_for_and_what_is_no_refusal_is_not() {
    let world = World::new(Plays::Kafka, 1);
    let mut settings = settings(Plays::Kafka);
    settings.refusal_burst = 3;
    settings.refusals_per_minute = 1;
    let node = world.only_node(settings);
    for n in 0..10 {
        node.send(add("counter-1", n, 1)).await.unwrap();
    }
    for n in 10..13 {
        let refused = node.send(add("counter-1", n, CAP)).await.unwrap();
        assert!(matches!(refused.outcome, Outcome::Rejected { .. }));
    }
    let error = node.send(add("counter-1", "more", 1)).await.unwrap_err();
    assert!(
        matches!(error, SendError::RefusalBudget { burst: 3, .. }),
        "an empty bucket stops all: {error:?}"
    );
    assert!(
        node.send(add("counter-1", 5, 1)).await.unwrap().replayed,
        "a replay never waits for it"
    );
    let bob = Ask {
        caller: "bob",
        ..add("counter-1", "bob", 1)
    };
    node.send(bob).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_over_the_limit_leaves_the_stream_as_it_was() {
    let world = World::new(Plays::Postgres, 1);
    let mut settings = settings(Plays::Postgres);
    settings.record_bytes = 2_000;
    let node = world.only_node(settings);
    let long = Ask {
        body: format!(r#"{{"by":1,"note":"{}"}}"#, "x".repeat(3_000)),
        ..add("counter-1", "k", 1)
    };
    assert!(matches!(
        node.send(long).await,
        Err(SendError::TooLarge { limit: 2_000, .. })
    ));
    assert_eq!(
        node.send(add("counter-1", "l", 1)).await.unwrap().version,
        Version::new(1)
    );
    node.stop().await;
}

/// What a client must be able to say, whatever the log does: "I never lost an accepted order, and never got two".
#[tokio::test(flavor = "multi_thread")]
async fn over_a_log_that_fails_nothing_acknowledged_is_lost_or_doubled() {
    const FAULTS: [Fault; 7] = [
        Fault::Refuse,
        Fault::FailBefore,
        Fault::FailAfter,
        Fault::WriteLate,
        Fault::Duplicate,
        Fault::Hole,
        Fault::SecondWriter,
    ];
    for seed in 1..=12 {
        let plays = BOTH[usize::from(seed % 2 == 0)];
        // A log that compares leaves neither holes nor duplicates, and lets nobody write in between.
        let faults = if matches!(plays, Plays::Kafka) {
            &FAULTS[..]
        } else {
            &FAULTS[..3]
        };
        let world = World::new(plays, 1);
        world.table.give_all("a", 1);
        let faulty = Arc::new(Faulty::memory(&world.log, Plan::seeded(seed, 100, faults)));
        let node = world.node_on("a", settings(plays), faulty.clone());
        let releases = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                faulty.release();
                // A claim that was lost is made again after ten seconds of this clock.
                node.clock.advance_ms(1_000);
            }
        };
        let node_ref = &node;
        let clients = join_all((0..4u32).map(|client| async move {
            let mut acknowledged = Vec::new();
            for n in 0..25 {
                let stream = format!("counter-{}", n % 3);
                let answer = node_ref.send(add(&stream, format!("{client}-{n}"), 1)).await;
                acknowledged.push(answer.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
            }
            acknowledged
        }));
        let acknowledged = tokio::select! {
            all = clients => all.concat(),
            () = releases => unreachable!("it goes on for ever"),
        };
        let accepted = world.accepted();
        let ids: BTreeSet<_> = accepted.iter().map(annals_record::Record::id).collect();
        assert!(
            acknowledged.iter().all(|answer| ids.contains(&answer.record)),
            "seed {seed}: L1"
        );
        let keys: BTreeSet<_> = accepted
            .iter()
            .map(|r| (r.stream.clone(), r.entry().unwrap().idempotency_key))
            .collect();
        assert_eq!((accepted.len(), keys.len()), (100, 100), "seed {seed}: L3");
        for stream in ["counter-0", "counter-1", "counter-2"] {
            let of_stream = accepted
                .iter()
                .filter(|record| record.stream.as_ref().unwrap().as_str() == stream);
            let versions: Vec<u64> = of_stream
                .map(|record| record.entry().unwrap().version.get())
                .collect();
            let count = u64::try_from(versions.len()).unwrap();
            assert_eq!(versions, (1..=count).collect::<Vec<_>>(), "seed {seed}: L2");
        }
        node.kill();
    }
}

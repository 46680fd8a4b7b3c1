//! Copying a log: closed, byte for byte, proven, whatever the target does on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_log::copy::{self, BehindAs, CloseDraft, CopyError, CopySettings, Of};
use annals_log::faulty::{Fault, Faulty, Plan};
use annals_log::testing::Chained;
use annals_log::{Checkpoint, Log, MemoryLog, Plays};
use annals_record::fold::{Ghost, Halt, Head};
use annals_record::record::{Kind, Record};
use annals_record::{Fold, Offset, RecordId, Shard, hash};
use bytes::Bytes;

const SHARD: Shard = Shard::new(0);

fn memory(plays: Plays) -> Arc<MemoryLog> {
    let example = Chained::example();
    let app = "example".parse().unwrap();
    assert_eq!(example.shard(), SHARD);
    Arc::new(MemoryLog::new(app, 1u32.try_into().unwrap(), plays))
}

fn of(log: &dyn Log) -> Of<'_> {
    let genesis = Chained::example().genesis();
    Of {
        log,
        shard: SHARD,
        genesis,
    }
}

fn settings() -> CopySettings {
    CopySettings {
        records: 7,
        patience: Duration::from_millis(200),
        pause: Duration::from_millis(1),
        ..CopySettings::default()
    }
}

fn draft() -> CloseDraft {
    CloseDraft {
        id: RecordId::from_parts(5, [5; 10]),
        time_ms: 5,
        value: Bytes::from_static(b"{}"),
    }
}

async fn put(log: &dyn Log, at: Head, record: Arc<Record>) {
    log.append(SHARD, at, vec![record]).await;
}

/// A log with three terms and every kind of ghost between its records; 61 are accepted.
async fn source() -> Arc<MemoryLog> {
    let log = memory(Plays::Kafka);
    let mut writer = Chained::example();
    for term in 0..3 {
        let mut zombie = writer.another(7);
        let lost = writer.another(8).claim();
        put(&*log, writer.head(), writer.claim()).await;
        put(&*log, writer.head(), lost).await;
        for n in 0..19 {
            let record = match n % 3 {
                0 => writer.refusal("order-1", 1),
                _ => writer.commit("order-1", 1, 0),
            };
            put(&*log, writer.head(), record.clone()).await;
            if n % 5 == 0 {
                put(&*log, writer.head(), record).await;
                put(&*log, writer.head(), zombie.commit("order-1", 1, 0)).await;
            }
        }
        assert!(term < 3);
    }
    put(&*log, writer.head(), writer.commit("order-2", 1, 1)).await;
    log
}

fn accepted(log: &MemoryLog) -> Vec<Record> {
    let mut fold = Fold::from_genesis(Chained::example().genesis());
    let placed = log.placed(SHARD);
    let counts = placed
        .iter()
        .filter(|placed| fold.step(&placed.slot, placed.hash).is_accept());
    counts
        .map(|placed| placed.slot.known().unwrap().clone())
        .collect()
}

#[tokio::test]
async fn a_copy_holds_what_counted_byte_for_byte_but_for_the_close() {
    for plays in [Plays::Kafka, Plays::Postgres] {
        let source = source().await;
        let before = *source.fold(SHARD).head();
        assert_eq!(before.accepted, 61);
        let closed = copy::close(of(&*source), &settings(), draft).await.unwrap();
        assert!(closed.closed && closed.accepted == 62);
        assert_eq!(
            closed.time_ms, before.time_ms,
            "the clock behind does not turn it back"
        );
        let again = copy::close(of(&*source), &settings(), draft).await.unwrap();
        assert_eq!(again, closed, "once");
        let target = memory(plays);
        let mut heard = 0;
        let copied = copy::shard(of(&*source), &*target, None, &settings(), |n| heard += n)
            .await
            .unwrap();
        assert_eq!(heard, u64::try_from(source.placed(SHARD).len()).unwrap());
        assert_eq!((copied.head.accepted, copied.head.chain), (61, before.chain));
        assert_eq!(copied.resent, 0);
        assert_eq!(copied.ghosts + 61 + 1, heard, "all the others");
        let mut ours = accepted(&source);
        assert_eq!(ours.pop().unwrap().kind(), Kind::Close);
        assert_eq!(accepted(&target), ours);
        let proof = copy::prove(of(&*target), &copied.head, &[0, 20, 61], &settings())
            .await
            .unwrap();
        assert_eq!(
            (proof.head.next.get(), proof.ghosts),
            (61, 0),
            "dense, for ghosts were left out"
        );
        let begin = &proof.checkpoints[&0];
        assert_eq!(begin.head.next.get(), 0);
        let middle = &proof.checkpoints[&20];
        assert_eq!(middle.last_hash, hash::record_hash(&ours[19]));
        assert_eq!((middle.head.accepted, middle.head.next.get()), (20, 20));
        // Nobody goes on with the source: a claim behind the close is a ghost.
        let claim = Chained::example().at(closed).another(3).claim();
        put(&*source, closed, claim).await;
        assert_eq!(source.fold(SHARD).head().accepted, 62);
    }
}

#[tokio::test]
async fn whatever_the_target_does_the_copy_ends_with_the_sources_chain_or_says_that_it_did_not() {
    let (mut copied, mut ghosts) = (0, 0);
    for seed in 1..=60 {
        let source = source().await;
        copy::close(of(&*source), &settings(), draft).await.unwrap();
        let target = memory(Plays::Kafka);
        let faults = [
            Fault::Refuse,
            Fault::FailBefore,
            Fault::FailAfter,
            Fault::LoseAnswer,
            Fault::WriteLate,
            Fault::Duplicate,
            Fault::Hole,
        ];
        let faulty = Faulty::memory(&target, Plan::seeded(seed, 300, &faults));
        let brief = CopySettings {
            patience: Duration::from_millis(20),
            ..settings()
        };
        let mut outcome = None;
        for _ in 0..50 {
            match copy::shard(of(&*source), &faulty, None, &brief, |_| {}).await {
                Ok(copied) => {
                    outcome = Some(copied);
                    break;
                }
                // Cut short, and begun again as an operator would.
                Err(CopyError::Log(_) | CopyError::Stuck { .. }) => faulty.release(),
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        let outcome = outcome.expect("fifty attempts are enough");
        // What was on its way comes late.
        faulty.release();
        let proof = copy::prove(of(&*target), &outcome.head, &[30], &settings())
            .await
            .unwrap();
        assert_eq!(accepted(&target), accepted(&source)[..61], "seed {seed}");
        assert_eq!(proof.checkpoints[&30].head.accepted, 30);
        copied += 1;
        ghosts += proof.ghosts;
    }
    assert_eq!(copied, 60);
    assert!(ghosts > 0, "some appends were made again though they had landed");
}

#[tokio::test]
async fn another_log_in_the_target_and_a_change_in_the_copy_are_seen() {
    let source = source().await;
    let other = memory(Plays::Kafka);
    let mut writer = Chained::example().another(9);
    put(&*other, writer.head(), writer.claim()).await;
    let refused = copy::shard(of(&*source), &*other, None, &settings(), |_| {}).await;
    assert!(
        matches!(refused, Err(CopyError::Different { accepted: 1, .. })),
        "{refused:?}"
    );

    let target = memory(Plays::Kafka);
    let copied = copy::shard(of(&*source), &*target, None, &settings(), |_| {})
        .await
        .unwrap();
    let mut forged = target.placed(SHARD)[40].slot.known().unwrap().to_raw();
    forged.timestamp_ms += 1;
    target.replace(SHARD, Offset::new(40), forged);
    let proof = copy::prove(of(&*target), &copied.head, &[], &settings()).await;
    assert!(matches!(proof, Err(CopyError::Different { .. })), "{proof:?}");

    let target = memory(Plays::Kafka);
    let copied = copy::shard(of(&*source), &*target, None, &settings(), |_| {})
        .await
        .unwrap();
    target.truncate(SHARD, Offset::new(60));
    let proof = copy::prove(of(&*target), &copied.head, &[], &settings()).await;
    assert!(
        matches!(proof, Err(CopyError::Different { accepted: 60, .. })),
        "{proof:?}"
    );
}

#[tokio::test]
async fn a_node_that_goes_on_writing_keeps_nothing_behind_the_close() {
    // The close finds another head each time, until the node has gone.
    let log = memory(Plays::Kafka);
    let mut writer = Chained::example();
    put(&*log, writer.head(), writer.claim()).await;
    let faults = [
        Some(Fault::SecondWriter),
        Some(Fault::FailBefore),
        Some(Fault::FailAfter),
    ];
    let faulty = Faulty::memory(&log, Plan::of(faults));
    let head = copy::close(of(&faulty), &settings(), draft).await.unwrap();
    assert!(head.closed);
    assert_eq!(
        head.accepted, 3,
        "the claim in between counts, and then the close"
    );
    let late = writer.commit("order-1", 1, 1);
    put(&*log, head, late).await;
    assert_eq!(log.fold(SHARD).head().accepted, 3);
    let busy = memory(Plays::Kafka);
    let always = Faulty::memory(&busy, Plan::of(vec![Some(Fault::SecondWriter); 40]));
    let error = copy::close(of(&always), &settings(), draft).await.unwrap_err();
    assert!(matches!(error, CopyError::Busy { attempts: 20, .. }), "{error}");
}

#[tokio::test]
async fn until_leaves_records_behind_and_lists_every_one() {
    let source = source().await;
    // A claim that saw another history: every reader halts there.
    let mut writer = Chained::example().at(*source.fold(SHARD).head());
    let mut elsewhere = writer.head();
    elsewhere.chain = Chained::example().genesis();
    let halting = u64::try_from(source.placed(SHARD).len()).unwrap();
    put(&*source, writer.head(), writer.clone().at(elsewhere).claim()).await;
    put(&*source, writer.head(), writer.commit("order-3", 1, 1)).await;
    let error = copy::close(of(&*source), &settings(), draft).await.unwrap_err();
    let expected = Offset::new(halting);
    assert!(
        matches!(&error, CopyError::Halted(at) if at.offset == expected && matches!(at.halt, Halt::HistoryReplaced { .. })),
        "{error}"
    );
    assert!(
        error.to_string().contains(&format!("--until 0:{halting}")),
        "{error}"
    );
    let target = memory(Plays::Postgres);
    let refused = copy::shard(of(&*source), &*target, None, &settings(), |_| {}).await;
    assert!(matches!(refused, Err(CopyError::Halted(_))), "{refused:?}");

    let cut = Offset::new(halting - 3);
    let target = memory(Plays::Postgres);
    let copied = copy::shard(of(&*source), &*target, Some(cut), &settings(), |_| {})
        .await
        .unwrap();
    let offsets: Vec<u64> = copied.behind.iter().map(|behind| behind.offset.get()).collect();
    assert_eq!(offsets, (halting - 3..halting + 2).collect::<Vec<_>>());
    let was: Vec<_> = copied.behind.iter().map(|behind| behind.verdict).collect();
    assert_eq!(was[3..], [BehindAs::Halted, BehindAs::Halted]);
    assert!(was[..3].contains(&BehindAs::Accepted), "{was:?}");
    let last = copied.behind.last().unwrap();
    assert_eq!(
        (last.stream.as_deref(), last.kind),
        (Some("order-3"), Some(Kind::Commit))
    );
    let lost = was.iter().filter(|was| **was == BehindAs::Accepted).count();
    let lost = u64::try_from(lost).unwrap();
    assert_eq!(copied.head.accepted, 61 - lost);
    copy::prove(of(&*target), &copied.head, &[], &settings())
        .await
        .unwrap();
    assert!(!was.contains(&BehindAs::Ghost(Ghost::Closed)));
}

#[test]
fn only_readers_that_have_sent_something_are_carried_and_those_ahead_are_known() {
    let at = |accepted: u64, closed: bool| {
        let genesis = Head::at_genesis(Chained::example().genesis());
        Checkpoint::genesis(Head {
            accepted,
            closed,
            ..genesis
        })
    };
    let all = vec![
        ("audit".to_owned(), SHARD, at(5, false)),
        ("indexer".to_owned(), SHARD, at(5, false)),
        ("process/checkout".to_owned(), SHARD, at(5, false)),
        ("process/late".to_owned(), SHARD, at(9, true)),
        ("projection/orders/1".to_owned(), SHARD, at(5, false)),
        ("publish".to_owned(), SHARD, at(3, false)),
    ];
    let carried = copy::readers_to_carry(all, &BTreeMap::from([(SHARD, 4)]));
    let found: Vec<_> = carried
        .iter()
        .map(|carried| (carried.reader.as_str(), carried.accepted, carried.lost()))
        .collect();
    assert_eq!(
        found,
        [
            ("process/checkout", 4, 1),
            ("process/late", 4, 4),
            ("publish", 3, 0)
        ],
        "the close itself is no loss"
    );
}

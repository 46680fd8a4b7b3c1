//! The Kafka log on a real broker. Skipped, with a line, where `ANNALS_TEST_KAFKA` names none.
#![allow(clippy::unwrap_used, clippy::panic, clippy::as_conversions, missing_docs)]

#[path = "kafka/broker.rs"]
mod broker;
#[path = "kafka/records.rs"]
mod records;

use std::sync::Arc;
use std::time::Duration;

use annals_log::{Appended, KafkaLog, Log, LogError, Placed, ReadLimits};
use annals_record::record::Record;
use annals_record::{Offset, Shard};

use broker::TestTopic;
use records::Chain;

/// Reads until `count` records are there.
async fn read(log: &KafkaLog, shard: Shard, from: u64, count: usize) -> Vec<Arc<Placed>> {
    let mut all: Vec<Arc<Placed>> = Vec::new();
    let limit = tokio::time::Instant::now() + Duration::from_secs(30);
    while all.len() < count {
        assert!(
            tokio::time::Instant::now() < limit,
            "{} of {count} came",
            all.len()
        );
        let next = Offset::new(from + all.len() as u64);
        all.extend(log.read(shard, next, ReadLimits::default()).await.unwrap());
    }
    all
}

fn offsets(answer: &Appended) -> Vec<u64> {
    match answer {
        Appended::Landed(landed) => landed.iter().map(|(_, offset)| offset.get()).collect(),
        other => panic!("{other:?}"),
    }
}

fn known(placed: &[Arc<Placed>]) -> Vec<&Record> {
    placed.iter().map(|placed| placed.slot.known().unwrap()).collect()
}

#[tokio::test]
async fn what_is_appended_is_read_in_the_order_of_the_calls() {
    let Some(topic) = TestTopic::create(3).await else {
        return;
    };
    let log = topic.open().await;
    let mut chain = Chain::new(&topic.app, 1, topic.shards);
    assert_eq!(log.end(chain.shard).await.unwrap(), Offset::new(0));

    let claim = chain.claim();
    let started = std::time::Instant::now();
    assert_eq!(
        offsets(&log.append(chain.shard, chain.head(), vec![claim.clone()]).await),
        [0]
    );
    eprintln!("first append {:?}", started.elapsed());
    let started = std::time::Instant::now();
    let first = read(&log, chain.shard, 0, 1).await;
    eprintln!("first read {:?}", started.elapsed());
    assert_eq!(known(&first), [&*claim]);

    let mut all = vec![claim];
    let mut answers = Vec::new();
    for round in 0..50_u32 {
        let batch: Vec<_> = (0..=round % 5)
            .map(|n| chain.commit("order-1", 1, format!("{{\"n\":{round},\"i\":{n}}}").as_bytes()))
            .collect();
        all.extend(batch.iter().cloned());
        answers.push(log.append(chain.shard, chain.head(), batch));
    }
    let mut landed = Vec::new();
    for answer in answers {
        landed.extend(offsets(&answer.await));
    }
    let expected: Vec<u64> = (1..all.len() as u64).collect();
    assert_eq!(landed, expected);
    let started = std::time::Instant::now();
    let found = read(&log, chain.shard, 0, all.len()).await;
    eprintln!("next read {:?}", started.elapsed());
    assert_eq!(known(&found), all.iter().map(|r| &**r).collect::<Vec<_>>());
    assert_eq!(log.end(chain.shard).await.unwrap().get(), all.len() as u64);
    assert_eq!(log.end(Shard::new(0)).await.unwrap(), Offset::new(0));
    log.close().await;
}

#[tokio::test]
async fn nothing_is_beyond_the_end() {
    let Some(topic) = TestTopic::create(1).await else {
        return;
    };
    let log = topic.open().await;
    let beyond = log
        .read(Shard::new(0), Offset::new(5), ReadLimits::default())
        .await;
    assert!(
        matches!(beyond, Err(LogError::BeyondEnd { end, from, .. }) if end.get() == 0 && from.get() == 5),
        "{beyond:?}"
    );
    let short = ReadLimits {
        wait: Duration::from_millis(20),
        ..ReadLimits::default()
    };
    assert!(
        log.read(Shard::new(0), Offset::new(0), short)
            .await
            .unwrap()
            .is_empty()
    );
    // The shard is followed now.
    let beyond = log.read(Shard::new(0), Offset::new(1), short).await;
    assert!(matches!(beyond, Err(LogError::BeyondEnd { .. })), "{beyond:?}");
    let unknown = log.read(Shard::new(1), Offset::new(0), short).await;
    assert!(matches!(unknown, Err(LogError::Refused(_))), "{unknown:?}");
    log.close().await;
}

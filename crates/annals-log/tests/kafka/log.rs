//! Appends and reads.

use std::sync::Arc;
use std::time::Duration;

use annals_log::testing::Chained;
use annals_log::{Appended, KafkaLog, KafkaSettings, Log, LogError, Placed, ReadLimits};
use annals_record::hash::raw_record_hash;
use annals_record::record::{RawHeader, RawRecord, Record, Slot};
use annals_record::{Offset, Shard};
use bytes::Bytes;
use rdkafka::admin::AdminOptions;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::broker::TestTopic;

fn writer(topic: &TestTopic, shard: u32) -> Chained {
    Chained::new(topic.app.clone(), Shard::new(shard), topic.shards)
}

/// Reads until `count` records are there.
pub async fn read(log: &KafkaLog, shard: Shard, from: u64, count: usize) -> Vec<Arc<Placed>> {
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

fn short() -> ReadLimits {
    ReadLimits {
        wait: Duration::from_millis(20),
        ..ReadLimits::default()
    }
}

#[tokio::test]
async fn what_is_appended_is_read_in_the_order_of_the_calls() {
    let Some(topic) = TestTopic::create(3).await else {
        return;
    };
    let log = topic.open().await;
    let mut writer = writer(&topic, 1);
    let shard = writer.shard();
    assert_eq!(log.end(shard).await.unwrap(), Offset::new(0));
    let claim = writer.claim();
    let answer = log.append(shard, writer.head(), vec![claim.clone()]).await;
    assert_eq!(offsets(&answer), [0]);
    assert_eq!(known(&read(&log, shard, 0, 1).await), [&*claim]);

    let mut all = vec![claim];
    let mut answers = Vec::new();
    for round in 0..50_u64 {
        let batch: Vec<_> = (0..=round % 5).map(|_| writer.commit("order-1", 1, 1)).collect();
        all.extend(batch.iter().cloned());
        answers.push(log.append(shard, writer.head(), batch));
    }
    let mut landed = Vec::new();
    for answer in answers {
        landed.extend(offsets(&answer.await));
    }
    let expected: Vec<u64> = (1..all.len() as u64).collect();
    assert_eq!(landed, expected);
    let found = read(&log, shard, 0, all.len()).await;
    assert_eq!(known(&found), all.iter().map(|r| &**r).collect::<Vec<_>>());
    assert_eq!(log.end(shard).await.unwrap().get(), all.len() as u64);
    assert_eq!(log.end(Shard::new(0)).await.unwrap(), Offset::new(0));

    // Another process, so to speak.
    log.close().await;
    let log = topic.open().await;
    assert_eq!(log.end(shard).await.unwrap().get(), all.len() as u64);
    let found = read(&log, shard, 3, all.len() - 3).await;
    assert_eq!(known(&found), all[3..].iter().map(|r| &**r).collect::<Vec<_>>());
    let more = log
        .append(shard, writer.head(), vec![writer.commit("order-1", 1, 1)])
        .await;
    assert_eq!(offsets(&more), [all.len() as u64]);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_keep_the_order_of_the_calls_though_tasks_wait_for_them() {
    let Some(topic) = TestTopic::create(4).await else {
        return;
    };
    let log = Arc::new(topic.open().await);
    let mut tasks = tokio::task::JoinSet::new();
    for shard in 0..4 {
        let (log, mut writer) = (Arc::clone(&log), writer(&topic, shard));
        tasks.spawn(async move {
            let shard = writer.shard();
            let claim = log.append(shard, writer.head(), vec![writer.claim()]).await;
            assert_eq!(offsets(&claim), [0]);
            let mut waiting = tokio::task::JoinSet::new();
            for n in 0..200_u64 {
                let answer = log.append(shard, writer.head(), vec![writer.commit("order-1", 1, 1)]);
                waiting.spawn(async move { (n + 1, offsets(&answer.await)) });
            }
            while let Some(done) = waiting.join_next().await {
                let (expected, found) = done.unwrap();
                assert_eq!(found, [expected]);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    Arc::into_inner(log).unwrap().close().await;
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
    assert!(
        log.read(Shard::new(0), Offset::new(0), short())
            .await
            .unwrap()
            .is_empty()
    );
    // The shard is followed now.
    let beyond = log.read(Shard::new(0), Offset::new(1), short()).await;
    assert!(matches!(beyond, Err(LogError::BeyondEnd { .. })), "{beyond:?}");
    let unknown = log.read(Shard::new(1), Offset::new(0), short()).await;
    assert!(matches!(unknown, Err(LogError::Refused(_))), "{unknown:?}");
    log.close().await;
}

#[tokio::test]
async fn a_reader_far_behind_reads_everything() {
    let Some(topic) = TestTopic::create(2).await else {
        return;
    };
    let log = topic.open().await;
    let mut writer = writer(&topic, 1);
    let shard = writer.shard();
    let claim = writer.claim();
    let mut all = vec![claim.clone()];
    offsets(&log.append(shard, writer.head(), vec![claim]).await);
    for _ in 0..30 {
        let batch: Vec<_> = (0..100)
            .map(|_| writer.commit_sized("order-1", 1, 2_000))
            .collect();
        all.extend(batch.iter().cloned());
        offsets(&log.append(shard, writer.head(), batch).await);
    }
    // Followed at its end, so that the beginning is not in memory.
    assert!(
        log.read(shard, Offset::new(3_001), short())
            .await
            .unwrap()
            .is_empty()
    );
    let found = read(&log, shard, 0, all.len()).await;
    assert_eq!(found.len(), all.len());
    for (index, (found, record)) in found.iter().zip(&all).enumerate() {
        assert_eq!(found.offset.get(), index as u64);
        assert_eq!(found.slot.known().unwrap(), &**record);
    }
    // Limits of a read hold on this way too: no further record once there are so many bytes, or records.
    let limits = ReadLimits {
        records: 7,
        bytes: 9_000,
        wait: Duration::from_secs(10),
    };
    let enough = 9_000_usize.div_ceil(all[1].stored_bytes());
    assert_eq!(
        log.read(shard, Offset::new(1), limits).await.unwrap().len(),
        enough
    );
    let limits = ReadLimits {
        bytes: 1 << 20,
        ..limits
    };
    assert_eq!(log.read(shard, Offset::new(0), limits).await.unwrap().len(), 7);
    // And at the end the two ways meet.
    let last = log
        .append(shard, writer.head(), vec![writer.commit("order-1", 1, 1)])
        .await;
    assert_eq!(offsets(&last), [3_001]);
    assert_eq!(read(&log, shard, 2_999, 3).await.len(), 3);
    log.close().await;
}

#[tokio::test]
async fn records_up_to_the_limit_land_and_one_over_it_is_refused() {
    let Some(topic) = TestTopic::create(1).await else {
        return;
    };
    let limit = 900 << 10;
    let log = topic.open().await;
    let mut writer = writer(&topic, 0);
    let shard = writer.shard();
    offsets(&log.append(shard, writer.head(), vec![writer.claim()]).await);
    let sized = |writer: &mut Chained, bytes: usize| {
        let without = writer.clone().commit_sized("order-1", 1, 0).stored_bytes();
        // Two bytes a letter.
        let record = writer.commit_sized("order-1", 1, bytes - without);
        assert!(record.stored_bytes().abs_diff(bytes) <= 1);
        record
    };
    let large: Vec<_> = (0..4).map(|_| sized(&mut writer, limit - 1)).collect();
    assert_eq!(
        offsets(&log.append(shard, writer.head(), large.clone()).await),
        [1, 2, 3, 4]
    );
    let found = read(&log, shard, 1, 4).await;
    assert_eq!(known(&found), large.iter().map(|r| &**r).collect::<Vec<_>>());

    let after = writer.head();
    let records = vec![writer.commit("order-1", 1, 1), sized(&mut writer, limit + 2)];
    let over = log.append(shard, after, records).await;
    assert!(
        matches!(&over, Appended::NotWritten(LogError::Refused(why)) if why.contains("log.record_bytes")),
        "{over:?}"
    );
    let mut writer = writer.at(after);
    let mut early = (*writer.clone().commit("order-1", 1, 1)).clone();
    early.timestamp_ms = 0;
    let early = log.append(shard, after, vec![Arc::new(early)]).await;
    assert!(
        matches!(early, Appended::NotWritten(LogError::Refused(_))),
        "{early:?}"
    );
    // The producer is none the worse for it.
    let fine = log
        .append(shard, after, vec![writer.commit("order-1", 1, 1)])
        .await;
    assert_eq!(offsets(&fine), [5]);
    log.close().await;
}

#[tokio::test]
async fn a_small_limit_holds_as_well() {
    let Some(topic) = TestTopic::named(1) else { return };
    let settings = KafkaSettings {
        record_bytes: 2_000,
        ..topic.settings()
    };
    KafkaLog::create(&settings, &topic.app, topic.shards, 1)
        .await
        .unwrap();
    let log = topic.open_with(settings).await;
    let mut writer = writer(&topic, 0);
    let shard = writer.shard();
    offsets(&log.append(shard, writer.head(), vec![writer.claim()]).await);
    // Many records that fill a batch many times over.
    let records: Vec<_> = (0..50)
        .map(|_| writer.commit_sized("order-1", 1, 1_000))
        .collect();
    assert_eq!(
        offsets(&log.append(shard, writer.head(), records).await).len(),
        50
    );
    log.close().await;
}

/// Something that is not ours.
pub fn foreign(topic: &TestTopic, shard: i32) {
    let raw = RawRecord {
        key: None,
        timestamp_ms: 1,
        value: None,
        headers: vec![header("annals", Some(b"x"))],
    };
    produce(topic, shard, &raw);
}

fn produce(topic: &TestTopic, shard: i32, raw: &RawRecord) {
    let producer: BaseProducer = topic.client().create().unwrap();
    let mut record: BaseRecord<'_, [u8], [u8]> =
        BaseRecord::to("").partition(shard).timestamp(raw.timestamp_ms);
    let name = topic.name();
    record.topic = &name;
    record.key = raw.key.as_deref();
    record.payload = raw.value.as_deref();
    if !raw.headers.is_empty() {
        record.headers = Some(raw.headers.iter().fold(OwnedHeaders::new(), |all, header| {
            all.insert(Header {
                key: std::str::from_utf8(&header.name).unwrap(),
                value: header.value.as_deref(),
            })
        }));
    }
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
}

fn header(name: &'static str, value: Option<&'static [u8]>) -> RawHeader {
    RawHeader {
        name: Bytes::from_static(name.as_bytes()),
        value: value.map(Bytes::from_static),
    }
}

#[tokio::test]
async fn whatever_is_on_the_topic_is_read_byte_for_byte() {
    let Some(topic) = TestTopic::create(1).await else {
        return;
    };
    let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    let plain = RawRecord {
        key: bytes("k"),
        timestamp_ms: 1_790_000_000_000,
        value: bytes("v"),
        headers: Vec::new(),
    };
    let mut writer = writer(&topic, 0);
    let ours = writer.claim().to_raw();
    let twice = {
        let mut raw = ours.clone();
        raw.headers.push(raw.headers[2].clone());
        raw
    };
    let newer = {
        let mut raw = ours.clone();
        raw.headers[0].value = bytes("2");
        raw
    };
    let all = [
        plain.clone(),
        RawRecord {
            key: None,
            ..plain.clone()
        },
        RawRecord {
            key: bytes(""),
            ..plain.clone()
        },
        RawRecord {
            value: None,
            ..plain.clone()
        },
        RawRecord {
            value: bytes(""),
            ..plain.clone()
        },
        RawRecord {
            key: None,
            value: None,
            ..plain.clone()
        },
        RawRecord {
            headers: vec![
                header("", Some(b"")),
                header("a", None),
                header("a", Some(b"")),
                header("größe 尺寸", Some(b"\0\xff\xfe")),
                header("annals", None),
                header("a", Some(b"1")),
            ],
            ..plain
        },
        twice,
        newer,
        ours.clone(),
    ];
    for raw in &all {
        produce(&topic, 0, raw);
    }
    let log = topic.open().await;
    let found = read(&log, Shard::new(0), 0, all.len()).await;
    for (found, raw) in found.iter().zip(&all) {
        assert_eq!(found.slot, Slot::parse(raw.clone()), "at {}", found.offset);
        assert_eq!(found.hash, raw_record_hash(raw), "at {}", found.offset);
    }
    assert!(matches!(found[8].slot, Slot::UnknownFormat { format: 2, .. }));
    assert_eq!(found[9].slot.known().unwrap().to_raw(), ours);
    log.close().await;
}

#[tokio::test]
async fn a_hole_in_the_offsets_is_refused_and_named() {
    let Some(topic) = TestTopic::create(2).await else {
        return;
    };
    // A transaction's end takes an offset of its own.
    let mut config = topic.client();
    config.set("transactional.id", topic.app.as_str());
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    for _ in 0..2 {
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<str, str>::to("").partition(1).payload("x");
        let name = topic.name();
        producer
            .send(record.topic(&name))
            .map_err(|(error, _)| error)
            .unwrap();
        producer.commit_transaction(Duration::from_secs(30)).unwrap();
    }
    let log = topic.open().await;
    let shard = Shard::new(1);
    assert_eq!(read(&log, shard, 0, 1).await.len(), 1);
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    let hole = loop {
        assert!(tokio::time::Instant::now() < limit);
        match log.read(shard, Offset::new(1), short()).await {
            Ok(none) => assert!(none.is_empty()),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&hole, LogError::Refused(why) if why.contains("offset 2 where 1 should be")),
        "{hole:?}"
    );
    // Other shards are not concerned.
    assert!(
        log.read(Shard::new(0), Offset::new(0), short())
            .await
            .unwrap()
            .is_empty()
    );
    log.close().await;
}

#[tokio::test]
async fn a_deleted_beginning_is_refused_and_named() {
    let Some(topic) = TestTopic::create(1).await else {
        return;
    };
    let log = topic.open().await;
    let mut writer = writer(&topic, 0);
    let shard = writer.shard();
    offsets(&log.append(shard, writer.head(), vec![writer.claim()]).await);
    let records = (0..9).map(|_| writer.commit("order-1", 1, 1)).collect();
    offsets(&log.append(shard, writer.head(), records).await);
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(&topic.name(), 0, rdkafka::Offset::Offset(4))
        .unwrap();
    topic
        .admin()
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
    let gone = log.read(shard, Offset::new(0), short()).await;
    assert!(
        matches!(&gone, Err(LogError::Refused(why)) if why.contains("begins at offset 4")),
        "{gone:?}"
    );
    assert_eq!(read(&log, shard, 4, 6).await.len(), 6);
    let gone = log.read(shard, Offset::new(0), ReadLimits::default()).await;
    assert!(
        matches!(&gone, Err(LogError::Refused(why)) if why.contains("begins at offset 4")),
        "{gone:?}"
    );
    log.close().await;
}

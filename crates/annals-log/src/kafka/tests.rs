//! What only the inside shows: which producers run, and what a fatal error does.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::sync::Arc;

use annals_record::{AppName, Generation, Shard, ShardCount};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::instances::InstanceId;
use super::{KafkaLog, KafkaSettings};
use crate::testing::Chained;
use crate::{Appended, Log, LogError};

#[path = "../../tests/kafka/broker.rs"]
mod broker;
mod own;
use broker::TestTopic;

fn ids(numbers: &[u64]) -> Vec<InstanceId> {
    numbers.iter().map(|n| InstanceId(*n)).collect()
}

fn is_landed(answer: &Appended) -> bool {
    matches!(answer, Appended::Landed(_))
}

/// The rule itself is tested with the state machine; this shows that claims are told from other records.
#[tokio::test]
async fn each_claim_goes_through_a_producer_that_never_carried_the_shard() {
    let Some(topic) = TestTopic::create(2).await else {
        return;
    };
    let log = topic.open().await;
    let mut writers: Vec<Chained> = topic
        .shards
        .shards()
        .map(|shard| Chained::new(topic.app.clone(), shard, topic.shards))
        .collect();
    for writer in &mut writers {
        let answer = log.append(writer.shard(), writer.head(), vec![writer.claim()]);
        assert!(is_landed(&answer.await));
    }
    assert_eq!(log.appends.running(), ids(&[0, 1]));
    for expected in [[1_u64, 2], [1, 3], [1, 4]] {
        let writer = &mut writers[0];
        for record in [writer.claim(), writer.commit("order-1", 1, 0)] {
            let answer = log.append(writer.shard(), writer.head(), vec![record]).await;
            assert!(is_landed(&answer), "{answer:?}");
        }
        assert_eq!(log.appends.running(), ids(&expected));
    }
    log.close().await;
}

#[tokio::test]
async fn a_shard_whose_producer_was_emptied_has_to_be_claimed() {
    let Some(topic) = TestTopic::create(2).await else {
        return;
    };
    let settings = KafkaSettings {
        producers: 1,
        producers_max: 1,
        ..topic.settings()
    };
    let log = topic.open_with(settings).await;
    let mut writers: Vec<Chained> = topic
        .shards
        .shards()
        .map(|shard| Chained::new(topic.app.clone(), shard, topic.shards))
        .collect();
    for writer in &mut writers {
        let answer = log.append(writer.shard(), writer.head(), vec![writer.claim()]);
        assert!(is_landed(&answer.await));
    }
    let [first, second] = &mut writers[..] else {
        panic!()
    };
    let claim = log.append(first.shard(), first.head(), vec![first.claim()]).await;
    assert!(is_landed(&claim), "{claim:?}");
    let lost = log
        .append(
            second.shard(),
            second.head(),
            vec![second.commit("order-1", 1, 0)],
        )
        .await;
    assert!(matches!(lost, Appended::Unknown(_)), "{lost:?}");
    let claim = log
        .append(second.shard(), second.head(), vec![second.claim()])
        .await;
    assert!(is_landed(&claim), "{claim:?}");
    log.close().await;
}

/// The mock stands in for client faults only.
struct Mocked {
    cluster: MockCluster<'static, DefaultProducerContext>,
    log: KafkaLog,
    writer: Chained,
}

impl Mocked {
    fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let app: AppName = "mocked".parse().unwrap();
        let shards = ShardCount::try_from(1).unwrap();
        cluster.create_topic("mocked.log", 1, 1).unwrap();
        let settings = KafkaSettings::new(cluster.bootstrap_servers());
        let log = KafkaLog::connect(settings, app.clone(), shards, Generation::FIRST).unwrap();
        Self {
            cluster,
            log,
            writer: Chained::new(app, Shard::new(0), shards),
        }
    }

    async fn append(&mut self, record: Arc<annals_record::Record>) -> Appended {
        let (shard, head) = (self.writer.shard(), self.writer.head());
        self.log.append(shard, head, vec![record]).await
    }
}

#[tokio::test]
async fn a_fatal_error_replaces_the_producer_and_its_shard_has_to_be_claimed() {
    let mut mocked = Mocked::start();
    let claim = mocked.writer.claim();
    assert!(is_landed(&mocked.append(claim).await));
    mocked.cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
    );
    let commit = mocked.writer.commit("order-1", 1, 0);
    let broken = mocked.append(commit).await;
    assert!(matches!(broken, Appended::Unknown(_)), "{broken:?}");
    let commit = mocked.writer.commit("order-1", 1, 0);
    let lost = mocked.append(commit).await;
    assert!(matches!(lost, Appended::Unknown(_)), "{lost:?}");
    let claim = mocked.writer.claim();
    let claimed = mocked.append(claim).await;
    assert!(is_landed(&claimed), "{claimed:?}");
    assert_eq!(mocked.log.appends.running(), ids(&[1]));
    mocked.log.close().await;
}

#[tokio::test]
async fn what_is_under_way_when_the_log_is_closed_is_unknown() {
    let mut mocked = Mocked::start();
    let claim = mocked.writer.claim();
    assert!(is_landed(&mocked.append(claim).await));
    mocked.cluster.broker_down(1).unwrap();
    let commit = mocked.writer.commit("order-1", 1, 0);
    let (shard, head) = (mocked.writer.shard(), mocked.writer.head());
    let under_way = mocked.log.append(shard, head, vec![commit]);
    mocked.log.close().await;
    let answer = under_way.await;
    assert!(
        matches!(answer, Appended::Unknown(LogError::Unavailable(_))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_full_queue_writes_all_of_an_append_or_says_that_it_does_not_know() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("mocked.log", 1, 1).unwrap();
    let app: AppName = "mocked".parse().unwrap();
    let shards = ShardCount::try_from(1).unwrap();
    let mut settings = KafkaSettings::new(cluster.bootstrap_servers());
    settings
        .client
        .insert("queue.buffering.max.messages".to_owned(), "10".to_owned());
    let log = KafkaLog::connect(settings, app.clone(), shards, Generation::FIRST).unwrap();
    let mut writer = Chained::new(app, Shard::new(0), shards);
    let claim = log
        .append(writer.shard(), writer.head(), vec![writer.claim()])
        .await;
    assert!(is_landed(&claim), "{claim:?}");
    cluster.broker_down(1).unwrap();
    let mut append = |count: u64| {
        let records = (0..count).map(|_| writer.commit("order-1", 1, 0)).collect();
        log.append(writer.shard(), writer.head(), records)
    };
    let whole = append(2);
    // Some of these find room.
    let torn = append(20);
    let none = append(1).await;
    assert!(
        matches!(none, Appended::NotWritten(LogError::Unavailable(_))),
        "{none:?}"
    );
    cluster.broker_up(1).unwrap();
    assert!(matches!(whole.await, Appended::Landed(landed) if landed.len() == 2));
    assert!(matches!(torn.await, Appended::Unknown(_)));
    log.close().await;
}

#[tokio::test]
async fn settings_of_security_become_those_of_the_client() {
    let mut settings = KafkaSettings::new("b:1");
    let value = |config: &ClientConfig, name: &str| config.get(name).map(str::to_owned);
    assert_eq!(
        value(&settings.producer(), "security.protocol").unwrap(),
        "plaintext"
    );
    settings.tls = Some(super::Tls {
        ca_file: Some("/ca.pem".into()),
        certificate_file: Some("/cert.pem".into()),
        key_file: Some("/key.pem".into()),
        key_password: Some("k".into()),
    });
    assert_eq!(value(&settings.admin(), "security.protocol").unwrap(), "ssl");
    settings.sasl = Some(super::Sasl::Scram {
        mechanism: super::ScramMechanism::Sha512,
        username: "u".to_owned(),
        password: "p".into(),
    });
    assert!(!format!("{settings:?}").contains("\"p\""));
    for config in [settings.producer(), settings.consumer("x", "g"), settings.admin()] {
        let all = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "u"),
            ("sasl.password", "p"),
            ("ssl.ca.location", "/ca.pem"),
            ("ssl.certificate.location", "/cert.pem"),
            ("ssl.key.location", "/key.pem"),
            ("ssl.key.password", "k"),
            ("ssl.endpoint.identification.algorithm", "https"),
        ];
        for (name, wanted) in all {
            assert_eq!(value(&config, name).as_deref(), Some(wanted), "{name}");
        }
        // The client knows all of these names.
        config.create_native_config().unwrap();
    }
}

#[test]
fn settings_out_of_range_are_named() {
    let good = || KafkaSettings::new("b:1");
    good().validate().unwrap();
    type Spoil = fn(&mut KafkaSettings);
    let cases: [(&str, Spoil); 9] = [
        ("log.brokers", |s| s.brokers.clear()),
        ("log.topic", |s| s.topic = "a b".to_owned()),
        ("log.producers is 0", |s| s.producers = 0),
        ("log.producers is 9", |s| s.producers = 9),
        ("log.producers_max", |s| s.producers_max = 65),
        ("log.record_bytes", |s| s.record_bytes = 10),
        ("log.client.acks", |s| {
            drop(s.client.insert("acks".into(), "1".into()))
        }),
        ("log.client", |s| {
            drop(s.client.insert("no.such.thing".into(), "1".into()))
        }),
        ("log.client", |s| {
            drop(s.client.insert("socket.timeout.ms".into(), "x".into()))
        }),
    ];
    for (named, spoil) in cases {
        let mut settings = good();
        spoil(&mut settings);
        let error = settings.validate().unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}

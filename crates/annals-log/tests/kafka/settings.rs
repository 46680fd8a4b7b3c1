//! What a topic must be set to.

use std::collections::BTreeMap;

use annals_log::{Durability, KafkaError, KafkaLog, KafkaSettings, Log, LogKind};
use annals_record::{Generation, ShardCount};

use super::broker::TestTopic;

fn safe() -> BTreeMap<&'static str, String> {
    let longest = i64::MAX.to_string();
    let all = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "CreateTime"),
        ("message.timestamp.after.max.ms", &longest),
        ("message.timestamp.before.max.ms", &longest),
        ("unclean.leader.election.enable", "false"),
        ("max.message.bytes", "1048588"),
        ("min.insync.replicas", "1"),
    ];
    all.into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

/// The settings that are named as wrong.
async fn wrong(topic: &TestTopic, settings: KafkaSettings, shards: ShardCount) -> Vec<String> {
    match KafkaLog::open(settings, topic.app.clone(), shards, Generation::FIRST).await {
        Ok(log) => {
            log.close().await;
            Vec::new()
        }
        Err(error) => {
            let text = error.to_string();
            let KafkaError::Unsafe { settings, .. } = error else {
                panic!("{error:?}");
            };
            let wrong: Vec<_> = settings.into_iter().filter(|check| !check.ok).collect();
            for check in &wrong {
                assert!(
                    text.contains(&format!(
                        "{} is {} and must be {}",
                        check.name, check.value, check.wanted
                    )),
                    "{text}"
                );
            }
            wrong.into_iter().map(|check| check.name).collect()
        }
    }
}

#[tokio::test]
async fn each_unsafe_setting_is_refused_by_name() {
    let Some(topic) = TestTopic::named(2) else { return };
    topic.create_plain(2).await;
    topic.set(&safe()).await;
    assert_eq!(wrong(&topic, topic.settings(), topic.shards).await, [""; 0]);
    let spoilt = [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1000000000"),
        ("message.timestamp.type", "LogAppendTime"),
        ("message.timestamp.after.max.ms", "3600000"),
        ("message.timestamp.before.max.ms", "3600000"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "921600"),
        ("min.insync.replicas", "2"),
    ];
    for (name, value) in spoilt {
        let mut all = safe();
        all.insert(name, value.to_owned());
        topic.set(&all).await;
        assert_eq!(
            wrong(&topic, topic.settings(), topic.shards).await,
            [name],
            "{value}"
        );
    }
    topic.set(&safe()).await;
    let four = ShardCount::try_from(4).unwrap();
    assert_eq!(wrong(&topic, topic.settings(), four).await, ["partitions"]);
    let careful = KafkaSettings::new(&topic.brokers);
    let named = wrong(&topic, careful, topic.shards).await;
    assert_eq!(named, ["replication.factor", "min.insync.replicas"]);
}

#[tokio::test]
async fn a_created_topic_is_safe_and_says_what_it_is() {
    let Some(topic) = TestTopic::create(3).await else {
        return;
    };
    let log = topic.open().await;
    let description = log.describe().await.unwrap();
    assert_eq!(description.kind, LogKind::Kafka);
    assert_eq!(description.app, topic.app);
    assert_eq!(description.shards, topic.shards);
    assert_eq!(description.durability, Durability::OneServer);
    assert!(
        description.settings.iter().all(|check| check.ok),
        "{description:?}"
    );
    assert_eq!(description.settings.len(), 11);
    log.close().await;
    let again = KafkaLog::create(&topic.settings(), &topic.app, topic.shards, 1).await;
    assert!(matches!(again, Err(KafkaError::Exists { .. })), "{again:?}");
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_missing() {
    let Some(topic) = TestTopic::named(1) else { return };
    let missing = KafkaLog::open(
        topic.settings(),
        topic.app.clone(),
        topic.shards,
        Generation::FIRST,
    )
    .await;
    assert!(matches!(missing, Err(KafkaError::Missing { .. })), "{missing:?}");
}

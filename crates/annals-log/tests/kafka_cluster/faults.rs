//! What is done to topics behind a log's back, and what the client counted.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use annals_log::{KafkaLog, KafkaSettings};
use annals_record::{AppName, ShardCount};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    config(brokers).create().unwrap()
}

/// What a log's own creation sets, with one thing otherwise: a request replaces all of it.
pub async fn alter(brokers: &str, topic: &str, name: &str, value: &str) {
    let longest = i64::MAX.to_string();
    let mut all = BTreeMap::from([
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "CreateTime"),
        ("message.timestamp.after.max.ms", &longest),
        ("message.timestamp.before.max.ms", &longest),
        ("unclean.leader.election.enable", "false"),
        ("max.message.bytes", "1048588"),
    ]);
    all.insert(name, value);
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in &all {
        change = change.set(name, value);
    }
    for answer in admin(brokers)
        .alter_configs([&change], &AdminOptions::new())
        .await
        .unwrap()
    {
        answer.unwrap();
    }
}

/// Deletes the topic and makes it again.
pub async fn recreate(settings: &KafkaSettings, app: &AppName, shards: ShardCount) {
    let topic = settings.topic_of(app);
    for answer in admin(&settings.brokers)
        .delete_topics(&[&topic], &AdminOptions::new())
        .await
        .unwrap()
    {
        answer.unwrap();
    }
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(error) = KafkaLog::create(settings, app, shards, 1).await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Deletes the first records of a topic's first partition, as kafka-delete-records does.
pub async fn behead(brokers: &str, topic: &str, before: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(before))
        .unwrap();
    admin(brokers)
        .delete_records(&list, &AdminOptions::new())
        .await
        .unwrap();
}

/// What this process counted.
pub struct Meter(PrometheusHandle);

pub type Counts = BTreeMap<String, u64>;

impl Meter {
    pub fn install() -> Self {
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().unwrap());
        Self(handle.clone())
    }

    pub fn read(&self) -> Counts {
        let text = self.0.render();
        let counts = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                let wanted = [
                    "kafka_producers_",
                    "kafka_deliveries",
                    "appends_failed",
                    "kafka_gaps",
                ];
                let counted = wanted.iter().any(|part| name.contains(part));
                Some((name.to_owned(), value.parse().ok()?)).filter(|_| counted)
            });
        counts.collect()
    }

    pub fn since(&self, before: &Counts) -> Counts {
        let now = self.read();
        let grown = now.into_iter().map(|(name, count)| {
            let was = before.get(&name).copied().unwrap_or_default();
            (
                name.trim_start_matches("annals_log_").to_owned(),
                count.saturating_sub(was),
            )
        });
        grown.filter(|(_, count)| *count > 0).collect()
    }
}

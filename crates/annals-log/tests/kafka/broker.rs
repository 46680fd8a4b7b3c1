//! A topic of its own for each test on the broker of `ANNALS_TEST_KAFKA`, deleted at the end.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stderr
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_log::{KafkaLog, KafkaSettings};
use annals_record::{AppName, Generation, ShardCount};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;

pub const VARIABLE: &str = "ANNALS_TEST_KAFKA";

pub struct TestTopic {
    pub brokers: String,
    pub app: AppName,
    pub shards: ShardCount,
}

impl TestTopic {
    /// A name that is free; `None`, with a line on standard error, if there is no broker.
    pub fn named(shards: u32) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Some(brokers) = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) else {
            assert!(
                !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                "{VARIABLE} is not set, and CI=true allows no skipped test"
            );
            eprintln!("skipped: {VARIABLE} is not set");
            return None;
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let app = format!("t{now:x}-{}-{n}", std::process::id());
        Some(Self {
            brokers,
            app: app.parse().unwrap(),
            shards: ShardCount::try_from(shards).unwrap(),
        })
    }

    /// A topic that is there.
    pub async fn create(shards: u32) -> Option<Self> {
        let topic = Self::named(shards)?;
        KafkaLog::create(&topic.settings(), &topic.app, topic.shards, 1)
            .await
            .unwrap();
        Some(topic)
    }

    pub fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            allow_single_replica: true,
            ..KafkaSettings::new(&self.brokers)
        }
    }

    pub async fn open(&self) -> KafkaLog {
        self.open_with(self.settings()).await
    }

    pub async fn open_with(&self, settings: KafkaSettings) -> KafkaLog {
        KafkaLog::open(settings, self.app.clone(), self.shards, Generation::FIRST)
            .await
            .unwrap()
    }

    pub fn name(&self) -> String {
        format!("{}.log", self.app)
    }

    /// Sets one thing of the topic, beside what stays.
    pub async fn set(&self, all: &BTreeMap<&str, String>) {
        let name = self.name();
        let mut alter = AlterConfig::new(ResourceSpecifier::Topic(&name));
        for (key, value) in all {
            alter = alter.set(key, value);
        }
        let answers = self.admin().alter_configs([&alter], &AdminOptions::new()).await;
        for answer in answers.unwrap() {
            answer.unwrap();
        }
    }

    /// A topic without any setting of its own.
    pub async fn create_plain(&self, partitions: i32) {
        let name = self.name();
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let answers = self
            .admin()
            .create_topics([&topic], &AdminOptions::new())
            .await
            .unwrap();
        for answer in answers {
            answer.unwrap();
        }
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }
}

impl Drop for TestTopic {
    fn drop(&mut self) {
        let (name, config) = (self.name(), self.client());
        // The test's runtime may be ending: a thread and a runtime of its own.
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
                admin.delete_topics(&[&name], &AdminOptions::new()).await.ok();
            });
        });
        if dropper.join().is_err() {
            eprintln!("topic {} stays behind", self.name());
        }
    }
}

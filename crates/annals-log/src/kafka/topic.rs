//! The topic: made with every setting that safety rests on, and checked for them.

use std::time::Duration;

use annals_record::ShardCount;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::KafkaError;
use super::client::{Context, unavailable, why_unreachable};
use super::settings::{FRAMING_BYTES, KafkaSettings};
use crate::{Durability, LogError, SettingCheck};

/// How long a cluster may take to answer a question about itself.
pub(super) const ADMIN_LIMIT: Duration = Duration::from_secs(15);

/// Clocks may be wrong by much, and copies carry old times, without a broker refusing a record: a year, in ms.
const LARGE_MS: i64 = 365 * 24 * 3_600_000;

/// What a topic is.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) settings: Vec<SettingCheck>,
    pub(super) durability: Durability,
}

/// What the cluster's metadata say of a topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    partitions: usize,
    /// Of the partition that has the fewest.
    replicas: usize,
}

impl Shape {
    /// `None` if there is no such topic.
    pub(super) fn of(metadata: &Metadata, topic: &str) -> Option<Self> {
        let topic = metadata.topics().iter().find(|of| of.name() == topic)?;
        let replicas = topic.partitions().iter().map(|of| of.replicas().len()).min()?;
        Some(Self {
            partitions: topic.partitions().len(),
            replicas,
        })
    }
}

/// Makes the topic. It must not be there yet.
pub(super) async fn create(
    settings: &KafkaSettings,
    topic: &str,
    shards: ShardCount,
    replication: u16,
) -> Result<(), KafkaError> {
    let partitions = i32::try_from(shards.get()).unwrap_or(i32::MAX);
    let insync = if replication >= 2 { "2" } else { "1" };
    let max_bytes = (settings.record_bytes + (64 << 10)).max(1 << 20).to_string();
    let longest = i64::MAX.to_string();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication.into()))
        .set("cleanup.policy", "delete")
        .set("retention.ms", "-1")
        .set("retention.bytes", "-1")
        .set("message.timestamp.type", "CreateTime")
        .set("message.timestamp.before.max.ms", &longest)
        .set("message.timestamp.after.max.ms", &longest)
        .set("unclean.leader.election.enable", "false")
        .set("compression.type", "producer")
        .set("min.insync.replicas", insync)
        .set("max.message.bytes", &max_bytes);
    let admin = Admin::new(settings)?;
    let answers = admin.client().create_topics([&new], &options()).await;
    admin.close().await;
    let answers = in_words(settings, "cannot create the topic", answers).await?;
    match answers.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Err(KafkaError::Exists {
            topic: topic.to_owned(),
        }),
        Some(Err((_, code))) => Err(KafkaError::NotCreated {
            topic: topic.to_owned(),
            why: code.to_string(),
        }),
        None => Err(LogError::Unavailable("no answer about the topic".to_owned()).into()),
    }
}

/// Deletes the topic.
pub(super) async fn delete(settings: &KafkaSettings, topic: &str) -> Result<(), KafkaError> {
    let admin = Admin::new(settings)?;
    let answers = admin.client().delete_topics(&[topic], &options()).await;
    admin.close().await;
    let answers = in_words(settings, "cannot delete the topic", answers).await?;
    match answers.into_iter().next() {
        Some(Err((_, code))) => {
            Err(LogError::Unavailable(format!("the topic `{topic}` was not deleted: {code}")).into())
        }
        Some(Ok(_)) | None => Ok(()),
    }
}

/// Looks at the topic: every setting that safety rests on, right or wrong.
pub(super) async fn look(
    settings: &KafkaSettings,
    topic: &str,
    shards: ShardCount,
    shape: Shape,
) -> Result<Facts, KafkaError> {
    let admin = Admin::new(settings)?;
    let answers = admin
        .client()
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options())
        .await;
    admin.close().await;
    let answers = in_words(settings, "cannot read the topic's settings", answers).await?;
    match answers.into_iter().next() {
        Some(Ok(config)) => Ok(facts(settings, shards, shape, &config)),
        Some(Err(code)) => {
            Err(LogError::Unavailable(format!("cannot read the topic's settings: {code}")).into())
        }
        None => Err(LogError::Unavailable("no answer about the topic's settings".to_owned()).into()),
    }
}

fn facts(
    settings: &KafkaSettings,
    shards: ShardCount,
    Shape { partitions, replicas }: Shape,
    config: &ConfigResource,
) -> Facts {
    let value = |name: &str| config.get(name).and_then(|entry| entry.value.clone());
    let number = |name: &str| value(name).and_then(|text| text.parse::<i64>().ok());
    let mut all = Vec::new();
    let mut check = |name: &str, value: Option<String>, wanted: String, ok: bool| {
        all.push(SettingCheck {
            name: name.to_owned(),
            value: value.unwrap_or_else(|| "unknown".to_owned()),
            wanted,
            ok,
        });
    };
    let same_count = u32::try_from(partitions) == Ok(shards.get());
    check(
        "partitions",
        Some(partitions.to_string()),
        format!("{shards}, the log's shards"),
        same_count,
    );

    let exact = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("message.timestamp.type", "CreateTime"),
        ("unclean.leader.election.enable", "false"),
    ];
    for (name, wanted) in exact {
        let found = value(name);
        let ok = found.as_deref() == Some(wanted);
        check(name, found, wanted.to_owned(), ok);
    }
    for name in [
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
    ] {
        let ok = number(name).is_some_and(|ms| ms >= LARGE_MS);
        check(name, value(name), format!("at least {LARGE_MS} (a year)"), ok);
    }
    let needed = settings.record_bytes + FRAMING_BYTES;
    let name = "max.message.bytes";
    let ok = number(name).is_some_and(|bytes| usize::try_from(bytes).is_ok_and(|bytes| bytes >= needed));
    let wanted = format!(
        "at least {needed}: log.record_bytes, {}, and {FRAMING_BYTES}",
        settings.record_bytes
    );
    check(name, value(name), wanted, ok);

    let single = settings.allow_single_replica && replicas == 1;
    let wanted = "at least 2, better 3 (or 1 with --allow-single-replica)";
    check(
        "replication.factor",
        Some(replicas.to_string()),
        wanted.to_owned(),
        replicas >= 2 || single,
    );
    let insync = number("min.insync.replicas").and_then(|n| usize::try_from(n).ok());
    let least = if single { 1 } else { 2 };
    let ok = insync.is_some_and(|n| n >= least && n <= replicas);
    let wanted = format!("at least {least}, and no more than there are replicas");
    check("min.insync.replicas", value("min.insync.replicas"), wanted, ok);

    let replicated = replicas >= 2 && insync.is_some_and(|n| n >= 2);
    Facts {
        settings: all,
        durability: if replicated {
            Durability::Replicated
        } else {
            Durability::OneServer
        },
    }
}

/// What was asked, with the reason if it failed: the admin client itself knows only that nobody answered.
async fn in_words<T>(settings: &KafkaSettings, what: &str, answers: KafkaResult<T>) -> Result<T, LogError> {
    let error = match answers {
        Ok(answers) => return Ok(answers),
        Err(error) => unavailable(what, &error),
    };
    Err(match (why_unreachable(settings).await, error) {
        (Some(why), LogError::Unavailable(error)) => LogError::Unavailable(format!("{error}: {why}")),
        (_, error) => error,
    })
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ADMIN_LIMIT))
        .operation_timeout(Some(ADMIN_LIMIT))
}

/// An admin client; closing one blocks for up to 100 ms, so another thread does it.
struct Admin(Option<AdminClient<Context>>);

impl Admin {
    fn new(settings: &KafkaSettings) -> Result<Self, LogError> {
        AdminClient::from_config_and_context(&settings.admin(), Context::new(settings))
            .map(|client| Self(Some(client)))
            .map_err(|error| unavailable("cannot make an admin client", &error))
    }

    fn client(&self) -> &AdminClient<Context> {
        self.0.as_ref().expect("there until it is closed")
    }

    async fn close(mut self) {
        if let Some(client) = self.0.take() {
            tokio::task::spawn_blocking(move || drop(client)).await.ok();
        }
    }
}

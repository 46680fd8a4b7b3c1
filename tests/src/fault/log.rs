//! Reading the whole log, by the fold and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_log::{KafkaLog, KafkaSettings, Log, PostgresLog, PostgresSettings, ReadLimits, Wakes};
use annals_record::fold::{Fold, Head, Verdict};
use annals_record::record::{Meta, Record};
use annals_record::{AppName, Generation, Shard, ShardCount, hash};
use serde_json::Value;
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::check::orders::Entry;
use super::history::Kept;
use super::orders::GOODS;

/// What is in the log.
#[derive(Debug, Default)]
pub struct Contents {
    /// Records of the products' load that count, by shard and offset.
    pub kept: Vec<Kept>,
    /// Those of checkouts: orders, payments, customers, and the goods of orders.
    pub entries: Vec<Entry>,
    /// Claims that count.
    pub claims: usize,
    /// Records that do not count, by why.
    pub ghosts: BTreeMap<&'static str, usize>,
    /// Where each shard ends.
    pub ends: Vec<u64>,
}

/// Which log.
#[derive(Debug, Clone)]
pub enum Which {
    /// The one in this database.
    Postgres(String),
    /// A topic.
    Kafka {
        /// `host:port`, several with commas.
        brokers: String,
        /// The topic.
        topic: String,
    },
}

/// Folds all shards from their beginning to their end.
///
/// # Errors
/// If the log cannot be read, or halts: that is a violation too.
pub async fn read(which: &Which, shards: ShardCount) -> Result<Contents, String> {
    let app = AppName::try_from("commerce").map_err(|error| error.to_string())?;
    let mut tasks = JoinSet::new();
    let log: Arc<dyn Log> = match which {
        Which::Postgres(url) => {
            let pool = PgPool::connect(url).await.map_err(|error| error.to_string())?;
            let wakes = Wakes {
                notifier: None,
                listener: None,
            };
            let opened =
                PostgresLog::open(pool, &app, Some(shards), PostgresSettings::default(), wakes).await;
            let (log, task) = opened.map_err(|error| error.to_string())?;
            tasks.spawn(task.run());
            Arc::new(log)
        }
        Which::Kafka { brokers, topic } => {
            let mut settings = KafkaSettings::new(brokers.clone());
            settings.topic.clone_from(topic);
            settings.allow_single_replica = true;
            let opened = KafkaLog::open(settings, app.clone(), shards, Generation::FIRST).await;
            Arc::new(opened.map_err(|error| error.to_string())?)
        }
    };
    let mut contents = Contents::default();
    for shard in shards.shards() {
        let genesis = hash::genesis(&app, shard, shards);
        fold(&*log, shard, Head::at_genesis(genesis), &mut contents).await?;
    }
    Ok(contents)
}

async fn fold(log: &dyn Log, shard: Shard, head: Head, contents: &mut Contents) -> Result<(), String> {
    let mut fold = Fold::new(head.chain, head);
    let end = log.end(shard).await.map_err(|error| error.to_string())?;
    let limits = ReadLimits {
        wait: Duration::from_secs(5),
        ..ReadLimits::default()
    };
    while fold.head().next < end {
        let from = fold.head().next;
        let read = log
            .read(shard, from, limits)
            .await
            .map_err(|error| error.to_string())?;
        if read.is_empty() {
            return Err(format!(
                "shard {shard} gives nothing at {from}, below its end {end}"
            ));
        }
        for placed in read {
            match fold.step(&placed.slot, placed.hash) {
                Verdict::Accept => {
                    let record = placed.slot.known().ok_or("the fold accepts known records only")?;
                    take(record, shard, placed.offset.get(), contents)?;
                }
                Verdict::Ghost(why) => *contents.ghosts.entry(why.as_str()).or_default() += 1,
                Verdict::Halt(halt) => {
                    return Err(format!("shard {shard} halts at {}: {halt}", placed.offset));
                }
            }
        }
    }
    contents.ends.push(end.get());
    Ok(())
}

fn take(record: &Record, shard: Shard, offset: u64, contents: &mut Contents) -> Result<(), String> {
    let (entry, is_refusal) = match &record.meta {
        Meta::Commit(entry) => (entry, false),
        Meta::Refusal(entry) => (entry, true),
        Meta::Claim(_) | Meta::Close(_) => {
            contents.claims += 1;
            return Ok(());
        }
    };
    let value: Value =
        serde_json::from_slice(&record.value).map_err(|error| format!("{shard}:{offset}: {error}"))?;
    let stream = record.stream.as_ref().ok_or("a commit has a stream")?.to_string();
    let events = value["events"].as_array().cloned().unwrap_or_default();
    let refusal = value["refusal"]["code"].as_str().map(str::to_owned);
    if is_refusal != refusal.is_some() {
        return Err(format!("{shard}:{offset}: its headers and its value differ"));
    }
    if !stream.starts_with("product-") || stream.starts_with(&format!("product-{GOODS}")) {
        let event = |event: &Value| {
            (
                event["type"].as_str().unwrap_or_default().to_owned(),
                event["data"].clone(),
            )
        };
        contents.entries.push(Entry {
            shard: shard.get(),
            offset,
            record: entry.id.to_string(),
            time_ms: record.timestamp_ms,
            stream,
            key: entry.idempotency_key.to_string(),
            version: entry.version.get(),
            events: events.iter().map(event).collect(),
            refusal,
        });
        return Ok(());
    }
    let delta = |event: &Value| {
        let data = &event["data"];
        data["quantity"]
            .as_i64()
            .or_else(|| data["delta"].as_i64())
            .unwrap_or(0)
    };
    contents.kept.push(Kept {
        shard: shard.get(),
        offset,
        record: entry.id.to_string(),
        time_ms: record.timestamp_ms,
        stream,
        key: entry.idempotency_key.to_string(),
        version: entry.version.get(),
        events: entry.count.into(),
        command: value["command"]["name"].as_str().unwrap_or_default().to_owned(),
        delta: events.iter().map(delta).sum(),
        current: value["refusal"]["detail"]["current"]
            .as_u64()
            .filter(|_| refusal.as_deref() == Some("version-mismatch")),
        refusal,
    });
    Ok(())
}

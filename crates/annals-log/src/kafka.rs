//! The log on Kafka: one topic, a partition for each shard, idempotent producers, plain consumers.
//!
//! Kafka lands an append where it lands: there is no comparison with a head here, the fold makes up for it.
//! No consumer group is joined, no offset is committed at the brokers, no transaction is used. What an append
//! became is known by delivery alone: every record delivered with its offset is `Landed`, nothing handed to
//! the client is `NotWritten`, all else is `Unknown`.
//!
//! *Invariant:* records of a shard are handed over in the order of the calls, within the call.
//! *Invariant:* a producer instance carries at most one epoch of a shard ([`instances`]).
//!
//! Source: 3-log.md, "`Log`"; KIP-98 for idempotent producers.

mod appends;
mod catch_up;
mod client;
mod feed;
mod instances;
mod producer;
mod settings;
mod tail;
#[cfg(test)]
mod tests;
mod topic;
mod trial;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use annals_record::fold::Head;
use annals_record::record::Record;
use annals_record::{AppName, Generation, Offset, Shard, ShardCount};
use async_trait::async_trait;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::time::Instant;

pub use settings::{BearerToken, KafkaSettings, Sasl, ScramMechanism, Tls, TokenSource};

use crate::log::Appending;
use crate::metrics as names;
use crate::recent::Recent;
use crate::{Description, Hashed, Log, LogError, LogKind, Placed, ReadLimits, SettingCheck};
use appends::Appends;
use catch_up::CatchUp;
use client::{Context, unavailable};
use tail::{State, Tail};
use topic::ADMIN_LIMIT;

/// What is kept of each shard for readers near its end, in bytes.
const RECENT_BYTES: usize = 4 << 20;
/// How old an answer about the topic's settings may be.
const FACTS_AGE: Duration = Duration::from_secs(10);
/// A reader not further than this behind the end is served by the consumer that follows it.
const NEAR: u64 = 2_048;

/// Why a Kafka log could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// A setting of this program is out of range.
    #[error("{0}")]
    Settings(String),
    /// A log is there already.
    #[error("the topic `{topic}` exists already")]
    Exists {
        /// The topic.
        topic: String,
    },
    /// There is none.
    #[error("the topic `{topic}` does not exist: `log create` makes it")]
    Missing {
        /// The topic.
        topic: String,
    },
    /// The cluster did not make the topic.
    #[error("the topic `{topic}` was not created: {why}")]
    NotCreated {
        /// The topic.
        topic: String,
        /// In the cluster's words.
        why: String,
    },
    /// Acknowledged records could be lost or changed with these settings.
    #[error("the topic `{topic}` is not safe for a log: {}", Wrong(settings))]
    Unsafe {
        /// The topic.
        topic: String,
        /// All that was checked; at least one is not right.
        settings: Vec<SettingCheck>,
    },
    /// The cluster did not answer.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The wrong ones, in words.
struct Wrong<'a>(&'a [SettingCheck]);

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, check) in self.0.iter().filter(|check| !check.ok).enumerate() {
            let comma = if index > 0 { "; " } else { "" };
            write!(
                f,
                "{comma}{} is {} and must be {}",
                check.name, check.value, check.wanted
            )?;
        }
        Ok(())
    }
}

/// The log on Kafka. Dropping it gives up what is under way.
pub struct KafkaLog {
    settings: KafkaSettings,
    topic: String,
    app: AppName,
    shards: ShardCount,
    generation: Generation,
    appends: Arc<Appends>,
    consumer: Arc<BaseConsumer<Context>>,
    recent: Arc<Recent>,
    tail: Arc<Tail>,
    catch_up: Arc<CatchUp>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// What the topic was found to be, and when: every reader asks as it opens its shard.
    known: tokio::sync::Mutex<Option<(Instant, topic::Facts)>>,
}

impl KafkaLog {
    /// Makes the topic of a new log, with every setting that safety rests on.
    ///
    /// `replication` is the number of replicas: 3, or 1 on a single broker.
    ///
    /// # Errors
    /// [`KafkaError`]; `Exists` if there is a topic of this name, whatever its settings.
    pub async fn create(
        settings: &KafkaSettings,
        app: &AppName,
        shards: ShardCount,
        replication: u16,
    ) -> Result<(), KafkaError> {
        settings.validate().map_err(KafkaError::Settings)?;
        topic::create(settings, &settings.topic_of(app), shards, replication).await
    }

    /// Opens a log, unless its topic is unsafe.
    ///
    /// # Errors
    /// [`KafkaError`]; `Unsafe` names each setting that is wrong, its value, and what it must be.
    pub async fn open(
        settings: KafkaSettings,
        app: AppName,
        shards: ShardCount,
        generation: Generation,
    ) -> Result<Self, KafkaError> {
        let log = Self::inspect(settings, app, shards, generation)?;
        let facts = log.facts().await?;
        if facts.settings.iter().any(|check| !check.ok) {
            return Err(KafkaError::Unsafe {
                topic: log.topic.clone(),
                settings: facts.settings,
            });
        }
        Ok(log)
    }

    /// Opens a log whatever its topic is set to: for who looks at it, or copies it elsewhere, and appends nothing.
    ///
    /// # Errors
    /// [`KafkaError::Settings`]; [`KafkaError::Log`] if a client cannot be made.
    pub fn inspect(
        settings: KafkaSettings,
        app: AppName,
        shards: ShardCount,
        generation: Generation,
    ) -> Result<Self, KafkaError> {
        settings.validate().map_err(KafkaError::Settings)?;
        Ok(Self::connect(settings, app, shards, generation)?)
    }

    /// Starts the clients without looking at the topic.
    fn connect(
        settings: KafkaSettings,
        app: AppName,
        shards: ShardCount,
        generation: Generation,
    ) -> Result<Self, LogError> {
        let topic = settings.topic_of(&app);
        let group = format!("annals.{app}");
        let config = settings.consumer("tail", &group);
        let consumer = BaseConsumer::from_config_and_context(&config, Context::new(&settings))
            .map_err(|error| unavailable("cannot make a consumer", &error))?;
        let consumer = Arc::new(consumer);
        let recent = Arc::new(Recent::new(shards, RECENT_BYTES));
        let catch_up = CatchUp::new(settings.clone(), topic.clone(), group);
        let (tail, thread) = Tail::start(
            topic.clone(),
            Arc::clone(&consumer),
            Arc::clone(&recent),
            Arc::clone(&catch_up),
        )?;
        Ok(Self {
            appends: Appends::new(settings.clone(), topic.clone(), shards, Arc::clone(&tail)),
            settings,
            topic,
            app,
            shards,
            generation,
            consumer,
            recent,
            tail,
            catch_up,
            thread: Mutex::new(Some(thread)),
            known: tokio::sync::Mutex::new(None),
        })
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Starts a producer ahead of the first append, which else takes a second. For nodes that will append.
    pub fn warm_up(&self) {
        self.appends.warm_up();
    }

    /// Gives up what is under way (`Unknown`), and waits until every thread of this log has ended.
    pub async fn close(self) {
        let threads = self.stop();
        drop(self);
        let ended = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the Kafka log panicked");
                }
            }
        });
        ended.await.ok();
    }

    fn stop(&self) -> Vec<JoinHandle<()>> {
        self.tail.stop();
        let mut threads = self.appends.close();
        threads.extend(self.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
        threads
    }

    /// What the topic is, at most [`FACTS_AGE`] ago. Several who ask at once wait for one answer.
    async fn facts(&self) -> Result<topic::Facts, KafkaError> {
        let mut known = self.known.lock().await;
        if let Some((when, facts)) = &*known
            && when.elapsed() < FACTS_AGE
        {
            return Ok(facts.clone());
        }
        let facts = self.look().await?;
        *known = Some((Instant::now(), facts.clone()));
        Ok(facts)
    }

    async fn look(&self) -> Result<topic::Facts, KafkaError> {
        let topic = self.topic.clone();
        let shape = self
            .ask(move |consumer| {
                let metadata = consumer.fetch_metadata(Some(&topic), ADMIN_LIMIT)?;
                Ok(topic::Shape::of(&metadata, &topic))
            })
            .await
            .map_err(|error| prefixed("cannot read the topic's metadata", error))?
            .ok_or_else(|| KafkaError::Missing {
                topic: self.topic.clone(),
            })?;
        topic::look(&self.settings, &self.topic, self.shards, shape).await
    }

    /// Asks the cluster; these questions block a thread until they are answered.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Context>) -> rdkafka::error::KafkaResult<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let consumer = Arc::clone(&self.consumer);
        let answer = tokio::task::spawn_blocking(move || question(&consumer)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(LogError::Unavailable(error.to_string())),
            Err(error) => Err(LogError::Unavailable(error.to_string())),
        }
    }

    fn check(&self, shard: Shard) -> Result<(), LogError> {
        if self.shards.contains(shard) {
            return Ok(());
        }
        Err(LogError::Refused(format!(
            "shard {shard} is not one of the log's {}",
            self.shards
        )))
    }

    /// Where the shard ends; an error if `from` is beyond that, or if it is not there any more.
    async fn end_from(&self, shard: Shard, from: Offset) -> Result<Offset, LogError> {
        let (begin, end) = self.watermarks(shard).await?;
        if from > end {
            return Err(LogError::BeyondEnd { shard, end, from });
        }
        if from < begin {
            return Err(LogError::Refused(format!(
                "shard {shard} begins at offset {begin}: records from {from} on were deleted"
            )));
        }
        Ok(end)
    }

    /// The first offset that is there, and the one that comes next (the high watermark).
    async fn watermarks(&self, shard: Shard) -> Result<(Offset, Offset), LogError> {
        let topic = self.topic.clone();
        let partition = i32::try_from(shard).map_err(|error| LogError::Refused(error.to_string()))?;
        let (begin, end) = self
            .ask(move |consumer| consumer.fetch_watermarks(&topic, partition, ADMIN_LIMIT))
            .await
            .map_err(|error| prefixed("cannot read where the shard ends", error))?;
        match (Offset::try_from(begin), Offset::try_from(end)) {
            (Ok(begin), Ok(end)) => Ok((begin, end)),
            _ => Err(LogError::Unavailable(format!(
                "shard {shard} is said to go from {begin} to {end}"
            ))),
        }
    }

    async fn catch_up(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        match self.catch_up.read(shard, from, limits).await {
            Err(LogError::Unavailable(why)) => {
                // The client's words say little; a shard that lost its beginning or end does not pass.
                self.end_from(shard, from).await?;
                Err(LogError::Unavailable(why))
            }
            read => read,
        }
    }

    /// Waits at the end of what was followed.
    async fn wait(
        &self,
        shard: Shard,
        from: Offset,
        limits: &ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        if self.recent.wait(shard, from, limits.wait).await
            && let Some(records) = self.recent.read(shard, from, limits)
        {
            return Ok(records);
        }
        match self.tail.state(shard) {
            State::Broken(next, why) if next == from => Err(why),
            _ => Ok(Vec::new()),
        }
    }
}

fn prefixed(what: &str, error: LogError) -> LogError {
    match error {
        LogError::Unavailable(why) => LogError::Unavailable(format!("{what}: {why}")),
        other => other,
    }
}

#[async_trait]
impl Log for KafkaLog {
    /// `at` is not looked at: Kafka cannot compare. A claim goes through another producer than what is under way
    /// and may overtake it, so hand one over alone.
    fn append(&self, shard: Shard, _at: Head, records: Vec<Arc<Record>>) -> Appending {
        self.appends.append(shard, &records)
    }

    /// What readers of this process get of it without reading is told in the module `feed`.
    fn append_hashed(&self, shard: Shard, _at: Head, records: Vec<Hashed>) -> Appending {
        self.appends.append_own(shard, records)
    }

    fn append_copied(&self, shard: Shard, _at: Head, records: Vec<Hashed>, unsure: bool) -> Appending {
        let records: Vec<_> = records.into_iter().map(|hashed| hashed.record).collect();
        self.appends.append_anew(shard, &records, unsure)
    }

    async fn read(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        self.check(shard)?;
        if matches!(self.tail.state(shard), State::No) {
            let end = self.end_from(shard, from).await?;
            let near = end.get() - from.get() <= NEAR;
            self.tail.follow(shard, if near { from } else { end });
        }
        if let Some(records) = self.recent.read(shard, from, &limits) {
            ::metrics::counter!(names::READS_RECENT).increment(1);
            return Ok(records);
        }
        match self.tail.state(shard) {
            State::Next(next) | State::Broken(next, _) if from < next => {
                // It may have come between the two looks.
                match self.recent.read(shard, from, &limits) {
                    Some(records) => Ok(records),
                    None => self.catch_up(shard, from, limits).await,
                }
            }
            State::Broken(next, why) if from == next => Err(why),
            State::Next(next) if from == next => self.wait(shard, from, &limits).await,
            State::Next(_) | State::Broken(..) => {
                self.end_from(shard, from).await?;
                self.wait(shard, from, &limits).await
            }
            // Left this very moment: the next read follows it anew.
            State::No => Ok(Vec::new()),
        }
    }

    async fn end(&self, shard: Shard) -> Result<Offset, LogError> {
        self.check(shard)?;
        // Who asks this reads up to there.
        self.tail.want(shard);
        Ok(self.watermarks(shard).await?.1)
    }

    async fn bounds(&self, shard: Shard) -> Result<(Offset, Offset), LogError> {
        self.check(shard)?;
        self.watermarks(shard).await
    }

    async fn describe(&self) -> Result<Description, LogError> {
        let facts = self.facts().await.map_err(|error| match error {
            KafkaError::Log(error) => error,
            other => LogError::Refused(other.to_string()),
        })?;
        Ok(Description {
            kind: LogKind::Kafka,
            app: self.app.clone(),
            shards: self.shards,
            generation: self.generation,
            durability: facts.durability,
            settings: facts.settings,
        })
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        // The threads end by themselves; `close` waits for them.
        self.stop();
    }
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog")
            .field("topic", &self.topic)
            .field("shards", &self.shards)
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

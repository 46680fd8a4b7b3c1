//! One producer instance: a librdkafka client, its thread, and the appends that are under way.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use annals_record::record::{Record, Slot};
use annals_record::{Offset, RecordId, Shard};
use metrics::{counter, gauge, histogram};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::Context;
use super::instances::InstanceId;
use super::settings::KafkaSettings;
use super::tail::Tail;
use super::wire;
use crate::metrics as names;
use crate::{Appended, Hashed, LogError, Placed};

/// How often a thread looks whether it shall end. Deliveries do not wait for it.
const TICK: Duration = Duration::from_millis(50);
/// How long a new instance looks for its topic before it serves deliveries, which cannot come earlier anyway.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// How long a retired instance may take to give back what it was purged of.
const PURGE_LIMIT: Duration = Duration::from_secs(10);

/// Called once, on the instance's thread, when it met a fatal error.
pub(super) type OnFatal = Box<dyn FnOnce(InstanceId) + Send>;

/// A producer that runs until it is retired.
pub(super) struct Instance {
    producer: BaseProducer<Deliveries>,
    topic: String,
    tail: Arc<Tail>,
    /// Held for reading while records are handed over, for writing while it is set.
    retired: RwLock<bool>,
    stopping: AtomicBool,
}

impl Instance {
    /// Starts the client and its thread.
    pub(super) fn start(
        settings: &KafkaSettings,
        topic: &str,
        tail: Arc<Tail>,
        id: InstanceId,
        on_fatal: OnFatal,
    ) -> KafkaResult<(Arc<Self>, JoinHandle<()>)> {
        let deliveries = Deliveries {
            context: Context::new(settings),
            fatal: AtomicBool::new(false),
        };
        let producer = BaseProducer::from_config_and_context(&settings.producer(), deliveries)?;
        let instance = Arc::new(Self {
            producer,
            topic: topic.to_owned(),
            tail,
            retired: RwLock::new(false),
            stopping: AtomicBool::new(false),
        });
        counter!(names::KAFKA_PRODUCERS_STARTED).increment(1);
        let thread = std::thread::Builder::new()
            .name(format!("annals-prod-{}", id.0))
            .spawn({
                let instance = Arc::clone(&instance);
                move || instance.run(id, on_fatal)
            })
            .map_err(|error| KafkaError::ClientCreation(format!("cannot start a thread: {error}")))?;
        Ok((instance, thread))
    }

    /// Nothing goes through it any more; what is under way is given up as unknown.
    pub(super) fn retire(&self) {
        *self.retired.write().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopping.store(true, Ordering::Release);
    }

    /// Hands over the records of one append, in order, without waiting.
    /// `bytes` is the size of them all. `own`: their hashes, if this process's readers may have them as they land.
    pub(super) fn send(
        &self,
        shard: Shard,
        records: &[Arc<Record>],
        own: Vec<Hashed>,
        bytes: usize,
    ) -> oneshot::Receiver<Appended> {
        let (sender, receiver) = oneshot::channel();
        let readers = Readers {
            tail: Arc::clone(&self.tail),
            shard,
            own,
        };
        let append = Append::new(records, readers, bytes, sender);
        let retired = self.retired.read().unwrap_or_else(PoisonError::into_inner);
        if *retired || self.producer.context().fatal.load(Ordering::Acquire) {
            append.fail(LogError::Unavailable(format!(
                "shard {shard} lost its producer and has to be claimed"
            )));
            append.settle(records.len() + 1);
            return receiver;
        }
        for (index, record) in records.iter().enumerate() {
            let Err(error) = self.send_one(shard, record, &append, index) else {
                continue;
            };
            let left = records.len() - index;
            // A fatal producer must be replaced, which takes a claim, which only "unknown" leads to.
            let fatal = error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
            let why = LogError::Unavailable(format!("the producer takes no record: {error}"));
            if index == 0 && !fatal {
                append.answer(Appended::NotWritten(why));
            } else {
                append.fail(why);
            }
            append.settle(left);
            break;
        }
        append.settle(1);
        receiver
    }

    fn send_one(&self, shard: Shard, record: &Record, append: &Arc<Append>, index: usize) -> KafkaResult<()> {
        let partition = i32::try_from(shard)
            .map_err(|_| KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition))?;
        let ticket = Box::new(Ticket {
            append: Arc::clone(append),
            index,
        });
        let mut message = BaseRecord::with_opaque_to(&self.topic, ticket)
            .partition(partition)
            .timestamp(record.timestamp_ms)
            .headers(wire::headers(record))
            .payload(record.value.as_ref());
        message.key = record.stream.as_ref().map(|stream| stream.as_str().as_bytes());
        self.producer.send(message).map_err(|(error, _)| error)
    }

    fn run(&self, id: InstanceId, on_fatal: OnFatal) {
        let mut on_fatal = Some(on_fatal);
        gauge!(names::KAFKA_PRODUCERS).increment(1.0);
        self.connect();
        while !self.stopping.load(Ordering::Acquire) {
            // It takes the whole time, but serves each delivery as it comes.
            self.producer.poll(TICK);
            if let Some((code, reason)) = self.producer.client().fatal_error() {
                self.producer.context().fatal.store(true, Ordering::Release);
                if let Some(on_fatal) = on_fatal.take() {
                    counter!(names::KAFKA_PRODUCERS_FATAL).increment(1);
                    tracing::error!(%code, reason, producer = id.0, "a producer failed for good and is replaced");
                    on_fatal(id);
                }
            }
        }
        self.producer.purge(PurgeConfig::default().queue().inflight());
        let mut left = PURGE_LIMIT;
        while self.producer.in_flight_count() > 0 && !left.is_zero() {
            self.producer.poll(Duration::from_millis(10));
            left = left.saturating_sub(Duration::from_millis(10));
        }
        gauge!(names::KAFKA_PRODUCERS).decrement(1.0);
    }
}

impl Instance {
    /// Finds the topic's leaders ahead of the first append. Nothing depends on it.
    fn connect(&self) {
        if let Err(error) = self
            .producer
            .client()
            .fetch_metadata(Some(&self.topic), CONNECT_LIMIT)
        {
            tracing::debug!(%error, "a producer has not found its topic yet");
        }
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

/// Takes deliveries to the appends that they belong to.
struct Deliveries {
    context: Context,
    fatal: AtomicBool,
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fatal.store(true, Ordering::Release);
        }
        self.context.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.context.generate_oauth_token(config)
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        match result {
            // Negative: the broker said "a duplicate, and I have forgotten where the first one is".
            Ok(message) => match Offset::try_from(message.offset()) {
                Ok(offset) => ticket.append.landed(ticket.index, offset),
                Err(_) => {
                    counter!(names::KAFKA_DELIVERIES_WITHOUT_OFFSET).increment(1);
                    let why = "a delivery came without an offset".to_owned();
                    ticket.append.fail(LogError::Unavailable(why));
                }
            },
            Err((error, _)) => {
                counter!(names::KAFKA_DELIVERIES_FAILED).increment(1);
                let why = format!("a record was not delivered: {error}");
                ticket.append.fail(LogError::Unavailable(why));
            }
        }
        ticket.append.settle(1);
    }
}

/// One record of an append, on its way through the client.
struct Ticket {
    append: Arc<Append>,
    index: usize,
}

/// An append until each of its records is settled.
struct Append {
    bytes: f64,
    began: Instant,
    state: Mutex<State>,
}

/// Those who read what this process appends.
struct Readers {
    tail: Arc<Tail>,
    shard: Shard,
    /// What they get without reading it; none of it if this is not all of the append.
    own: Vec<Hashed>,
}

impl Readers {
    /// What landed is theirs, else they have to look.
    fn learn(self, answer: &[(RecordId, Offset)]) {
        if self.own.len() != answer.len() {
            return self.tail.want(self.shard);
        }
        let place = |(hashed, (_, offset)): (Hashed, &(RecordId, Offset))| {
            let slot = Slot::Known(Arc::unwrap_or_clone(hashed.record));
            Arc::new(Placed::new(*offset, slot, hashed.hash))
        };
        let placed: Vec<_> = self.own.into_iter().zip(answer).map(place).collect();
        self.tail.delivered(self.shard, &placed);
    }
}

struct State {
    /// Records not settled, and one more while they are still being handed over.
    left: usize,
    landed: Vec<(RecordId, Option<Offset>)>,
    failed: Option<LogError>,
    /// An answer that is known before all is settled.
    answer: Option<Appended>,
    /// Taken by who answers.
    waiting: Option<(oneshot::Sender<Appended>, Readers)>,
}

impl Append {
    fn new(
        records: &[Arc<Record>],
        readers: Readers,
        bytes: usize,
        sender: oneshot::Sender<Appended>,
    ) -> Arc<Self> {
        // A gauge is a float; no append comes near the 2^32 bytes where this would stop being exact.
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        gauge!(names::KAFKA_IN_FLIGHT_BYTES).increment(bytes);
        counter!(names::APPEND_BATCHES).increment(1);
        Arc::new(Self {
            bytes,
            began: Instant::now(),
            state: Mutex::new(State {
                left: records.len() + 1,
                landed: records.iter().map(|record| (record.id(), None)).collect(),
                failed: None,
                answer: None,
                waiting: Some((sender, readers)),
            }),
        })
    }

    fn landed(&self, index: usize, offset: Offset) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, landed)) = state.landed.get_mut(index) {
            *landed = Some(offset);
        }
    }

    /// The first reason stands.
    fn fail(&self, why: LogError) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failed.get_or_insert(why);
    }

    fn answer(&self, answer: Appended) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.answer = Some(answer);
    }

    /// So many more are settled; the last one answers.
    fn settle(&self, count: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.left = state.left.saturating_sub(count);
        if state.left > 0 {
            return;
        }
        let Some((sender, readers)) = state.waiting.take() else {
            return;
        };
        gauge!(names::KAFKA_IN_FLIGHT_BYTES).decrement(self.bytes);
        let answer = match (state.answer.take(), state.failed.take()) {
            (Some(answer), _) => answer,
            (None, Some(why)) => Appended::Unknown(why),
            (None, None) => landed(std::mem::take(&mut state.landed)),
        };
        drop(state);
        self.count(&answer);
        match answer {
            // Before the writer has it: what it acknowledges is there for readers of this process.
            Appended::Landed(ref landed) => readers.learn(landed),
            Appended::HeadMoved(_) | Appended::NotWritten(_) | Appended::Unknown(_) => {
                readers.tail.want(readers.shard);
            }
        }
        // Nobody may wait for the answer any more.
        sender.send(answer).ok();
    }
}

impl Append {
    fn count(&self, answer: &Appended) {
        let outcome = match answer {
            Appended::Landed(landed) => {
                histogram!(names::APPEND_SECONDS).record(self.began.elapsed().as_secs_f64());
                counter!(names::APPENDED).increment(u64::try_from(landed.len()).unwrap_or(u64::MAX));
                return;
            }
            Appended::NotWritten(_) => "not-written",
            Appended::HeadMoved(_) => "head-moved",
            Appended::Unknown(_) => "unknown",
        };
        counter!(names::APPENDS_FAILED, "outcome" => outcome).increment(1);
    }
}

fn landed(all: Vec<(RecordId, Option<Offset>)>) -> Appended {
    let whole: Option<Vec<_>> = all.into_iter().map(|(id, at)| Some((id, at?))).collect();
    match whole {
        Some(landed) => Appended::Landed(landed),
        None => Appended::Unknown(LogError::Unavailable(
            "a record has no offset though all were delivered".to_owned(),
        )),
    }
}

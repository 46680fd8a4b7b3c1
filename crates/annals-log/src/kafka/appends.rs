//! Takes each append to the producer instance of its shard, in the order of the calls.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use annals_record::record::{Meta, Record};
use annals_record::{Shard, ShardCount};

use rdkafka::error::KafkaResult;

use super::client::unavailable;
use super::instances::{InstanceId, Instances, Route};
use super::producer::Instance;
use super::settings::KafkaSettings;
use super::tail::Tail;
use crate::log::Appending;
use crate::{Appended, Hashed, LogError};

/// All producers of one log in one process.
#[derive(Debug)]
pub(super) struct Appends {
    settings: KafkaSettings,
    topic: String,
    tail: Arc<Tail>,
    /// One a shard: held while an append is routed and handed over, so that calls do not overtake each other.
    lanes: Vec<Mutex<()>>,
    producers: Mutex<Producers>,
    this: Weak<Appends>,
}

#[derive(Debug)]
struct Producers {
    instances: Instances,
    running: BTreeMap<InstanceId, Arc<Instance>>,
    /// Started ahead: librdkafka needs a second until a new client may send.
    spare: Option<(InstanceId, Arc<Instance>)>,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Appends {
    pub(super) fn new(
        settings: KafkaSettings,
        topic: String,
        shards: ShardCount,
        tail: Arc<Tail>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            lanes: shards.shards().map(|_| Mutex::new(())).collect(),
            producers: Mutex::new(Producers {
                instances: Instances::new(settings.producers, settings.producers_max),
                running: BTreeMap::new(),
                spare: None,
                threads: Vec::new(),
                closed: false,
            }),
            settings,
            topic,
            tail,
            this: Weak::clone(this),
        })
    }

    /// Hands the records over before it returns.
    pub(super) fn append(&self, shard: Shard, records: &[Arc<Record>]) -> Appending {
        self.append_as(shard, records, Vec::new(), claims(records))
    }

    /// As [`Self::append`]; readers of this process have them as they land, unless there is a claim among them.
    pub(super) fn append_own(&self, shard: Shard, own: Vec<Hashed>) -> Appending {
        let records: Vec<_> = own.iter().map(|hashed| Arc::clone(&hashed.record)).collect();
        let claims = claims(&records);
        let own = if claims { Vec::new() } else { own };
        self.append_as(shard, &records, own, claims)
    }

    /// As [`Self::append`]; `anew`: through an instance that never carried the shard.
    pub(super) fn append_anew(&self, shard: Shard, records: &[Arc<Record>], anew: bool) -> Appending {
        self.append_as(shard, records, Vec::new(), anew)
    }

    fn append_as(&self, shard: Shard, records: &[Arc<Record>], own: Vec<Hashed>, anew: bool) -> Appending {
        if records.is_empty() {
            return now(Appended::Landed(Vec::new()));
        }
        let bytes = match self.check(records) {
            Ok(bytes) => bytes,
            Err(refused) => return now(Appended::NotWritten(refused)),
        };
        let lane = usize::try_from(shard.get()).ok().and_then(|n| self.lanes.get(n));
        let Some(lane) = lane else {
            let why = format!("shard {shard} is not one of the log's {}", self.lanes.len());
            return now(Appended::NotWritten(LogError::Refused(why)));
        };
        let _in_order = lane.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_empty() {
            // Others claim as well, and copies are long: readers see it by reading.
            self.tail.want(shard);
        }
        match self.instance(shard, anew) {
            Ok(instance) => {
                let answer = instance.send(shard, records, own, bytes);
                Box::pin(async move {
                    answer.await.unwrap_or_else(|_| {
                        Appended::Unknown(LogError::Unavailable("the producer is gone".to_owned()))
                    })
                })
            }
            Err(answer) => now(answer),
        }
    }

    /// What a broker would refuse for good is refused before, since a refusal by the broker ends the producer.
    /// Says how many bytes there are.
    fn check(&self, records: &[Arc<Record>]) -> Result<usize, LogError> {
        let mut all = 0;
        for record in records {
            let bytes = record.stored_bytes();
            if bytes > self.settings.record_bytes {
                return Err(LogError::Refused(format!(
                    "record {} has {bytes} bytes; log.record_bytes is {}",
                    record.id(),
                    self.settings.record_bytes
                )));
            }
            all += bytes;
            // The client takes 0 for "now", and brokers take negative times for none.
            if record.timestamp_ms <= 0 {
                return Err(LogError::Refused(format!(
                    "record {} has the time {} ms; a record's time is after 1970",
                    record.id(),
                    record.timestamp_ms
                )));
            }
        }
        Ok(all)
    }

    fn instance(&self, shard: Shard, claims: bool) -> Result<Arc<Instance>, Appended> {
        let mut producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        if producers.closed {
            let why = LogError::Unavailable("this log was closed".to_owned());
            return Err(Appended::NotWritten(why));
        }
        let lost = || {
            Appended::Unknown(LogError::Unavailable(format!(
                "shard {shard} lost its producer and has to be claimed"
            )))
        };
        let (id, start) = match producers.instances.route(shard, claims) {
            Route::Lost => return Err(lost()),
            Route::Through {
                instance,
                start,
                retire,
            } => {
                for id in retire {
                    if let Some(instance) = producers.running.remove(&id) {
                        instance.retire();
                    }
                }
                (instance, start)
            }
        };
        if !start {
            return producers.running.get(&id).cloned().ok_or_else(lost);
        }
        let started = match producers.spare.take_if(|(spare, _)| *spare == id) {
            Some((_, instance)) => Ok(instance),
            None => self.start(&mut producers, id),
        };
        match started {
            Ok(instance) => {
                producers.running.insert(id, Arc::clone(&instance));
                self.start_spare(&mut producers);
                Ok(instance)
            }
            Err(error) => {
                producers.instances.lose(id);
                Err(Appended::NotWritten(unavailable(
                    "cannot start a producer",
                    &error,
                )))
            }
        }
    }

    /// Has a producer ready for the first append, which else takes a second.
    pub(super) fn warm_up(&self) {
        let mut producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        if !producers.closed {
            self.start_spare(&mut producers);
        }
    }

    fn start_spare(&self, producers: &mut Producers) {
        let wanted = producers.instances.spare();
        if producers.spare.as_ref().map(|(id, _)| *id) == wanted {
            return;
        }
        if let Some((_, instance)) = producers.spare.take() {
            instance.retire();
        }
        let Some(id) = wanted else { return };
        match self.start(producers, id) {
            Ok(instance) => producers.spare = Some((id, instance)),
            Err(error) => tracing::warn!(%error, "cannot start a producer ahead"),
        }
    }

    fn start(&self, producers: &mut Producers, id: InstanceId) -> KafkaResult<Arc<Instance>> {
        let this = Weak::clone(&self.this);
        let on_fatal = Box::new(move |id| {
            if let Some(this) = this.upgrade() {
                this.lose(id);
            }
        });
        let tail = Arc::clone(&self.tail);
        let (instance, thread) = Instance::start(&self.settings, &self.topic, tail, id, on_fatal)?;
        producers.threads.retain(|thread| !thread.is_finished());
        producers.threads.push(thread);
        Ok(instance)
    }

    fn lose(&self, id: InstanceId) {
        let mut producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        producers.instances.lose(id);
        if let Some(instance) = producers.running.remove(&id) {
            instance.retire();
        }
        if let Some((_, instance)) = producers.spare.take_if(|(spare, _)| *spare == id) {
            instance.retire();
        }
    }

    /// Gives up what is under way and ends all producers; the threads to wait for.
    pub(super) fn close(&self) -> Vec<JoinHandle<()>> {
        let mut producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        producers.closed = true;
        for instance in std::mem::take(&mut producers.running).into_values() {
            instance.retire();
        }
        if let Some((_, instance)) = producers.spare.take() {
            instance.retire();
        }
        std::mem::take(&mut producers.threads)
    }

    /// How many producers run and carry shards.
    #[cfg(test)]
    pub(super) fn running(&self) -> Vec<InstanceId> {
        let producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        producers.running.keys().copied().collect()
    }
}

fn claims(records: &[Arc<Record>]) -> bool {
    records.iter().any(|record| matches!(record.meta, Meta::Claim(_)))
}

fn now(answer: Appended) -> Appending {
    Box::pin(std::future::ready(answer))
}

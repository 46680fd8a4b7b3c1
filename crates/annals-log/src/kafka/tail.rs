//! One consumer that follows the ends of all shards in use, and fills the rings that readers share.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use annals_record::hash::slot_hash;
use annals_record::record::Slot;
use annals_record::{Offset, Shard};
use metrics::counter;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::time::Instant;

use super::catch_up::CatchUp;
use super::client::Context;
use super::wire;
use crate::metrics as names;
use crate::recent::Recent;
use crate::{LogError, Placed};

/// How long a wish to follow a shard may wait. Records do not wait for it.
const TICK: Duration = Duration::from_millis(10);
/// A shard that nobody read for so long is not followed any more.
const UNUSED: Duration = Duration::from_secs(60);
/// Records taken from the consumer before the rings are told.
const BATCH: usize = 256;

/// What is followed, shared by readers and the consumer's thread.
#[derive(Debug)]
pub(super) struct Tail {
    topic: String,
    recent: Arc<Recent>,
    followed: Mutex<BTreeMap<Shard, Followed>>,
    stopping: AtomicBool,
}

#[derive(Debug)]
struct Followed {
    /// The offset that has to come next.
    next: Offset,
    /// Whether the consumer was told.
    assigned: bool,
    /// Why nothing comes after `next`.
    broken: Option<LogError>,
    used: Instant,
}

/// What one round took of a shard.
struct Taken {
    next: Offset,
    records: Vec<Arc<Placed>>,
    broken: Option<LogError>,
}

/// What is known of a shard.
#[derive(Debug)]
pub(super) enum State {
    /// Followed; this offset comes next.
    Next(Offset),
    /// Followed up to this offset, and no further.
    Broken(Offset, LogError),
    /// Not followed.
    No,
}

impl Tail {
    pub(super) fn start(
        topic: String,
        consumer: Arc<BaseConsumer<Context>>,
        recent: Arc<Recent>,
        catch_up: Arc<CatchUp>,
    ) -> Result<(Arc<Self>, JoinHandle<()>), LogError> {
        let tail = Arc::new(Self {
            topic,
            recent,
            followed: Mutex::new(BTreeMap::new()),
            stopping: AtomicBool::new(false),
        });
        let thread = std::thread::Builder::new()
            .name("annals-tail".to_owned())
            .spawn({
                let tail = Arc::clone(&tail);
                move || {
                    tail.run(&consumer);
                    // Closing consumers takes a moment each, which this thread has.
                    catch_up.close();
                }
            })
            .map_err(|error| LogError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok((tail, thread))
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// What is known of the shard; it counts as used.
    pub(super) fn state(&self, shard: Shard) -> State {
        match self.followed().get_mut(&shard) {
            None => State::No,
            Some(followed) => {
                followed.used = Instant::now();
                match &followed.broken {
                    None => State::Next(followed.next),
                    Some(why) => State::Broken(followed.next, why.clone()),
                }
            }
        }
    }

    /// Follows the shard from `next` on, unless it is followed already.
    pub(super) fn follow(&self, shard: Shard, next: Offset) {
        self.followed().entry(shard).or_insert_with(|| {
            self.recent.reset(shard, next);
            Followed {
                next,
                assigned: false,
                broken: None,
                used: Instant::now(),
            }
        });
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<Shard, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, consumer: &BaseConsumer<Context>) {
        let mut looked = Instant::now();
        while !self.stopping.load(Ordering::Acquire) {
            if looked.elapsed() > UNUSED / 60 {
                looked = Instant::now();
                self.leave_unused(consumer);
            }
            self.assign_new(consumer);
            self.take_batch(consumer);
        }
    }

    fn take_batch(&self, consumer: &BaseConsumer<Context>) {
        let mut batch: BTreeMap<Shard, Taken> = BTreeMap::new();
        let mut wait = TICK;
        for _ in 0..BATCH {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => self.take(&message, &mut batch),
                Some(Err(error)) => {
                    self.publish(std::mem::take(&mut batch));
                    self.stumble(consumer, &error);
                }
            }
            wait = Duration::ZERO;
        }
        self.publish(batch);
    }

    fn take(&self, message: &BorrowedMessage<'_>, batch: &mut BTreeMap<Shard, Taken>) {
        let Ok(shard) = Shard::try_from(message.partition()) else {
            return;
        };
        let taken = match batch.entry(shard) {
            Entry::Occupied(taken) => taken.into_mut(),
            Entry::Vacant(place) => match self.followed().get(&shard) {
                Some(followed) if followed.broken.is_none() => place.insert(Taken {
                    next: followed.next,
                    records: Vec::new(),
                    broken: None,
                }),
                _ => return,
            },
        };
        if taken.broken.is_some() {
            return;
        }
        match placed_next(shard, taken.next, message) {
            Ok(placed) => {
                taken.next = placed.offset.next();
                taken.records.push(Arc::new(placed));
            }
            Err(why) => taken.broken = Some(why),
        }
    }

    /// Rings first, then what is said of them: whoever is below `next` finds the record, if it is kept.
    fn publish(&self, batch: BTreeMap<Shard, Taken>) {
        for (shard, taken) in batch {
            self.recent.push(shard, &taken.records);
            if let Some(followed) = self.followed().get_mut(&shard) {
                followed.next = taken.next;
                followed.broken = taken.broken;
            }
        }
    }

    fn assign_new(&self, consumer: &BaseConsumer<Context>) {
        let mut all = self.followed();
        for (shard, followed) in all.iter_mut().filter(|(_, followed)| !followed.assigned) {
            let assigned =
                at(&self.topic, *shard, followed.next).and_then(|list| consumer.incremental_assign(&list));
            // Left again at the next look, and tried anew when somebody reads.
            if let Err(error) = assigned {
                tracing::warn!(%shard, %error, "cannot follow a shard");
                followed.broken = Some(LogError::Unavailable(format!(
                    "cannot follow shard {shard}: {error}"
                )));
            }
            followed.assigned = true;
        }
    }

    /// Stops following what nobody reads, and what is broken: the next reader begins anew.
    fn leave_unused(&self, consumer: &BaseConsumer<Context>) {
        let topic = &self.topic;
        self.followed().retain(|shard, followed| {
            if followed.used.elapsed() <= UNUSED && followed.broken.is_none() {
                return true;
            }
            if followed.assigned {
                leave(consumer, topic, *shard);
            }
            false
        });
    }

    /// What a consumer says beside records. Most of it passes by itself; where a shard's end is not where it was,
    /// nothing that was read is sure any more.
    fn stumble(&self, consumer: &BaseConsumer<Context>, error: &KafkaError) {
        tracing::warn!(%error, "following the log");
        let moved = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::LogTruncation
            )
        );
        if moved {
            // The client does not say which shard it was.
            let all = std::mem::take(&mut *self.followed());
            for shard in all.into_keys() {
                leave(consumer, &self.topic, shard);
                self.recent.reset(shard, Offset::new(0));
            }
        }
    }
}

fn leave(consumer: &BaseConsumer<Context>, topic: &str, shard: Shard) {
    let left = at(topic, shard, Offset::new(0)).and_then(|list| consumer.incremental_unassign(&list));
    if let Err(error) = left {
        tracing::warn!(%shard, %error, "cannot leave a shard");
    }
}

/// A place, as consumers are told it.
pub(super) fn at(topic: &str, shard: Shard, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let out_of_range = || KafkaError::MessageConsumption(RDKafkaErrorCode::InvalidArgument);
    let partition = i32::try_from(shard).map_err(|_| out_of_range())?;
    let offset = i64::try_from(offset).map_err(|_| out_of_range())?;
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(offset))?;
    Ok(list)
}

/// The record at its place, hashed. Offsets are dense: a hole means that something was deleted, compacted or
/// aborted.
pub(super) fn placed_next(
    shard: Shard,
    expected: Offset,
    message: &BorrowedMessage<'_>,
) -> Result<Placed, LogError> {
    if Offset::try_from(message.offset()) != Ok(expected) {
        counter!(names::KAFKA_GAPS, "shard" => shard.to_string()).increment(1);
        return Err(LogError::Refused(format!(
            "shard {shard} has offset {} where {expected} should be: records are missing (deleted, compacted, \
             or a transaction's marker)",
            message.offset()
        )));
    }
    let slot = Slot::parse(wire::raw(message));
    let hash = slot_hash(&slot);
    Ok(Placed::new(expected, slot, hash))
}

//! One consumer that follows the ends of all shards in use, and fills the rings that readers share.
//!
//! Where this process itself writes a shard, what it appended fills the ring as it is delivered, and the consumer
//! only comes back to look ([`feed`](super::feed)).

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
use super::feed::{Feed, Turn};
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
    /// Where the ring ends: what readers get next.
    next: Offset,
    /// What the consumer brings next, at or below `next`; none while it does not read this shard.
    reads: Option<Offset>,
    feed: Feed,
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
            let now = Instant::now();
            Followed {
                next,
                reads: None,
                feed: Feed::new(now),
                broken: None,
                used: now,
            }
        });
    }

    /// Records of this process landed at these offsets, all of one append.
    pub(super) fn delivered(&self, shard: Shard, records: &[Arc<Placed>]) {
        let mut all = self.followed();
        let Some(followed) = all.get_mut(&shard).filter(|followed| followed.broken.is_none()) else {
            return;
        };
        let (next, fitted) = self.recent.extend(shard, records);
        followed.next = followed.next.max(next.unwrap_or_default());
        if fitted {
            followed.feed.fitted(Instant::now());
        } else {
            followed.feed.want();
        }
    }

    /// Has the consumer read the shard: what comes next is not known to be this process's own.
    pub(super) fn want(&self, shard: Shard) {
        if let Some(followed) = self.followed().get_mut(&shard) {
            followed.feed.want();
        }
    }

    /// Whether the consumer has left the shard to own appends.
    #[cfg(test)]
    pub(super) fn is_away(&self, shard: Shard) -> bool {
        let all = self.followed();
        all.get(&shard).is_some_and(|followed| followed.reads.is_none())
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<Shard, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, consumer: &BaseConsumer<Context>) {
        let mut looked = Instant::now();
        let mut took_turns = looked;
        while !self.stopping.load(Ordering::Acquire) {
            let now = Instant::now();
            if now.duration_since(looked) > UNUSED / 60 {
                looked = now;
                self.leave_unused(consumer);
            }
            if now.duration_since(took_turns) >= TICK {
                took_turns = now;
                self.take_turns(consumer, now);
            }
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
                Some(Followed {
                    reads: Some(next),
                    broken: None,
                    ..
                }) => place.insert(Taken {
                    next: *next,
                    records: Vec::new(),
                    broken: None,
                }),
                _ => return,
            },
        };
        // Below: left over from what was read before.
        if taken.broken.is_some()
            || Offset::try_from(message.offset()).is_ok_and(|offset| offset < taken.next)
        {
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
            let mut all = self.followed();
            let Some(followed) = all.get_mut(&shard) else {
                continue;
            };
            if self.recent.push(shard, &taken.records) {
                counter!(names::KAFKA_DELIVERED_OTHERWISE).increment(1);
                tracing::error!(%shard, "the log holds another record than the one that was delivered or read before");
                followed.feed.want();
                followed.next = taken.next;
            }
            if !taken.records.is_empty() {
                followed.feed.brought();
            }
            followed.reads = Some(taken.next);
            followed.next = followed.next.max(taken.next);
            followed.broken = taken.broken;
        }
    }

    /// Begins to read shards, and leaves those that need not be read.
    fn take_turns(&self, consumer: &BaseConsumer<Context>, now: Instant) {
        let (mut joins, mut leaves) = (Vec::new(), Vec::new());
        for (shard, followed) in self.followed().iter_mut() {
            match followed.feed.turn(now) {
                Turn::Stay => {}
                Turn::Leave => {
                    followed.reads = None;
                    followed.feed.left(now);
                    leaves.push(*shard);
                }
                Turn::Join => {
                    // The newest one that is known is read again, and compared.
                    let newest = self.recent.last(*shard);
                    let newest = newest.filter(|newest| newest.next() == followed.next);
                    let from = newest.unwrap_or(followed.next);
                    followed.reads = Some(from);
                    followed.feed.joined();
                    joins.push((*shard, from));
                }
            }
        }
        for shard in leaves {
            leave(consumer, &self.topic, shard);
        }
        for (shard, from) in joins {
            let joined = at(&self.topic, shard, from).and_then(|list| consumer.incremental_assign(&list));
            // Left again at the next look, and tried anew when somebody reads.
            if let Err(error) = joined {
                tracing::warn!(%shard, %error, "cannot follow a shard");
                if let Some(followed) = self.followed().get_mut(&shard) {
                    followed.broken = Some(LogError::Unavailable(format!(
                        "cannot follow shard {shard}: {error}"
                    )));
                }
            }
        }
    }

    /// Stops following what nobody reads, and what is broken: the next reader begins anew.
    fn leave_unused(&self, consumer: &BaseConsumer<Context>) {
        let topic = &self.topic;
        self.followed().retain(|shard, followed| {
            if followed.used.elapsed() <= UNUSED && followed.broken.is_none() {
                return true;
            }
            if followed.reads.is_some() {
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
            for (shard, followed) in all {
                if followed.reads.is_some() {
                    leave(consumer, &self.topic, shard);
                }
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

//! A few consumers for readers that are behind what the rings hold.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_record::{Offset, Shard};
use metrics::counter;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::client::{Context, unavailable};
use super::settings::KafkaSettings;
use super::tail::{at, placed_next};
use crate::metrics as names;
use crate::recent::Taken;
use crate::{LogError, Placed, ReadLimits};

/// How many there are at most: each may hold 8 MiB that it has fetched ahead.
const CONSUMERS: usize = 4;
/// An idle one older than this is closed when another one is given back.
const IDLE: Duration = Duration::from_secs(10);

/// The consumers; each goes on where it is when the next read begins there.
#[derive(Debug)]
pub(super) struct CatchUp {
    settings: KafkaSettings,
    topic: String,
    group: String,
    permits: Semaphore,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Reader>>>,
}

struct Reader {
    consumer: BaseConsumer<Context>,
    /// What comes next, if anything is assigned.
    at: Option<(Shard, Offset)>,
    used: Instant,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl CatchUp {
    pub(super) fn new(settings: KafkaSettings, topic: String, group: String) -> Arc<Self> {
        Arc::new(Self {
            settings,
            topic,
            group,
            permits: Semaphore::new(CONSUMERS),
            idle: Mutex::new(Some(Vec::new())),
        })
    }

    /// Records from `from` on, which are there; none if they do not come within the limits' time.
    pub(super) async fn read(
        self: &Arc<Self>,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        let until = Instant::now() + limits.wait;
        let Ok(Ok(_permit)) = timeout_at(until, self.permits.acquire()).await else {
            return Ok(Vec::new());
        };
        counter!(names::READS_STORED).increment(1);
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || this.read_now(shard, from, limits, until));
        match read.await {
            Ok(read) => read,
            Err(error) => Err(LogError::Unavailable(format!("a read ended: {error}"))),
        }
    }

    fn read_now(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
        until: Instant,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        let mut reader = self.take(shard, from)?;
        let read = reader.read(&self.topic, shard, from, limits, until);
        if read.is_err() {
            reader.at = None;
        }
        self.give_back(reader);
        read
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Reader>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that is there already, else any, else a new one.
    fn take(&self, shard: Shard, from: Offset) -> Result<Reader, LogError> {
        if let Some(idle) = self.idle().as_mut() {
            let here = idle.iter().position(|reader| reader.at == Some((shard, from)));
            if let Some(index) = here {
                return Ok(idle.swap_remove(index));
            }
            // The one that waited longest is the least likely to be asked for again.
            let oldest = (0..idle.len()).min_by_key(|index| idle[*index].used);
            if let Some(index) = oldest.filter(|_| idle.len() >= CONSUMERS) {
                return Ok(idle.swap_remove(index));
            }
        }
        let config = self.settings.consumer("catch-up", &self.group);
        let consumer = BaseConsumer::from_config_and_context(&config, Context::new(&self.settings))
            .map_err(|error| unavailable("cannot make a consumer", &error))?;
        Ok(Reader {
            consumer,
            at: None,
            used: Instant::now(),
        })
    }

    fn give_back(&self, mut reader: Reader) {
        reader.used = Instant::now();
        let mut closing = Vec::new();
        match self.idle().as_mut() {
            None => closing.push(reader),
            Some(idle) => {
                let (old, kept) = idle.drain(..).partition(|reader| reader.used.elapsed() > IDLE);
                closing = old;
                *idle = kept;
                idle.push(reader);
                if idle.len() > CONSUMERS {
                    closing.push(idle.swap_remove(0));
                }
            }
        }
        // Closing takes a moment each: not under the lock.
        drop(closing);
    }

    /// Closes all; blocks for a moment.
    pub(super) fn close(&self) {
        self.permits.close();
        let all = self.idle().take();
        drop(all);
    }
}

impl Reader {
    fn read(
        &mut self,
        topic: &str,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
        until: Instant,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        if self.at != Some((shard, from)) {
            at(topic, shard, from)
                .and_then(|list| self.consumer.assign(&list))
                .map_err(|error| unavailable("cannot read", &error))?;
            self.at = Some((shard, from));
        }
        let mut next = from;
        let mut taken = Taken::new(limits);
        loop {
            // With something in hand nothing is waited for.
            let wait = match taken.records.is_empty() {
                true => until.saturating_duration_since(Instant::now()),
                false => Duration::ZERO,
            };
            match self.consumer.poll(wait) {
                None => break,
                Some(Err(error)) if taken.records.is_empty() => {
                    return Err(unavailable("cannot read", &error));
                }
                // It is met again by the next read, which begins where it is.
                Some(Err(_)) => {
                    self.at = None;
                    return Ok(taken.records);
                }
                // Left over from what was assigned before.
                Some(Ok(message)) if Shard::try_from(message.partition()) != Ok(shard) => {}
                Some(Ok(message)) => match placed_next(shard, next, &message) {
                    Ok(placed) => {
                        next = placed.offset.next();
                        self.at = Some((shard, next));
                        if !taken.take(Arc::new(placed)) {
                            break;
                        }
                    }
                    Err(error) if taken.records.is_empty() => return Err(error),
                    Err(_) => {
                        self.at = None;
                        return Ok(taken.records);
                    }
                },
            }
        }
        Ok(taken.records)
    }
}

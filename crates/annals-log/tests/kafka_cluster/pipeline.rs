//! Writers under load over a log that is being hurt, each with what it was told; and the proof of it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use annals_log::writer::{Draft, Input, Output, ShardWriter, WriterSettings};
use annals_log::{Checkpoint, Log, LogError, ReadLimits};
use annals_record::fold::{Fold, Head, Verdict};
use annals_record::value::ClaimValue;
use annals_record::{
    AppName, Generation, Hash32, KeyHash, Offset, RecordId, Shard, ShardCount, StreamId, Version, hash,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{RwLock, watch};
use tokio::time::{Instant, sleep, timeout};

/// A log that can be changed for another one while writers use it: a producer that is destroyed.
pub type Current = Arc<RwLock<Arc<dyn Log>>>;

/// What writers shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    Write,
    /// Own their shards and write nothing.
    Pause,
    /// Settle what is open, and end.
    End,
}

/// Records that a writer has open at once.
const DEPTH: usize = 12;

/// What one writer was told.
#[derive(Debug, Default)]
pub struct Told {
    pub acknowledged: Vec<(RecordId, Offset)>,
    pub never: Vec<RecordId>,
    /// Claims that counted.
    pub claims: u64,
    /// Why it stopped being owner, in words, how often.
    pub stops: BTreeMap<String, u64>,
    /// Landings that were not where they were expected, and had to be read.
    pub repairs: u64,
    pub halted: Option<String>,
    /// The longest time without an acknowledgement.
    pub longest: Duration,
    /// How long the first claim took.
    pub first_claim: Duration,
    /// What a reader beside it, in the same process, folded up to its last acknowledged record.
    pub read: Option<Head>,
}

pub struct Pipeline {
    log: Current,
    writer: ShardWriter,
    value: Bytes,
    made: u64,
    acknowledged: Arc<AtomicU64>,
}

pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

impl Pipeline {
    pub fn new(log: &Current, app: &AppName, shard: Shard, shards: ShardCount) -> Self {
        let genesis = hash::genesis(app, shard, shards);
        let settings = WriterSettings {
            appends_in_flight: 4,
            ..WriterSettings::default()
        };
        let value = ClaimValue {
            app: app.clone(),
            shard,
            shards,
            generation: Generation::FIRST,
            node: "test".to_owned(),
            url: "http://test".to_owned(),
        };
        let at = Checkpoint::genesis(Head::at_genesis(genesis));
        Self {
            log: Arc::clone(log),
            writer: ShardWriter::new(shard, genesis, &at, settings),
            value: value.to_bytes(),
            made: 0,
            acknowledged: Arc::default(),
        }
    }

    /// How many records its writer has been told of so far, to be looked at while it runs.
    pub fn acknowledged(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.acknowledged)
    }

    fn id(&mut self) -> RecordId {
        self.made += 1;
        let mut random = [0; 10];
        random[..2].copy_from_slice(&(self.writer.shard().get() as u16).to_be_bytes());
        random[2..].copy_from_slice(&self.made.to_be_bytes());
        RecordId::from_parts(u64::try_from(now_ms()).unwrap(), random)
    }

    fn submit(&mut self) {
        let id = self.id();
        let draft = Draft {
            id,
            stream: StreamId::try_from("order-1").unwrap(),
            refusal: false,
            time_ms: self.writer.next_time(now_ms()),
            version: Version::new(1),
            count: 0,
            idempotency_key: KeyHash::of(&self.made.to_string()),
            traceparent: None,
            value: Bytes::from(vec![b' '; 300]),
        };
        self.writer.submit(draft).unwrap();
    }

    /// Claims, and does as it is told until the end.
    pub async fn run(mut self, mut go: watch::Receiver<Go>) -> Told {
        let mut told = Told::default();
        let mut open: FuturesUnordered<BoxFuture<'static, Input>> = FuturesUnordered::new();
        let mut out = Vec::new();
        let (began, mut last) = (Instant::now(), Instant::now());
        let (mut claim_at, mut claimed_at) = (Some(Instant::now()), Instant::now());
        loop {
            if claim_at.is_some_and(|at| at <= Instant::now()) {
                claim_at = None;
                claimed_at = Instant::now();
                let (id, value) = (self.id(), self.value.clone());
                let time_ms = now_ms();
                self.writer.step(Input::Claim { id, time_ms, value }, &mut out);
            }
            if self.writer.is_owner() && *go.borrow() == Go::Write {
                while self.writer.pending() < DEPTH {
                    self.submit();
                }
                self.writer.flush(&mut out);
            }
            for output in std::mem::take(&mut out) {
                match output {
                    Output::Append { append, at, records } => {
                        let appending = self
                            .log
                            .read()
                            .await
                            .append_hashed(self.writer.shard(), at, records);
                        open.push(Box::pin(async move {
                            Input::Appended {
                                append,
                                result: appending.await,
                            }
                        }));
                    }
                    Output::Read(from) => {
                        told.repairs += u64::from(self.writer.is_owner());
                        let (log, shard) = (Arc::clone(&self.log), self.writer.shard());
                        open.push(Box::pin(read(log, shard, from)));
                    }
                    Output::End => {
                        let (log, shard) = (Arc::clone(&self.log), self.writer.shard());
                        open.push(Box::pin(end(log, shard)));
                    }
                    Output::Owner => {
                        told.claims += 1;
                        if told.claims == 1 {
                            told.first_claim = began.elapsed();
                            last = Instant::now();
                        }
                    }
                    Output::Accepted { record, offset } => {
                        told.longest = told.longest.max(last.elapsed());
                        last = Instant::now();
                        told.acknowledged.push((record.id(), offset));
                        self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Output::NeverHappened(record) => told.never.push(record.id()),
                    Output::Stopped(why) => {
                        *told.stops.entry(why.to_string()).or_default() += 1;
                        claim_at = Some(Instant::now() + Duration::from_millis(50));
                    }
                    Output::Lost(_) => claim_at = Some(Instant::now() + Duration::from_millis(50)),
                    Output::Halted(why) => told.halted = Some(why.to_string()),
                    Output::Closed | Output::Ghost { .. } | Output::OtherAccepted { .. } => {}
                }
            }
            let settled = self.writer.pending() == 0 && claim_at.is_none();
            if told.halted.is_some()
                || (*go.borrow() == Go::End && settled && told.claims > 0 && self.writer.is_owner())
            {
                return told;
            }
            tokio::select! {
                Some(input) = open.next() => self.writer.step(input, &mut out),
                _ = go.changed() => {}
                () = sleep(Duration::from_millis(100)) => {
                    if self.writer.awaits_its_claim() && claimed_at.elapsed() > Duration::from_secs(10) {
                        claimed_at = Instant::now();
                        self.writer.step(Input::GiveUpClaim, &mut out);
                    }
                }
            }
        }
    }
}

/// Writes, and reads beside it through the same log until the last record that was acknowledged.
pub async fn run_and_read(pipeline: Pipeline, genesis: Hash32, go: watch::Receiver<Go>) -> Told {
    let (log, shard) = (Arc::clone(&pipeline.log), pipeline.writer.shard());
    let (until, wanted) = watch::channel(None);
    let writing = async {
        let told = pipeline.run(go).await;
        let last = told.acknowledged.last().map(|(_, offset)| offset.next());
        until.send_replace(Some(last.filter(|_| told.halted.is_none()).unwrap_or_default()));
        told
    };
    let reading = async {
        let mut fold = Fold::from_genesis(genesis);
        let limits = ReadLimits {
            wait: Duration::from_millis(100),
            ..ReadLimits::default()
        };
        while wanted.borrow().is_none_or(|until| fold.head().next < until) {
            let log = Arc::clone(&*log.read().await);
            match log.read(shard, fold.head().next, limits).await {
                Ok(placed) => {
                    for placed in placed {
                        fold.step(&placed.slot, placed.hash);
                    }
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        *fold.head()
    };
    let (mut told, head) = tokio::join!(writing, reading);
    told.read = told.halted.is_none().then_some(head);
    told
}

async fn read(log: Current, shard: Shard, from: Offset) -> Input {
    let began = Instant::now();
    loop {
        let log = Arc::clone(&*log.read().await);
        match log.read(shard, from, ReadLimits::default()).await {
            Ok(slots) => return Input::Read(slots),
            Err(LogError::BeyondEnd { end, .. }) if began.elapsed() > Duration::from_secs(15) => {
                return Input::Truncated(end);
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn end(log: Current, shard: Shard) -> Input {
    loop {
        let log = Arc::clone(&*log.read().await);
        match timeout(Duration::from_secs(20), log.end(shard)).await {
            Ok(Ok(end)) => return Input::End(end),
            Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What all writers were told against what is in the log.
#[derive(Debug, Default)]
pub struct Sum {
    pub acknowledged: usize,
    pub claims: u64,
    pub repairs: u64,
    pub stops: BTreeMap<String, u64>,
    pub longest: Duration,
    pub ghosts: BTreeMap<&'static str, u64>,
    pub lost: usize,
    pub doubled: usize,
    pub wrongly_never: usize,
    pub halted: usize,
    /// Readers beside the writers that folded something else than the log, opened anew, holds.
    pub disagreed: usize,
}

/// Asks until there is an answer: leaders may still be on their way back.
async fn answered<T>(ask: impl AsyncFn() -> Result<T, LogError>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(LogError::Unavailable(_)) if Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Folds the whole log, opened anew, and compares.
pub async fn prove(log: &dyn Log, app: &AppName, shards: ShardCount, told: &[(Shard, Told)]) -> Sum {
    let mut sum = Sum::default();
    for (shard, told) in told {
        let mut fold = Fold::from_genesis(hash::genesis(app, *shard, shards));
        let end = answered(async || log.end(*shard).await).await;
        let mut accepted: BTreeMap<RecordId, Offset> = BTreeMap::new();
        let mut agrees = told.read.is_none_or(|head| head == *fold.head());
        while fold.head().next < end {
            let from = fold.head().next;
            for placed in answered(async || log.read(*shard, from, ReadLimits::default()).await).await {
                match fold.step(&placed.slot, placed.hash) {
                    Verdict::Accept => {
                        let record = placed.slot.known().unwrap();
                        sum.doubled += usize::from(accepted.insert(record.id(), placed.offset).is_some());
                    }
                    Verdict::Ghost(why) => *sum.ghosts.entry(why.as_str()).or_default() += 1,
                    Verdict::Halt(why) => panic!("shard {shard}: {why}"),
                }
                agrees |= told.read.is_some_and(|head| head == *fold.head());
            }
        }
        let distinct: BTreeSet<_> = told.acknowledged.iter().map(|(id, _)| *id).collect();
        sum.doubled += told.acknowledged.len() - distinct.len();
        sum.lost += told
            .acknowledged
            .iter()
            .filter(|(id, at)| accepted.get(id) != Some(at))
            .count();
        sum.wrongly_never += told.never.iter().filter(|id| accepted.contains_key(id)).count();
        sum.disagreed += usize::from(!agrees);
        sum.acknowledged += told.acknowledged.len();
        sum.claims += told.claims;
        sum.repairs += told.repairs;
        for (why, count) in &told.stops {
            *sum.stops.entry(why.clone()).or_default() += count;
        }
        sum.longest = sum.longest.max(told.longest);
        sum.halted += usize::from(told.halted.is_some());
    }
    sum
}

//! One shard's part of the engine: its streams, its writer, and everything that waits on either.
//!
//! *Invariant (L6):* a reply that depends on a stream's state leaves here only when the writer says that the fold
//! accepted its record. *Invariant (L5):* a command is decided only while the writer is owner, on a state that
//! holds every accepted record of its stream and every one decided before it.

mod claim;
mod decide;
mod plants;
mod settle;
mod watch;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use annals_domain::{Ambient, Catalog, CommandRequest};
use annals_log::writer::{self, ShardWriter};
use annals_log::{LoadRequest, Loaded, StoreError};
use annals_record::fold::Head;
use annals_record::record::Record;
use annals_record::value::ClaimValue;
use annals_record::{Generation, Hash32, Offset, Position, RecordId, Shard, StreamId, Version};
use bytes::Bytes;
use foldhash::fast::FixedState;

use crate::answer::{Answer, Outcome, SendError};
use crate::budget::Budgets;
use crate::engine::{Effect, FetchId, Token};
use crate::metrics;
use crate::settings::EngineSettings;
use crate::slot::{BuildError, Live, Loading, Slot};
use claim::CatchingUp;

/// A command that waits for something.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) token: Token,
    pub(crate) request: Box<CommandRequest>,
    /// After this nobody waits for the answer, ms.
    pub(crate) deadline_ms: i64,
}

/// A command whose record is with the log.
#[derive(Debug)]
struct Pending {
    command: Waiting,
    incarnation: u64,
    bytes: usize,
    /// What its sender will be told, and nobody is before the fold accepted the record.
    decided: Decided,
    /// Repeats of it, which wait for its outcome.
    repeats: Vec<Waiting>,
}

/// What was decided: the record says the same, but need not be read again for the first answer.
#[derive(Debug)]
struct Decided {
    /// The stream's version behind the record.
    version: Version,
    outcome: Outcome,
}

/// Whose the shard is, as far as leases say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lease {
    /// This node's.
    Ours,
    /// Another's, at this internal address.
    Theirs(String),
    /// Nobody's that is known.
    Unknown,
}

/// What every shard of an engine shares.
pub(crate) struct Shared<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) settings: &'a EngineSettings,
    pub(crate) ambient: &'a Ambient,
    pub(crate) budgets: &'a mut Budgets,
    pub(crate) cache: &'a mut Cache,
    pub(crate) now_ms: i64,
    pub(crate) clock_ok: bool,
    pub(crate) out: &'a mut Vec<Effect>,
}

/// The accounts of all streams in memory, and the order in which they may go.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) bytes: usize,
    pub(crate) queue: VecDeque<(Shard, StreamId, u64)>,
    pub(crate) incarnations: u64,
}

/// Who this node is, as its claims say it.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The node's name.
    pub node: String,
    /// Where other nodes reach it.
    pub url: String,
    /// The log's generation.
    pub generation: Generation,
    /// How many shards the log has.
    pub shards: annals_record::ShardCount,
}

/// One shard of the engine.
#[derive(Debug)]
pub(crate) struct ShardEngine {
    shard: Shard,
    genesis: Hash32,
    generation: Generation,
    claim: Bytes,
    lease: Lease,
    writer: Option<ShardWriter>,
    halted: bool,
    slots: HashMap<StreamId, Slot, FixedState>,
    pending: HashMap<RecordId, Pending, FixedState>,
    pending_bytes: usize,
    /// Commands that wait until this node is owner.
    waiting: VecDeque<Waiting>,
    fetches: BTreeMap<FetchId, (Waiting, Offset)>,
    next_fetch: u64,
    /// Since when the lease is this node's, and the shard is not.
    leased_since_ms: Option<i64>,
    /// Since when a claim has been with the log.
    claiming_since_ms: Option<i64>,
    catching_up: CatchingUp,
    watch: watch::Watch,
    to_load: Vec<LoadRequest>,
    scratch: Vec<writer::Output>,
}

impl ShardEngine {
    pub(crate) fn new(
        shard: Shard,
        genesis: Hash32,
        app: &annals_record::AppName,
        claimant: &Claimant,
        seed: u64,
    ) -> Self {
        let claim = ClaimValue {
            app: app.clone(),
            shard,
            shards: claimant.shards,
            generation: claimant.generation,
            node: claimant.node.clone(),
            url: claimant.url.clone(),
        };
        Self {
            shard,
            genesis,
            generation: claimant.generation,
            claim: claim.to_bytes(),
            lease: Lease::Unknown,
            writer: None,
            halted: false,
            slots: HashMap::with_hasher(FixedState::with_seed(seed)),
            pending: HashMap::with_hasher(FixedState::with_seed(seed)),
            pending_bytes: 0,
            waiting: VecDeque::new(),
            fetches: BTreeMap::new(),
            next_fetch: 0,
            leased_since_ms: None,
            claiming_since_ms: None,
            catching_up: CatchingUp::default(),
            watch: watch::Watch::default(),
            to_load: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn is_owner(&self) -> bool {
        self.writer.as_ref().is_some_and(ShardWriter::is_owner)
    }

    /// What the writer has folded.
    pub(crate) fn head(&self) -> Option<&Head> {
        self.writer.as_ref().map(ShardWriter::head)
    }

    /// How many streams are in memory or on their way.
    pub(crate) fn streams(&self) -> usize {
        self.slots.len()
    }

    /// Whether this incarnation of the stream is in memory.
    pub(crate) fn holds(&self, stream: &StreamId, incarnation: u64) -> bool {
        matches!(self.slots.get(stream), Some(Slot::Live(live)) if live.incarnation == incarnation)
    }

    /// Nothing of this shard is open: it can be handed over.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pending.is_empty() && self.waiting.is_empty()
    }

    pub(crate) fn position(&self, offset: Offset) -> Position {
        Position::new(self.generation, self.shard, offset)
    }

    /// A command arrives.
    pub(crate) fn command(&mut self, command: Waiting, cx: &mut Shared<'_>) {
        if self.halted {
            return reply(cx, command.token, Err(SendError::ShardHalted));
        }
        // Nobody waits for it any more, and nothing has happened.
        if !cx.clock_ok || command.deadline_ms <= cx.now_ms {
            return reply(cx, command.token, Err(SendError::ShardUnavailable));
        }
        if self.is_owner() {
            return self.on_stream(command, cx);
        }
        match &self.lease {
            Lease::Ours if self.watch.is_stalled() => {
                reply(cx, command.token, Err(SendError::LogUnavailable));
            }
            Lease::Ours if self.waiting.len() < cx.settings.mailbox => self.waiting.push_back(command),
            Lease::Ours => reply(cx, command.token, Err(SendError::Overloaded)),
            Lease::Theirs(url) => reply(cx, command.token, Err(SendError::NotOwner { url: url.clone() })),
            Lease::Unknown => reply(cx, command.token, Err(SendError::ShardUnavailable)),
        }
    }

    /// The owner's way: to the stream's slot, loading it if it is cold.
    fn on_stream(&mut self, command: Waiting, cx: &mut Shared<'_>) {
        let Some(aggregate) = cx.catalog.category(command.request.stream.category()) else {
            return reply(cx, command.token, Err(SendError::Internal));
        };
        if self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.tail().bytes() > cx.settings.tail_bytes)
        {
            return reply(cx, command.token, Err(SendError::ShardUnavailable));
        }
        match self.slots.get_mut(&command.request.stream) {
            Some(Slot::Live(live)) => {
                live.touched = true;
                let must_wait =
                    live.in_flight > 0 && live.overdue(cx.settings.snapshot_every) >= OVERDUE_SNAPSHOTS;
                if !must_wait && live.held.is_empty() {
                    self.decide(command, cx);
                } else if live.held.len() < cx.settings.mailbox {
                    live.held.push_back(command);
                } else {
                    reply(cx, command.token, Err(SendError::Overloaded));
                }
            }
            Some(Slot::Loading(loading)) if loading.waiting.len() < cx.settings.mailbox => {
                loading.waiting.push_back(command);
            }
            Some(Slot::Loading(_)) => reply(cx, command.token, Err(SendError::Overloaded)),
            None => {
                let stream = command.request.stream.clone();
                let request = self.load_request(&stream, aggregate.fingerprint());
                self.to_load.push(request);
                let loading = Loading {
                    waiting: VecDeque::from([command]),
                    again: false,
                };
                self.slots.insert(stream, Slot::Loading(loading));
            }
        }
    }

    fn load_request(&self, stream: &StreamId, fingerprint: Hash32) -> LoadRequest {
        LoadRequest {
            shard: self.shard,
            stream: stream.clone(),
            fingerprint,
            in_full: false,
        }
    }

    /// What is to be loaded, up to `most`; the engine puts several shards' into one query.
    pub(crate) fn take_loads(&mut self, most: usize, into: &mut Vec<LoadRequest>) {
        let count = most.min(self.to_load.len());
        into.extend(self.to_load.drain(..count));
    }

    pub(crate) fn wants_loads(&self) -> bool {
        !self.to_load.is_empty()
    }

    /// A stream was loaded, or could not be.
    pub(crate) fn loaded(
        &mut self,
        request: LoadRequest,
        result: Result<Loaded, &StoreError>,
        cx: &mut Shared<'_>,
    ) {
        let stream = request.stream.clone();
        let Some(Slot::Loading(loading)) = self.slots.get_mut(&stream) else {
            return;
        };
        let again = std::mem::take(&mut loading.again);
        let built = match result {
            Err(error) => {
                tracing::warn!(%stream, %error, "a stream could not be loaded");
                return self.fail_load(&stream, &SendError::LogUnavailable, cx);
            }
            Ok(_) if again => Err(BuildError::JournalBehind),
            Ok(loaded) => self.build(&request, loaded, cx),
        };
        match built {
            Ok(live) => self.arrived(stream, live, cx),
            Err(BuildError::JournalBehind) => self.to_load.push(request),
            Err(error @ BuildError::Broken { .. }) => {
                metrics::broken_stream();
                tracing::error!(%error, "a stream is broken: its commands are refused until it is looked into");
                self.fail_load(&stream, &SendError::Internal, cx);
            }
        }
    }

    fn build(&self, request: &LoadRequest, loaded: Loaded, cx: &Shared<'_>) -> Result<Live, BuildError> {
        let stream = &request.stream;
        let aggregate = cx
            .catalog
            .category(stream.category())
            .ok_or_else(|| BuildError::Broken {
                stream: stream.clone(),
                offset: Offset::new(0),
                what: "its aggregate is not registered".to_owned(),
            })?;
        let writer = self.writer.as_ref().ok_or(BuildError::JournalBehind)?;
        let tail = writer.tail();
        let of_stream = |from| -> Box<dyn Iterator<Item = (Offset, &Record)>> {
            Box::new(
                tail.of_stream(stream, from)
                    .map(|(offset, record)| (offset, &**record)),
            )
        };
        let tail_from = if cx.settings.writer.keep_tail {
            tail.from()
        } else {
            Offset::new(0)
        };
        Live::build(
            aggregate,
            stream,
            loaded,
            tail_from,
            of_stream,
            cx.settings.keys_per_stream,
        )
    }

    fn arrived(&mut self, stream: StreamId, mut live: Live, cx: &mut Shared<'_>) {
        cx.cache.incarnations += 1;
        live.incarnation = cx.cache.incarnations;
        live.bytes = live.estimate(&stream);
        cx.cache.bytes += live.bytes;
        cx.cache
            .queue
            .push_back((self.shard, stream.clone(), live.incarnation));
        let before = self.slots.insert(stream, Slot::Live(Box::new(live)));
        let Some(Slot::Loading(loading)) = before else {
            return;
        };
        for command in loading.waiting {
            // By the whole way: the shard may have been lost while the load was under way.
            self.command(command, cx);
        }
    }

    fn fail_load(&mut self, stream: &StreamId, error: &SendError, cx: &mut Shared<'_>) {
        if let Some(Slot::Loading(loading)) = self.slots.remove(stream) {
            for command in loading.waiting {
                reply(cx, command.token, Err(error.clone()));
            }
        }
    }

    /// The indexer has everything below `journal`.
    pub(crate) fn trim(&mut self, journal: Offset) {
        if let Some(writer) = &mut self.writer {
            writer.trim_tail(journal);
        }
    }

    /// Something happened to the writer.
    pub(crate) fn writer_input(&mut self, input: writer::Input, cx: &mut Shared<'_>) {
        if self.begins_anew(&input, cx) {
            return;
        }
        let Some(writer) = &mut self.writer else { return };
        let mut outputs = std::mem::take(&mut self.scratch);
        writer.step(input, &mut outputs);
        self.writer_outputs(&mut outputs, cx);
        self.scratch = outputs;
    }

    /// Hands what was decided to the log.
    pub(crate) fn flush(&mut self, cx: &mut Shared<'_>) {
        self.resign_if_theirs(cx);
        let Some(writer) = &mut self.writer else { return };
        let mut outputs = std::mem::take(&mut self.scratch);
        writer.flush(&mut outputs);
        self.writer_outputs(&mut outputs, cx);
        self.scratch = outputs;
    }

    /// A record was fetched to give its answer again.
    pub(crate) fn fetched(
        &mut self,
        fetch: FetchId,
        result: Result<Option<Arc<Record>>, StoreError>,
        cx: &mut Shared<'_>,
    ) {
        let Some((command, offset)) = self.fetches.remove(&fetch) else {
            return;
        };
        match result {
            Ok(Some(record)) => self.replay_or_decide(command, &record, offset, cx),
            Ok(None) => self.not_in_journal(command, offset, cx),
            Err(_) => reply(cx, command.token, Err(SendError::LogUnavailable)),
        }
    }

    /// A remembered record is not in the journal: it may be in the tail by now, or be another owner's that is known from
    /// its snapshot only, while this node is owner no more and will hear of it.
    fn not_in_journal(&mut self, command: Waiting, offset: Offset, cx: &mut Shared<'_>) {
        let tail = self.writer.as_ref().and_then(|writer| writer.tail().get(offset));
        if let Some(record) = tail.cloned() {
            return self.replay_or_decide(command, &record, offset, cx);
        }
        if !self.is_owner() || self.head().is_none_or(|head| offset >= head.next) {
            return reply(cx, command.token, Err(SendError::ShardUnavailable));
        }
        tracing::error!(shard = %self.shard, %offset, "a remembered record is not in the journal");
        reply(cx, command.token, Err(SendError::Internal));
    }

    /// Takes a stream out of memory if nothing of it is open. `true` if it is gone or was another incarnation.
    pub(crate) fn evict(&mut self, stream: &StreamId, incarnation: u64, cache: &mut Cache) -> bool {
        match self.slots.get_mut(stream) {
            Some(Slot::Live(live)) if live.incarnation == incarnation => {
                if live.in_flight > 0 || !live.held.is_empty() || std::mem::take(&mut live.touched) {
                    return false;
                }
                cache.bytes = cache.bytes.saturating_sub(live.bytes);
                self.slots.remove(stream);
                true
            }
            Some(Slot::Live(_) | Slot::Loading(_)) | None => true,
        }
    }
}

/// A hot stream's next command waits for a snapshot once so many are overdue.
const OVERDUE_SNAPSHOTS: u32 = 10;

pub(crate) fn reply(cx: &mut Shared<'_>, token: Token, result: Result<Answer, SendError>) {
    cx.out.push(Effect::Reply(token, result));
}

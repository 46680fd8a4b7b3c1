//! The engine: many shards, one state machine. What happens goes in, what is to be done comes out.
//!
//! No I/O, no clock, no `select!`: a shell feeds [`Engine::step`] and carries out its [`Effect`]s. Time comes with
//! each step, ids from the injected [`Ambient`]; the same inputs give the same outputs, which is what makes
//! simulation exact.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_domain::{Ambient, Catalog, CommandRequest};
use annals_log::{Checkpoint, LoadRequest, Loaded, Snapshot, StoreError, writer};
use annals_record::fold::Head;
use annals_record::record::Record;
use annals_record::{Offset, Shard, StreamId, hash};

use crate::answer::{Answer, SendError};
use crate::budget::{Budgets, Price};
use crate::metrics;
use crate::settings::EngineSettings;
use crate::shard::{Cache, ShardEngine, Shared, Waiting};
pub use crate::shard::{Claimant, Lease};
use crate::slot::Live;

/// Names a command whose sender waits.
pub type Token = u64;
/// Names a fetch of one record, within a shard.
pub type FetchId = u64;
/// Names a cold load.
pub type LoadId = u64;

/// What happens to an engine.
#[derive(Debug)]
pub enum Input {
    /// A command arrives.
    Command {
        /// For the reply.
        token: Token,
        /// The command.
        request: Box<CommandRequest>,
        /// After this its sender no longer waits, ms.
        deadline_ms: i64,
    },
    /// Leases say whose a shard is.
    Lease(Shard, Lease),
    /// The answer to [`Effect::Journal`].
    Journal(Shard, Checkpoint),
    /// The indexer has everything of a shard below this.
    Indexed(Shard, Offset),
    /// The answer to [`Effect::Bounds`]: the first offset that is there, and the next one; nothing if it is not known.
    Bounds(Shard, Option<(Offset, Offset)>),
    /// A reader of a shard stands here: it must have folded what was folded here (L4).
    Checkpoint {
        /// The shard.
        shard: Shard,
        /// The reader's name.
        reader: String,
        /// Its head.
        head: Head,
    },
    /// Something happened to a shard's writer.
    Writer(Shard, writer::Input),
    /// The answer to [`Effect::Load`].
    Loaded(LoadId, Result<Vec<Loaded>, StoreError>),
    /// The answer to [`Effect::Fetch`].
    Fetched {
        /// Which one.
        fetch: FetchId,
        /// The shard.
        shard: Shard,
        /// The record, if the journal has it.
        result: Result<Option<Arc<Record>>, StoreError>,
    },
    /// Whether this node's clock is near enough to the database's.
    Clock(bool),
    /// Time has passed.
    Tick,
}

/// What an engine wants done.
#[derive(Debug)]
pub enum Effect {
    /// The sender's answer.
    Reply(Token, Result<Answer, SendError>),
    /// Read, append, or ask for the end; then [`Input::Writer`].
    Log {
        /// The shard.
        shard: Shard,
        /// One of `End`, `Read`, `Append`.
        output: writer::Output,
    },
    /// Read how far the journal goes, then [`Input::Journal`]; retried until there is an answer.
    Journal(Shard),
    /// Load streams, then [`Input::Loaded`].
    Load {
        /// For the answer.
        load: LoadId,
        /// The streams, of any shards.
        requests: Vec<LoadRequest>,
    },
    /// Read one record from the journal, then [`Input::Fetched`].
    Fetch {
        /// For the answer.
        fetch: FetchId,
        /// The shard.
        shard: Shard,
        /// Where.
        offset: Offset,
    },
    /// Keep a snapshot.
    Snapshot(Snapshot),
    /// A snapshot of this category was wrong: drop them all.
    DropSnapshots(String),
    /// Not owner any more: ask for the lease, then [`Input::Lease`], not at once.
    AskLease(Shard),
    /// Whether this node is owner, for routing and readiness.
    Owner {
        /// The shard.
        shard: Shard,
        /// Owner or not.
        owner: bool,
    },
    /// Ask the log where the shard begins and ends, then [`Input::Bounds`]; once, not retried.
    Bounds(Shard),
    /// Whether the log owes the shard an answer for too long, for readiness.
    Stalled {
        /// The shard.
        shard: Shard,
        /// For too long, or not any more.
        stalled: bool,
    },
    /// The shard halted.
    Halted {
        /// The shard.
        shard: Shard,
        /// Why.
        reason: String,
    },
}

/// A cold load under way.
#[derive(Debug)]
struct Load {
    requests: Vec<LoadRequest>,
    /// The request, among them, that reads again in full what another reads by snapshot.
    check: Option<usize>,
}

/// Many shards' engine.
pub struct Engine {
    catalog: Catalog,
    settings: EngineSettings,
    ambient: Ambient,
    shards: BTreeMap<Shard, ShardEngine>,
    shard_count: annals_record::ShardCount,
    budgets: Budgets,
    cache: Cache,
    loads: BTreeMap<LoadId, Load>,
    next_load: LoadId,
    loaded_streams: u64,
    clock_ok: bool,
    out: Vec<Effect>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine for these shards of the log; owner of none.
    pub fn new(
        catalog: Catalog,
        settings: EngineSettings,
        ambient: Ambient,
        claimant: &Claimant,
        shards: impl IntoIterator<Item = Shard>,
    ) -> Self {
        let seed = u64::from_be_bytes(ambient.random());
        let shard_count = claimant.shards;
        let shards = shards.into_iter().map(|shard| {
            let genesis = hash::genesis(catalog.app(), shard, shard_count);
            (
                shard,
                ShardEngine::new(shard, genesis, catalog.app(), claimant, seed),
            )
        });
        let price = Price {
            burst: settings.refusal_burst,
            per_minute: settings.refusals_per_minute,
        };
        Self {
            shards: shards.collect(),
            shard_count,
            budgets: Budgets::new(price, seed),
            cache: Cache::default(),
            loads: BTreeMap::new(),
            next_load: 0,
            loaded_streams: 0,
            clock_ok: true,
            out: Vec::new(),
            catalog,
            settings,
            ambient,
        }
    }

    /// Takes in one thing that happened at `now_ms`. [`Self::flush`] gives what follows from it.
    pub fn step(&mut self, now_ms: i64, input: Input) {
        match input {
            Input::Command {
                token,
                request,
                deadline_ms,
            } => {
                let shard = self.shard_count.shard_of(&request.stream);
                let command = Waiting {
                    token,
                    request,
                    deadline_ms,
                };
                let found = self.with(shard, now_ms, |engine, cx| engine.command(command, cx));
                if found.is_none() {
                    self.out
                        .push(Effect::Reply(token, Err(SendError::ShardUnavailable)));
                }
            }
            Input::Lease(shard, lease) => {
                self.with(shard, now_ms, |engine, cx| engine.lease(lease, cx));
            }
            Input::Journal(shard, checkpoint) => {
                self.with(shard, now_ms, |engine, cx| engine.journal(&checkpoint, cx));
            }
            Input::Indexed(shard, offset) => {
                self.with(shard, now_ms, |engine, _| engine.trim(offset));
            }
            Input::Bounds(shard, bounds) => {
                self.with(shard, now_ms, |engine, cx| engine.bounds(bounds, cx));
            }
            Input::Checkpoint { shard, reader, head } => {
                self.with(shard, now_ms, |engine, _| engine.compare(&reader, &head));
            }
            Input::Writer(shard, input) => {
                self.with(shard, now_ms, |engine, cx| engine.writer_input(input, cx));
            }
            Input::Loaded(load, result) => self.loaded(now_ms, load, result),
            Input::Fetched { fetch, shard, result } => {
                self.with(shard, now_ms, |engine, cx| engine.fetched(fetch, result, cx));
            }
            Input::Clock(ok) => self.clock(now_ms, ok),
            Input::Tick => self.tick(now_ms),
        }
    }

    /// Hands what was decided since the last time to the log, puts cold loads together, and gives every effect.
    ///
    /// Call it after a few steps at once: what accumulated shares appends and loads.
    pub fn flush(&mut self, now_ms: i64) -> Vec<Effect> {
        let shards: Vec<Shard> = self.shards.keys().copied().collect();
        for shard in shards {
            self.with(shard, now_ms, |engine, cx| engine.flush(cx));
        }
        self.start_loads();
        self.evict();
        std::mem::take(&mut self.out)
    }

    /// Whether this engine's writer of the shard is owner.
    pub fn is_owner(&self, shard: Shard) -> bool {
        self.shards.get(&shard).is_some_and(ShardEngine::is_owner)
    }

    /// What this engine's writer has folded of the shard; to be compared with any other reader's head (L4).
    pub fn head(&self, shard: Shard) -> Option<&Head> {
        self.shards.get(&shard).and_then(ShardEngine::head)
    }

    /// Whether nothing is open anywhere.
    pub fn is_quiet(&self) -> bool {
        self.loads.is_empty() && self.shards.values().all(ShardEngine::is_quiet)
    }

    fn with<R>(
        &mut self,
        shard: Shard,
        now_ms: i64,
        run: impl FnOnce(&mut ShardEngine, &mut Shared<'_>) -> R,
    ) -> Option<R> {
        let engine = self.shards.get_mut(&shard)?;
        let mut shared = Shared {
            catalog: &self.catalog,
            settings: &self.settings,
            ambient: &self.ambient,
            budgets: &mut self.budgets,
            cache: &mut self.cache,
            now_ms,
            clock_ok: self.clock_ok,
            out: &mut self.out,
        };
        Some(run(engine, &mut shared))
    }

    /// A claim that was not made for the clock's sake is made when the clock is right.
    fn clock(&mut self, now_ms: i64, ok: bool) {
        let again = ok && !self.clock_ok;
        self.clock_ok = ok;
        if again {
            let shards: Vec<Shard> = self.shards.keys().copied().collect();
            for shard in shards {
                self.with(shard, now_ms, |engine, cx| engine.claim_if_ours(cx));
            }
        }
    }

    fn tick(&mut self, now_ms: i64) {
        let shards: Vec<Shard> = self.shards.keys().copied().collect();
        for shard in shards {
            self.with(shard, now_ms, |engine, cx| engine.expire(cx));
        }
        metrics::sizes(self.cache.queue.len(), self.cache.bytes);
    }

    fn start_loads(&mut self) {
        while self.loads.len() < self.settings.loads_in_flight {
            let mut requests = Vec::new();
            for engine in self.shards.values_mut().filter(|engine| engine.wants_loads()) {
                let room = self.settings.load_streams.saturating_sub(requests.len());
                engine.take_loads(room, &mut requests);
            }
            if requests.is_empty() {
                return;
            }
            let check = self.check_one_of(&mut requests);
            self.next_load += 1;
            let load = self.next_load;
            self.out.push(Effect::Load {
                load,
                requests: requests.clone(),
            });
            self.loads.insert(load, Load { requests, check });
        }
    }

    /// Adds, once in so many streams, the same stream again without its snapshot.
    fn check_one_of(&mut self, requests: &mut Vec<LoadRequest>) -> Option<usize> {
        let every = self.settings.verify_loads;
        let before = self.loaded_streams;
        self.loaded_streams += u64::try_from(requests.len()).unwrap_or(0);
        if every == 0 || before / every == self.loaded_streams / every {
            return None;
        }
        let last = requests.len().checked_sub(1)?;
        let again = LoadRequest {
            in_full: true,
            ..requests[last].clone()
        };
        requests.push(again);
        Some(last)
    }

    fn loaded(&mut self, now_ms: i64, load: LoadId, result: Result<Vec<Loaded>, StoreError>) {
        let Some(Load { mut requests, check }) = self.loads.remove(&load) else {
            return;
        };
        match result {
            Ok(mut loaded) => {
                if let Some(checked) = check {
                    let (full, _) = (loaded.pop(), requests.pop());
                    self.compare(&requests[checked], loaded.get(checked), full.as_ref());
                }
                for (request, loaded) in requests.into_iter().zip(loaded) {
                    let shard = request.shard;
                    self.with(shard, now_ms, |engine, cx| engine.loaded(request, Ok(loaded), cx));
                }
            }
            Err(error) => {
                if check.is_some() {
                    requests.pop();
                }
                for request in requests {
                    let shard = request.shard;
                    self.with(shard, now_ms, |engine, cx| {
                        engine.loaded(request, Err(&error), cx)
                    });
                }
            }
        }
    }

    /// A stream by its snapshot must be the stream by all of its records.
    fn compare(&mut self, request: &LoadRequest, by_snapshot: Option<&Loaded>, in_full: Option<&Loaded>) {
        let Some(aggregate) = self.catalog.category(request.stream.category()) else {
            return;
        };
        let most = self.settings.keys_per_stream;
        let json = |loaded: Option<&Loaded>| {
            let nothing = |_| -> Box<dyn Iterator<Item = (Offset, &Record)>> { Box::new(std::iter::empty()) };
            let live = Live::build(
                aggregate,
                &request.stream,
                loaded?.clone(),
                Offset::new(0),
                nothing,
                most,
            );
            live.ok()?.state.to_json().ok()
        };
        // A journal that lags is behind a snapshot of the tail: then its rows are not the whole story.
        let is_covered = |loaded: &Loaded| {
            let snapshot = loaded.snapshot.as_ref();
            snapshot.is_some_and(|snapshot| snapshot.offset <= loaded.journal_next)
        };
        if by_snapshot.is_some_and(is_covered) && json(by_snapshot) != json(in_full) {
            metrics::wrong_snapshot();
            tracing::error!(stream = %request.stream, "a snapshot is not what its records add up to: all of the category are dropped");
            self.out
                .push(Effect::DropSnapshots(request.stream.category().to_owned()));
        }
    }

    /// Second chance: what was touched since the last look goes to the end of the queue.
    fn evict(&mut self) {
        let mut looks = self.cache.queue.len().min(MOST_LOOKS);
        while self.cache.bytes > self.settings.cache_bytes && looks > 0 {
            looks -= 1;
            let Some((shard, stream, incarnation)) = self.cache.queue.pop_front() else {
                return;
            };
            let gone = match self.shards.get_mut(&shard) {
                Some(engine) => engine.evict(&stream, incarnation, &mut self.cache),
                None => true,
            };
            if !gone {
                self.cache.queue.push_back((shard, stream, incarnation));
            }
        }
        self.sweep();
    }

    /// Entries of streams that were dropped for other reasons must not pile up.
    fn sweep(&mut self) {
        let streams: usize = self.shards.values().map(ShardEngine::streams).sum();
        if self.cache.queue.len() > 2 * streams + MOST_LOOKS {
            let shards = &self.shards;
            let is_there = |(shard, stream, incarnation): &(Shard, StreamId, u64)| {
                shards
                    .get(shard)
                    .is_some_and(|engine| engine.holds(stream, *incarnation))
            };
            self.cache.queue.retain(is_there);
        }
    }
}

/// No flush looks at more streams for eviction.
const MOST_LOOKS: usize = 4_096;

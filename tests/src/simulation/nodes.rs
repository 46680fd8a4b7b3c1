//! A node: the real engine, and what its shell would be waiting for; any of it may be answered next.

use annals_command::SendError;
use annals_command::engine::{Claimant, Effect, Engine, FetchId, Input, Lease, LoadId};
use annals_domain::{Ambient, CommandRequest};
use annals_log::writer::{self, AppendId, Output};
use annals_log::{Appended, Checkpoint, Hashed, LoadRequest, Loaded, Snapshot, StoreError};
use annals_record::record::Meta;
use annals_record::value::EntryView;
use annals_record::{Generation, Offset, ShardCount};

use super::history::{Next, who};
use super::truth::{Author, index};
use super::wire::SHARD;
use super::world::World;
use super::{Check, Violation};

/// A log that ends below what was folded is asked again for so long, as by the engine's shell, ms.
const SHORT_MS: i64 = 15_000;

/// What a node's shell waits for.
#[derive(Debug)]
pub(super) enum Open {
    Command {
        token: u64,
        request: Box<CommandRequest>,
        deadline_ms: i64,
    },
    /// Two steps each: the answer is made, and then arrives.
    Journal(Option<Checkpoint>),
    End(Option<Offset>),
    Bounds(Option<Offset>),
    Load(LoadId, Vec<LoadRequest>, Option<Vec<Loaded>>),
    Read {
        from: Offset,
        since_ms: i64,
    },
    Fetch(FetchId, Offset),
    Appended(AppendId, Appended),
    Save(Snapshot),
}

/// One node.
pub(super) struct Node {
    pub(super) name: usize,
    pub(super) life: u32,
    pub(super) engine: Option<Engine>,
    /// Steps were taken that [`Engine::flush`] has not been asked about.
    pub(super) dirty: bool,
    pub(super) paused: bool,
    pub(super) halted: bool,
    /// It wants to know its lease.
    pub(super) asked: bool,
    pub(super) skew_ms: i64,
    pub(super) open: Vec<Open>,
}

impl Node {
    pub(super) fn down(name: usize) -> Self {
        Self {
            name,
            life: 0,
            engine: None,
            dirty: false,
            paused: false,
            halted: false,
            asked: false,
            skew_ms: 0,
            open: Vec::new(),
        }
    }

    pub(super) fn author(&self) -> Author {
        Author {
            node: self.name,
            life: self.life,
        }
    }
}

impl World {
    pub(super) fn start(&mut self, n: usize) {
        let seed = self.rng.next();
        let (ambient, _) = Ambient::fixed(self.now_ms, seed);
        let claimant = Claimant {
            node: format!("n{n}"),
            url: format!("http://n{n}"),
            generation: Generation::default(),
            shards: ShardCount::try_from(1u32).expect("one shard is allowed"),
        };
        let engine = Engine::new(
            self.catalog.clone(),
            self.plan.settings.clone(),
            ambient,
            &claimant,
            [SHARD],
        );
        let node = &mut self.nodes[n];
        let (life, skew_ms) = (node.life + 1, node.skew_ms);
        *node = Node {
            life,
            skew_ms,
            engine: Some(engine),
            asked: true,
            ..Node::down(n)
        };
        self.say(|_| format!("node {n} starts (life {life})"));
    }

    pub(super) fn crash(&mut self, n: usize) {
        self.say(|_| format!("node {n} dies"));
        self.wire.orphan(self.nodes[n].author());
        self.history.lost(n);
        let node = &mut self.nodes[n];
        (node.engine, node.dirty, node.paused) = (None, false, false);
        node.open.clear();
    }

    fn node_ms(&self, n: usize) -> i64 {
        self.now_ms + self.nodes[n].skew_ms
    }

    /// The engine takes something in; what follows is asked for at once, or a little later.
    pub(super) fn input(&mut self, n: usize, input: Input) -> Check {
        let now_ms = self.node_ms(n);
        let Some(engine) = &mut self.nodes[n].engine else {
            return Ok(());
        };
        engine.step(now_ms, input);
        self.nodes[n].dirty = true;
        if self.rng.chance(700) {
            self.flush(n)
        } else {
            Ok(())
        }
    }

    pub(super) fn flush(&mut self, n: usize) -> Check {
        let now_ms = self.node_ms(n);
        let Some(engine) = &mut self.nodes[n].engine else {
            return Ok(());
        };
        let effects = engine.flush(now_ms);
        self.nodes[n].dirty = false;
        for effect in effects {
            self.carry_out(n, effect)?;
        }
        self.same_head(n)
    }

    /// L4: what a node has folded is what the oracle has folded up to there. And whoever takes itself for the
    /// owner has claimed the epoch that it is in.
    fn same_head(&self, n: usize) -> Check {
        let Some(engine) = self.nodes[n].engine.as_ref().filter(|_| self.cut.is_none()) else {
            return Ok(());
        };
        let Some(head) = engine.head(SHARD) else {
            return Ok(());
        };
        let author = self.nodes[n].author();
        if engine.is_owner(SHARD) && self.truth.owner_of(head.epoch.get()) != Some(author) {
            let what = format!(
                "{} takes itself for the owner in epoch {}",
                who(author),
                head.epoch
            );
            return Violation::of("one owner", what);
        }
        match self.truth.checkpoint_at(head.next) {
            Some(at) if at.head == *head => Ok(()),
            Some(at) => Violation::of(
                "L4",
                format!("node {n} is at {head:?}; a fold to there gives {:?}", at.head),
            ),
            None => Violation::of(
                "L4",
                format!("node {n} is at {}, beyond the log's end", head.next),
            ),
        }
    }

    pub(super) fn tick(&mut self, n: usize) -> Check {
        self.input(n, Input::Tick)
    }

    pub(super) fn trim(&mut self, n: usize) -> Check {
        let next = self.journal.at.head.next;
        self.say(|_| format!("node {n} hears that the journal goes to {next}"));
        self.input(n, Input::Indexed(SHARD, next))
    }

    pub(super) fn tell_lease(&mut self, n: usize) -> Check {
        let lies = self.rate(self.plan.faults.lie);
        let holder = if self.rng.chance(lies) {
            self.rng.below(self.nodes.len() + 1)
        } else {
            self.holder
        };
        let lease = if holder == n {
            Lease::Ours
        } else if holder < self.nodes.len() {
            Lease::Theirs(format!("http://n{holder}"))
        } else {
            Lease::Unknown
        };
        self.say(|_| format!("node {n} hears of its lease: {lease:?}"));
        self.nodes[n].asked = false;
        self.input(n, Input::Lease(SHARD, lease))
    }

    /// Something that the node waits for comes nearer, or arrives.
    pub(super) fn deliver(&mut self, n: usize) -> Check {
        let chosen = self.rng.below(self.nodes[n].open.len());
        let open = self.nodes[n].open.swap_remove(chosen);
        let fails = self.rate(self.plan.faults.store);
        let slow = self.rate(self.plan.faults.slow);
        let unavailable = || StoreError::Unavailable("by plan".to_owned());
        match open {
            Open::Command {
                token,
                request,
                deadline_ms,
            } => {
                let head = self.nodes[n]
                    .engine
                    .as_ref()
                    .and_then(|engine| engine.head(SHARD));
                let time_ms = head.map_or(i64::MIN / 2, |head| head.time_ms);
                if let Some(handed) = self.history.handed.get_mut(&token) {
                    handed.time_ms = time_ms;
                }
                self.say(|_| format!("node {n} gets command {token}"));
                let input = Input::Command {
                    token,
                    request,
                    deadline_ms,
                };
                self.input(n, input)
            }
            Open::Journal(None) => self.wait(n, Open::Journal(Some(self.journal.at.clone()))),
            Open::Journal(Some(at)) => {
                self.say(|_| format!("node {n} begins to read at {}", at.head.next));
                self.input(n, Input::Journal(SHARD, at))
            }
            Open::End(None) => self.wait(n, Open::End(Some(self.truth.end()))),
            Open::End(Some(end)) => {
                self.say(|_| format!("node {n} hears that the log ends at {end}"));
                self.input(n, Input::Writer(SHARD, writer::Input::End(end)))
            }
            Open::Bounds(None) if self.rng.chance(fails) => self.input(n, Input::Bounds(SHARD, None)),
            Open::Bounds(None) => self.wait(n, Open::Bounds(Some(self.truth.end()))),
            Open::Bounds(Some(end)) => {
                let bounds = (Offset::new(0), end);
                self.input(n, Input::Bounds(SHARD, Some(bounds)))
            }
            Open::Load(load, requests, None) => {
                if self.rng.chance(fails) {
                    self.say(|_| format!("load {load} of node {n} fails"));
                    return self.input(n, Input::Loaded(load, Err(unavailable())));
                }
                let loaded = requests
                    .iter()
                    .map(|request| self.journal.load(request))
                    .collect();
                self.say(|_| format!("load {load} of node {n} is read"));
                self.wait(n, Open::Load(load, requests, Some(loaded)))
            }
            Open::Load(load, requests, Some(loaded)) if self.rng.chance(slow) => {
                self.wait(n, Open::Load(load, requests, Some(loaded)))
            }
            Open::Load(load, _, Some(loaded)) => {
                self.say(|_| format!("load {load} of node {n} arrives"));
                self.input(n, Input::Loaded(load, Ok(loaded)))
            }
            Open::Read { from, since_ms } => self.read(n, from, since_ms),
            Open::Fetch(fetch, offset) => {
                let result = if self.rng.chance(fails) {
                    Err(unavailable())
                } else {
                    Ok(self.journal.record_at(offset))
                };
                self.say(|_| format!("node {n} fetches the record at {offset}"));
                self.input(
                    n,
                    Input::Fetched {
                        fetch,
                        shard: SHARD,
                        result,
                    },
                )
            }
            Open::Appended(append, result) => {
                self.say(|_| format!("node {n}: append {append} is answered: {result:?}"));
                self.input(
                    n,
                    Input::Writer(SHARD, writer::Input::Appended { append, result }),
                )
            }
            Open::Save(snapshot) => {
                if self.rng.chance(fails) {
                    return Ok(());
                }
                self.say(|_| {
                    format!(
                        "a snapshot of {} up to {} is kept",
                        snapshot.stream, snapshot.offset
                    )
                });
                self.journal.save(snapshot);
                Ok(())
            }
        }
    }

    fn wait(&mut self, n: usize, open: Open) -> Check {
        self.nodes[n].open.push(open);
        Ok(())
    }

    fn read(&mut self, n: usize, from: Offset, since_ms: i64) -> Check {
        let end = self.truth.end();
        if from > end {
            if self.now_ms - since_ms > SHORT_MS {
                self.say(|_| format!("node {n} hears that the log ends at {end}, for good"));
                return self.input(n, Input::Writer(SHARD, writer::Input::Truncated(end)));
            }
            return self.wait(n, Open::Read { from, since_ms });
        }
        let most = 1 + self.rng.below(5);
        let slots: Vec<_> = self.truth.placed[index(from)..]
            .iter()
            .take(most)
            .cloned()
            .collect();
        // A read that brings nothing comes back after a while; here it need not each time.
        if slots.is_empty() && self.rng.chance(700) {
            return self.wait(n, Open::Read { from, since_ms });
        }
        self.say(|_| format!("node {n} reads {} records from {from}", slots.len()));
        self.input(n, Input::Writer(SHARD, writer::Input::Read(slots)))
    }

    fn carry_out(&mut self, n: usize, effect: Effect) -> Check {
        match effect {
            Effect::Reply(token, result) => self.replied(n, token, &result),
            Effect::Log { output, .. } => self.hand_over(n, output),
            Effect::Journal(_) => self.wait(n, Open::Journal(None)),
            Effect::Load { load, requests } => self.wait(n, Open::Load(load, requests, None)),
            Effect::Fetch { fetch, offset, .. } => self.wait(n, Open::Fetch(fetch, offset)),
            Effect::Snapshot(snapshot) => {
                self.is_true(n, &snapshot)?;
                self.wait(n, Open::Save(snapshot))
            }
            // On a log that was tampered with this is one of the ways to notice.
            Effect::DropSnapshots(_) if self.cut.is_some() => Ok(()),
            Effect::DropSnapshots(category) => Violation::of(
                "snapshots",
                format!("node {n} finds a wrong snapshot of {category}"),
            ),
            Effect::Bounds(_) => self.wait(n, Open::Bounds(None)),
            Effect::Stalled { stalled, .. } => {
                self.say(|_| {
                    format!(
                        "node {n}: the log {}",
                        if stalled { "is stalled" } else { "answers again" }
                    )
                });
                Ok(())
            }
            Effect::AskLease(_) => {
                self.nodes[n].asked = true;
                Ok(())
            }
            Effect::Owner { owner, .. } => {
                self.say(|_| format!("node {n} is {}owner", if owner { "" } else { "not " }));
                Ok(())
            }
            Effect::Halted { reason, .. } => {
                self.say(|_| format!("node {n} halts: {reason}"));
                self.nodes[n].halted = true;
                self.counts.halts += 1;
                self.may_halt(&format!("node {n}"), &reason)
            }
        }
    }

    fn hand_over(&mut self, n: usize, output: Output) -> Check {
        match output {
            Output::End => self.wait(n, Open::End(None)),
            Output::Read(from) => {
                let since_ms = self.now_ms;
                self.wait(n, Open::Read { from, since_ms })
            }
            Output::Append { append, at, records } => {
                let is_claim = self.made(n, &records)?;
                self.say(|_| {
                    let kinds: Vec<_> = records.iter().map(|hashed| hashed.record.kind()).collect();
                    format!("node {n} appends {kinds:?} at {} as {append}", at.next)
                });
                let author = self.nodes[n].author();
                self.wire.send(author, append, at, records, is_claim);
                Ok(())
            }
            Output::Owner
            | Output::Accepted { .. }
            | Output::NeverHappened(_)
            | Output::OtherAccepted { .. }
            | Output::Stopped(_)
            | Output::Lost(_)
            | Output::Closed
            | Output::Ghost { .. }
            | Output::Halted(_) => Ok(()),
        }
    }

    /// A node has made records: for which attempts, and whether one is a claim.
    fn made(&mut self, n: usize, records: &[Hashed]) -> Result<bool, Violation> {
        let author = self.nodes[n].author();
        let mut is_claim = false;
        for hashed in records {
            let record = &hashed.record;
            self.truth.authored(record.id(), author, record.epoch().get());
            match &record.meta {
                Meta::Claim(_) | Meta::Close(_) => is_claim = true,
                Meta::Commit(_) | Meta::Refusal(_) => {
                    let view = EntryView::parse(&record.value);
                    let attempt = view.ok().and_then(|view| view.correlation.parse().ok());
                    let attempt = attempt.expect("an engine writes what it can read");
                    self.history.records(attempt, record.id(), &self.truth)?;
                }
            }
        }
        Ok(is_claim)
    }

    pub(super) fn answer_unknown(&mut self, session: usize) {
        if let Some(answered) = self.wire.give_up(session, &mut self.rng) {
            self.say(|_| {
                format!(
                    "append {} of {} is given up",
                    answered.append,
                    who(answered.author)
                )
            });
            self.hear(answered.author, Open::Appended(answered.append, answered.result));
        }
    }

    pub(super) fn progress(&mut self, session: usize) -> Check {
        let mut faults = self.plan.faults.clone();
        if self.calm {
            faults = super::plan::Faults::default();
        }
        let answered = self.wire.progress(session, &mut self.rng, &faults);
        self.landed()?;
        if let Some(answered) = answered {
            self.hear(answered.author, Open::Appended(answered.append, answered.result));
        }
        Ok(())
    }

    /// An answer is on its way to a node, if it still lives that life.
    fn hear(&mut self, author: Author, open: Open) {
        let node = &mut self.nodes[author.node];
        if node.engine.is_some() && node.author() == author {
            node.open.push(open);
        }
    }

    fn replied(&mut self, n: usize, token: u64, result: &Result<annals_command::Answer, SendError>) -> Check {
        self.say(|_| format!("node {n} answers {token}: {result:?}"));
        let rule = self.truth.rule();
        let (attempt, next) = self.history.answered(token, result, &self.truth, rule)?;
        if let Ok(answer) = result {
            self.counts.acknowledged += 1;
            self.counts.replayed += u64::from(answer.replayed);
        }
        match (next, result) {
            (Next::Forward, Err(SendError::NotOwner { url })) => self.forward(attempt, url),
            _ => Ok(()),
        }
    }
}

//! Which step comes next: any that could, drawn by weight.

use std::cell::RefCell;

use annals_domain::Catalog;
use annals_log::{Checkpoint, MemoryLog, Plays};
use annals_record::fold::Head;
use annals_record::{Offset, ShardCount, StreamId};

use super::domain::catalog;
use super::followers::{Follower, Recorded};
use super::history::{History, KeyRule};
use super::journal::Journal;
use super::nodes::Node;
use super::plan::{Cut, Plan};
use super::rng::Rng;
use super::truth::Truth;
use super::wire::{SHARD, Wire};
use super::{Check, Counts, Trace};

/// When the world begins, ms since 1970.
const BEGINNING_MS: i64 = 1_700_000_000_000;

/// Everything that a seed is about.
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) plan: Plan,
    pub(super) catalog: Catalog,
    pub(super) now_ms: i64,
    pub(super) wire: Wire,
    pub(super) journal: Journal,
    pub(super) truth: Truth,
    pub(super) history: History,
    pub(super) nodes: Vec<Node>,
    pub(super) followers: Vec<Follower>,
    pub(super) recorded: Recorded,
    pub(super) streams: Vec<StreamId>,
    /// Whom the lease table names.
    pub(super) holder: usize,
    /// No more faults: the run comes to its end.
    pub(super) calm: bool,
    /// How and where the log was tampered with.
    pub(super) cut: Option<(Cut, Offset)>,
    pub(super) counts: Counts,
    acts: Vec<(usize, Act)>,
    trace: Option<RefCell<Trace>>,
}

/// One thing that can happen next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// A node's shell gets an answer, or a command.
    Deliver(usize),
    /// A node's engine is asked what follows.
    Flush(usize),
    Tick(usize),
    /// A node hears what the lease table says.
    Lease(usize),
    /// A node hears how far the journal goes.
    Trim(usize),
    Restart(usize),
    Resume(usize),
    /// An append goes on.
    Wire(usize),
    /// A client sends a new command.
    Send,
    /// A client sends a command again.
    Again,
    /// A client gives up waiting.
    GiveUp,
    /// An indexer or a recorder goes on.
    Follow(usize),
    Clock,
}

impl World {
    pub(super) fn new(seed: u64, trace: Option<Trace>) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let catalog = catalog();
        let one = ShardCount::try_from(1u32).expect("one shard is allowed");
        let log = MemoryLog::new(catalog.app().clone(), one, plan.plays);
        let genesis = Head::genesis(catalog.app(), SHARD, one);
        let rule = KeyRule {
            lifetime_ms: i64::from(plan.settings.key_lifetime_s) * 1_000,
            records: plan.settings.keys_per_stream,
        };
        let at = Checkpoint::genesis(genesis);
        let streams = (0..plan.streams).map(|n| StreamId::try_from(format!("counter-{n}").as_str()));
        let mut world = Self {
            now_ms: BEGINNING_MS,
            wire: Wire::new(log, plan.plays),
            journal: Journal::new(at.clone()),
            truth: Truth::new(genesis.chain, rule),
            history: History::default(),
            nodes: (0..plan.nodes).map(Node::down).collect(),
            followers: Follower::all(plan.plays),
            recorded: Recorded {
                at,
                offsets: Vec::new(),
            },
            streams: streams.map(|stream| stream.expect("well-formed")).collect(),
            holder: 0,
            calm: false,
            cut: None,
            counts: Counts::default(),
            acts: Vec::new(),
            trace: trace.map(RefCell::new),
            rng,
            plan,
            catalog,
        };
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        world
    }

    pub(super) fn run(&mut self) -> Check {
        self.say(|world| format!("{:?}", world.plan));
        for step in 0..self.plan.steps {
            if let Some((cut, _)) = self.plan.cut.filter(|(_, at)| *at == step) {
                self.tamper(cut)?;
            }
            self.step()?;
        }
        self.end()
    }

    pub(super) fn counts(&self) -> Counts {
        let head = self.truth.head();
        Counts {
            records: head.next.get(),
            ghosts: head.next.get() - head.accepted,
            epochs: head.epoch.get(),
            ..self.counts
        }
    }

    /// A line of the trace.
    pub(super) fn say(&self, line: impl FnOnce(&Self) -> String) {
        if let Some(trace) = &self.trace {
            let line = line(self);
            (trace.borrow_mut())(&format!(
                "{:>5} {:>7} ms  {line}",
                self.counts.steps,
                self.now_ms - BEGINNING_MS
            ));
        }
    }

    /// How often something goes wrong now.
    pub(super) fn rate(&self, per_mille: usize) -> usize {
        if self.calm { 0 } else { per_mille }
    }

    pub(super) fn step(&mut self) -> Check {
        self.counts.steps += 1;
        self.now_ms += self.rng.range(0, 3);
        self.faults()?;
        let act = self.choose();
        self.act(act)
    }

    pub(super) fn act(&mut self, act: Act) -> Check {
        match act {
            Act::Deliver(node) => self.deliver(node),
            Act::Flush(node) => self.flush(node),
            Act::Tick(node) => self.tick(node),
            Act::Lease(node) => self.tell_lease(node),
            Act::Trim(node) => self.trim(node),
            Act::Restart(node) => {
                self.start(node);
                Ok(())
            }
            Act::Resume(node) => {
                self.say(|_| format!("node {node} wakes up"));
                self.nodes[node].paused = false;
                Ok(())
            }
            Act::Wire(session) => self.progress(session),
            Act::Send => self.send_new(),
            Act::Again => self.send_again(),
            Act::GiveUp => {
                self.give_up();
                Ok(())
            }
            Act::Follow(follower) => self.follow(follower),
            Act::Clock => {
                let by = self.rng.pick(&[20, 200, 1_000, 2_000, 11_000]);
                self.now_ms += by;
                self.say(|_| format!("{by} ms pass"));
                Ok(())
            }
        }
    }

    fn choose(&mut self) -> Act {
        let mut acts = std::mem::take(&mut self.acts);
        acts.clear();
        for (n, node) in self.nodes.iter().enumerate() {
            if node.engine.is_none() {
                acts.push((6, Act::Restart(n)));
            } else if node.paused {
                acts.push((2, Act::Resume(n)));
            } else {
                acts.extend([
                    (2, Act::Tick(n)),
                    (if node.asked { 10 } else { 2 }, Act::Lease(n)),
                ]);
                if !node.open.is_empty() {
                    acts.push((30, Act::Deliver(n)));
                }
                if node.dirty {
                    acts.push((15, Act::Flush(n)));
                }
                if self.plan.plays == Plays::Kafka {
                    acts.push((3, Act::Trim(n)));
                }
            }
        }
        acts.extend((0..self.wire.sessions.len()).map(|n| (20, Act::Wire(n))));
        acts.extend((0..self.followers.len()).map(|n| (6, Act::Follow(n))));
        let waiting = self
            .history
            .orders
            .iter()
            .filter(|order| order.waits_for.is_some())
            .count();
        let idle = self
            .history
            .orders
            .iter()
            .any(|order| !order.settled && order.waits_for.is_none());
        if waiting < self.plan.open_commands {
            acts.push((20, Act::Send));
        }
        if idle {
            acts.push((20, Act::Again));
        }
        if waiting > 0 {
            acts.push((2, Act::GiveUp));
        }
        acts.push((1, Act::Clock));
        let total: usize = acts.iter().map(|(weight, _)| weight).sum();
        let mut at = self.rng.below(total);
        let chosen = acts.iter().find(|(weight, _)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let act = chosen.expect("a number below the total is within it").1;
        self.acts = acts;
        act
    }

    /// What goes wrong by itself.
    fn faults(&mut self) -> Check {
        let faults = self.plan.faults.clone();
        let node = self.rng.below(self.nodes.len());
        if self.rng.chance(faults.crash) && self.nodes[node].engine.is_some() {
            self.crash(node);
        }
        if self.rng.chance(faults.crash) {
            let follower = self.rng.below(self.followers.len());
            self.crash_follower(follower);
        }
        if self.rng.chance(faults.pause) && !self.nodes[node].paused {
            self.say(|_| format!("node {node} stands still"));
            self.nodes[node].paused = true;
        }
        if self.rng.chance(faults.lease) {
            self.holder = node;
            self.say(|_| format!("the lease is node {node}'s"));
        }
        if self.rng.chance(faults.skew) {
            let by = self.rng.range(-4_000, 4_000);
            self.nodes[node].skew_ms = by;
            self.say(|_| format!("the clock of node {node} is {by} ms off"));
        }
        if self.rng.chance(faults.close) && !self.truth.head().closed && self.cut.is_none() {
            self.close()?;
        }
        if self.rng.chance(faults.foreign) {
            self.wire.foreign(&mut self.rng);
            self.say(|_| "a foreign record".to_owned());
            self.landed()?;
        }
        if !self.wire.sessions.is_empty() {
            let session = self.rng.below(self.wire.sessions.len());
            if self.rng.chance(faults.unknown) {
                self.answer_unknown(session);
            } else if self.rng.chance(faults.dropped) {
                let dropped = self.wire.drop_rest(session);
                if dropped > 0 {
                    self.say(|_| format!("{dropped} appends that nobody waits for never happen"));
                }
            }
        }
        Ok(())
    }

    /// The oracle reads what is new in the log; with Postgres the journal is the log.
    pub(super) fn landed(&mut self) -> Check {
        let from = self.truth.end();
        let new = self.wire.log.placed_from(SHARD, from);
        if self.plan.plays == Plays::Postgres {
            for placed in &new {
                let record = placed.slot.known().expect("nothing else is written there");
                self.journal.insert(placed.offset, record);
            }
        }
        self.truth.absorb(new, &self.history)?;
        if self.plan.plays == Plays::Postgres {
            self.journal.at = self.truth.checkpoint().clone();
        }
        if self.truth.end() > from {
            self.say(|world| {
                let head = world.truth.head();
                format!(
                    "  log: end {}, epoch {}, {} accepted",
                    head.next, head.epoch, head.accepted
                )
            });
        }
        Ok(())
    }
}

//! The tasks around the engine: they carry out its effects and wake the senders.
//!
//! A task owns an [`Engine`] and everything that it waits for; no lock is shared with it, and nothing is decided
//! here. Senders reach it through [`Commands`], over a bounded mailbox.

mod io;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_domain::{Ambient, Catalog, CommandRequest};
use annals_log::{Log, StreamStore};
use annals_record::fold::Head;
use annals_record::{Offset, Shard, ShardCount, StreamId};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Gate, Spent};
use crate::answer::{Answer, SendError};
use crate::engine::{Claimant, Effect, Engine, Input, Lease};
use crate::metrics;
use crate::routing::{Place, Routing};
use crate::settings::EngineSettings;
use io::Io;

/// What an engine works with.
#[derive(Clone)]
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Journal and snapshots.
    pub store: Arc<dyn StreamStore>,
    /// The aggregates.
    pub catalog: Catalog,
    /// Time and randomness.
    pub ambient: Ambient,
    /// Limits.
    pub settings: EngineSettings,
    /// Who this node is.
    pub claimant: Claimant,
    /// How many engine tasks; each owns a part of the shards. One is enough on two cores.
    pub tasks: usize,
}

/// Commands for the shards of this node. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    shards: ShardCount,
    mailboxes: Arc<[mpsc::Sender<Letter>]>,
    controls: Arc<[mpsc::Sender<Control>]>,
    /// For each task, the commands that are open (waiting, decided, or with the log) and how many may be.
    gates: Arc<[Arc<Gate>]>,
    routing: Arc<Routing>,
    ambient: Ambient,
    next_token: Arc<AtomicU64>,
}

impl std::fmt::Debug for Commands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commands")
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

struct Letter {
    token: u64,
    request: Box<CommandRequest>,
    came_ms: i64,
    deadline_ms: i64,
    reply: oneshot::Sender<Result<Answer, SendError>>,
}

/// What the rest of the node tells an engine.
#[derive(Debug)]
pub(crate) enum Control {
    Lease(Shard, Lease),
    Indexed(Shard, Offset),
    Checkpoint(Shard, String, Head),
    Clock(bool),
}

/// Letters are taken from the mailbox at most so many at a time, so that none waits for all.
const LETTERS: usize = 256;
/// Rounds of results that are taken before the log gets what they led to.
const RESULTS: usize = 256;
/// How often late commands are given up and sizes are measured.
const TICK: Duration = Duration::from_millis(100);

/// Starts the engine's tasks. They end when `stop` is cancelled; whoever awaits `tasks` learns of a panic.
///
/// `asks` gets every shard whose lease the engine wants to know.
pub fn start(
    parts: &Parts,
    asks: mpsc::UnboundedSender<Shard>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Commands {
    let shards = parts.claimant.shards;
    let routing = Arc::new(Routing::new(shards));
    let count = parts.tasks.max(1);
    let (mut mailboxes, mut controls, mut gates) = (Vec::new(), Vec::new(), Vec::new());
    for task in 0..count {
        let (mailbox, letters) = mpsc::channel(parts.settings.mailbox);
        let (control, controlled) = mpsc::channel(1_024);
        mailboxes.push(mailbox);
        controls.push(control);
        let own = shards.shards().filter(|shard| task_of(*shard, count) == task);
        let engine = Engine::new(
            parts.catalog.clone(),
            parts.settings.clone(),
            parts.ambient.clone(),
            &parts.claimant,
            own,
        );
        let gate = Arc::new(Gate::new(parts.settings.mailbox));
        gates.push(Arc::clone(&gate));
        let shell = Shell {
            engine,
            admission: Admission::new(parts.settings.mailbox, parts.settings.queue_ms),
            gate,
            ambient: parts.ambient.clone(),
            io: Io::new(Arc::clone(&parts.log), Arc::clone(&parts.store)),
            routing: Arc::clone(&routing),
            asks: asks.clone(),
            replies: HashMap::new(),
        };
        let stop = stop.clone();
        tasks.spawn(shell.run(letters, controlled, stop));
    }
    Commands {
        shards,
        mailboxes: mailboxes.into(),
        controls: controls.into(),
        gates: gates.into(),
        routing,
        ambient: parts.ambient.clone(),
        next_token: Arc::new(AtomicU64::new(1)),
    }
}

fn task_of(shard: Shard, tasks: usize) -> usize {
    usize::try_from(shard.get()).unwrap_or(0) % tasks
}

impl Commands {
    /// Where a stream's commands are handled, as far as this node knows.
    pub fn place(&self, stream: &StreamId) -> Place {
        self.routing.place(self.shards.shard_of(stream))
    }

    /// Whether a command of this stream would be refused with [`SendError::Overloaded`] now: whoever asks before it
    /// looks into a body spends less on what is refused.
    pub fn is_full(&self, stream: &StreamId) -> bool {
        let task = task_of(self.shards.shard_of(stream), self.gates.len());
        let full = self.gates[task].is_full();
        if full {
            metrics::shed();
        }
        full
    }

    /// The shard of a stream.
    pub fn shard_of(&self, stream: &StreamId) -> Shard {
        self.shards.shard_of(stream)
    }

    /// Every shard with what this node knows of it.
    pub fn places(&self) -> Vec<(Shard, Place)> {
        self.shards
            .shards()
            .map(|shard| (shard, self.routing.place(shard)))
            .collect()
    }

    /// Sends a command and waits for its answer, at most until `deadline`.
    ///
    /// Dropping the future gives up the answer, not the command.
    ///
    /// # Errors
    /// [`SendError`], which says what is known of the outcome.
    pub async fn send(&self, request: CommandRequest, deadline: Duration) -> Result<Answer, SendError> {
        let task = task_of(self.shards.shard_of(&request.stream), self.mailboxes.len());
        // What is open bounds how long an answer takes: beyond it, no is better than late.
        let Some(_entered) = self.gates[task].enter() else {
            metrics::shed();
            return Err(SendError::Overloaded);
        };
        let came_ms = self.ambient.now_ms();
        let deadline_ms = i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX);
        let (reply, answer) = oneshot::channel();
        let letter = Letter {
            token: self.next_token.fetch_add(1, Ordering::Relaxed),
            request: Box::new(request),
            came_ms,
            deadline_ms: came_ms.saturating_add(deadline_ms),
            reply,
        };
        self.mailboxes[task]
            .try_send(letter)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SendError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => SendError::ShardUnavailable,
            })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            // The engine ended with the command open.
            Ok(Err(_)) | Err(_) => Err(SendError::OutcomeUnknown),
        }
    }

    /// Tells the engine how far the indexer has come, so that the tail may be trimmed.
    pub async fn indexed(&self, shard: Shard, next: Offset) {
        self.control(shard, Control::Indexed(shard, next)).await;
    }

    /// Tells the engine where a reader of a shard stands, so that the two are compared (L4).
    pub async fn compare(&self, shard: Shard, reader: String, head: Head) {
        self.control(shard, Control::Checkpoint(shard, reader, head))
            .await;
    }

    /// Shards whose log owes this node an answer for longer than `command.stall_ms`.
    pub fn stalled(&self) -> Vec<Shard> {
        let stalled = |shard: &Shard| self.routing.is_stalled(*shard);
        self.shards.shards().filter(stalled).collect()
    }

    pub(crate) async fn lease(&self, shard: Shard, lease: Lease) {
        self.routing.lease(shard, &lease);
        self.control(shard, Control::Lease(shard, lease)).await;
    }

    pub(crate) async fn clock(&self, ok: bool) {
        for control in self.controls.iter() {
            // A closed channel means that the engine has ended, which its own task reports.
            control.send(Control::Clock(ok)).await.ok();
        }
    }

    async fn control(&self, shard: Shard, control: Control) {
        self.controls[task_of(shard, self.controls.len())]
            .send(control)
            .await
            .ok();
    }
}

struct Shell {
    engine: Engine,
    admission: Admission,
    gate: Arc<Gate>,
    ambient: Ambient,
    io: Io,
    routing: Arc<Routing>,
    asks: mpsc::UnboundedSender<Shard>,
    /// Where each answer goes, and when its command came.
    replies: HashMap<u64, (oneshot::Sender<Result<Answer, SendError>>, i64)>,
}

impl Shell {
    async fn run(
        mut self,
        mut letters: mpsc::Receiver<Letter>,
        mut controls: mpsc::Receiver<Control>,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(LETTERS);
        loop {
            tokio::select! {
                Some(done) = self.io.open.next(), if !self.io.open.is_empty() => self.step(done),
                count = letters.recv_many(&mut batch, LETTERS) => if count == 0 { return },
                Some(control) = controls.recv() => {
                    self.control(control);
                    // Shards that are taken over together are claimed together.
                    while let Ok(control) = controls.try_recv() {
                        self.control(control);
                    }
                }
                _ = tick.tick() => self.step(Input::Tick),
                () = stop.cancelled() => return,
            }
            // Whatever else is there already shares the appends that follow.
            if batch.is_empty() {
                while batch.len() < LETTERS
                    && let Ok(letter) = letters.try_recv()
                {
                    batch.push(letter);
                }
            }
            for _ in 0..RESULTS {
                let Some(Some(done)) = self.io.open.next().now_or_never() else {
                    break;
                };
                self.step(done);
            }
            self.take(&mut batch);
            self.carry_out();
        }
    }

    fn step(&mut self, input: Input) {
        self.engine.step(self.ambient.now_ms(), input);
    }

    fn take(&mut self, batch: &mut Vec<Letter>) {
        let now_ms = self.ambient.now_ms();
        let mut open = self.gate.open();
        for Letter {
            token,
            request,
            came_ms,
            deadline_ms,
            reply,
        } in batch.drain(..)
        {
            if self.admission.is_late(now_ms.saturating_sub(came_ms), open) {
                open -= 1;
                metrics::shed();
                // The sender may have given up.
                reply.send(Err(SendError::Overloaded)).ok();
                continue;
            }
            self.replies.insert(token, (reply, came_ms));
            self.engine.step(
                now_ms,
                Input::Command {
                    token,
                    request,
                    deadline_ms,
                },
            );
        }
    }

    fn control(&mut self, control: Control) {
        self.step(match control {
            Control::Lease(shard, lease) => Input::Lease(shard, lease),
            Control::Indexed(shard, offset) => Input::Indexed(shard, offset),
            Control::Checkpoint(shard, reader, head) => Input::Checkpoint { shard, reader, head },
            Control::Clock(ok) => Input::Clock(ok),
        });
    }

    fn carry_out(&mut self) {
        let now_ms = self.ambient.now_ms();
        let effects = self.engine.flush(now_ms);
        let mut answered = Spent::default();
        for effect in effects {
            match effect {
                Effect::Reply(token, result) => {
                    if let Some((reply, came_ms)) = self.replies.remove(&token) {
                        answered.add(Spent {
                            count: 1,
                            ms: u64::try_from(now_ms.saturating_sub(came_ms)).unwrap_or(0),
                        });
                        // The sender may have given up; the command has not.
                        reply.send(result).ok();
                    }
                }
                Effect::Log { shard, output } => self.io.log(shard, output),
                Effect::Journal(shard) => self.io.journal(shard),
                Effect::Load { load, requests } => self.io.load(load, requests),
                Effect::Fetch { fetch, shard, offset } => self.io.fetch(fetch, shard, offset),
                Effect::Snapshot(snapshot) => self.io.snapshot(snapshot),
                Effect::DropSnapshots(category) => self.io.drop_snapshots(category),
                // Unbounded, but a shard asks once each time it was lost.
                Effect::AskLease(shard) => {
                    self.asks.send(shard).ok();
                }
                Effect::Owner { shard, owner } => self.routing.owner(shard, owner),
                Effect::Bounds(shard) => self.io.bounds(shard),
                Effect::Stalled { shard, stalled } => self.routing.stalled(shard, stalled),
                Effect::Halted { shard, .. } => self.routing.halted(shard),
            }
        }
        self.io.ask_for_journals();
        self.io.keep_snapshots();
        let append_ms = self.io.append_ms();
        let limit = self
            .admission
            .observe(now_ms, self.gate.open(), answered, append_ms);
        self.gate.set_limit(limit);
    }
}

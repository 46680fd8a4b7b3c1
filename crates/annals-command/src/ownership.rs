//! Which shards are this node's to claim: leases, balanced over the nodes that offer to take commands.
//!
//! Leases are looked at again at a third of their time, which renews them; when one of another node expires; when
//! somebody says that something changed; and when the engine asks. What is free is taken and claimed first: between the
//! moment at which a dead node's leases end and the claims lie two statements, and renewing what this node has waits. A
//! shard changes hands without a pause: who gives a lease away goes on deciding until the next owner's claim fences it,
//! and what is pending then is handed on.
//!
//! *Invariant:* a lease is liveness only. Whoever acts on a stale one meets the fold, not another's records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Ambient;
use annals_record::{Shard, ShardCount};
use annals_store::lease::{self, LeaseKey, LeaseKind, Leases, Node, NodeId, balance};
use annals_store::notify::{Listener, Notifier};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::Lease;
use crate::shell::Commands;
use crate::standing::{Held, Standing};

/// Says whether this node's clock is near enough to the database's; an error says nothing.
pub type ClockProbe = Arc<dyn Fn() -> BoxFuture<'static, Result<bool, annals_store::Error>> + Send + Sync>;

/// The longest pause before a lost shard is asked for again, ms: two nodes must not claim in step.
const PAUSE_MS: u64 = 100;
/// Between two looks at the leases, at least: a storm of notices must not become one of queries.
const LEAST: Duration = Duration::from_millis(20);
/// So long after another's lease should have expired it is looked at.
const BEHIND_EXPIRY: Duration = Duration::from_millis(10);

/// Keeps this node's leases on shards and tells the engine what they say.
pub struct Ownership {
    /// Leases as this node sees them.
    pub leases: Arc<dyn Leases>,
    /// The engine.
    pub commands: Commands,
    /// How many shards there are.
    pub shards: ShardCount,
    /// Shards that the engine asks about.
    pub asks: mpsc::UnboundedReceiver<Shard>,
    /// Compares the clocks.
    pub clock: Option<ClockProbe>,
    /// For the pause.
    pub ambient: Ambient,
    /// Whether this node offers itself.
    pub standing: Standing,
    /// Tells other nodes of changes, on [`lease::CHANNEL`].
    pub notifier: Option<Notifier>,
    /// Hears of theirs.
    pub listener: Option<Listener>,
}

/// A round that takes longer, and twice the leases' time, is given up: its connection may be dead.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long giving leases back may take when the node ends.
const RELEASE: Duration = Duration::from_secs(1);

/// What a look at the leases saw, and what it made of them.
struct Seen {
    leases: BTreeMap<Shard, Lease>,
    /// When something of another node expires first.
    expires: Option<Instant>,
    held: Held,
    /// This node's, to be renewed.
    keep: Vec<LeaseKey>,
}

impl Ownership {
    /// Runs until `stop` is cancelled, then gives every lease back.
    pub async fn run(self, stop: CancellationToken) {
        let third = (self.leases.ttl() / 3).max(Duration::from_millis(100));
        let clocks = Clocks {
            probe: self.clock,
            commands: self.commands.clone(),
            standing: self.standing.clone(),
        };
        let table = Table {
            leases: self.leases,
            shards: self.shards,
            notifier: self.notifier,
        };
        let mut keeper = Keeper {
            known: BTreeMap::new(),
            commands: self.commands,
            asks: self.asks,
            ambient: self.ambient,
            standing: self.standing,
            listener: self.listener,
            third,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = keeper.keep(&table) => {}
            () = clocks.compare(third) => {}
        }
        table.release_all().await;
    }
}

struct Clocks {
    probe: Option<ClockProbe>,
    commands: Commands,
    standing: Standing,
}

impl Clocks {
    /// Compares for ever.
    async fn compare(&self, every: Duration) {
        let Some(probe) = &self.probe else {
            return std::future::pending().await;
        };
        let mut round = tokio::time::interval(every);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            round.tick().await;
            // In Kafka mode with Postgres down the last comparison goes on to count.
            if let Ok(ok) = probe().await {
                if !ok {
                    tracing::error!(
                        "this node's clock is too far off the database's: it neither claims nor decides"
                    );
                }
                self.standing.clock(ok);
                self.commands.clock(ok).await;
            }
        }
    }
}

/// Knows when to look at the leases, and tells the engine what they say.
struct Keeper {
    known: BTreeMap<Shard, Lease>,
    commands: Commands,
    asks: mpsc::UnboundedReceiver<Shard>,
    ambient: Ambient,
    standing: Standing,
    listener: Option<Listener>,
    third: Duration,
}

impl Keeper {
    /// For ever.
    async fn keep(&mut self, table: &Table) {
        let mut changes = self.standing.changes();
        let (mut last, mut due) = (Instant::now(), Instant::now());
        // Whose lease the engine wants to know.
        let mut asked = BTreeSet::new();
        loop {
            if asked.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    Some(shard) = self.asks.recv() => {
                        asked.insert(shard);
                    }
                    () = heard(&mut self.listener) => {}
                    _ = changes.changed() => {}
                }
            }
            match asked.is_empty() {
                true => tokio::time::sleep_until(last + LEAST).await,
                false => self.pause().await,
            }
            while let Ok(shard) = self.asks.try_recv() {
                asked.insert(shard);
            }
            last = Instant::now();
            due = last + self.third;
            match self.patiently(table.take(), &mut asked).await {
                Ok(seen) => {
                    due = seen
                        .expires
                        .map_or(due, |expires| due.min(expires + BEHIND_EXPIRY));
                    self.standing.saw(seen.held);
                    self.tell(seen.leases, &asked).await;
                    asked.clear();
                    match self.patiently(table.renew(&seen.keep), &mut asked).await {
                        Ok(true) => {}
                        Ok(false) => due = Instant::now(),
                        Err(why) => tracing::warn!(why, "leases cannot be renewed"),
                    }
                }
                Err(why) => {
                    tracing::warn!(why, "leases cannot be read");
                    due = Instant::now() + self.third;
                    self.tell_known(&mut asked).await;
                }
            }
        }
    }

    /// Waits for a part of a round. A database that is slow must not keep from the engine what is known; nor is it given
    /// up early, since the next attempt would only be slower.
    async fn patiently<T>(
        &mut self,
        work: impl Future<Output = Result<T, annals_store::Error>>,
        asked: &mut BTreeSet<Shard>,
    ) -> Result<T, String> {
        let work = tokio::time::timeout((6 * self.third).max(PATIENCE), work);
        tokio::pin!(work);
        let mut slow = Instant::now() + self.third;
        loop {
            tokio::select! {
                done = &mut work => return match done {
                    Ok(done) => done.map_err(|error| error.to_string()),
                    Err(_) => Err("the database does not answer".to_owned()),
                },
                Some(shard) = self.asks.recv() => {
                    asked.insert(shard);
                }
                () = tokio::time::sleep_until(slow) => {
                    slow += self.third;
                    self.tell_known(asked).await;
                }
            }
        }
    }

    async fn pause(&self) {
        let [a, b] = self.ambient.random::<2>();
        let pause = u64::from(u16::from_be_bytes([a, b])) % PAUSE_MS;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Tells the engine what has changed, and what it asked for.
    async fn tell(&mut self, leases: BTreeMap<Shard, Lease>, asked: &BTreeSet<Shard>) {
        for (shard, lease) in leases {
            if asked.contains(&shard) || self.known.get(&shard) != Some(&lease) {
                self.known.insert(shard, lease.clone());
                self.commands.lease(shard, lease).await;
            }
        }
    }

    /// Owners go on until someone fences them: who asked is told what was known last.
    async fn tell_known(&mut self, asked: &mut BTreeSet<Shard>) {
        for shard in std::mem::take(asked) {
            if let Some(lease) = self.known.get(&shard) {
                self.commands.lease(shard, lease.clone()).await;
            }
        }
    }
}

/// The leases, and other nodes that look at them.
struct Table {
    leases: Arc<dyn Leases>,
    shards: ShardCount,
    notifier: Option<Notifier>,
}

impl Table {
    fn keys(&self) -> Vec<LeaseKey> {
        self.shards
            .shards()
            .map(|shard| LeaseKey::new(LeaseKind::Command, "", shard.get()))
            .collect()
    }

    /// Balances: takes what is free, gives back what is another's; then what the table says of every shard.
    async fn take(&self) -> Result<Seen, annals_store::Error> {
        let keys = self.keys();
        let me = self.leases.node();
        let began = Instant::now();
        let (mut nodes, mut found) = self.leases.survey(LeaseKind::Command, "").await?;
        let mut seen_at = Instant::now();
        let plan = balance(me, &able(&nodes), &keys, &found);
        // First of all: nobody serves what is free.
        let taken = match plan.acquire.is_empty() {
            true => Vec::new(),
            false => self.leases.acquire(&plan.acquire).await?,
        };
        if !taken.is_empty() {
            let (shards, ms) = (taken.len(), began.elapsed().as_millis());
            tracing::info!(shards, ms, "leases of shards are taken: claims follow");
        }
        if !plan.release.is_empty() {
            self.leases.release(&plan.release).await?;
        }
        if !plan.acquire.is_empty() || !plan.release.is_empty() {
            self.changed();
        }
        if taken.len() != plan.acquire.len() || !plan.release.is_empty() {
            // Somebody else was faster, or has what was given back already.
            (nodes, found) = self.leases.survey(LeaseKind::Command, "").await?;
            seen_at = Instant::now();
        }
        let able = able(&nodes);
        let mut leases: BTreeMap<Shard, Lease> = self
            .shards
            .shards()
            .map(|shard| (shard, Lease::Unknown))
            .collect();
        let others = nodes.iter().filter(|node| node.id != *me && is_command(node));
        let mut expires: Option<Duration> = others.map(|node| node.remaining).min();
        for lease in found {
            if !lease.live {
                continue;
            }
            let says = if lease.node == *me {
                Lease::Ours
            } else {
                expires = Some(expires.map_or(lease.remaining, |soonest| soonest.min(lease.remaining)));
                Lease::Theirs(lease.url)
            };
            leases.insert(Shard::new(lease.key.shard), says);
        }
        for key in taken {
            leases.insert(Shard::new(key.shard), Lease::Ours);
        }
        let left = leases
            .values()
            .filter(|lease| !matches!(lease, Lease::Theirs(_)))
            .count();
        let held = Held {
            withdrawn: !able.contains(me),
            others: able.iter().any(|node| node != me),
            left,
        };
        Ok(Seen {
            leases,
            expires: expires.map(|left| seen_at + left),
            held,
            keep: plan.keep,
        })
    }

    /// Renews what this node has; `false` if some of it is another's by now.
    async fn renew(&self, keep: &[LeaseKey]) -> Result<bool, annals_store::Error> {
        match keep.is_empty() {
            true => Ok(true),
            false => Ok(self.leases.renew(keep).await?.len() == keep.len()),
        }
    }

    /// Tells other nodes that leases have changed.
    fn changed(&self) {
        if let Some(notifier) = &self.notifier
            && let Err(error) = notifier.notify(lease::CHANNEL, LeaseKind::Command.as_str(), "")
        {
            tracing::warn!(%error, "other nodes learn of changed leases by polling only");
        }
    }

    /// What this node has is free at once.
    async fn release_all(&self) {
        let released = tokio::time::timeout(RELEASE, self.leases.release(&self.keys())).await;
        match released {
            Ok(Ok(())) => self.changed(),
            Ok(Err(error)) => tracing::warn!(%error, "leases could not be given back; they expire"),
            Err(_) => tracing::warn!("leases could not be given back in time; they expire"),
        }
        if let Some(notifier) = &self.notifier {
            notifier.flush(RELEASE).await;
        }
    }
}

/// The nodes that offer to take commands.
fn able(nodes: &[Node]) -> Vec<NodeId> {
    let able = nodes.iter().filter(|node| is_command(node));
    able.map(|node| node.id.clone()).collect()
}

/// Waits for word of a change; for ever if nobody listens.
async fn heard(listener: &mut Option<Listener>) {
    match listener {
        Some(listener) => {
            listener.next().await;
        }
        None => std::future::pending().await,
    }
}

fn is_command(node: &Node) -> bool {
    node.roles.iter().any(|role| role == "command")
}

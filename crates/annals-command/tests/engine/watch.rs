//! A log that does not answer, one that was cut, and a reader that folded another history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_command::{EngineSettings, Place, SendError};
use annals_log::metrics::{INVARIANTS_BROKEN, Invariant};
use annals_log::{Appending, Description, Log, LogError, MemoryLog, Placed, Plays, ReadLimits};
use annals_record::fold::Head;
use annals_record::record::Record;
use annals_record::{Hash32, Offset, Shard};
use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::sync::watch;

use super::support::{Node, World, add};

const SHARD: Shard = Shard::new(0);

/// What is appended is written; the answer comes when the gate is open. Reads and ends wait for it too.
#[derive(Debug)]
struct Gate {
    inner: Arc<MemoryLog>,
    open: watch::Sender<bool>,
    begin: AtomicU64,
}

impl Gate {
    fn before(world: &World) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(&world.log),
            open: watch::Sender::new(true),
            begin: AtomicU64::new(0),
        })
    }
    async fn opened(&self) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
    }
}

#[async_trait]
impl Log for Gate {
    fn append(&self, shard: Shard, at: Head, records: Vec<Arc<Record>>) -> Appending {
        let answer = self.inner.append(shard, at, records);
        let mut open = self.open.subscribe();
        Box::pin(async move {
            open.wait_for(|open| *open).await.unwrap();
            answer.await
        })
    }
    async fn read(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        self.opened().await;
        self.inner.read(shard, from, limits).await
    }
    async fn end(&self, shard: Shard) -> Result<Offset, LogError> {
        self.opened().await;
        self.inner.end(shard).await
    }
    async fn bounds(&self, shard: Shard) -> Result<(Offset, Offset), LogError> {
        let begin = Offset::new(self.begin.load(Ordering::Relaxed));
        Ok((begin, self.inner.end(shard).await?))
    }
    async fn describe(&self) -> Result<Description, LogError> {
        self.inner.describe().await
    }
}

fn settings() -> EngineSettings {
    let mut settings = EngineSettings {
        stall_ms: 1_000,
        ..EngineSettings::default()
    };
    settings.writer.keep_tail = true;
    settings
}

fn node(world: &World, gate: &Arc<Gate>) -> Node {
    world.table.give_all("a", 1);
    world.node_on("a", settings(), gate.clone())
}

/// Awaits a condition that the engine's tick brings about, moving its clock on.
async fn until(node: &Node, what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        node.clock.advance_ms(100);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_does_not_answer_new_commands_are_refused_and_nothing_is_lost() {
    let world = World::new(Plays::Kafka, 1);
    let gate = Gate::before(&world);
    let node = node(&world, &gate);
    node.send(add("counter-1", "before", 1)).await.unwrap();
    gate.open.send_replace(false);
    let mut open = Box::pin(node.ask_once(add("counter-1", "open", 1), Duration::from_secs(20)));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut open)
            .await
            .is_err(),
        "no answer without the log's"
    );
    assert_eq!(node.commands.stalled(), [], "not for long enough");
    until(&node, "the stall is seen", || node.commands.stalled() == [SHARD]).await;
    let refused = node
        .ask_once(add("counter-1", "new", 1), Duration::from_secs(5))
        .await;
    assert_eq!(refused.unwrap_err(), SendError::LogUnavailable);
    let repeat = node
        .ask_once(add("counter-1", "open", 1), Duration::from_secs(5))
        .await;
    assert_eq!(
        repeat.unwrap_err(),
        SendError::OutcomeUnknown,
        "its first sending may have happened"
    );
    gate.open.send_replace(true);
    assert_eq!((&mut open).await.unwrap().version.get(), 2);
    drop(open);
    until(&node, "the stall is over", || node.commands.stalled().is_empty()).await;
    let after = node.send(add("counter-1", "new", 1)).await.unwrap();
    assert_eq!(after.version.get(), 3, "what was refused had not happened");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_the_log_does_not_answer_is_a_stall_too() {
    let world = World::new(Plays::Kafka, 1);
    let gate = Gate::before(&world);
    gate.open.send_replace(false);
    let node = node(&world, &gate);
    until(&node, "the stall is seen", || node.commands.stalled() == [SHARD]).await;
    let refused = node
        .ask_once(add("counter-1", "k", 1), Duration::from_secs(5))
        .await;
    assert_eq!(refused.unwrap_err(), SendError::LogUnavailable);
    gate.open.send_replace(true);
    until(&node, "the claim is made", || {
        node.commands.stalled().is_empty() && node.commands.places()[0].1 == (Place::Here { owner: true })
    })
    .await;
    node.send(add("counter-1", "k", 1)).await.unwrap();
    node.stop().await;
}

async fn halts(world: &World, gate: &Gate, node: Node, what: &str, spoil: impl FnOnce()) {
    node.send(add("counter-1", "k", 1)).await.unwrap();
    node.send(add("counter-1", "l", 1)).await.unwrap();
    spoil();
    until(&node, what, || node.commands.places()[0].1 == Place::Halted).await;
    let refused = node
        .ask_once(add("counter-1", "m", 1), Duration::from_secs(5))
        .await;
    assert_eq!(refused.unwrap_err(), SendError::ShardHalted, "{what}");
    assert!(*gate.open.borrow());
    assert!(
        world.log.fold(SHARD).head().accepted <= 3,
        "nothing was written behind it"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_owner_notices_that_its_log_was_cut_or_its_beginning_deleted_and_halts() {
    let world = World::new(Plays::Kafka, 1);
    let gate = Gate::before(&world);
    let owner = node(&world, &gate);
    halts(&world, &gate, owner, "the end is gone", || {
        world.log.truncate(SHARD, Offset::new(2))
    })
    .await;
    let world = World::new(Plays::Kafka, 1);
    let gate = Gate::before(&world);
    let owner = node(&world, &gate);
    let begin = &gate.begin;
    halts(&world, &gate, owner, "the beginning is gone", || {
        begin.store(1, Ordering::Relaxed)
    })
    .await;
}

#[test]
fn a_reader_that_folded_another_history_is_an_alarm() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let counters = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        // One thread: the recorder is this thread's.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let world = World::new(Plays::Kafka, 1);
            let gate = Gate::before(&world);
            let node = node(&world, &gate);
            node.send(add("counter-1", "k", 1)).await.unwrap();
            let mut head = *world.log.fold(SHARD).head();
            let l4 = format!("{INVARIANTS_BROKEN}{{id=\"{}\"}}", Invariant::L4.id());
            let count = || counters.render().lines().any(|line| line.starts_with(&l4));
            node.commands
                .compare(SHARD, "projection/sales/1".to_owned(), head)
                .await;
            // A reader further than the owner says nothing.
            let ahead = Head {
                accepted: head.accepted + 9,
                ..head
            };
            node.commands.compare(SHARD, "audit".to_owned(), ahead).await;
            node.send(add("counter-1", "l", 1)).await.unwrap();
            assert!(!count(), "{}", counters.render());
            head.chain = Hash32::from([7; 32]);
            node.commands
                .compare(SHARD, "projection/sales/1".to_owned(), head)
                .await;
            until(&node, "the alarm", count).await;
            node.stop().await;
        });
    });
}

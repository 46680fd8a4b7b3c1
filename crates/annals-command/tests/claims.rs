//! When a claim is made, and from where it reads.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, dead_code)]

#[path = "engine/support.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annals_command::engine::{Claimant, Effect, Engine, Input, Lease};
use annals_command::{EngineSettings, SendError};
use annals_domain::Ambient;
use annals_log::{
    Appending, Checkpoint, Description, Log, LogError, MemoryLog, Placed, Plays, ReadLimits, writer,
};
use annals_record::fold::Head;
use annals_record::record::Record;
use annals_record::{Generation, Offset, Shard, ShardCount, Version};
use async_trait::async_trait;
use support::{Node, World, add, catalog};

/// Counts the records that are read.
#[derive(Debug)]
struct Counted {
    log: Arc<MemoryLog>,
    read: AtomicUsize,
}

#[async_trait]
impl Log for Counted {
    fn append(&self, shard: Shard, at: Head, records: Vec<Arc<Record>>) -> Appending {
        self.log.append(shard, at, records)
    }
    async fn read(
        &self,
        shard: Shard,
        from: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<Arc<Placed>>, LogError> {
        let read = self.log.read(shard, from, limits).await?;
        self.read.fetch_add(read.len(), Ordering::SeqCst);
        Ok(read)
    }
    async fn end(&self, shard: Shard) -> Result<Offset, LogError> {
        self.log.end(shard).await
    }
    async fn describe(&self) -> Result<Description, LogError> {
        self.log.describe().await
    }
}

/// Sends until the node has heard that the shard is its own.
async fn version_at(node: &Node, stream: &str, key: u64) -> Version {
    loop {
        match node.send(add(stream, key, 1)).await {
            Ok(answer) => return answer.version,
            Err(SendError::NotOwner { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_comes_back_after_a_long_time_is_not_read_from_where_it_was_left() {
    const MISSED: u64 = 300;
    for (most, reads_all) in [(50, false), (100_000, true)] {
        let world = World::new(Plays::Postgres, 1);
        let settings = EngineSettings {
            catch_up_records: most,
            ..EngineSettings::default()
        };
        let counted = Arc::new(Counted {
            log: Arc::clone(&world.log),
            read: AtomicUsize::new(0),
        });
        world.table.give_all("a", 1);
        let (a, b) = (
            world.node_on("a", settings.clone(), counted.clone()),
            world.node("b", settings),
        );
        assert_eq!(version_at(&a, "counter-1", 0).await, Version::new(1));
        world.table.give_all("b", 1);
        for n in 1..=MISSED {
            assert_eq!(version_at(&b, "counter-1", n).await, Version::new(n + 1));
        }
        counted.read.store(0, Ordering::SeqCst);
        world.table.give_all("a", 1);
        // What it had in memory of the stream is not what the stream is.
        assert_eq!(
            version_at(&a, "counter-1", MISSED + 1).await,
            Version::new(MISSED + 2)
        );
        let read = counted.read.load(Ordering::SeqCst);
        assert_eq!(
            read > usize::try_from(MISSED).unwrap(),
            reads_all,
            "{read} records were read with a limit of {most}"
        );
        let again = a.send(add("counter-1", 7, 1)).await.unwrap();
        assert!(again.replayed, "a key of the time in between is known");
    }
}

#[test]
fn a_claim_that_waits_for_the_clock_is_made_when_the_clock_is_right() {
    let shards = ShardCount::try_from(1).unwrap();
    let (ambient, _) = Ambient::fixed(1_790_000_000_000, 1);
    let claimant = Claimant {
        node: "a".to_owned(),
        url: "http://a".to_owned(),
        generation: Generation::default(),
        shards,
    };
    let shard = Shard::new(0);
    let catalog = catalog();
    let genesis = Checkpoint::genesis(Head::genesis(catalog.app(), shard, shards));
    let settings = EngineSettings::default();
    let mut engine = Engine::new(catalog, settings, ambient, &claimant, [shard]);
    let claims = |engine: &mut Engine| {
        let effects = engine.flush(1_790_000_000_000);
        let end = |effect: &Effect| {
            matches!(
                effect,
                Effect::Log {
                    output: writer::Output::End,
                    ..
                }
            )
        };
        effects.iter().any(end)
    };
    for input in [
        Input::Clock(false),
        Input::Lease(shard, Lease::Ours),
        Input::Journal(shard, genesis),
    ] {
        engine.step(0, input);
    }
    assert!(!claims(&mut engine), "a node whose clock is off claims nothing");
    engine.step(0, Input::Clock(true));
    assert!(claims(&mut engine));
    engine.step(0, Input::Clock(true));
    assert!(!claims(&mut engine), "once");
}

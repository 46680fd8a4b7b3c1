//! The indexer on a real Postgres over a log in memory: what shares a transaction, and who holds up nobody.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

#[path = "../../annals-log/tests/log/domain.rs"]
mod domain;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_audit::{AuditIndexer, READER, RoundSettings};
use annals_log::testing::Chained;
use annals_log::{Appended, Checkpoint, Log, MemoryLog, Plays, ReaderSettings, ShardReader};
use annals_record::record::{RawHeader, RawRecord, Record};
use annals_record::{AppName, Shard, ShardCount};
use annals_store::lease::{Lease, LeaseKey, LeaseKind, Leases, Node, NodeId};
use annals_store::testing::TestDatabase;
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use domain::catalog;

const SHARDS: u32 = 4;

/// Every lease is this node's, but for those of the shards that another one has taken.
#[derive(Default)]
struct Mine {
    taken: Mutex<Vec<u32>>,
    /// How often somebody has begun to look whose the leases are.
    looks: watch::Sender<u64>,
}

impl Mine {
    /// Another node has this shard, and whoever had it has found that out: one look has begun since, and then another.
    async fn take(&self, shard: u32) {
        let mut looks = self.looks.subscribe();
        self.taken.lock().unwrap().push(shard);
        let now = *looks.borrow_and_update();
        looks.wait_for(|seen| *seen >= now + 2).await.unwrap();
    }
}

#[async_trait]
impl Leases for Mine {
    fn node(&self) -> &NodeId {
        static NODE: std::sync::OnceLock<NodeId> = std::sync::OnceLock::new();
        NODE.get_or_init(|| NodeId::new("a"))
    }
    fn ttl(&self) -> Duration {
        Duration::from_millis(300)
    }
    async fn keep_node(&self, _: &[String]) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn drop_node(&self) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn nodes(&self) -> Result<Vec<Node>, annals_store::Error> {
        self.looks.send_modify(|looks| *looks += 1);
        Ok(vec![Node {
            id: self.node().clone(),
            url: String::new(),
            roles: vec!["audit".to_owned()],
            expires_at: chrono::DateTime::default(),
            remaining: self.ttl(),
        }])
    }
    async fn list(&self, kind: LeaseKind, name: &str) -> Result<Vec<Lease>, annals_store::Error> {
        let lease = |shard| Lease {
            key: LeaseKey::new(kind, name, shard),
            node: self.node().clone(),
            url: String::new(),
            epoch_hint: 0,
            expires_at: None,
            live: true,
            remaining: Duration::from_millis(300),
        };
        Ok((0..SHARDS).map(lease).collect())
    }
    async fn acquire(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, annals_store::Error> {
        self.renew(keys).await
    }
    async fn renew(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, annals_store::Error> {
        let taken = self.taken.lock().unwrap();
        Ok(keys
            .iter()
            .filter(|key| !taken.contains(&key.shard))
            .cloned()
            .collect())
    }
    async fn release(&self, _: &[LeaseKey]) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn hint_epoch(&self, _: &LeaseKey, _: u64) -> Result<bool, annals_store::Error> {
        Ok(true)
    }
}

struct World {
    log: Arc<MemoryLog>,
    writers: Vec<Chained>,
    pool: PgPool,
    leases: Arc<Mine>,
    _database: TestDatabase,
}

struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

fn app() -> AppName {
    AppName::try_from("example").unwrap()
}

impl World {
    /// `None` if there is no Postgres for tests. Each shard has its claim and two commits.
    async fn new() -> Option<Self> {
        let database = TestDatabase::create().await?;
        let count = ShardCount::try_from(SHARDS).unwrap();
        let log = Arc::new(MemoryLog::new(app(), count, Plays::Postgres));
        let writers = (0..SHARDS)
            .map(|n| Chained::new(app(), Shard::new(n), count).another(u16::try_from(n).unwrap()))
            .collect();
        let mut world = Self {
            log,
            writers,
            pool: database.pool().await,
            leases: Arc::default(),
            _database: database,
        };
        for n in 0..SHARDS {
            world.write(n, Chained::claim).await;
            world.commit(n, 1).await;
            world.commit(n, 2).await;
        }
        Some(world)
    }

    async fn write(&mut self, shard: u32, make: impl FnOnce(&mut Chained) -> Arc<Record>) -> Arc<Record> {
        let writer = &mut self.writers[usize::try_from(shard).unwrap()];
        let at = writer.head();
        let record = make(writer);
        let landed = self
            .log
            .append(Shard::new(shard), at, vec![Arc::clone(&record)])
            .await;
        assert!(matches!(landed, Appended::Landed(_)), "{landed:?}");
        record
    }

    async fn commit(&mut self, shard: u32, version: u64) -> Arc<Record> {
        self.write(shard, |writer| {
            writer.commit(&format!("order-{shard}"), version, 1)
        })
        .await
    }

    fn run(&self, every: Duration) -> Running {
        let indexer = AuditIndexer {
            log: self.log.clone(),
            catalog: catalog(),
            pool: self.pool.clone(),
            leases: self.leases.clone(),
            shards: ShardCount::try_from(SHARDS).unwrap(),
            reader: ReaderSettings::default(),
            rounds: RoundSettings {
                every,
                ..RoundSettings::default()
            },
        };
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(indexer.run(stop.clone()));
        Running { stop, tasks }
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    async fn until(&self, wanted: i64, sql: &'static str) {
        for _ in 0..2_000 {
            if self.number(sql).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{sql} is {} and never {wanted}", self.number(sql).await)
    }

    /// Rows and checkpoints say the same of every shard (L8).
    async fn assert_whole(&self) {
        for (shard, at) in Checkpoint::load_all(&self.pool, READER).await.unwrap() {
            let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM annals.audit_record WHERE shard = $1")
                .bind(i32::try_from(shard).unwrap())
                .fetch_one(&self.pool)
                .await
                .unwrap();
            assert_eq!(u64::try_from(rows).unwrap(), at.head.accepted, "shard {shard}");
        }
    }
}

const ALL: &str = "SELECT count(*) FROM annals.audit_record";

#[tokio::test(flavor = "multi_thread")]
async fn all_shards_share_a_transaction() {
    let Some(mut world) = World::new().await else {
        return;
    };
    let running = world.run(Duration::from_secs(1));
    world.until(12, ALL).await;
    for shard in 0..SHARDS {
        for version in 3..6 {
            world.commit(shard, version).await;
        }
    }
    world.until(24, ALL).await;
    let transactions = "SELECT count(DISTINCT xmin::text) FROM annals.audit_record WHERE log_offset > 2";
    assert_eq!(world.number(transactions).await, 1);
    assert_eq!(
        world
            .number("SELECT count(*) FROM annals.checkpoint WHERE reader = 'audit'")
            .await,
        4
    );
    world.assert_whole().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_during_a_round_shares_the_next_and_the_first_after_a_silence_does_not_wait() {
    let Some(mut world) = World::new().await else {
        return;
    };
    let every = Duration::from_millis(400);
    let running = world.run(every);
    world.until(12, ALL).await;
    tokio::time::sleep(2 * every).await;
    // A silence: the first goes at once, all others wait for the next round together.
    let before = tokio::time::Instant::now();
    world.commit(0, 3).await;
    world.until(13, ALL).await;
    assert!(before.elapsed() < every, "{:?}", before.elapsed());
    for shard in 0..SHARDS {
        for version in 3..13 {
            if (shard, version) != (0, 3) {
                world.commit(shard, version).await;
            }
        }
    }
    world.until(12 + 40, ALL).await;
    let transactions = "SELECT count(DISTINCT xmin::text) FROM annals.audit_record WHERE log_offset > 2";
    let rounds = world.number(transactions).await;
    assert!(rounds <= 3, "{rounds} transactions");
    world.assert_whole().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_another_node_has_moved_holds_up_no_other_and_is_not_written_twice() {
    let Some(mut world) = World::new().await else {
        return;
    };
    let running = world.run(Duration::from_millis(50));
    world.until(12, ALL).await;
    // Another node keeps the next record of shard 2, while this one believes that the shard is its own.
    let shard = Shard::new(2);
    let at = Checkpoint::load(&world.pool, READER, shard)
        .await
        .unwrap()
        .unwrap();
    let mut held = world.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM annals.checkpoint WHERE reader = 'audit' AND shard = 2 FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    let record = world.commit(2, 3).await;
    let settings = ReaderSettings::default();
    let mut reader = ShardReader::open(world.log.clone(), catalog(), shard, at, settings)
        .await
        .unwrap();
    let batch = reader.next().await.unwrap().unwrap();
    Checkpoint::advance(&mut held, READER, shard, &batch.from, &batch.to)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO annals.audit_record SELECT $1, now(), 3, 2, min(shape), NULL FROM annals.audit_shape",
    )
    .bind(record.id().get())
    .execute(&mut *held)
    .await
    .unwrap();
    held.commit().await.unwrap();
    for shard in [0, 1, 3] {
        world.commit(shard, 3).await;
    }
    world.until(16, ALL).await;
    // It goes on behind what the other node has kept.
    world.commit(2, 4).await;
    world.until(17, ALL).await;
    world.assert_whole().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_postgres_refuses_holds_up_its_own_shard_alone() {
    let Some(mut world) = World::new().await else {
        return;
    };
    let running = world.run(Duration::from_millis(50));
    world.until(12, ALL).await;
    let shard_2 = "SELECT count(*) FROM annals.audit_record WHERE shard = 2";
    // A row with the same id stands there already, of nobody's log.
    let mut foreseen = world.writers[2].clone();
    let id = foreseen.commit("order-2", 3, 1).id().get();
    sqlx::query("INSERT INTO annals.audit_record VALUES ($1, now(), 0, 99, 1, NULL)")
        .bind(id)
        .execute(&world.pool)
        .await
        .unwrap();
    for shard in 0..SHARDS {
        world.commit(shard, 3).await;
    }
    world.until(16, ALL).await;
    assert_eq!(world.number(shard_2).await, 3);
    world.commit(1, 4).await;
    world.until(17, ALL).await;
    sqlx::query("DELETE FROM annals.audit_record WHERE shard = 99")
        .execute(&world.pool)
        .await
        .unwrap();
    world.until(4, shard_2).await;
    world.assert_whole().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_shard_holds_up_no_other() {
    let Some(mut world) = World::new().await else {
        return;
    };
    let header = RawHeader {
        name: Bytes::from_static(b"annals"),
        value: Some(Bytes::from_static(b"2")),
    };
    let unknown = RawRecord {
        key: None,
        timestamp_ms: 1_790_000_000_000,
        value: None,
        headers: vec![header],
    };
    world.log.insert(Shard::new(1), unknown);
    let running = world.run(Duration::from_millis(20));
    world.until(12, ALL).await;
    for shard in [0, 2, 3] {
        world.commit(shard, 3).await;
    }
    world.until(15, ALL).await;
    world.assert_whole().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_whose_lease_is_gone_is_read_no_more_and_goes_on_when_it_is_back() {
    let Some(mut world) = World::new().await else {
        return;
    };
    let running = world.run(Duration::from_millis(20));
    world.until(12, ALL).await;
    world.leases.take(3).await;
    for shard in 0..SHARDS {
        world.commit(shard, 3).await;
    }
    world.until(15, ALL).await;
    world.commit(0, 4).await;
    world.until(16, ALL).await;
    assert_eq!(
        world
            .number("SELECT count(*) FROM annals.audit_record WHERE shard = 3")
            .await,
        3
    );
    world.leases.taken.lock().unwrap().clear();
    world.until(17, ALL).await;
    world.assert_whole().await;
    running.stop().await;
}

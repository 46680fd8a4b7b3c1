//! The Kafka log on brokers of its own that are killed, paused, slowed and made forgetful.
//!
//! Each test prints what it measured; `docs/kafka.md` has the figures of a long run. `ANNALS_TEST_LEADER_MOVES` (30) says
//! how many leader moves, `ANNALS_TEST_PAUSE_S` (8) how long a leader is paused.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub
)]

#[path = "kafka/cluster.rs"]
mod cluster;
#[path = "kafka_cluster/faults.rs"]
mod faults;
#[path = "kafka/leaders.rs"]
mod leaders;
#[path = "kafka_cluster/pipeline.rs"]
mod pipeline;
#[path = "kafka_cluster/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_log::{Durability, KafkaError, KafkaLog, KafkaSettings, Log};
use annals_record::{AppName, Generation, Shard, ShardCount};
use cluster::Cluster;
use faults::{Meter, alter, number};
use leaders::Leaders;
use pipeline::{Current, Go, Pipeline, Sum, Told, prove};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Leaders go back to their preferred brokers by themselves, and soon.
const EXTRA: &str = "auto.leader.rebalance.enable=true\n\
    leader.imbalance.check.interval.seconds=2\nleader.imbalance.per.broker.percentage=0\n";

/// So many acknowledgements more of every writer show that a load flows.
const FLOW: u64 = 100;

/// A log, writers on it, and what they were told in the end.
pub struct Load {
    pub settings: KafkaSettings,
    pub app: AppName,
    pub shards: ShardCount,
    pub log: Current,
    go: watch::Sender<Go>,
    writers: JoinSet<(Shard, Told)>,
    acknowledged: Vec<Arc<AtomicU64>>,
}

impl Load {
    pub async fn create(settings: KafkaSettings, name: &str, shards: u32, replication: u16) -> Self {
        let app: AppName = name.parse().unwrap();
        let shards = ShardCount::try_from(shards).unwrap();
        KafkaLog::create(&settings, &app, shards, replication)
            .await
            .unwrap();
        let log = Self::open(&settings, &app, shards).await;
        log.warm_up();
        Self {
            settings,
            app,
            shards,
            log: Arc::new(RwLock::new(Arc::new(log))),
            go: watch::Sender::new(Go::Write),
            writers: JoinSet::new(),
            acknowledged: Vec::new(),
        }
    }

    pub async fn open(settings: &KafkaSettings, app: &AppName, shards: ShardCount) -> KafkaLog {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match KafkaLog::open(settings.clone(), app.clone(), shards, Generation::FIRST).await {
                Ok(log) => return log,
                // A topic that was just made is not known everywhere at once.
                Err(error) if Instant::now() > until => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    pub fn start(&mut self, shards: impl Iterator<Item = Shard>) {
        for shard in shards {
            let pipeline = Pipeline::new(&self.log, &self.app, shard, self.shards);
            self.acknowledged.push(pipeline.acknowledged());
            let go = self.go.subscribe();
            let genesis = annals_record::hash::genesis(&self.app, shard, self.shards);
            self.writers
                .spawn(async move { (shard, pipeline::run_and_read(pipeline, genesis, go).await) });
        }
    }

    /// Waits until every writer has been told of some more records.
    pub async fn flows(&self) {
        let read = || {
            self.acknowledged
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
        };
        let goal: Vec<u64> = read().map(|count| count + FLOW).collect();
        let until = Instant::now() + Duration::from_secs(120);
        while read().zip(&goal).any(|(count, goal)| count < *goal) {
            assert!(
                Instant::now() < until,
                "{:?} of {goal:?}",
                read().collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets every writer settle, and compares what they were told with the log, opened anew.
    pub async fn end(&mut self) -> (Sum, Vec<(Shard, Told)>) {
        self.go.send_replace(Go::End);
        let mut told = Vec::new();
        let settle = async {
            while let Some(done) = self.writers.join_next().await {
                told.push(done.unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(180), settle)
            .await
            .expect("every writer settles");
        let log = Self::open(&self.settings, &self.app, self.shards).await;
        let sum = prove(&log, &self.app, self.shards, &told).await;
        log.close().await;
        (sum, told)
    }
}

pub fn sound(what: &str, sum: &Sum) {
    eprintln!("{what}: {sum:?}");
    assert_eq!((sum.lost, sum.doubled, sum.wrongly_never), (0, 0, 0), "{what}");
    assert_eq!(sum.disagreed, 0, "{what}: what readers had and what is there");
    assert!(sum.acknowledged > 0, "{what}");
}

fn single(cluster: &Cluster) -> KafkaSettings {
    KafkaSettings {
        allow_single_replica: true,
        ..KafkaSettings::new(&cluster.brokers)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_three_brokers_nothing_acknowledged_is_lost_or_doubled_whatever_dies() {
    let Some(cluster) = Cluster::start(3, EXTRA, None) else {
        return;
    };
    let meter = Meter::install();
    let settings = KafkaSettings::new(&cluster.brokers);
    settings_of_a_replicated_topic(&settings).await;
    let kept = KafkaLog::keeps_promises(settings.clone(), &"conformance-3".parse().unwrap(), 3)
        .await
        .unwrap();
    let broken: Vec<_> = kept.iter().filter(|(_, kept)| kept.is_err()).collect();
    assert!(broken.is_empty() && kept.len() > 10, "{broken:#?}");
    claims(&settings).await;
    moves(&cluster, &settings, &meter).await;
    pause(&cluster, &settings, &meter).await;
    two_away(&cluster, &settings).await;
}

async fn settings_of_a_replicated_topic(settings: &KafkaSettings) {
    let (app, shards): (AppName, _) = ("replicated".parse().unwrap(), ShardCount::try_from(2).unwrap());
    KafkaLog::create(settings, &app, shards, 3).await.unwrap();
    let log = Load::open(settings, &app, shards).await;
    assert_eq!(log.describe().await.unwrap().durability, Durability::Replicated);
    log.close().await;
    for (value, wrong) in [("1", &["min.insync.replicas"][..]), ("2", &[]), ("3", &[])] {
        alter(&settings.brokers, "replicated.log", "min.insync.replicas", value).await;
        let opened = KafkaLog::open(settings.clone(), app.clone(), shards, Generation::FIRST).await;
        let named: Vec<String> = match opened {
            Ok(log) => {
                log.close().await;
                Vec::new()
            }
            Err(KafkaError::Unsafe { settings, .. }) => settings
                .into_iter()
                .filter(|check| !check.ok)
                .map(|check| check.name)
                .collect(),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(named, wrong, "min.insync.replicas={value}");
    }
}

/// What one claim costs, and many at once.
async fn claims(settings: &KafkaSettings) {
    for (count, name) in [
        (1, "claims-a"),
        (8, "claims-b"),
        (32, "claims-c"),
        (128, "claims-d"),
    ] {
        let mut load = Load::create(settings.clone(), name, count, 3).await;
        // The first claim of a process also waits for its first producer.
        tokio::time::sleep(Duration::from_secs(2)).await;
        load.go.send_replace(Go::End);
        let shards = load.shards;
        let began = Instant::now();
        load.start(shards.shards());
        let (sum, told) = load.end().await;
        let mut each: Vec<_> = told.iter().map(|(_, told)| told.first_claim).collect();
        each.sort_unstable();
        eprintln!(
            "claims: {count} at once: half within {:?}, all within {:?} (with the proof {:?})",
            each[each.len() / 2],
            each[each.len() - 1],
            began.elapsed()
        );
        assert_eq!(sum.claims, u64::from(count));
    }
}

/// Leaders move under a pipeline: a broker is killed, comes back, and gets its leaders again.
async fn moves(cluster: &Cluster, settings: &KafkaSettings, meter: &Meter) {
    let wanted = number("ANNALS_TEST_LEADER_MOVES", 30);
    if wanted == 0 {
        return;
    }
    let before = meter.read();
    let mut load = Load::create(settings.clone(), "moves", 48, 3).await;
    let shards = load.shards;
    load.start(shards.shards());
    let leaders = Leaders::watch(&cluster.brokers, "moves.log");
    let began = Instant::now();
    let mut kills = 0;
    while leaders.moved() < wanted {
        kills += 1;
        let node = kills % 3 + 1;
        cluster.signal(node, "KILL");
        leaders
            .until(Duration::from_secs(60), |now| {
                now.values().all(|leader| leader.0 != node as i32)
            })
            .await;
        cluster.start_missing();
        // Back in sync, and leader of its share again.
        leaders
            .until(Duration::from_secs(90), |now| {
                let leads = now.values().filter(|leader| leader.0 == node as i32).count();
                leads >= 8 && now.values().all(|leader| leader.1 == 3)
            })
            .await;
    }
    let (moved, took) = (leaders.moved(), began.elapsed());
    leaders.stop();
    let (sum, _) = load.end().await;
    eprintln!(
        "leader moves: {moved} by {kills} kills in {took:?}: {} holes or reorderings read, {:?} ghosts, {} re-claims",
        sum.repairs,
        sum.ghosts,
        sum.claims - 48
    );
    eprintln!("leader moves: counted by the client {:?}", meter.since(&before));
    sound("leader moves", &sum);
    assert_eq!(sum.halted, 0);
}

/// A leader that is frozen: its clients wait, others lead, and when it wakes it is a zombie.
async fn pause(cluster: &Cluster, settings: &KafkaSettings, meter: &Meter) {
    let seconds = number("ANNALS_TEST_PAUSE_S", 8);
    let before = meter.read();
    let mut load = Load::create(settings.clone(), "paused", 12, 3).await;
    let shards = load.shards;
    load.start(shards.shards());
    load.flows().await;
    cluster.signal(1, "STOP");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    cluster.signal(1, "CONT");
    load.flows().await;
    let (sum, _) = load.end().await;
    eprintln!(
        "a leader paused for {seconds} s: counted by the client {:?}",
        meter.since(&before)
    );
    sound("a leader paused", &sum);
}

/// Below `min.insync.replicas` nothing is acknowledged, and everything goes on when the brokers are back.
async fn two_away(cluster: &Cluster, settings: &KafkaSettings) {
    let mut load = Load::create(settings.clone(), "away", 6, 3).await;
    let shards = load.shards;
    load.start(shards.shards());
    load.flows().await;
    cluster.signal(2, "KILL");
    cluster.signal(3, "KILL");
    tokio::time::sleep(Duration::from_secs(6)).await;
    cluster.start_missing();
    load.flows().await;
    let (sum, _) = load.end().await;
    assert!(sum.longest > Duration::from_secs(4), "{:?}", sum.longest);
    sound("two of three brokers away", &sum);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_ways_forgetful_brokers_and_permanent_errors_lose_nothing() {
    let (inside, outside) = (cluster::free_port(), cluster::free_port());
    let extra = format!(
        "producer.id.expiration.ms=3000\nproducer.id.expiration.check.interval.ms=500\n\
         listeners=PLAINTEXT://127.0.0.1:{{port}},CONTROLLER://127.0.0.1:{{controller}},SLOW://127.0.0.1:{inside}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SLOW://127.0.0.1:{outside}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SLOW:PLAINTEXT\n"
    );
    let Some(cluster) = Cluster::start(1, &extra, None) else {
        return;
    };
    let meter = Meter::install();
    destroyed(&cluster, inside, outside, &meter).await;
    forgotten(&cluster, &meter).await;
    refused(&cluster, &meter).await;
    replaced(&cluster).await;
}

/// A producer is destroyed with appends under way behind a slow proxy: some of them land behind the next claim.
async fn destroyed(cluster: &Cluster, inside: u16, outside: u16, meter: &Meter) {
    let before = meter.read();
    let proxy = proxy::Proxy::start(outside, inside, Duration::from_millis(1_200)).await;
    let slow = KafkaSettings {
        brokers: format!("127.0.0.1:{outside}"),
        ..single(cluster)
    };
    let mut load = Load::create(single(cluster), "destroyed", 4, 1).await;
    let shards = load.shards;
    load.start(shards.shards());
    for round in 0..6 {
        // In turn the slow way and the quick one: what the slow one still carries comes late.
        let is_slow = round % 2 == 0;
        let settings = if is_slow { &slow } else { &load.settings };
        let next: Arc<dyn Log> = Arc::new(Load::open(settings, &load.app, shards).await);
        let last = std::mem::replace(&mut *load.log.write().await, next);
        drop(last);
        // The slow way takes some round trips until the first record is on it.
        let stay = if is_slow { 10_000 } else { 2_000 };
        tokio::time::sleep(Duration::from_millis(stay)).await;
    }
    let (sum, _) = load.end().await;
    eprintln!("producers destroyed behind a proxy: {:?}", meter.since(&before));
    sound("producers destroyed behind a proxy", &sum);
    assert!(sum.claims > 4, "destroying a producer takes a claim");
    proxy.stop();
}

/// Producers that the broker has forgotten while they were idle.
async fn forgotten(cluster: &Cluster, meter: &Meter) {
    let before = meter.read();
    let mut load = Load::create(single(cluster), "forgotten", 4, 1).await;
    let shards = load.shards;
    load.start(shards.shards());
    load.flows().await;
    load.go.send_replace(Go::Pause);
    tokio::time::sleep(Duration::from_secs(8)).await;
    load.go.send_replace(Go::Write);
    load.flows().await;
    let (sum, _) = load.end().await;
    eprintln!(
        "idle beyond producer.id.expiration.ms: {:?}",
        meter.since(&before)
    );
    sound("idle producers", &sum);
    assert!(sum.longest > Duration::from_secs(7), "{:?}", sum.longest);
}

/// The broker refuses for good in the middle of a pipeline: the producer is replaced, its shards are claimed.
async fn refused(cluster: &Cluster, meter: &Meter) {
    let before = meter.read();
    let mut load = Load::create(single(cluster), "refused", 6, 1).await;
    let shards = load.shards;
    load.start(shards.shards());
    load.flows().await;
    // Batches are now too large for the topic, whatever this program checks at its start.
    alter(&cluster.brokers, "refused.log", "max.message.bytes", "600").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    alter(&cluster.brokers, "refused.log", "max.message.bytes", "1048588").await;
    load.flows().await;
    let (sum, _) = load.end().await;
    let counted = meter.since(&before);
    eprintln!("permanent errors in mid-pipeline: {counted:?}");
    sound("permanent errors", &sum);
    assert!(
        sum.claims > 6,
        "every shard of a lost producer is claimed anew: {sum:?}"
    );
    assert!(
        counted
            .iter()
            .any(|(name, count)| name.contains("producers_fatal") && *count > 0),
        "{counted:?}"
    );
}

/// A topic that is deleted and made again behind its writers' backs, and one whose first records are deleted.
async fn replaced(cluster: &Cluster) {
    let mut load = Load::create(single(cluster), "replaced", 2, 1).await;
    let shards = load.shards;
    load.start(shards.shards());
    load.flows().await;
    faults::recreate(&load.settings, &load.app, shards).await;
    let mut halted = BTreeMap::new();
    let watched = async {
        while let Some(done) = load.writers.join_next().await {
            let (shard, told) = done.unwrap();
            halted.insert(shard, told.halted.expect("it halts"));
        }
    };
    tokio::time::timeout(Duration::from_secs(120), watched)
        .await
        .expect("every writer notices");
    eprintln!("a topic replaced: {halted:?}");
    assert!(
        halted
            .values()
            .all(|why| why.contains("cut off") || why.contains("replaced")),
        "{halted:?}"
    );

    let mut load = Load::create(single(cluster), "beheaded", 1, 1).await;
    load.start(load.shards.shards());
    load.flows().await;
    let shard = Shard::new(0);
    load.end().await;
    faults::behead(&cluster.brokers, "beheaded.log", 5).await;
    let log = Load::open(&load.settings, &load.app, load.shards).await;
    let (begin, end) = log.bounds(shard).await.unwrap();
    assert!(begin.get() == 5 && end > begin, "{begin} {end}");
    log.close().await;
}

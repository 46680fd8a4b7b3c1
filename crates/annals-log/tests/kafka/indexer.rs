//! The journal holds what the topic's accepted records are, byte for byte, whatever happens to the indexer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_log::postgres::INDEXER;
use annals_log::testing::Chained;
use annals_log::{
    Appended, Checkpoint, Indexed, Indexer, IndexerSettings, JournalHead, Log, MemoryLog, PgStreamStore,
    Placed, Plays, Stopped, StreamStore,
};
use annals_record::fold::{Fold, Head};
use annals_record::record::Record;
use annals_record::{AppName, Offset, Shard, ShardCount};
use annals_store::testing::TestDatabase;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::broker::TestTopic;
use super::log::read;
use crate::domain::catalog;

fn settings(records: usize) -> IndexerSettings {
    let mut settings = IndexerSettings::default();
    settings.reader.limits.records = records;
    settings.reader.limits.wait = Duration::from_millis(100);
    settings.retry = Duration::from_millis(10);
    settings
}

async fn append(log: &dyn Log, writer: &Chained, records: Vec<Arc<Record>>) {
    let answer = log.append(writer.shard(), writer.head(), records).await;
    assert!(matches!(answer, Appended::Landed(_)), "{answer:?}");
}

/// Every kind of record, zombies and strangers among them.
async fn fill(log: &dyn Log, writer: &mut Chained, zombie: bool, rounds: u64) {
    for round in 0..rounds {
        let mut records = vec![writer.claim()];
        for n in 0..7 {
            let stream = format!("order-{}", writer.shard());
            // Three commits; a refusal names the version that comes next.
            match n % 2 {
                0 if n < 6 => records.push(writer.commit(&stream, 1 + round * 3 + n / 2, 1)),
                _ => records.push(writer.refusal(&stream, 1 + round * 3 + n.div_ceil(2))),
            }
        }
        for record in records {
            append(log, writer, vec![record]).await;
        }
        if zombie {
            // One who has not heard of the claim, and one who was too late with theirs.
            let mut other = writer.another(u16::try_from(round + 1).unwrap());
            let (late, lost) = (other.commit("order-9", 40, 1), other.claim());
            let next = writer.commit(&format!("order-{}x{round}", writer.shard()), 1, 0);
            append(log, writer, vec![next, late]).await;
            let claim = writer.claim();
            append(log, writer, vec![claim]).await;
            append(log, writer, vec![lost]).await;
        }
    }
}

/// What the fold accepts, by the fold itself.
fn accepted(app: &AppName, shard: Shard, shards: ShardCount, all: &[Arc<Placed>]) -> Vec<(Offset, Record)> {
    let mut fold = Fold::from_genesis(Head::genesis(app, shard, shards).chain);
    all.iter()
        .filter(|placed| fold.step(&placed.slot, placed.hash).is_accept())
        .map(|placed| (placed.offset, placed.slot.known().unwrap().clone()))
        .collect()
}

async fn rows(pool: &PgPool, shard: Shard) -> Vec<Offset> {
    let offsets: Vec<i64> =
        sqlx::query_scalar("SELECT log_offset FROM annals.journal WHERE shard = $1 ORDER BY log_offset")
            .bind(i32::try_from(shard).unwrap())
            .fetch_all(pool)
            .await
            .unwrap();
    offsets
        .into_iter()
        .map(|offset| offset.try_into().unwrap())
        .collect()
}

struct Wanted {
    app: AppName,
    shards: ShardCount,
    all: BTreeMap<Shard, Vec<Arc<Placed>>>,
}

impl Wanted {
    async fn check(&self, pool: &PgPool) {
        let store = PgStreamStore::new(pool.clone(), self.app.clone(), self.shards, JournalHead::Indexer);
        for (shard, all) in &self.all {
            let wanted = accepted(&self.app, *shard, self.shards, all);
            let offsets: Vec<Offset> = wanted.iter().map(|(offset, _)| *offset).collect();
            assert_eq!(rows(pool, *shard).await, offsets);
            for (offset, record) in &wanted {
                let found = store.record_at(*shard, *offset).await.unwrap().unwrap();
                assert_eq!(found.to_raw(), record.to_raw());
            }
            let at = Checkpoint::load(pool, INDEXER, *shard).await.unwrap().unwrap();
            assert_eq!(at.head.next.get(), all.len() as u64);
            assert_eq!(at.head.accepted, wanted.len() as u64);
        }
    }
}

async fn until(
    progress: &mut watch::Receiver<BTreeMap<Shard, Indexed>>,
    holds: impl FnMut(&BTreeMap<Shard, Indexed>) -> bool,
) {
    let waited = tokio::time::timeout(Duration::from_secs(60), progress.wait_for(holds)).await;
    drop(waited.expect("within a minute").unwrap());
}

fn all_of(shards: ShardCount) -> watch::Receiver<BTreeSet<Shard>> {
    watch::Sender::new(shards.shards().collect()).subscribe()
}

fn memory(shards: u32, plays: Plays) -> (Arc<MemoryLog>, AppName, ShardCount) {
    let app = AppName::try_from("example").unwrap();
    let shards = ShardCount::try_from(shards).unwrap();
    (Arc::new(MemoryLog::new(app.clone(), shards, plays)), app, shards)
}

#[tokio::test]
async fn the_journal_is_the_topics_accepted_records() {
    let Some(topic) = TestTopic::create(3).await else {
        return;
    };
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let log = Arc::new(topic.open().await);
    let mut all = BTreeMap::new();
    for shard in topic.shards.shards() {
        let mut writer = Chained::new(topic.app.clone(), shard, topic.shards);
        fill(&*log, &mut writer, true, 3).await;
        if shard.get() == 1 {
            super::log::foreign(&topic, 1);
            fill_more(&*log, &mut writer).await;
        }
        let end = log.end(shard).await.unwrap().get();
        all.insert(shard, read(&log, shard, 0, usize::try_from(end).unwrap()).await);
    }
    let wanted = Wanted {
        app: topic.app.clone(),
        shards: topic.shards,
        all,
    };
    let ghosts = |shard: &Shard| {
        let all = &wanted.all[shard];
        all.len() - accepted(&wanted.app, *shard, wanted.shards, all).len()
    };
    assert!(
        wanted.all.keys().all(|shard| ghosts(shard) >= 6),
        "there are ghosts to skip"
    );

    // It is killed again and again, wherever it is, and goes on.
    let mut turns = 0_u64;
    loop {
        let indexer = Indexer::new(log.clone(), pool.clone(), catalog(), settings(5));
        let mut progress = indexer.progress();
        let done = |all: &BTreeMap<Shard, Indexed>| {
            all.len() == 3
                && all
                    .iter()
                    .all(|(shard, at)| at.next.get() == wanted.all[shard].len() as u64)
        };
        let before: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(next_offset), 0)::bigint FROM annals.checkpoint")
                .fetch_one(&pool)
                .await
                .unwrap();
        let more = |all: &BTreeMap<Shard, Indexed>| {
            let sum: u64 = all.values().map(|at| at.next.get()).sum();
            done(all) || sum > u64::try_from(before).unwrap() + turns
        };
        tokio::select! {
            () = indexer.run(all_of(topic.shards), CancellationToken::new()) => panic!("it ended"),
            () = until(&mut progress, more) => {}
        }
        turns += 1;
        if done(&progress.borrow()) {
            break;
        }
    }
    assert!(turns > 1);
    wanted.check(&pool).await;

    // What comes later is indexed as it comes.
    let indexer = Indexer::new(log.clone(), pool.clone(), catalog(), settings(5));
    let mut progress = indexer.progress();
    let cancelled = CancellationToken::new();
    let later = async {
        let end = wanted.all[&Shard::new(0)].len() as u64;
        super::log::foreign(&topic, 0);
        until(&mut progress, |all| {
            all.get(&Shard::new(0)).is_some_and(|at| at.next.get() > end)
        })
        .await;
        cancelled.cancel();
    };
    tokio::join!(indexer.run(all_of(topic.shards), cancelled.clone()), later);
    drop(indexer);
    Arc::into_inner(log).unwrap().close().await;
}

async fn fill_more(log: &dyn Log, writer: &mut Chained) {
    for n in 1..4 {
        let record = writer.commit("order-more", n, 1);
        append(log, writer, vec![record]).await;
    }
}

#[tokio::test]
async fn of_two_indexers_one_stops_and_nothing_is_written_twice() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (log, app, shards) = memory(1, Plays::Kafka);
    let shard = Shard::new(0);
    let mut writer = Chained::new(app.clone(), shard, shards);
    fill(&*log, &mut writer, false, 20).await;
    let end = log.end(shard).await.unwrap();

    let indexers: Vec<_> = [3, 7]
        .into_iter()
        .map(|records| Indexer::new(log.clone(), pool.clone(), catalog(), settings(records)))
        .collect();
    let cancelled = CancellationToken::new();
    let mut progress: Vec<_> = indexers.iter().map(Indexer::progress).collect();
    let done = async {
        let [first, second] = &mut progress[..] else {
            panic!()
        };
        let ended = |all: &BTreeMap<Shard, Indexed>| {
            all.get(&shard)
                .is_some_and(|at| at.next == end || at.stopped.is_some())
        };
        until(first, ended).await;
        until(second, ended).await;
        cancelled.cancel();
    };
    tokio::join!(
        indexers[0].run(all_of(shards), cancelled.clone()),
        indexers[1].run(all_of(shards), cancelled.clone()),
        done
    );
    let last: Vec<_> = progress.iter().map(|all| all.borrow()[&shard].clone()).collect();
    let stopped: Vec<_> = last.iter().filter_map(|at| at.stopped.as_ref()).collect();
    assert!(matches!(stopped[..], [Stopped::Moved(_)]), "{last:?}");
    assert!(last.iter().any(|at| at.next == end));
    let placed = log
        .read(shard, Offset::new(0), annals_log::ReadLimits::default())
        .await
        .unwrap();
    let all = [(shard, placed)].into();
    Wanted { app, shards, all }.check(&pool).await;
}

#[tokio::test]
async fn one_connection_is_enough_for_many_shards() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    // Reads wait for it, and commits: neither may keep it from the other.
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1);
    let pool = pool.connect_with(database.options()).await.unwrap();
    let (log, app, shards) = memory(16, Plays::Kafka);
    let mut ends = BTreeMap::new();
    for shard in shards.shards() {
        let mut writer = Chained::new(app.clone(), shard, shards);
        fill(&*log, &mut writer, false, 10).await;
        ends.insert(shard, log.end(shard).await.unwrap());
    }
    let indexer = Indexer::new(log.clone(), pool.clone(), catalog(), settings(2));
    let (mut progress, cancelled) = (indexer.progress(), CancellationToken::new());
    let watching = async {
        until(&mut progress, |all| {
            ends.iter()
                .all(|(shard, end)| all.get(shard).is_some_and(|at| at.next == *end))
        })
        .await;
        cancelled.cancel();
    };
    tokio::join!(indexer.run(all_of(shards), cancelled.clone()), watching);
}

#[tokio::test]
async fn a_break_in_a_stream_stops_its_shard_alone() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (log, app, shards) = memory(2, Plays::Kafka);
    let mut broken = Chained::new(app.clone(), Shard::new(0), shards);
    let mut whole = Chained::new(app, Shard::new(1), shards);
    for writer in [&mut broken, &mut whole] {
        let records = vec![
            writer.claim(),
            writer.commit("order-1", 1, 2),
            writer.commit("order-1", 3, 1),
        ];
        append(&*log, writer, records).await;
    }
    let gap = vec![broken.commit("order-1", 5, 1), broken.commit("order-1", 6, 1)];
    append(&*log, &broken, gap).await;

    let indexer = Indexer::new(log.clone(), pool.clone(), catalog(), settings(100));
    let (mut progress, cancelled) = (indexer.progress(), CancellationToken::new());
    let (wanted, shards) = watch::channel(shards.shards().collect());
    let watching = async {
        until(&mut progress, |all| {
            all.get(&Shard::new(0)).is_some_and(|at| at.stopped.is_some())
        })
        .await;
        {
            let all = progress.borrow();
            let at = &all[&Shard::new(0)];
            assert_eq!(at.next, Offset::new(3));
            assert!(
                at.stopped.as_ref().unwrap().to_string().contains("order-1"),
                "{at:?}"
            );
        }
        // The other one goes on.
        let more = whole.commit("order-1", 4, 1);
        append(&*log, &whole, vec![more]).await;
        until(&mut progress, |all| {
            all.get(&Shard::new(1)).is_some_and(|at| at.next.get() == 4)
        })
        .await;
        // Taken away and given back it begins anew: where it was.
        wanted.send(BTreeSet::new()).unwrap();
        until(&mut progress, BTreeMap::is_empty).await;
        wanted.send([Shard::new(1)].into()).unwrap();
        until(&mut progress, |all| {
            all.get(&Shard::new(1)).is_some_and(|at| at.next.get() == 4)
        })
        .await;
        cancelled.cancel();
    };
    tokio::join!(indexer.run(shards, cancelled.clone()), watching);
    assert_eq!(rows(&pool, Shard::new(0)).await.len(), 3);
    assert_eq!(rows(&pool, Shard::new(1)).await.len(), 4);
}

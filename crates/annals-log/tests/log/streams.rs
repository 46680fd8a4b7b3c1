//! The journal by stream and the snapshots, on Postgres and in memory: the same answers.

use std::sync::Arc;

use annals_log::testing::Chained;
use annals_log::{
    Appended, Checkpoint, JournalHead, KeyTrail, LoadRequest, Log, MemoryLog, MemoryStore, PgStreamStore,
    Plays, Snapshot, StreamStore,
};
use annals_record::{AppName, Hash32, Offset, Shard, ShardCount, StreamId, Version, hash};
use bytes::Bytes;

use super::postgres::Fixture;

const PRINT: Hash32 = Hash32::new([7; 32]);

fn stream(id: &str) -> StreamId {
    StreamId::try_from(id).unwrap()
}

fn request(id: &str, fingerprint: Hash32) -> LoadRequest {
    LoadRequest {
        shard: Shard::new(0),
        stream: stream(id),
        fingerprint,
        in_full: false,
    }
}

fn snapshot(id: &str, offset: u64, fingerprint: Hash32) -> Snapshot {
    Snapshot {
        stream: stream(id),
        offset: Offset::new(offset),
        version: Version::new(offset),
        fingerprint,
        state: Bytes::from_static(b"{\"n\":1}"),
        keys: vec![KeyTrail {
            hash: u64::MAX,
            offset: Offset::new(1),
            time_ms: 5,
        }],
    }
}

/// A claim, then order-1, order-2, order-1 and a refusal to order-1: offsets 0 to 4.
async fn fill(log: &dyn Log, writer: &mut Chained) {
    let at = writer.head();
    let records = vec![
        writer.claim(),
        writer.commit("order-1", 1, 1),
        writer.commit("order-2", 1, 2),
        writer.commit("order-1", 2, 1),
        writer.refusal("order-1", 3),
    ];
    let landed = log.append(Shard::new(0), at, records).await;
    assert!(matches!(landed, Appended::Landed(_)), "{landed:?}");
}

async fn behaves(store: &dyn StreamStore, writer: &Chained) {
    let offsets = |loaded: &annals_log::Loaded| loaded.rows.iter().map(|(o, _)| o.get()).collect::<Vec<_>>();
    let one_two = [
        request("order-2", PRINT),
        request("order-1", PRINT),
        request("order-3", PRINT),
        request("order-1", PRINT),
    ];
    let loaded = store.load(&one_two).await.unwrap();
    let rows: Vec<_> = loaded.iter().map(offsets).collect();
    assert_eq!(rows, [vec![2], vec![1, 3, 4], vec![], vec![1, 3, 4]]);
    assert!(
        loaded
            .iter()
            .all(|loaded| loaded.snapshot.is_none() && loaded.journal_next == Offset::new(5))
    );
    assert!(store.load(&[]).await.unwrap().is_empty());

    let refusal = &loaded[1].rows[2].1;
    assert_eq!(
        store
            .record_at(Shard::new(0), Offset::new(4))
            .await
            .unwrap()
            .as_ref(),
        Some(refusal)
    );
    let claim = store
        .record_at(Shard::new(0), Offset::new(0))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(claim.kind().as_str(), "claim");
    assert_eq!(
        store.record_at(Shard::new(0), Offset::new(5)).await.unwrap(),
        None
    );

    let checkpoint = store.checkpoint(Shard::new(0)).await.unwrap();
    assert_eq!(checkpoint.head, writer.head());
    assert_eq!(checkpoint.last_hash, hash::record_hash(refusal));

    let kept = snapshot("order-1", 3, PRINT);
    let older = snapshot("order-1", 2, PRINT);
    store
        .save_snapshots(vec![older.clone(), kept.clone()])
        .await
        .unwrap();
    store
        .save_snapshots(vec![older, snapshot("product-1", 1, PRINT)])
        .await
        .unwrap();
    let in_full = LoadRequest {
        in_full: true,
        ..request("order-1", PRINT)
    };
    let other = request("order-1", Hash32::new([8; 32]));
    let loaded = store
        .load(&[
            request("order-1", PRINT),
            in_full,
            other,
            request("order-2", PRINT),
        ])
        .await
        .unwrap();
    let rows: Vec<_> = loaded.iter().map(offsets).collect();
    assert_eq!(rows, [vec![3, 4], vec![1, 3, 4], vec![1, 3, 4], vec![2]]);
    let found = loaded[0].snapshot.as_ref().unwrap();
    assert_eq!(
        (found.offset, found.version, found.fingerprint),
        (kept.offset, kept.version, PRINT)
    );
    assert_eq!((&found.state, &found.keys), (&kept.state, &kept.keys));
    assert!(loaded[1..].iter().all(|loaded| loaded.snapshot.is_none()));

    assert_eq!(store.drop_snapshots("order").await.unwrap(), 1);
    let loaded = store
        .load(&[request("order-1", PRINT), request("product-1", PRINT)])
        .await
        .unwrap();
    assert!(loaded[0].snapshot.is_none() && loaded[1].snapshot.is_some());
}

#[tokio::test]
async fn postgres_and_memory_give_the_same_answers() {
    let one = ShardCount::try_from(1).unwrap();
    let app = AppName::try_from("example").unwrap();
    let memory = Arc::new(MemoryLog::new(app, one, Plays::Kafka));
    let mut writer = Chained::example();
    fill(&*memory, &mut writer).await;
    behaves(&MemoryStore::new(memory), &writer).await;

    let Some(mut fixture) = Fixture::create(one).await else {
        return;
    };
    let log = fixture.open().await;
    fill(&*log, &mut fixture.writer(0)).await;
    let (pool, app) = (fixture.pool.clone(), fixture.app.clone());
    behaves(&PgStreamStore::new(pool, app, one, JournalHead::LogHead), &writer).await;
}

#[tokio::test]
async fn behind_kafka_the_indexers_checkpoint_says_how_far_the_journal_goes() {
    let one = ShardCount::try_from(1).unwrap();
    let Some(mut fixture) = Fixture::create(one).await else {
        return;
    };
    let log = fixture.open().await;
    fill(&*log, &mut fixture.writer(0)).await;
    let genesis = Checkpoint::genesis(fixture.writer(0).head());
    let store = PgStreamStore::new(
        fixture.pool.clone(),
        fixture.app.clone(),
        one,
        JournalHead::Indexer,
    );
    assert_eq!(store.checkpoint(Shard::new(0)).await.unwrap(), genesis);
    let loaded = store.load(&[request("order-1", PRINT)]).await.unwrap();
    assert_eq!(loaded[0].journal_next, Offset::new(0));

    let mut writer = fixture.writer(0);
    let claim = writer.claim();
    let at = Checkpoint {
        head: writer.head(),
        last_hash: hash::record_hash(&claim),
        last_ghost: false,
    };
    let mut connection = fixture.pool.acquire().await.unwrap();
    Checkpoint::advance(&mut connection, "indexer", Shard::new(0), &genesis, &at)
        .await
        .unwrap();
    assert_eq!(store.checkpoint(Shard::new(0)).await.unwrap(), at);
    let loaded = store.load(&[request("order-1", PRINT)]).await.unwrap();
    assert_eq!(loaded[0].journal_next, Offset::new(1));
}

#[tokio::test]
async fn a_snapshot_of_another_form_is_passed_over() {
    let one = ShardCount::try_from(1).unwrap();
    let Some(mut fixture) = Fixture::create(one).await else {
        return;
    };
    let log = fixture.open().await;
    fill(&*log, &mut fixture.writer(0)).await;
    let store = PgStreamStore::new(
        fixture.pool.clone(),
        fixture.app.clone(),
        one,
        JournalHead::LogHead,
    );
    store
        .save_snapshots(vec![snapshot("order-1", 3, PRINT)])
        .await
        .unwrap();
    sqlx::query("UPDATE annals.snapshot SET state = '\\xff'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    let loaded = store
        .load(&[request("order-2", PRINT), request("order-1", PRINT)])
        .await
        .unwrap();
    assert!(loaded[1].snapshot.is_none());
    assert_eq!(loaded[1].rows.len(), 3);
    assert_eq!(loaded[1].journal_next, Offset::new(5));
}

//! Checkpoints in Postgres: compare-and-set, one statement for all shards (L8).

use annals_log::testing::Chained;
use annals_log::{Checkpoint, CheckpointError};
use annals_record::record::Record;
use annals_record::{Shard, hash};
use annals_store::testing::TestDatabase;

const READER: &str = "projection/orders/1";

fn after(chained: &Chained, record: &Record) -> Checkpoint {
    Checkpoint {
        head: chained.head(),
        last_hash: hash::record_hash(record),
        last_ghost: false,
    }
}

#[tokio::test]
async fn moves_from_where_the_reader_left_it_and_nowhere_else() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let mut connection = pool.acquire().await.unwrap();
    let (shard, mut chained) = (Shard::new(3), Chained::example());
    let genesis = Checkpoint::genesis(chained.head());
    assert_eq!(Checkpoint::load(&pool, READER, shard).await.unwrap(), None);

    let first = chained.claim();
    let first = after(&chained, &first);
    Checkpoint::advance(&mut connection, READER, shard, &genesis, &first)
        .await
        .unwrap();
    assert_eq!(
        Checkpoint::load(&pool, READER, shard).await.unwrap(),
        Some(first.clone())
    );

    let second = chained.commit("order-1", 1, 1);
    let second = after(&chained, &second);
    // A zombie that begins anew, one at the same offset with another ghost flag, one that is ahead.
    let other = Checkpoint {
        last_ghost: true,
        ..first.clone()
    };
    for zombie in [&genesis, &other, &second] {
        let moved = Checkpoint::advance(&mut connection, READER, shard, zombie, &second).await;
        assert!(
            matches!(moved, Err(CheckpointError::Moved { .. })),
            "{zombie:?} {moved:?}"
        );
    }
    let back = Checkpoint::advance(&mut connection, READER, shard, &first, &genesis).await;
    assert!(matches!(back, Err(CheckpointError::Backwards { .. })));
    Checkpoint::advance(&mut connection, READER, shard, &first, &second)
        .await
        .unwrap();
    // Another reader's checkpoint is its own.
    Checkpoint::advance(&mut connection, "audit", shard, &genesis, &first)
        .await
        .unwrap();
    assert_eq!(
        Checkpoint::load_all(&pool, READER).await.unwrap(),
        [(shard, second)]
    );
}

#[tokio::test]
async fn moves_all_shards_in_one_statement_and_names_the_one_that_another_moved() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let mut chained = Chained::example();
    let genesis = Checkpoint::genesis(chained.head());
    let record = chained.claim();
    let first = after(&chained, &record);
    let record = chained.commit("order-1", 1, 1);
    let second = after(&chained, &record);
    let (a, b, c) = (Shard::new(0), Shard::new(1), Shard::new(2));

    let mut transaction = pool.begin().await.unwrap();
    Checkpoint::advance_all(
        &mut transaction,
        READER,
        &[(b, &genesis, &first), (a, &genesis, &first)],
    )
    .await
    .unwrap();
    transaction.commit().await.unwrap();

    let mut transaction = pool.begin().await.unwrap();
    let moves = [
        (a, &first, &second),
        (b, &genesis, &second),
        (c, &genesis, &second),
    ];
    let moved = Checkpoint::advance_all(&mut transaction, READER, &moves).await;
    assert!(matches!(moved, Err(CheckpointError::Moved { shard, .. }) if shard == b));
    transaction.rollback().await.unwrap();

    let mut transaction = pool.begin().await.unwrap();
    let moves = [(c, &genesis, &second), (a, &first, &second)];
    Checkpoint::advance_all(&mut transaction, READER, &moves)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    let all = Checkpoint::load_all(&pool, READER).await.unwrap();
    assert_eq!(all, [(a, second.clone()), (b, first), (c, second)]);
}

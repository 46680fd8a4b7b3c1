//! Freshness: waiting, lag, entity tags, the cache, and a switch of builds.

use std::sync::Arc;
use std::time::Duration;

use annals_query::{CHANNEL, Limits, QueryError, Request};
use annals_record::Position;
use annals_store::notify::Listener;
use sqlx::AssertSqlSafe;

use crate::support::{ANN, NOW_MS, SHOP, World, checkpoint, everything, ids, order, orders, run};

fn position(text: &str) -> Position {
    text.parse().unwrap()
}

fn after(request: Request, positions: &[&str], wait: Duration) -> Request {
    let after = positions.iter().map(|text| position(text)).collect();
    Request {
        after,
        wait,
        ..request
    }
}

#[tokio::test]
async fn a_query_waits_for_its_position_and_sees_the_row() {
    let Some(world) = World::make().await else { return };
    let listener = Listener::connect(&Limits::default().pool(world.url.as_str()), &[CHANNEL])
        .await
        .unwrap();
    let freshness = Arc::clone(&world.freshness);
    let task = tokio::spawn(async move { freshness.run(Some(listener)).await });
    let request = after(orders(), &["1:4", "0:0"], Duration::from_secs(30));
    let prepared = world.queries.prepare(request).unwrap();
    let queries = Arc::clone(&world.queries);
    let waiting = tokio::spawn(async move { queries.list(prepared).await });
    let mut projector = world.pool.begin().await.unwrap();
    sqlx::query(AssertSqlSafe(format!(
        "INSERT INTO shop_b1.orders VALUES ('{}', '{ANN}', 'placed', 1, now(), NULL, NULL, NULL, 1)",
        order(1)
    )))
    .execute(&mut *projector)
    .await
    .unwrap();
    sqlx::query("INSERT INTO annals.checkpoint (reader, shard, next_offset, accepted, epoch, chain, time_ms, closed, last_ghost)
                 VALUES ('projection/shop/1', 1, 5, 5, 1, '', 0, false, false)")
        .execute(&mut *projector)
        .await
        .unwrap();
    assert!(!waiting.is_finished());
    projector.commit().await.unwrap();
    run(&world.pool, &format!("NOTIFY {CHANNEL}, 'shop/1/1=5'")).await;
    let list = waiting.await.unwrap().unwrap();
    assert_eq!(ids(&list), [1]);
    assert_eq!(list.meta.positions, [position("0:0"), position("1:4")]);
    assert_eq!(list.meta.positions.text(), "0:0, 1:4");
    task.abort();
}

#[tokio::test]
async fn behind_says_how_far() {
    let Some(world) = World::make().await else { return };
    let request = after(orders(), &["0:0", "0:7"], Duration::from_millis(1));
    match world.list(request).await.unwrap_err() {
        QueryError::Behind {
            position: wanted,
            at,
            distance,
        } => {
            assert_eq!(
                (wanted, at, distance),
                (position("0:7"), Some(position("0:0")), 7)
            );
        }
        other => panic!("{other}"),
    }
    match world
        .list(after(orders(), &["2:0"], Duration::ZERO))
        .await
        .unwrap_err()
    {
        QueryError::Behind {
            at: None,
            distance: 1,
            ..
        } => {}
        other => panic!("{other}"),
    }
    for unknown in ["0:0~2", "4:0"] {
        let error = world
            .queries
            .prepare(after(orders(), &[unknown], Duration::ZERO))
            .unwrap_err();
        assert!(matches!(error, QueryError::UnknownPosition(_)), "{error}");
    }
}

#[tokio::test]
async fn an_expansion_waits_for_both_projections() {
    let Some(world) = World::make().await else { return };
    checkpoint(&world.pool, "shop/1", 0, 9).await;
    checkpoint(&world.pool, "shop/1", 2, 9).await;
    checkpoint(&world.pool, "people/1", 0, 5).await;
    world.freshness.refresh().await.unwrap();
    let expanded = || orders().with("expand", "customer");
    assert!(
        world
            .list(after(orders(), &["0:8"], Duration::ZERO))
            .await
            .is_ok()
    );
    let error = world
        .list(after(expanded(), &["0:8"], Duration::ZERO))
        .await
        .unwrap_err();
    assert!(matches!(error, QueryError::Behind { distance: 4, .. }));
    let list = world
        .list(after(expanded(), &["0:4"], Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(list.meta.positions, [position("0:4")]);
}

#[tokio::test]
async fn lag_is_the_age_of_the_oldest_record_that_is_missing() {
    let Some(world) = World::make().await else { return };
    let journal = |offset: i64, age_ms: i64| {
        format!(
            "INSERT INTO annals.journal (log_offset, time_ms, epoch, id, shard, kind, value)
             VALUES ({offset}, {}, 1, gen_random_uuid(), 3, 3, '')",
            NOW_MS - age_ms
        )
    };
    run(&world.pool, &journal(0, 5_000)).await;
    run(&world.pool, &journal(1, 3_000)).await;
    let lag = async || {
        world.freshness.refresh().await.unwrap();
        world.list(orders()).await.unwrap().meta.lag_ms
    };
    assert_eq!(lag().await, 5_000);
    checkpoint(&world.pool, "shop/1", 3, 1).await;
    assert_eq!(lag().await, 3_000);
    world.clock.advance_ms(500);
    assert_eq!(lag().await, 3_500);
    checkpoint(&world.pool, "shop/1", 3, 2).await;
    // The statement itself sees it before the task does.
    assert_eq!(
        world.list(orders().with("limit", "1")).await.unwrap().meta.lag_ms,
        0
    );
    assert_eq!(lag().await, 0);
}

#[tokio::test]
async fn not_modified_and_the_cache_need_no_database_until_the_checkpoint_moves() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    let first = world.list(orders()).await.unwrap();
    let prepared = || world.queries.prepare(orders()).unwrap();
    // Nobody can read it now: whatever is answered comes from memory.
    run(&world.pool, "ALTER TABLE shop_b1.orders RENAME TO away").await;
    let again = world.list(orders()).await.unwrap();
    assert_eq!(first.body(), again.body());
    assert_eq!(first.meta, again.meta);
    let tag = &first.meta.etag;
    assert_eq!(
        world.queries.not_modified(&prepared(), tag),
        Some(first.meta.clone())
    );
    assert_eq!(
        world.queries.not_modified(&prepared(), &format!("\"x\", {tag}")),
        Some(first.meta.clone())
    );
    // Another query, another caller, a position that is not there yet: no.
    let other = world.queries.prepare(orders().with("limit", "7")).unwrap();
    assert_eq!(world.queries.not_modified(&other, tag), None);
    let scope = annals_query::Scope::default().with("orders", annals_query::Access::own(ANN));
    let other = world.queries.prepare(Request::list("orders", scope)).unwrap();
    assert_eq!(world.queries.not_modified(&other, tag), None);
    let fresher = world
        .queries
        .prepare(after(orders(), &["0:1"], Duration::ZERO))
        .unwrap();
    assert_eq!(world.queries.not_modified(&fresher, tag), None);
    run(&world.pool, "ALTER TABLE shop_b1.away RENAME TO orders").await;

    world.order(2, ANN, 2, None).await;
    checkpoint(&world.pool, "shop/1", 0, 2).await;
    world.freshness.refresh().await.unwrap();
    assert_eq!(world.queries.not_modified(&prepared(), tag), None);
    assert_eq!(ids(&world.list(orders()).await.unwrap()), [1, 2]);
}

#[tokio::test]
async fn parked_streams_are_counted_and_change_the_tag() {
    let Some(world) = World::make().await else { return };
    let before = world.list(orders()).await.unwrap().meta;
    run(
        &world.pool,
        "INSERT INTO annals.parked (projection, build, stream, shard, log_offset, event_index, type)
         VALUES ('shop', 1, 'order-1', 0, 0, 0, 'x'), ('shop', 1, 'order-1', 0, 1, 0, 'x'), ('shop', 1, 'order-2', 0, 2, 0, 'x'),
                ('shop', 2, 'order-3', 0, 3, 0, 'x'), ('other', 1, 'order-3', 0, 3, 0, 'x')",
    )
    .await;
    world.freshness.refresh().await.unwrap();
    let with = world.list(orders()).await.unwrap().meta;
    assert_eq!((before.parked, with.parked), (0, 2));
    assert_ne!(before.etag, with.etag);
}

#[tokio::test]
async fn a_query_follows_a_switch_to_another_build() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    world.order(2, ANN, 2, None).await;
    let first = world.list(orders().with("limit", "1")).await.unwrap();
    let prepared = world.queries.prepare(orders()).unwrap();
    run(&world.pool, &SHOP.replace("$B", "2")).await;
    run(
        &world.pool,
        "INSERT INTO shop_b2.orders SELECT * FROM shop_b1.orders;
         ALTER TABLE shop_b2.orders ADD COLUMN extra int DEFAULT 5;
         INSERT INTO annals.checkpoint SELECT 'projection/shop/2', shard, next_offset + 1, accepted, epoch, chain,
             time_ms, closed, last_hash, last_ghost FROM annals.checkpoint WHERE reader = 'projection/shop/1';
         INSERT INTO annals.projection (name, build, digest, state) VALUES ('shop', 2, '', 'building')",
    )
    .await;
    run(
        &world.pool,
        "UPDATE annals.projection SET live = false WHERE name = 'shop'",
    )
    .await;
    run(
        &world.pool,
        "UPDATE annals.projection SET live = true WHERE name = 'shop' AND build = 2",
    )
    .await;
    world.freshness.refresh().await.unwrap();
    // Prepared before, answered after: from the build that is live now.
    let list = world.queries.list(prepared).await.unwrap();
    assert!(list.data.contains("\"extra\":5"), "{}", list.data);
    assert_eq!(list.meta.positions, [position("0:1")]);
    assert_ne!(first.meta.etag, list.meta.etag);
    // A cursor of the build before goes on in this one.
    let next = first.next.unwrap();
    let second = world
        .list(orders().with("limit", "1").with("cursor", &next))
        .await
        .unwrap();
    assert_eq!(ids(&second), [2]);
    // Back again, and the other build is dropped under a statement that was prepared on it.
    let prepared = world.queries.prepare(orders().with("limit", "2")).unwrap();
    run(&world.pool, "DROP SCHEMA shop_b2 CASCADE; UPDATE annals.projection SET live = (build = 1) WHERE name = 'shop' AND live").await;
    run(
        &world.pool,
        "UPDATE annals.projection SET live = true WHERE name = 'shop' AND build = 1",
    )
    .await;
    let list = world.queries.list(prepared).await.unwrap();
    assert!(!list.data.contains("extra"));
    // Nothing live: said so.
    run(
        &world.pool,
        "UPDATE annals.projection SET live = false WHERE name = 'shop'",
    )
    .await;
    let error = world.list(orders().with("limit", "3")).await.unwrap_err();
    assert!(matches!(error, QueryError::NotBuilt { .. }), "{error}");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_a_timeout() {
    let limits = Limits {
        statement_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let Some(world) = World::with(limits).await else {
        return;
    };
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE shop_b1.orders IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let error = world
        .row(Request::row("orders", order(1), everything()))
        .await
        .unwrap_err();
    assert!(matches!(error, QueryError::Timeout), "{error}");
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn what_a_new_build_offers_can_be_asked_for_at_once() {
    let Some(world) = World::make().await else {
        return;
    };
    let listener = Listener::connect(&Limits::default().pool(world.url.as_str()), &[CHANNEL])
        .await
        .unwrap();
    let queries = Arc::clone(&world.queries);
    let task = tokio::spawn(async move { queries.run(Some(listener)).await });
    run(&world.pool, &SHOP.replace("$B", "2")).await;
    run(
        &world.pool,
        "INSERT INTO annals.projection (name, build, digest, state) VALUES ('shop', 2, '', 'building');
         UPDATE annals.projection SET live = false WHERE name = 'shop' AND build = 1;
         UPDATE annals.projection SET live = true WHERE name = 'shop' AND build = 2;
         NOTIFY annals_projection, 'shop'",
    )
    .await;
    let seen = async {
        while world.queries.resources().get("orders").unwrap().build != 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), seen).await.unwrap();
    task.abort();
}

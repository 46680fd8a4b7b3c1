//! The connections of queries: one round trip each, and a server that cuts them is not noticed by callers.

use std::time::Duration;

use annals_query::{Limits, QueryError, Request};
use sqlx::Row;

use crate::support::{ANN, World, everything, order, orders, run};

async fn cut(world: &World) -> i64 {
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'annals-query'";
    let cut: i64 = sqlx::query_scalar(cut).fetch_one(&world.pool).await.unwrap();
    // Until they are gone: a terminated one may answer once more.
    let left = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'annals-query'";
    while sqlx::query(left).fetch_one(&world.pool).await.unwrap().get::<i64, _>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cut
}

#[tokio::test]
async fn connections_that_broke_while_nobody_used_them_are_not_noticed() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    for round in 0..3 {
        // Several at once, so that several are kept.
        let all = (0..6).map(|n| world.list(orders().with("total.gte", &(round * 10 - n).to_string())));
        for list in futures_util::future::join_all(all).await {
            list.unwrap();
        }
        assert!(cut(&world).await >= 2, "several connections are kept");
    }
    world.row(Request::row("orders", order(1), everything())).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_asked_for_nothing_but_the_query() {
    let limits = Limits {
        cache_bytes: 0,
        ..Limits::default()
    };
    let Some(world) = World::with(limits).await else { return };
    world.order(1, ANN, 1, None).await;
    let get = || world.row(Request::row("orders", order(1), everything()));
    get().await.unwrap();
    let changed = async || {
        let sql = "SELECT max(state_change)::text FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'annals-query' AND query LIKE '%shop_b1%'";
        sqlx::query(sql).fetch_one(&world.pool).await.unwrap().get::<Option<String>, _>(0)
    };
    get().await.unwrap();
    // What a driver would ask when a connection comes back changes its state after the answer is there.
    let before = changed().await;
    assert!(before.is_some());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(changed().await, before);
}

#[tokio::test]
async fn more_queries_than_connections_wait_their_turn_and_no_longer_than_a_statement_may_take() {
    let limits = Limits {
        connections: 1,
        statement_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let Some(world) = World::with(limits).await else { return };
    world.order(1, ANN, 1, None).await;
    let all = (0..20).map(|n| world.list(orders().with("total.gte", &n.to_string())));
    for list in futures_util::future::join_all(all).await {
        list.unwrap();
    }
    // One that is stuck: it ends by its own time, and whoever waits behind it by theirs.
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE shop_b1.orders IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let stuck = |n: u32| world.row(Request::row("orders", order(n), everything()));
    let (first, second) = tokio::join!(stuck(1), stuck(2));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(matches!(error, QueryError::Timeout | QueryError::Unavailable(_)), "{error}");
    }
    lock.rollback().await.unwrap();
    stuck(1).await.unwrap();
    // A caller who goes away in the middle leaves nothing behind.
    run(&world.pool, "ALTER TABLE shop_b1.orders ADD COLUMN slow int").await;
    let gone = tokio::time::timeout(Duration::from_millis(1), world.list(orders().with("sort", "-total"))).await;
    drop(gone);
    for _ in 0..3 {
        world.list(orders().with("limit", "3")).await.unwrap();
    }
}

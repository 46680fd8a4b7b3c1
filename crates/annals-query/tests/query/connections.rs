//! The connections of queries: one round trip each, and a server that cuts them is not noticed by callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_query::{Limits, QueryError, Request};
use sqlx::Row;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{ANN, World, everything, order, orders, run};

async fn cut(world: &World) -> i64 {
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'annals-query'";
    let cut: i64 = sqlx::query_scalar(cut).fetch_one(&world.pool).await.unwrap();
    // Until they are gone: a terminated one may answer once more.
    let left = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'annals-query'";
    while sqlx::query(left)
        .fetch_one(&world.pool)
        .await
        .unwrap()
        .get::<i64, _>(0)
        > 0
    {
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
    world
        .row(Request::row("orders", order(1), everything()))
        .await
        .unwrap();
}

/// Hands everything on to the server, and counts how often somebody on this side speaks.
async fn counting(url: &str) -> (String, Arc<AtomicU64>) {
    let (before, rest) = url.split_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = format!("{before}@{}/{database}", listener.local_addr().unwrap());
    let (server, spoken) = (server.to_owned(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&spoken);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    count.fetch_add(1, Ordering::SeqCst);
                    to_server.write_all(&buffer[..length]).await.unwrap();
                }
            });
        }
    });
    (own, spoken)
}

#[tokio::test]
async fn a_query_is_one_round_trip() {
    let limits = Limits {
        cache_bytes: 0,
        ..Limits::default()
    };
    let Some(world) = World::with(limits).await else {
        return;
    };
    world.order(1, ANN, 1, None).await;
    let (url, spoken) = counting(&world.url).await;
    // Nobody else speaks: a node that does not keep itself up to date.
    let node = world.node_at(&url, limits, None).await;
    node.stop();
    let get = async || {
        let request = Request::row("orders", order(1), everything());
        let prepared = node.queries.prepare(request).unwrap();
        node.queries.row(prepared).await.unwrap();
    };
    // The statement is prepared once.
    get().await;
    get().await;
    let before = spoken.load(Ordering::SeqCst);
    for _ in 0..50 {
        get().await;
    }
    // What would be said when a connection comes back is said by a task of its own.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(spoken.load(Ordering::SeqCst) - before, 50);
}

#[tokio::test]
async fn more_queries_than_connections_wait_their_turn_and_no_longer_than_a_statement_may_take() {
    let limits = Limits {
        connections: 1,
        statement_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let Some(world) = World::with(limits).await else {
        return;
    };
    world.order(1, ANN, 1, None).await;
    let all = (0..20).map(|n| world.list(orders().with("total.gte", &n.to_string())));
    for list in futures_util::future::join_all(all).await {
        list.unwrap();
    }
    // One that is stuck: it ends by its own time, and whoever waits behind it by theirs.
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE shop_b1.orders IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let stuck = |n: u32| world.row(Request::row("orders", order(n), everything()));
    let (first, second) = tokio::join!(stuck(1), stuck(2));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(
            matches!(error, QueryError::Timeout | QueryError::Unavailable(_)),
            "{error}"
        );
    }
    lock.rollback().await.unwrap();
    stuck(1).await.unwrap();
    // A caller who goes away in the middle leaves nothing behind.
    run(&world.pool, "ALTER TABLE shop_b1.orders ADD COLUMN slow int").await;
    let gone = tokio::time::timeout(
        Duration::from_millis(1),
        world.list(orders().with("sort", "-total")),
    )
    .await;
    drop(gone);
    for _ in 0..3 {
        world.list(orders().with("limit", "3")).await.unwrap();
    }
}

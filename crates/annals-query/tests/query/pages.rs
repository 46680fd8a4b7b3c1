//! Pages: none skips or repeats a row.

use annals_query::{Access, QueryError, Request, Scope};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{ANN, BOB, World, ids, order, orders, run};

/// All pages of a request, one after the other; `between` runs before each but the first.
async fn walk(world: &World, request: &Request, mut between: impl AsyncFnMut(usize)) -> Vec<u32> {
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    for page in 0.. {
        let mut request = request.clone();
        if let Some(cursor) = &next {
            between(page).await;
            request = request.with("cursor", cursor);
        }
        let list = world.list(request).await.unwrap();
        all.extend(ids(&list));
        next = list.next.map(|next| next.to_string());
        if next.is_none() {
            return all;
        }
        assert!(page < 1_000, "pages do not end");
    }
    unreachable!()
}

/// What the whole list is in the order of a sort, nulls last, ties by key in the sort's direction.
async fn expected(world: &World, sort: &str) -> Vec<u32> {
    let (column, direction) = sort
        .strip_prefix('-')
        .map_or((sort, "ASC"), |column| (column, "DESC"));
    let sql = format!(
        "SELECT order_id::text FROM shop_b1.orders
         ORDER BY {column} {direction} NULLS LAST, order_id {direction}"
    );
    let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_all(&world.pool)
        .await
        .unwrap();
    rows.iter()
        .map(|id| u32::from_str_radix(&id[24..], 16).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_never_skip_or_repeat_a_row() {
    let Some(world) = World::make().await else { return };
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    let rows = prop::collection::vec((0i64..4, prop::option::weighted(0.6, 1u32..4)), 0..30);
    let sorts = prop::sample::select(vec![
        "total",
        "-total",
        "placed_at",
        "-placed_at",
        "paid_on",
        "-paid_on",
    ]);
    let late = prop::collection::vec((0i64..4, prop::option::weighted(0.6, 1u32..4)), 0..6);
    let strategy = (rows, late, sorts, 1u32..12);
    let handle = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| {
        runner
            .run(&strategy, |(rows, late, sort, limit)| {
                handle.block_on(one_walk(&world, &rows, &late, sort, limit))
            })
            .unwrap();
    });
}

async fn one_walk(
    world: &World,
    rows: &[(i64, Option<u32>)],
    late: &[(i64, Option<u32>)],
    sort: &str,
    limit: u32,
) -> Result<(), TestCaseError> {
    run(&world.pool, "TRUNCATE shop_b1.orders").await;
    let day = |day: &Option<u32>| day.map(|day| format!("2026-11-{day:02}"));
    let even = |n: usize| u32::try_from(n * 2).unwrap();
    for (n, (total, paid)) in rows.iter().enumerate() {
        world.order(even(n), ANN, *total, day(paid).as_deref()).await;
    }
    let before = expected(world, sort).await;
    let request = orders().with("sort", sort).with("limit", &limit.to_string());
    // Nothing moves: exactly the list. (The cache would give pages of the rows before: every walk is new to it.)
    advance(world).await;
    prop_assert_eq!(&walk(world, &request, async |_| ()).await, &before);
    // Rows come in between: each old one exactly once and in order, each new one at most once.
    advance(world).await;
    let walked = walk(world, &request, async |page| {
        if let Some((total, paid)) = late.get(page - 1) {
            let n = even(page * 5) + 1;
            world.order(n, BOB, *total, day(paid).as_deref()).await;
            advance(world).await;
        }
    })
    .await;
    let old: Vec<u32> = walked.iter().copied().filter(|n| n % 2 == 0).collect();
    prop_assert_eq!(&old, &before);
    let mut once = walked.clone();
    once.sort_unstable();
    once.dedup();
    prop_assert_eq!(once.len(), walked.len());
    Ok(())
}

/// Moves the projection's checkpoint, as every change of rows does.
async fn advance(world: &World) {
    run(
        &world.pool,
        "UPDATE annals.checkpoint SET next_offset = next_offset + 1 WHERE reader = 'projection/shop/1'",
    )
    .await;
    world.freshness.refresh().await.unwrap();
}

#[tokio::test]
async fn a_cursor_serves_only_its_own_query_and_caller() {
    let Some(world) = World::make().await else { return };
    for n in 1..=5 {
        world.order(n, ANN, i64::from(n), None).await;
    }
    let request = orders()
        .with("sort", "-total")
        .with("limit", "2")
        .with("status", "placed");
    let list = world.list(request.clone()).await.unwrap();
    let next = list.next.clone().unwrap().to_string();
    assert_eq!(ids(&list), [5, 4]);
    let second = world.list(request.with("cursor", &next)).await.unwrap();
    assert_eq!(ids(&second), [3, 2]);
    // The page's size and columns may change on the way.
    let wide = orders()
        .with("sort", "-total")
        .with("status", "placed")
        .with("cursor", &next);
    assert_eq!(ids(&world.list(wide.clone()).await.unwrap()), [3, 2, 1]);

    let own = Scope::default().with("orders", Access::own(ANN));
    let mut tampered = next.clone();
    tampered.replace_range(0..1, if next.starts_with('A') { "B" } else { "A" });
    let others = [
        orders()
            .with("sort", "total")
            .with("status", "placed")
            .with("cursor", &next),
        orders().with("sort", "-total").with("cursor", &next),
        orders()
            .with("sort", "-total")
            .with("status", "shipped")
            .with("cursor", &next),
        Request { scope: own, ..wide },
        orders()
            .with("sort", "-total")
            .with("status", "placed")
            .with("cursor", &tampered),
        orders().with("cursor", ""),
    ];
    for other in others {
        let error = world.queries.prepare(other).unwrap_err();
        assert!(matches!(error, QueryError::InvalidCursor), "{error}");
    }
}

#[tokio::test]
async fn the_last_page_has_no_next_even_if_it_is_full() {
    let Some(world) = World::make().await else { return };
    for n in 1..=4 {
        world.order(n, ANN, 1, None).await;
    }
    let list = world.list(orders().with("limit", "4")).await.unwrap();
    assert_eq!((ids(&list), list.next.is_none()), (vec![1, 2, 3, 4], true));
    assert!(list.body().ends_with("],\"next\":null}"));
    let list = world.list(orders().with("limit", "3")).await.unwrap();
    assert!(list.next.is_some());
    assert_eq!(order(1).len(), 36);
}

/// Blocks that reading a page touches.
async fn blocks(world: &World, request: Request) -> i64 {
    let prepared = world.queries.prepare(request).unwrap();
    annals_query::check::blocks(&world.pool, &prepared).await.unwrap()
}

#[tokio::test]
async fn page_ten_thousand_costs_what_page_one_costs() {
    let Some(world) = World::make().await else { return };
    let fill = format!(
        "INSERT INTO shop_b1.orders
         SELECT ('0192f000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '{ANN}', 'placed', n % 50,
             '2026-11-01'::timestamptz + n * interval '1 second', CASE WHEN n % 2 = 0 THEN '2026-11-01'::date + n / 1000 END,
             NULL, NULL, 1 FROM generate_series(1, 50000) n;
         ANALYZE shop_b1.orders;"
    );
    run(&world.pool, &fill).await;
    for sort in ["placed_at", "-placed_at", "-total", "paid_on", "-paid_on"] {
        let (column, direction) = sort
            .strip_prefix('-')
            .map_or((sort, "ASC"), |column| (column, "DESC"));
        // A cursor deep in the list, sealed by the page that ends there.
        let first = orders().with("sort", sort).with("limit", "5");
        let sql = format!(
            "SELECT array_agg(v) FROM (SELECT order_id::text AS v FROM shop_b1.orders
             ORDER BY {column} {direction} NULLS LAST, order_id {direction} OFFSET 40000 LIMIT 5) s"
        );
        let expected: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&world.pool)
            .await
            .unwrap();
        let mut cursor: Option<String> = None;
        for _ in 0..80 {
            let mut request = orders().with("sort", sort).with("limit", "500");
            if let Some(cursor) = &cursor {
                request = request.with("cursor", cursor);
            }
            cursor = world
                .list(request)
                .await
                .unwrap()
                .next
                .map(|next| next.to_string());
        }
        let deep = first.clone().with("cursor", &cursor.unwrap());
        let found = ids(&world.list(deep.clone()).await.unwrap());
        let wanted: Vec<u32> = expected
            .iter()
            .map(|id| u32::from_str_radix(&id[24..], 16).unwrap())
            .collect();
        assert_eq!(found, wanted, "{sort}");
        let (at_first, at_deep) = (blocks(&world, first).await, blocks(&world, deep).await);
        assert!(
            at_deep <= at_first + 20,
            "{sort}: {at_first} blocks, then {at_deep}"
        );
    }
}

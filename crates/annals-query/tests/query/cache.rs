//! The cache: no answer claims a position that its rows do not have, or shows another caller's rows; bounded in bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annals_query::{Access, CHANNEL, Limits, Meta, Queries, Request, Scope};
use annals_record::{Offset, Position, Shard};
use serde_json::Value;

use crate::support::{ANN, BOB, World, json, order, orders, run};

/// One writer a shard; the row `n` counts the records of shard `n`.
const SHARDS: u32 = 4;

fn owner(n: u32) -> &'static str {
    if n.is_multiple_of(2) { ANN } else { BOB }
}

/// What the rows say must be what the positions say: both are of one snapshot.
fn check(rows: &[Value], meta: &Meta, who: Option<&str>) {
    for row in rows {
        if let Some(who) = who {
            assert_eq!(row["customer_id"], who, "another caller's row");
        }
        let id = row["order_id"].as_str().unwrap();
        let n = u32::from_str_radix(&id[24..], 16).unwrap();
        let claimed = meta
            .positions
            .iter()
            .find(|position| position.shard == Shard::new(n));
        let claimed = claimed.map_or(0, |position| position.offset.get() + 1);
        assert_eq!(
            row["total"].as_u64().unwrap(),
            claimed,
            "shard {n} of {:?}",
            meta.positions
        );
    }
}

fn rows(data: &str) -> Vec<Value> {
    match json(data) {
        Value::Array(rows) => rows,
        row => vec![row],
    }
}

/// Asks like many clients, and keeps what it got by tag, as a browser does.
async fn reader(
    queries: Arc<Queries>,
    number: u64,
    written: Arc<[AtomicU64; 4]>,
    done: Arc<AtomicBool>,
) -> (u64, u64) {
    let mut kept: HashMap<String, Vec<Value>> = HashMap::new();
    let mut last: HashMap<usize, String> = HashMap::new();
    let (mut asked, mut unchanged) = (0_u64, 0_u64);
    let mut dice = number * 7 + 1;
    let mut roll = |sides: u64| {
        // A linear congruential generator: Knuth, MMIX.
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    while !done.load(Ordering::Relaxed) {
        let kind = usize::try_from(roll(8)).unwrap();
        let all = || Scope::default().with("orders", Access::all());
        let own = |who: &str| Scope::default().with("orders", Access::own(who));
        let (who, mut request) = match kind {
            0..4 => (
                None,
                Request::row("orders", order(u32::try_from(kind).unwrap()), all()),
            ),
            4 => (None, Request::list("orders", all())),
            5 => (Some(ANN), Request::list("orders", own(ANN))),
            6 => (Some(BOB), Request::list("orders", own(BOB))),
            _ => (None, orders().with("sort", "-total").with("limit", "2")),
        };
        let shard = u32::try_from(roll(4)).unwrap();
        let records = written[usize::try_from(shard).unwrap()].load(Ordering::SeqCst);
        let fresh = roll(3) == 0 && records > 0;
        if fresh {
            request.after = vec![format!("{shard}:{}", records - 1).parse::<Position>().unwrap()];
            request.wait = Duration::from_secs(30);
        }
        let prepared = queries.prepare(request.clone()).unwrap();
        if let Some(tag) = last.get(&kind)
            && let Some(meta) = queries.not_modified(&prepared, tag)
        {
            check(&kept[tag], &meta, who);
            unchanged += 1;
            // Others want the processors too.
            tokio::time::sleep(Duration::from_micros(500)).await;
            continue;
        }
        let (data, meta) = match request.key {
            Some(_) => queries
                .row(prepared)
                .await
                .map(|row| (row.data, row.meta))
                .unwrap(),
            None => queries
                .list(prepared)
                .await
                .map(|list| (list.data, list.meta))
                .unwrap(),
        };
        let rows = rows(&data);
        check(&rows, &meta, who);
        if fresh {
            let at = meta
                .positions
                .iter()
                .find(|position| position.shard == Shard::new(shard))
                .unwrap();
            assert!(
                at.offset >= Offset::new(records - 1),
                "less fresh than was asked for"
            );
        }
        kept.insert(meta.etag.clone(), rows);
        last.insert(kind, meta.etag);
        asked += 1;
    }
    (asked, unchanged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_many_writers_and_readers_no_answer_claims_what_it_does_not_have() {
    let Some(world) = World::make().await else { return };
    run(&world.pool, "DELETE FROM annals.checkpoint").await;
    for n in 0..SHARDS {
        world.order(n, owner(n), 0, None).await;
        let sql = format!(
            "INSERT INTO annals.checkpoint (reader, shard, next_offset, accepted, epoch, chain, time_ms, closed, last_ghost)
             VALUES ('projection/shop/1', {n}, 0, 0, 1, '', 0, false, false)"
        );
        run(&world.pool, &sql).await;
    }
    let nodes = [
        world.node(Limits::default()).await,
        world.node(Limits::default()).await,
    ];
    let written: Arc<[AtomicU64; 4]> = Arc::default();
    let done: Arc<AtomicBool> = Arc::default();
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..6_u64 {
        let queries = Arc::clone(&nodes[usize::from(number % 2 == 0)].queries);
        readers.spawn(reader(queries, number, Arc::clone(&written), Arc::clone(&done)));
    }
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..SHARDS {
        let (pool, written) = (world.pool.clone(), Arc::clone(&written));
        writers.spawn(async move {
            for record in 1..=100_u64 {
                let sql = format!(
                    "BEGIN; UPDATE shop_b1.orders SET total = {record} WHERE order_id = '{}';
                     UPDATE annals.checkpoint SET next_offset = {record} WHERE reader = 'projection/shop/1' AND shard = {n};
                     COMMIT; NOTIFY {CHANNEL}, 'shop'",
                    order(n)
                );
                run(&pool, &sql).await;
                written[usize::try_from(n).unwrap()].store(record, Ordering::SeqCst);
                // Now and then a pause, in which answers are remembered and given again.
                let pause = if record % 10 == 0 { 60 } else { 3 };
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let (mut asked, mut unchanged) = (0, 0);
    while let Some(ended) = readers.join_next().await {
        let (of_asked, of_unchanged) = ended.unwrap();
        (asked, unchanged) = (asked + of_asked, unchanged + of_unchanged);
    }
    let hits: u64 = nodes.iter().map(|node| node.queries.cache().hits).sum();
    eprintln!("{asked} answers, {hits} of them from memory, {unchanged} not modified");
    assert!(hits > 50 && asked > hits && unchanged > 50, "proves little");
}

#[tokio::test]
async fn what_is_remembered_is_bounded_in_bytes_and_counted() {
    let limits = Limits {
        cache_bytes: 50_000,
        ..Limits::default()
    };
    let Some(world) = World::with(limits).await else {
        return;
    };
    for n in 1..=200 {
        world.order(n, ANN, i64::from(n), None).await;
    }
    for n in 1..=200 {
        // What is known for too long is not used, however slow the machine is.
        world.freshness.refresh().await.unwrap();
        let one = orders().with("total", &n.to_string());
        world.list(one.clone()).await.unwrap();
        world.list(one).await.unwrap();
    }
    let stats = world.queries.cache();
    assert!(stats.bytes <= 50_000, "{stats:?}");
    assert!(stats.entries > 10 && stats.entries < 150, "{stats:?}");
    assert!(stats.hits >= 100 && stats.misses >= 200, "{stats:?}");
    // One that is larger than all of it is answered, and not kept.
    let all = orders().with("limit", "500");
    assert_eq!(world.list(all).await.unwrap().next, None);
    assert!(world.queries.cache().bytes <= 50_000);
    let none = Limits {
        cache_bytes: 0,
        ..Limits::default()
    };
    let node = world.node(none).await;
    for _ in 0..2 {
        let prepared = node.queries.prepare(orders()).unwrap();
        node.queries.list(prepared).await.unwrap();
    }
    assert_eq!((node.queries.cache().hits, node.queries.cache().entries), (0, 0));
}

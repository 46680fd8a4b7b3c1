//! Live changes: what a subscriber holds is what the table has, however often it goes away and wherever it comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_query::live::{Kind, Next};
use annals_query::{Access, Limits, QueryError, Request, Scope};

use crate::follow::{Holder, QUIET, follow, placed, quiet};
use crate::support::{ANN, BOB, SHOP, World, everything, json, order, orders, run};

#[tokio::test]
async fn a_list_with_a_filter_is_followed() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 10, None).await;
    let node = world.node(Limits::default()).await;
    let mut one = follow(&node.queries, placed(), None).await;
    assert_eq!(one.meta.positions, ["0:0".parse().unwrap()]);
    let Next::Events(events) = one.next().await else {
        panic!("no snapshot")
    };
    assert_eq!(events.len(), 1);
    let data = json(&events[0].data);
    let row = &data["data"][0];
    assert_eq!((&row["key"], &row["version"]), (&order(1).into(), &3.into()));
    assert_eq!(row["data"]["total"], 10);
    assert_eq!(events[0].id.to_string().split(';').next(), Some("0:0"));
    let mut holder = Holder::default();
    holder.see(&events[0]);

    // A row comes, one changes, one does not match any more.
    world.order(2, BOB, 20, None).await;
    world
        .change("UPDATE shop_b1.orders SET total = 11 WHERE total = 10")
        .await;
    holder.until(&mut one, |held| held.len() == 2).await;
    assert_eq!(holder.totals(), [11, 20]);
    let hide = format!(
        "UPDATE shop_b1.orders SET status = 'shipped' WHERE order_id = '{}'",
        order(1)
    );
    world.change(&hide).await;
    holder.until(&mut one, |held| held.len() == 1).await;
    assert_eq!(
        (holder.totals(), holder.snapshots, holder.repeats),
        (vec![20], 1, 0)
    );
    assert_eq!(
        holder.last.as_ref().unwrap().positions[..],
        ["0:2".parse().unwrap()]
    );
    // What is not of the list says nothing.
    world
        .change("UPDATE shop_b1.orders SET total = 7 WHERE status = 'shipped'")
        .await;
    quiet(&mut one).await;
}

#[tokio::test]
async fn whoever_comes_back_to_another_node_misses_nothing_and_gets_nothing_twice() {
    let Some(world) = World::make().await else { return };
    for n in 1..=3 {
        world.order(n, ANN, i64::from(n), None).await;
    }
    let mut holder = Holder::default();
    {
        let node = world.node(Limits::default()).await;
        let mut one = follow(&node.queries, placed(), None).await;
        holder.until(&mut one, |held| held.len() == 3).await;
        // The node is gone with its memory.
    }
    let node = world.node(Limits::default()).await;
    // Nothing that concerns the list has changed, though the checkpoint has moved: nothing is sent.
    world.change("SELECT 1").await;
    let mut again = follow(&node.queries, placed(), holder.last.clone()).await;
    quiet(&mut again).await;
    world
        .change("UPDATE shop_b1.orders SET total = 30 WHERE total = 3")
        .await;
    holder
        .until(&mut again, |held| {
            held.values().any(|row| row["data"]["total"] == 30)
        })
        .await;
    assert_eq!((holder.snapshots, holder.repeats), (1, 0));
    // Three rows of one batch; the connection breaks after the first. This node remembers: the other two, no more.
    world
        .change("UPDATE shop_b1.orders SET total = total + 100")
        .await;
    let Next::Events(events) = again.next().await else {
        panic!("no events")
    };
    assert_eq!(events.len(), 3);
    holder.see(&events[0]);
    drop(again);
    world
        .change("UPDATE shop_b1.orders SET total = 5 WHERE total = 102")
        .await;
    let mut again = follow(&node.queries, placed(), holder.last.clone()).await;
    holder
        .until(&mut again, |held| {
            let totals: Vec<_> = held
                .values()
                .map(|row| row["data"]["total"].as_i64().unwrap())
                .collect();
            totals == [101, 5, 130]
        })
        .await;
    assert_eq!((holder.snapshots, holder.repeats), (1, 0));
    // Another node cannot say which of the rows changed since: all of them, as a new beginning.
    let held = holder.clone();
    drop(again);
    world.change("DELETE FROM shop_b1.orders WHERE total = 5").await;
    let other = world.node(Limits::default()).await;
    let mut elsewhere = follow(&other.queries, placed(), held.last.clone()).await;
    holder.until(&mut elsewhere, |held| held.len() == 2).await;
    assert_eq!(holder.snapshots, 2);
    // And the first node says exactly that one is gone.
    let mut exact = held.clone();
    let mut back = follow(&node.queries, placed(), exact.last.clone()).await;
    let next = back.next().await;
    let Next::Events(events) = next else {
        panic!("{next:?}")
    };
    assert_eq!(
        events.iter().map(|event| event.kind).collect::<Vec<_>>(),
        [Kind::Remove]
    );
    exact.see(&events[0]);
    assert_eq!((exact.held, exact.last), (holder.held, holder.last));
}

#[tokio::test]
async fn of_a_single_row_every_node_knows_what_was_missed() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    let row = || Request::row("orders", order(1).to_uppercase(), everything());
    let first = world.node(Limits::default()).await;
    let mut holder = Holder::default();
    let mut one = follow(&first.queries, row(), None).await;
    holder.until(&mut one, |held| held.len() == 1).await;
    drop((one, first));
    world.change("UPDATE shop_b1.orders SET total = 2").await;
    let second = world.node(Limits::default()).await;
    let mut one = follow(&second.queries, row(), holder.last.clone()).await;
    holder
        .until(&mut one, |held| {
            held.values().all(|row| row["data"]["total"] == 2)
        })
        .await;
    assert_eq!((holder.snapshots, holder.repeats), (1, 0));
    drop((one, second));
    world.change("DELETE FROM shop_b1.orders").await;
    let third = world.node(Limits::default()).await;
    // To others it is not there; to whoever holds it, it is gone.
    let error = third.queries.subscribe(row(), "ann", None).await.unwrap_err();
    assert!(matches!(error, QueryError::NotFound), "{error}");
    let mut one = follow(&third.queries, row(), holder.last.clone()).await;
    holder.until(&mut one, BTreeMap::is_empty).await;
    // And it may come back.
    world.order(1, ANN, 9, None).await;
    world.change("SELECT 1").await;
    holder.until(&mut one, |held| held.len() == 1).await;
    assert_eq!((holder.snapshots, holder.repeats), (1, 0));
}

#[tokio::test]
async fn a_row_that_is_no_longer_the_callers_is_removed() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    world.order(2, BOB, 2, None).await;
    let own = || Scope::default().with("orders", Access::own(ANN));
    let node = world.node(Limits::default()).await;
    let mut list = follow(&node.queries, Request::list("orders", own()), None).await;
    let mut row = follow(&node.queries, Request::row("orders", order(1), own()), None).await;
    let (mut of_list, mut of_row) = (Holder::default(), Holder::default());
    of_list.until(&mut list, |held| held.len() == 1).await;
    of_row.until(&mut row, |held| held.len() == 1).await;
    assert_eq!(of_list.totals(), [1]);
    let error = node
        .queries
        .subscribe(Request::row("orders", order(2), own()), "ann", None)
        .await
        .unwrap_err();
    assert!(matches!(error, QueryError::NotFound), "{error}");
    world
        .change("UPDATE shop_b1.orders SET total = 3 WHERE total = 2")
        .await;
    quiet(&mut list).await;
    let give = format!("UPDATE shop_b1.orders SET customer_id = '{BOB}', note = 'for Bob'");
    world.change(&give).await;
    of_list.until(&mut list, BTreeMap::is_empty).await;
    of_row.until(&mut row, BTreeMap::is_empty).await;
    // An id of somebody who saw more gives nothing away: a snapshot of the own rows, or nothing.
    let mut all = follow(&node.queries, orders(), None).await;
    let mut of_all = Holder::default();
    of_all.until(&mut all, |held| held.len() == 2).await;
    let mut stolen = follow(&node.queries, Request::list("orders", own()), of_all.last.clone()).await;
    let Next::Events(events) = stolen.next().await else {
        panic!("no events")
    };
    assert_eq!(
        (events.len(), events[0].kind, &*events[0].data),
        (1, Kind::Snapshot, r#"{"data":[]}"#)
    );
}

#[tokio::test]
async fn a_switch_of_builds_is_seen_as_what_it_changes_and_never_goes_back() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    world.order(2, ANN, 2, None).await;
    let node = world.node(Limits::default()).await;
    let mut one = follow(&node.queries, placed(), None).await;
    let mut holder = Holder::default();
    holder.until(&mut one, |held| held.len() == 2).await;
    run(&world.pool, &SHOP.replace("$B", "2")).await;
    run(
        &world.pool,
        "INSERT INTO shop_b2.orders SELECT * FROM shop_b1.orders;
         UPDATE shop_b2.orders SET total = 20 WHERE total = 2;
         INSERT INTO annals.checkpoint SELECT 'projection/shop/2', shard, next_offset + 5, accepted, epoch, chain,
             time_ms, closed, last_hash, last_ghost FROM annals.checkpoint WHERE reader = 'projection/shop/1';
         INSERT INTO annals.projection (name, build, digest, state) VALUES ('shop', 2, '', 'building')",
    )
    .await;
    let switch = |to: u32| {
        format!(
            "BEGIN; UPDATE annals.projection SET live = false WHERE name = 'shop';
             UPDATE annals.projection SET live = true WHERE name = 'shop' AND build = {to}; COMMIT;
             NOTIFY annals_projection, 'shop'"
        )
    };
    run(&world.pool, &switch(2)).await;
    // Only what the new build has otherwise.
    let Next::Events(events) = one.next().await else {
        panic!("no events")
    };
    assert_eq!(events.len(), 1);
    holder.see(&events[0]);
    assert_eq!((holder.totals(), holder.repeats), (vec![1, 20], 0));
    assert_eq!(
        holder.last.as_ref().unwrap().positions[..],
        ["0:5".parse().unwrap()]
    );
    // Whoever comes back over the switch gets nothing twice.
    let other = world.node(Limits::default()).await;
    let mut back = follow(&other.queries, placed(), holder.last.clone()).await;
    quiet(&mut back).await;
    // Back to a build that is behind: nothing is shown until that has caught up.
    run(&world.pool, &switch(1)).await;
    quiet(&mut one).await;
    let early = Request {
        wait: Duration::ZERO,
        ..placed()
    };
    let error = other
        .queries
        .subscribe(early, "ann", holder.last.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, QueryError::Behind { .. }), "{error}");
    run(
        &world.pool,
        "UPDATE annals.checkpoint SET next_offset = next_offset + 5 WHERE reader = 'projection/shop/1'",
    )
    .await;
    holder
        .until(&mut one, |held| {
            held.values().any(|row| row["data"]["total"] == 2)
        })
        .await;
    assert_eq!((holder.snapshots, holder.repeats), (1, 0));
}

#[tokio::test]
async fn rows_that_change_without_a_checkpoint_are_seen_too() {
    let Some(world) = World::make().await else { return };
    world.order(1, ANN, 1, None).await;
    run(
        &world.pool,
        "INSERT INTO annals.parked (projection, build, stream, shard, log_offset, event_index, type)
         VALUES ('shop', 1, 'order-1', 0, 0, 0, 'x')",
    )
    .await;
    let node = world.node(Limits::default()).await;
    let mut one = follow(&node.queries, placed(), None).await;
    assert_eq!(one.meta.parked, 1);
    let mut holder = Holder::default();
    holder.until(&mut one, |held| held.len() == 1).await;
    // What `resume` does: the parked events are applied, and no checkpoint moves.
    run(
        &world.pool,
        "BEGIN; UPDATE shop_b1.orders SET total = 2; DELETE FROM annals.parked; COMMIT; NOTIFY annals_projection, 'shop'",
    )
    .await;
    holder
        .until(&mut one, |held| {
            held.values().all(|row| row["data"]["total"] == 2)
        })
        .await;
}

/// Three nodes, a writer, and subscribers that leave after any event and come back to any node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_changes_subscribers_that_come_and_go_hold_what_the_table_has() {
    let Some(world) = World::make().await else { return };
    let world = Arc::new(world);
    for n in 1..=20 {
        world
            .order(n, if n % 2 == 0 { ANN } else { BOB }, i64::from(n), None)
            .await;
    }
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(world.node(Limits::default()).await);
    }
    let (done, finished) = tokio::sync::watch::channel(false);
    let mut subscribers = tokio::task::JoinSet::new();
    for number in 0..6usize {
        let all: Vec<_> = nodes.iter().map(|node| Arc::clone(&node.queries)).collect();
        let finished = finished.clone();
        subscribers.spawn(async move {
            let own = Scope::default().with("orders", Access::own(ANN));
            let request = match number % 3 {
                0 => placed(),
                1 => Request::list("orders", own),
                _ => orders().with("sort", "-total").with("limit", "5"),
            };
            let mut holder = Holder::default();
            let mut turns = 0;
            loop {
                // Seen before the subscription: its end is behind the last change then.
                let last_turn = *finished.borrow();
                let node = &all[(number + turns) % all.len()];
                let mut one = follow(node, request.clone(), holder.last.clone()).await;
                turns += 1;
                let leaves_after = 1 + (number * 7 + turns * 5) % 9;
                let mut seen = 0;
                loop {
                    let next = tokio::time::timeout(QUIET, one.next()).await;
                    match next {
                        Ok(Next::Events(events)) => {
                            for event in &events {
                                if seen == leaves_after && !last_turn {
                                    break;
                                }
                                holder.see(event);
                                seen += 1;
                            }
                        }
                        Ok(Next::End(end)) => panic!("{end:?}"),
                        Err(_) if last_turn => return (request, holder, turns),
                        Err(_) => break,
                    }
                    if seen >= leaves_after && !last_turn {
                        break;
                    }
                }
            }
        });
    }
    for step in 0..150u32 {
        let n = 1 + (step * 7) % 20;
        let id = order(n);
        let sql = match step % 5 {
            0 => format!("UPDATE shop_b1.orders SET status = 'shipped' WHERE order_id = '{id}'"),
            1 => format!("UPDATE shop_b1.orders SET status = 'placed' WHERE order_id = '{id}'"),
            2 => format!(
                "UPDATE shop_b1.orders SET customer_id = '{ANN}', total = total + 1 WHERE order_id = '{id}'"
            ),
            3 => format!("UPDATE shop_b1.orders SET customer_id = '{BOB}' WHERE order_id = '{id}'"),
            _ => "UPDATE shop_b1.orders SET total = total + 1".to_owned(),
        };
        world.change(&sql).await;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    done.send(true).unwrap();
    let mut turns = 0;
    while let Some(ended) = subscribers.join_next().await {
        let (request, holder, turned) = ended.unwrap();
        turns += turned;
        let mut fresh = Holder::default();
        let mut one = follow(&nodes[0].queries, request, None).await;
        fresh.until(&mut one, |held| !held.is_empty()).await;
        assert_eq!(holder.held, fresh.held);
        assert_eq!(holder.repeats, 0, "an event told what was known");
    }
    assert!(turns > 20, "{turns} turns prove little");
}

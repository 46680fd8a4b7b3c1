//! Live changes: who is slow is told, and everything is limited.

use annals_query::live::{End, Next};
use annals_query::{Limits, LiveLimits, QueryError};

use crate::follow::{Holder, SOON, follow, placed};
use crate::support::{ANN, World, order, orders};

fn limits(live: LiveLimits) -> Limits {
    Limits {
        live,
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_slow_subscriber_is_told_and_a_quick_one_is_not_disturbed() {
    let Some(world) = World::make().await else { return };
    for n in 1..=3 {
        world.order(n, ANN, i64::from(n), None).await;
    }
    let node = world
        .node(limits(LiveLimits {
            bytes: 0,
            ..LiveLimits::default()
        }))
        .await;
    let (mut quick, mut slow) = (
        follow(&node.queries, placed(), None).await,
        follow(&node.queries, placed(), None).await,
    );
    let (mut of_quick, mut of_slow) = (Holder::default(), Holder::default());
    of_quick.until(&mut quick, |held| held.len() == 3).await;
    of_slow.until(&mut slow, |held| held.len() == 3).await;
    for n in 10..14 {
        world
            .change(&format!(
                "UPDATE shop_b1.orders SET total = {n} WHERE order_id = '{}'",
                order(1)
            ))
            .await;
        of_quick
            .until(&mut quick, |held| {
                held.values().any(|row| row["data"]["total"] == n)
            })
            .await;
    }
    let next = slow.next().await;
    assert!(matches!(next, Next::End(End::TooSlow)), "{next:?}");
    drop(slow);
    let mut slow = follow(&node.queries, placed(), of_slow.last.clone()).await;
    of_slow
        .until(&mut slow, |held| {
            held.values().any(|row| row["data"]["total"] == 13)
        })
        .await;
    assert_eq!(of_slow.held, of_quick.held);
}

#[tokio::test]
async fn places_and_rows_are_limited() {
    let Some(world) = World::make().await else { return };
    for n in 1..=3 {
        world.order(n, ANN, i64::from(n), None).await;
    }
    let node = world
        .node(limits(LiveLimits {
            connections: 2,
            per_caller: 1,
            rows: 2,
            ..LiveLimits::default()
        }))
        .await;
    let queries = &node.queries;
    let two = || orders().with("limit", "2").with("sort", "-total");
    let mut ann = queries.subscribe(two(), "ann", None).await.unwrap();
    let error = queries.subscribe(two(), "ann", None).await.unwrap_err();
    assert!(
        matches!(error, QueryError::TooManyOfCaller { limit: 1 }),
        "{error}"
    );
    let bob = queries.subscribe(two(), "bob", None).await.unwrap();
    let error = queries.subscribe(two(), "eve", None).await.unwrap_err();
    assert!(matches!(error, QueryError::TooManySubscribers), "{error}");
    // A place is free again when its subscriber is gone.
    drop(bob);
    for wrong in [orders(), two().with("cursor", "x"), orders().with("limit", "3")] {
        let error = queries.subscribe(wrong, "eve", None).await.unwrap_err();
        assert!(matches!(error, QueryError::InvalidParameter { .. }), "{error}");
    }
    drop(queries.subscribe(two(), "eve", None).await.unwrap());

    // With a limit it is the first rows of the list, whichever they are.
    let mut holder = Holder::default();
    holder.until(&mut ann, |held| held.len() == 2).await;
    assert_eq!(holder.totals(), [2, 3]);
    world.order(4, ANN, 9, None).await;
    world.change("SELECT 1").await;
    holder.until(&mut ann, |held| held.contains_key(&order(4))).await;
    assert_eq!((holder.totals(), holder.repeats), (vec![3, 9], 0));
    // A list that grows over the limit ends, and says why.
    let mut whole = queries
        .subscribe(orders().with("total.lt", "3"), "eve", None)
        .await
        .unwrap();
    let Next::Events(_) = whole.next().await else {
        panic!("no snapshot")
    };
    world.order(5, ANN, 1, None).await;
    world.change("SELECT 1").await;
    let next = tokio::time::timeout(SOON, whole.next()).await.unwrap();
    let Next::End(End::Failed(why)) = next else {
        panic!("{next:?}")
    };
    assert!(matches!(*why, QueryError::InvalidParameter { .. }), "{why}");
}

//! Leases: a row changes hands only when it has expired or was released.

use std::time::Duration;

use annals_store::lease::{Lease, LeaseKey, LeaseKind, Leases, Node, NodeId, PgLeases, balance};
use annals_store::pool::PoolSettings;
use annals_store::testing::TestDatabase;
use annals_store::{Error, ErrorClass};
use sqlx::PgPool;

fn leases(pool: &PgPool, node: &str) -> PgLeases {
    let url = format!("http://{node}");
    PgLeases::new(pool.clone(), NodeId::new(node), url, Duration::from_secs(60))
}

fn shards(shards: impl IntoIterator<Item = u32>) -> Vec<LeaseKey> {
    shards
        .into_iter()
        .map(|shard| LeaseKey::new(LeaseKind::Command, "", shard))
        .collect()
}

/// Lets the time of all leases pass.
async fn expire(pool: &PgPool) {
    sqlx::query("UPDATE annals.lease SET expires_at = now() - interval '1 ms' WHERE expires_at > now()")
        .execute(pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn one_node_has_a_lease_until_it_expires() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (a, b) = (leases(&pool, "a"), leases(&pool, "b"));
    let keys = shards(0..3);
    assert_eq!(a.acquire(&keys).await.unwrap(), keys);
    assert_eq!(a.acquire(&keys).await.unwrap(), keys, "its own it may take again");
    assert_eq!(b.acquire(&shards(0..4)).await.unwrap(), shards([3]));
    assert!(b.renew(&keys).await.unwrap().is_empty());
    expire(&pool).await;
    assert_eq!(
        a.renew(&shards([0])).await.unwrap(),
        shards([0]),
        "nobody took it meanwhile"
    );
    assert_eq!(b.acquire(&keys).await.unwrap(), shards([1, 2]));
    assert_eq!(a.renew(&keys).await.unwrap(), shards([0]), "the others are lost");
    let table = b.list(LeaseKind::Command, "").await.unwrap();
    let holders: Vec<(&str, &str, bool)> = table
        .iter()
        .map(|lease| (lease.node.as_str(), lease.url.as_str(), lease.live))
        .collect();
    assert_eq!(holders[0], ("a", "http://a", true));
    assert_eq!(holders[1], ("b", "http://b", true));
    assert_eq!(holders[3], ("b", "http://b", false));
}

#[tokio::test]
async fn a_released_lease_is_free_at_once_and_not_renewed() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (a, b) = (leases(&pool, "a"), leases(&pool, "b"));
    let keys = shards(0..2);
    a.acquire(&keys).await.unwrap();
    b.release(&keys).await.unwrap();
    assert_eq!(
        a.renew(&keys).await.unwrap(),
        keys,
        "another's release does nothing"
    );
    a.release(&keys).await.unwrap();
    assert!(
        a.renew(&keys).await.unwrap().is_empty(),
        "a late renewal does not revive it"
    );
    let listed = a.list(LeaseKind::Command, "").await.unwrap();
    assert!(
        listed
            .iter()
            .all(|lease| !lease.live && lease.expires_at.is_none())
    );
    assert_eq!(b.acquire(&keys).await.unwrap(), keys);
}

#[tokio::test]
async fn of_many_nodes_at_once_each_lease_goes_to_one() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let keys = shards(0..16);
    let mut back = keys.clone();
    back.reverse();
    for _ in 0..5 {
        let (a, b, c) = (leases(&pool, "a"), leases(&pool, "b"), leases(&pool, "c"));
        let got = tokio::join!(a.acquire(&keys), b.acquire(&back), c.acquire(&keys));
        let mut all = [got.0.unwrap(), got.1.unwrap(), got.2.unwrap()].concat();
        all.sort();
        assert_eq!(all, keys);
        expire(&pool).await;
    }
}

#[tokio::test]
async fn leases_of_different_work_do_not_meet() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (a, b) = (leases(&pool, "a"), leases(&pool, "b"));
    let old = LeaseKey::new(LeaseKind::Projection, "orders/1", 0);
    let new = LeaseKey::new(LeaseKind::Projection, "orders/2", 0);
    assert_eq!(
        a.acquire(std::slice::from_ref(&old)).await.unwrap(),
        std::slice::from_ref(&old)
    );
    let both = [new.clone(), old, new.clone()];
    assert_eq!(
        b.acquire(&both).await.unwrap(),
        [new],
        "a key given twice is one key"
    );
    assert!(a.acquire(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn only_the_holder_notes_an_epoch_and_the_next_one_sees_it() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (a, b) = (leases(&pool, "a"), leases(&pool, "b"));
    let keys = shards([7]);
    a.acquire(&keys).await.unwrap();
    assert!(a.hint_epoch(&keys[0], 42).await.unwrap());
    assert!(!b.hint_epoch(&keys[0], 43).await.unwrap());
    a.release(&keys).await.unwrap();
    b.acquire(&keys).await.unwrap();
    assert_eq!(b.list(LeaseKind::Command, "").await.unwrap()[0].epoch_hint, 42);
}

#[tokio::test]
async fn nodes_learn_of_each_other_while_their_rows_are_kept() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    // A query node, whose database role may write no table.
    let mut settings = PoolSettings::new(database.url(), "annals-test");
    settings.role = Some("annals_query".to_owned());
    let reader = settings.connect().await.unwrap();
    let (a, q) = (leases(&pool, "a"), leases(&reader, "q"));
    a.keep_node(&["command".to_owned(), "audit".to_owned()])
        .await
        .unwrap();
    q.keep_node(&["query".to_owned()]).await.unwrap();
    q.keep_node(&["query".to_owned()]).await.unwrap();
    let nodes = q.nodes().await.unwrap();
    assert_eq!(nodes.len(), 2);
    assert_eq!((nodes[0].id.as_str(), nodes[0].url.as_str()), ("a", "http://a"));
    assert_eq!(nodes[0].roles, ["command", "audit"]);
    let refused: Error = q.acquire(&shards([0])).await.unwrap_err();
    assert_eq!(refused.class(), &ErrorClass::Privilege);
    expire(&pool).await;
    q.keep_node(&["query".to_owned()]).await.unwrap();
    assert_eq!(a.nodes().await.unwrap().len(), 1, "a's row has expired");
    q.drop_node().await.unwrap();
    assert!(a.nodes().await.unwrap().is_empty());
}

#[tokio::test]
async fn long_dead_nodes_are_forgotten() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    leases(&pool, "old").keep_node(&[]).await.unwrap();
    sqlx::query("UPDATE annals.lease SET expires_at = now() - interval '2 hours'")
        .execute(&pool)
        .await
        .unwrap();
    leases(&pool, "new").keep_node(&[]).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar("SELECT node FROM annals.lease")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(left, ["new"]);
}

#[tokio::test]
async fn a_role_takes_leases_of_its_own_work_only() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let mut settings = PoolSettings::new(database.url(), "annals-test");
    settings.role = Some("annals_projector".to_owned());
    let projector = leases(&settings.connect().await.unwrap(), "p");
    let own = [LeaseKey::new(LeaseKind::Projection, "orders/1", 0)];
    assert_eq!(projector.acquire(&own).await.unwrap(), own);
    assert_eq!(projector.renew(&own).await.unwrap(), own);
    projector.release(&own).await.unwrap();
    let refused = projector.acquire(&shards([0])).await.unwrap_err();
    assert_eq!(refused.class(), &ErrorClass::Privilege);
}

#[tokio::test]
async fn two_nodes_that_follow_the_balance_share_all_work() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (a, b) = (leases(&pool, "a"), leases(&pool, "b"));
    let keys = shards(0..16);
    a.acquire(&keys).await.unwrap();
    let nodes = [NodeId::new("a"), NodeId::new("b")];
    for node in [&a, &b] {
        let plan = balance(
            node.node(),
            &nodes,
            &keys,
            &node.list(LeaseKind::Command, "").await.unwrap(),
        );
        node.release(&plan.release).await.unwrap();
        assert_eq!(node.acquire(&plan.acquire).await.unwrap(), plan.acquire);
    }
    let table = a.list(LeaseKind::Command, "").await.unwrap();
    assert!(table.iter().all(|lease| lease.live));
    let of_a = table.iter().filter(|lease| lease.node == nodes[0]).count();
    assert!((1..16).contains(&of_a), "{of_a}");
    for node in [&a, &b] {
        let plan = balance(node.node(), &nodes, &keys, &table);
        assert!(plan.acquire.is_empty() && plan.release.is_empty());
    }
}

#[tokio::test]
async fn a_survey_is_what_nodes_and_list_say_and_how_long_it_holds() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (a, b) = (leases(&pool, "a"), leases(&pool, "b"));
    a.keep_node(&["command".to_owned()]).await.unwrap();
    b.keep_node(&["query".to_owned()]).await.unwrap();
    let keys = shards(0..3);
    a.acquire(&keys).await.unwrap();
    a.release(&keys[..1]).await.unwrap();
    let other = LeaseKey::new(LeaseKind::Projection, "orders/1", 0);
    b.acquire(&[other]).await.unwrap();
    let (nodes, listed) = b.survey(LeaseKind::Command, "").await.unwrap();
    let names = |nodes: &[Node]| -> Vec<_> {
        let named = nodes.iter().map(|node| (node.id.clone(), node.roles.clone()));
        named.collect()
    };
    assert_eq!(names(&nodes), names(&b.nodes().await.unwrap()));
    let held = |leases: &[Lease]| -> Vec<_> {
        let held = leases
            .iter()
            .map(|lease| (lease.key.clone(), lease.node.clone(), lease.live));
        held.collect()
    };
    assert_eq!(
        held(&listed),
        held(&b.list(LeaseKind::Command, "").await.unwrap())
    );
    assert_eq!(listed.len(), 3);
    let ttl = a.ttl();
    for lease in &listed {
        assert_eq!(lease.live, !lease.remaining.is_zero(), "{lease:?}");
        assert!(lease.remaining <= ttl);
    }
    assert!(
        nodes
            .iter()
            .all(|node| !node.remaining.is_zero() && node.remaining <= ttl)
    );
}

//! A build's life on a real Postgres: asked for, fed beside the live one, compared, switched to, rolled back, dropped.

use std::sync::Arc;
use std::time::Duration;

use annals_log::Log;
use annals_projection::lifecycle::{
    self, Direction, LifecycleError, ask_drop, ask_rebuild, ask_resume, switch,
};
use annals_projection::{BuildError, BuildId, Manifest, RunnerSettings, build, status};
use annals_store::testing::TestDatabase;
use serde_json::json;
use sqlx::PgPool;

use crate::runner::{node, node_with};
use crate::support::{CUSTOMER, Folders, TestLog, becomes, column, order, placed, projector};

const GRACE: Duration = Duration::from_secs(3_600);
const LIVE: &str = "SELECT build::text FROM annals.projection WHERE name = 'orders' AND live";

/// The next build of orders: it calls a placed order open.
pub fn second(folders: &Folders) -> Arc<Manifest> {
    folders.change("orders/projection.toml", "build = 1", "build = 2");
    folders.change("orders/on/order.placed.sql", "'placed'", "'open'");
    folders.manifest("orders")
}

/// Waits until both builds are at the log's end.
pub async fn at_the_end(pool: &PgPool, log: &TestLog, builds: &[i32]) {
    let mut records = 0;
    for shard in log.shards() {
        records += log.log.end(shard).await.unwrap().get();
    }
    for build in builds {
        let sql = format!(
            "SELECT coalesce(sum(next_offset), 0)::text FROM annals.checkpoint WHERE reader = 'projection/orders/{build}'"
        );
        becomes(pool, &sql, &records.to_string()).await;
    }
}

pub async fn live_with(pool: &PgPool, log: &mut TestLog, orders: u32) {
    for n in 0..orders {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
    }
    becomes(pool, LIVE, "1").await;
    at_the_end(pool, log, &[1]).await;
}

fn refusal(error: &LifecycleError) -> &'static str {
    match error {
        LifecycleError::Refused(refusal) => refusal.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_build_is_fed_beside_the_live_one_switched_to_rolled_back_and_dropped() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    // The node has the folder of the first build, and never another one.
    let running = node(&pool, "a", &log, &first).await;
    live_with(&pool, &mut log, 30).await;
    let second = second(&new);
    let id = ask_rebuild(&pool, &second).await.unwrap();
    assert_eq!(id, second.id);
    assert_eq!(
        ask_rebuild(&pool, &second).await.unwrap(),
        id,
        "asked twice it is one build"
    );
    at_the_end(&pool, &log, &[1, 2]).await;
    assert_eq!(column(&pool, LIVE).await, ["1"], "nothing goes live by itself");
    let name = &second.id.name;

    let switched = switch(&pool, name, Direction::Forward, GRACE).await.unwrap();
    assert_eq!((&switched.to, switched.from.build.get()), (&id, 1));
    let status_of = |found: Vec<status::BuildStatus>| -> Vec<(i32, String, bool)> {
        let orders = found.into_iter().filter(|status| status.name == "orders");
        orders
            .map(|status| (status.build, status.state, status.live))
            .collect()
    };
    let states = status_of(status::status(&pool, &*log.log, 0).await.unwrap());
    assert_eq!(
        states,
        [(1, "retired".to_owned(), false), (2, "running".to_owned(), true)]
    );
    // The views for people follow.
    becomes(&pool, "SELECT DISTINCT status FROM read.orders", "open").await;
    // Both are fed, so the way back is instant.
    for n in 30..40 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
    }
    at_the_end(&pool, &log, &[1, 2]).await;
    let back = switch(&pool, name, Direction::Back, GRACE).await.unwrap();
    assert_eq!((back.to.build.get(), back.from.build.get()), (1, 2));
    assert_eq!(column(&pool, LIVE).await, ["1"]);
    becomes(&pool, "SELECT DISTINCT status FROM read.orders", "placed").await;

    assert_eq!(
        refusal(&ask_drop(&pool, &back.to, false).await.unwrap_err()),
        "live"
    );
    ask_drop(&pool, &id, false).await.unwrap();
    becomes(
        &pool,
        "SELECT count(*)::text FROM annals.projection WHERE name = 'orders'",
        "1",
    )
    .await;
    assert_eq!(
        column(&pool, "SELECT (to_regnamespace('orders_b2') IS NULL)::text").await,
        ["true"]
    );
    let sql = "SELECT count(*)::text FROM annals.checkpoint WHERE reader = 'projection/orders/2'";
    assert_eq!(column(&pool, sql).await, ["0"]);
    running.stop().await;
    let sql = "SELECT status || ' ' || count(*) FROM orders_b1.orders GROUP BY status";
    assert_eq!(column(&pool, sql).await, ["placed 40"]);
}

#[tokio::test]
async fn a_build_that_is_behind_or_lacks_rows_does_not_go_live() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    for n in 0..10 {
        let total = if n == 3 { 5_000 } else { 100 };
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, total))
            .await;
    }
    let all = log.read_all().await;
    let live = projector(&pool, first.manifest("orders")).await;
    live.apply(&all).await.unwrap();
    new.change(
        "orders/schema.sql",
        "total       bigint      NOT NULL,",
        "total bigint NOT NULL CHECK (total < 1000),",
    );
    let second = second(&new);
    let name = second.id.name.clone();
    let error = switch(&pool, &name, Direction::Forward, GRACE).await.unwrap_err();
    assert_eq!(refusal(&error), "not_built");
    ask_rebuild(&pool, &second).await.unwrap();
    let other = projector(&pool, Arc::clone(&second)).await;
    // Only one of two shards: the other is behind.
    other.apply(&all[..1]).await.unwrap();
    let error = switch(&pool, &name, Direction::Forward, GRACE).await.unwrap_err();
    assert_eq!(refusal(&error), "not_caught_up");
    assert!(error.to_string().contains("behind"), "{error}");
    other.apply(&all[1..]).await.unwrap();
    // It is as far, but a stream is parked that the live one has.
    let error = switch(&pool, &name, Direction::Forward, GRACE).await.unwrap_err();
    assert_eq!(refusal(&error), "parked");
    assert!(error.to_string().contains(&order(3)), "{error}");
    assert_eq!(column(&pool, LIVE).await, ["1"]);
    assert_eq!(
        refusal(&switch(&pool, &name, Direction::Back, GRACE).await.unwrap_err()),
        "no_former"
    );
}

#[tokio::test]
async fn after_its_grace_a_former_build_is_fed_no_longer_and_no_way_back() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    let running = node(&pool, "a", &log, &first).await;
    live_with(&pool, &mut log, 5).await;
    let second = second(&new);
    ask_rebuild(&pool, &second).await.unwrap();
    at_the_end(&pool, &log, &[2]).await;
    switch(&pool, &second.id.name, Direction::Forward, Duration::ZERO)
        .await
        .unwrap();
    // Its worker gives its leases back.
    let leases = "SELECT count(*)::text FROM annals.lease
                  WHERE kind = 'projection' AND name = 'orders/1' AND expires_at > now()";
    becomes(&pool, leases, "0").await;
    log.write(&order(9), 1, "order.placed", &placed(CUSTOMER, 100))
        .await;
    at_the_end(&pool, &log, &[2]).await;
    let error = switch(&pool, &second.id.name, Direction::Back, GRACE)
        .await
        .unwrap_err();
    assert_eq!(refusal(&error), "not_caught_up");
    let states = status::status(&pool, &*log.log, 0).await.unwrap();
    let former = states
        .iter()
        .find(|status| status.name == "orders" && status.build == 1)
        .unwrap();
    assert_eq!((former.state.as_str(), former.lag_records), ("stopped", 1));
    running.stop().await;
}

#[tokio::test]
async fn a_build_that_cannot_be_made_says_why_and_the_live_one_goes_on() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    let running = node(&pool, "a", &log, &first).await;
    live_with(&pool, &mut log, 5).await;
    new.change("orders/projection.toml", "build = 1", "build = 2");
    new.change(
        "orders/on/order.shipped.sql",
        "UPDATE orders o",
        "UPDATE order_s o",
    );
    let wrong = new.manifest("orders");
    ask_rebuild(&pool, &wrong).await.unwrap();
    becomes(
        &pool,
        "SELECT state FROM annals.projection WHERE name = 'orders' AND build = 2",
        "failed",
    )
    .await;
    let error = column(
        &pool,
        "SELECT error FROM annals.projection WHERE state = 'failed'",
    )
    .await;
    assert!(
        error[0].contains("order.shipped.sql") && error[0].contains("order_s"),
        "{error:?}"
    );
    // Mended files get a number of their own.
    new.change(
        "orders/on/order.shipped.sql",
        "UPDATE order_s o",
        "UPDATE orders o",
    );
    let id = ask_rebuild(&pool, &new.manifest("orders")).await.unwrap();
    assert_eq!(id.build.get(), 3);
    at_the_end(&pool, &log, &[1, 3]).await;
    // Other files under a number that is taken are refused.
    first.change("orders/on/order.shipped.sql", "'shipped'", "'sent'");
    switch(&pool, &id.name, Direction::Forward, GRACE).await.unwrap();
    let error = ask_rebuild(&pool, &first.manifest("orders")).await.unwrap_err();
    assert!(
        matches!(error, LifecycleError::Build(BuildError::OtherFiles { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("projection.toml to 4"), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn a_rebuild_that_is_killed_goes_on_from_its_checkpoints() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    let small = || RunnerSettings {
        rebuild_events: 8,
        ..RunnerSettings::default()
    };
    let mut running = node_with(&pool, "a", &log, &first, small()).await;
    live_with(&pool, &mut log, 600).await;
    ask_rebuild(&pool, &second(&new)).await.unwrap();
    let folded = "SELECT coalesce(sum(next_offset), 0)::bigint FROM annals.checkpoint
                  WHERE reader = 'projection/orders/2'";
    let mut before: i64 = 0;
    let mut kills = 0;
    while before < 602 && kills < 4 {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let at: i64 = sqlx::query_scalar(folded).fetch_one(&pool).await.unwrap();
            assert!(at >= before, "a checkpoint moved back (L8): {before}, {at}");
            if at > before {
                before = at;
                break;
            }
            assert!(tokio::time::Instant::now() < until, "it does not go on at {at}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.kill().await;
        kills += 1;
        // A process that is killed holds its leases until they end; here they are another's at once.
        sqlx::query("UPDATE annals.lease SET expires_at = '-infinity'")
            .execute(&pool)
            .await
            .unwrap();
        running = node_with(&pool, &format!("a{kills}"), &log, &first, small()).await;
    }
    at_the_end(&pool, &log, &[1, 2]).await;
    running.stop().await;
    let sql =
        "SELECT status || ' ' || _version || ' ' || count(*) FROM orders_b2.orders GROUP BY status, _version";
    assert_eq!(column(&pool, sql).await, ["open 1 600"]);
    assert!(kills >= 2, "it was killed {kills} times");
}

/// One snapshot of what a query would see: the live build, the records that it has folded, its rows.
async fn seen(pool: &PgPool) -> (i32, i64, i64) {
    let mut tx = pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await
        .unwrap();
    let build: i32 = sqlx::query_scalar("SELECT build FROM annals.projection WHERE name = 'orders' AND live")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    // The first record of each shard is its claim.
    let sql = format!(
        "SELECT (SELECT coalesce(sum(next_offset - 1), 0)::bigint FROM annals.checkpoint WHERE reader = 'projection/orders/{build}'),
                (SELECT count(*) FROM orders_b{build}.orders)"
    );
    let (folded, rows) = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    (build, folded, rows)
}

#[tokio::test]
async fn under_load_a_reader_never_sees_a_build_go_back_nor_rows_that_its_checkpoints_do_not_have() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    let running = node(&pool, "a", &log, &first).await;
    live_with(&pool, &mut log, 50).await;
    let second = second(&new);
    let name = second.id.name.clone();
    let done = std::sync::atomic::AtomicBool::new(false);
    let is_done = || done.load(std::sync::atomic::Ordering::SeqCst);
    let writing = async {
        let mut n = 50;
        while !is_done() {
            log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
                .await;
            n += 1;
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        n
    };
    let reading = async {
        let (mut last, mut looks, mut builds) = (0, 0, Vec::new());
        while !is_done() {
            let (build, folded, rows) = seen(&pool).await;
            assert_eq!(
                folded, rows,
                "build {build} has other rows than its checkpoints say"
            );
            assert!(
                folded >= last,
                "build {build} is at {folded}, and {last} was seen before"
            );
            (last, looks) = (folded, looks + 1);
            if builds.last() != Some(&build) {
                builds.push(build);
            }
        }
        (looks, builds)
    };
    let operating = async {
        ask_rebuild(&pool, &second).await.unwrap();
        let made = "SELECT count(*)::text FROM annals.checkpoint WHERE reader = 'projection/orders/2'";
        becomes(&pool, made, "2").await;
        let mut longest = Duration::ZERO;
        for direction in [
            Direction::Forward,
            Direction::Back,
            Direction::To(second.id.build),
            Direction::Back,
        ] {
            let switched = switch(&pool, &name, direction, GRACE).await.unwrap();
            longest = longest.max(switched.stood_still);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        longest
    };
    let (written, (looks, builds), longest) = tokio::join!(writing, reading, operating);
    assert_eq!(builds, [1, 2, 1, 2, 1], "{looks} looks");
    assert!(
        longest < Duration::from_secs(1),
        "the live build stood still for {longest:?}"
    );
    at_the_end(&pool, &log, &[1, 2]).await;
    running.stop().await;
    for (build, status) in [(1, "placed"), (2, "open")] {
        let sql = format!("SELECT status || ' ' || count(*) FROM orders_b{build}.orders GROUP BY status");
        assert_eq!(column(&pool, &sql).await, [format!("{status} {written}")]);
    }
}

#[tokio::test]
async fn a_resume_is_asked_for_and_done_by_a_projector() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    folders.change(
        "orders/schema.sql",
        "total       bigint      NOT NULL,",
        "total bigint NOT NULL CONSTRAINT small CHECK (total < 1000),",
    );
    let mut log = TestLog::new().await;
    let running = node(&pool, "a", &log, &folders).await;
    live_with(&pool, &mut log, 3).await;
    log.write(&order(7), 1, "order.placed", &placed(CUSTOMER, 5_000))
        .await;
    log.write(&order(7), 2, "order.rejected", &json!({"reason": "late"}))
        .await;
    at_the_end(&pool, &log, &[1]).await;
    assert_eq!(
        column(&pool, "SELECT count(*)::text FROM annals.parked").await,
        ["2"]
    );
    let name = folders.manifest("orders").id.name.clone();
    let asked = "SELECT count(*)::text FROM annals.projection WHERE resume_asked_at IS NOT NULL";
    ask_resume(&pool, &name, None, None).await.unwrap();
    becomes(&pool, asked, "0").await;
    assert_eq!(
        column(&pool, "SELECT count(*)::text FROM annals.parked").await,
        ["2"],
        "nothing was mended"
    );
    sqlx::query("ALTER TABLE orders_b1.orders DROP CONSTRAINT small")
        .execute(&pool)
        .await
        .unwrap();
    ask_resume(&pool, &name, None, Some(&order(7).parse().unwrap()))
        .await
        .unwrap();
    becomes(&pool, asked, "0").await;
    assert_eq!(
        column(&pool, "SELECT count(*)::text FROM annals.parked").await,
        ["0"]
    );
    let sql = "SELECT status || ' ' || _version FROM orders_b1.orders WHERE total = 5000";
    assert_eq!(column(&pool, sql).await, ["rejected 2"]);
    running.stop().await;
    let none = annals_projection::Name::parse("none").unwrap();
    assert!(matches!(
        ask_resume(&pool, &none, None, None).await,
        Err(LifecycleError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_build_made_before_builds_kept_their_files_gets_them_from_the_same_folder() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let manifest = folders.manifest("orders");
    build::ensure(&pool, &manifest).await.unwrap();
    sqlx::query("UPDATE annals.projection SET files = NULL")
        .execute(&pool)
        .await
        .unwrap();
    assert!(lifecycle::stored(&pool, &manifest.id).await.unwrap().is_none());
    let mut log = TestLog::new().await;
    let running = node(&pool, "a", &log, &folders).await;
    live_with(&pool, &mut log, 3).await;
    running.stop().await;
    let id: &BuildId = &manifest.id;
    let stored = lifecycle::stored(&pool, id).await.unwrap().unwrap();
    assert_eq!((stored.digest, &stored.id), (manifest.digest, id));
}

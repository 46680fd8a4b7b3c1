//! The runner: leases, readers, batches, a halted shard, and giving up to another.

use std::sync::Arc;
use std::time::Duration;

use annals_domain::Ambient;
use annals_log::Log;
use annals_projection::{Closed, Parts, Progress, ProjectionRunner, Projections, RunnerSettings};
use annals_record::record::RawRecord;
use annals_record::{Offset, Shard};
use annals_store::lease::{Leases, NodeId, PgLeases};
use annals_store::testing::TestDatabase;
use serde_json::json;
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{at_the_end, live_with, second};
use crate::support::{CUSTOMER, Folders, SHARDS, TestLog, column, order, placed};

pub struct Running {
    stop: CancellationToken,
    pub progress: Progress,
    task: JoinHandle<()>,
    row: PgLeases,
}

pub async fn node(pool: &PgPool, name: &str, log: &TestLog, folders: &Folders) -> Running {
    node_with(pool, name, log, folders, RunnerSettings::default()).await
}

pub async fn node_with(
    pool: &PgPool,
    name: &str,
    log: &TestLog,
    folders: &Folders,
    settings: RunnerSettings,
) -> Running {
    let leases = PgLeases::new(
        pool.clone(),
        NodeId::new(name),
        "http://x",
        Duration::from_secs(3),
    );
    // Nobody renews the node's own row here: it outlives the test, and goes when the node stops.
    let row = PgLeases::new(
        pool.clone(),
        NodeId::new(name),
        "http://x",
        Duration::from_secs(600),
    );
    row.keep_node(&["projector".to_owned()]).await.unwrap();
    let parts = Parts {
        pool: pool.clone(),
        log: log.log.clone(),
        catalog: log.catalog.clone(),
        leases: Arc::new(leases),
        notifier: None,
        opener: Arc::new(Closed),
        ambient: Ambient::fixed(0, 1).0,
        settings,
    };
    let projections = Projections::load(folders.path(), &log.catalog).unwrap();
    let runner = ProjectionRunner::new(parts, projections);
    let (progress, stop) = (runner.progress(), CancellationToken::new());
    #[allow(clippy::disallowed_methods)]
    let task = tokio::spawn(runner.run(stop.clone()));
    Running {
        stop,
        progress,
        task,
        row,
    }
}

impl Running {
    /// Waits until a projection is at the log's end on every shard.
    pub async fn caught_up(&self, log: &TestLog, name: &str) {
        let (id, _) = self
            .progress
            .now()
            .into_iter()
            .find(|(id, _)| id.name.as_str() == name)
            .unwrap();
        let mut watch = self.progress.subscribe(&id).unwrap();
        let mut ends = Vec::new();
        for shard in log.shards() {
            ends.push((shard, log.log.end(shard).await.unwrap()));
        }
        let there = watch.wait_for(|progress| {
            ends.iter()
                .all(|(shard, end)| progress.next.get(shard) == Some(end))
        });
        let waited = tokio::time::timeout(Duration::from_secs(30), there)
            .await
            .map(drop);
        assert!(
            waited.is_ok(),
            "{name} did not catch up: {:?}",
            self.progress.now()
        );
    }

    /// As a kill does: nothing of it gets to run any more. Its own row and its leases stay.
    pub async fn kill(self) {
        self.task.abort();
        self.task.await.ok();
        self.row.drop_node().await.unwrap();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        self.row.drop_node().await.unwrap();
    }
}

#[tokio::test]
async fn every_projection_follows_the_log_and_goes_on_after_a_restart() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let mut log = TestLog::new().await;
    for n in 0..30 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
    }
    let running = node(&pool, "a", &log, &folders).await;
    running.caught_up(&log, "orders").await;
    let confirmed = json!({"customer": CUSTOMER, "currency": "USD", "ordered_on": "2026-01-02", "total": 100, "units": 1});
    for n in 0..30 {
        log.write(&order(n), 2, "order.confirmed", &confirmed).await;
    }
    for name in [
        "orders",
        "order_lines",
        "daily_sales",
        "customers",
        "products",
        "payments",
    ] {
        running.caught_up(&log, name).await;
    }
    running.stop().await;
    let held = column(
        &pool,
        "SELECT count(*)::text FROM annals.lease WHERE kind = 'projection' AND expires_at > now()",
    )
    .await;
    assert_eq!(held, ["0"], "leases are given back");

    for n in 0..30 {
        log.write(&order(n), 3, "order.shipped", &json!({})).await;
    }
    let running = node(&pool, "b", &log, &folders).await;
    running.caught_up(&log, "orders").await;
    running.caught_up(&log, "daily_sales").await;
    running.caught_up(&log, "customers").await;
    let now = annals_projection::status::status(&pool, &*log.log, 1_800_000_000_000)
        .await
        .unwrap();
    let orders = now.iter().find(|build| build.name == "orders").unwrap();
    assert_eq!(
        (
            orders.lag_records,
            orders.lag_ms,
            orders.live,
            orders.parked_streams
        ),
        (0, 0, true, 0)
    );
    running.stop().await;
    let sql =
        "SELECT status || ' ' || _version || ' ' || count(*) FROM orders_b1.orders GROUP BY status, _version";
    assert_eq!(column(&pool, sql).await, ["shipped 3 30"]);
    let sql = "SELECT orders || ' ' || revenue FROM daily_sales_b1.daily_sales";
    assert_eq!(column(&pool, sql).await, ["30 3000"]);
    let sql = "SELECT orders || ' ' || lifetime_value FROM customers_b1.customers";
    assert_eq!(column(&pool, sql).await, ["30 3000"]);
}

#[tokio::test]
async fn a_halted_shard_stops_only_itself() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let mut log = TestLog::new().await;
    let mut on = [0_u32; 2];
    for n in 0..10 {
        let shard = log
            .write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
        on[usize::try_from(shard.get()).unwrap()] += 1;
    }
    // A record of a format that this program does not know: shard 0 ends here for this reader.
    let mut future: RawRecord = log.log.placed(Shard::new(0))[0].slot.known().unwrap().to_raw();
    future.headers[0].value = Some("2".into());
    let halted_at = log.log.insert(Shard::new(0), future);
    let running = node(&pool, "a", &log, &folders).await;
    let (id, _) = running
        .progress
        .now()
        .into_iter()
        .find(|(id, _)| id.name.as_str() == "orders")
        .unwrap();
    let mut watch = running.progress.subscribe(&id).unwrap();
    let end = log.log.end(Shard::new(1)).await.unwrap();
    let there = watch.wait_for(|progress| {
        progress.halted.contains_key(&Shard::new(0))
            && progress.next.get(&Shard::new(1)) == Some(&end)
            && progress.next.get(&Shard::new(0)) == Some(&halted_at)
    });
    tokio::time::timeout(Duration::from_secs(30), there)
        .await
        .unwrap()
        .unwrap();
    assert!(halted_at > Offset::new(u64::from(on[0])));
    running.stop().await;
    assert_eq!(
        column(&pool, "SELECT count(*)::text FROM orders_b1.orders").await,
        [(on[0] + on[1]).to_string()]
    );
}

#[tokio::test]
async fn a_zombie_gives_up_and_goes_on_from_the_stored_checkpoints() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let mut log = TestLog::new().await;
    log.write(&order(1), 1, "order.placed", &placed(CUSTOMER, 100))
        .await;
    let running = node(&pool, "a", &log, &folders).await;
    running.caught_up(&log, "orders").await;
    // Somebody else folds the same build behind its back.
    let shard = log
        .write(&order(2), 1, "order.placed", &placed(CUSTOMER, 100))
        .await;
    running.caught_up(&log, "orders").await;
    let at = annals_log::Checkpoint::load(&pool, "projection/orders/1", shard)
        .await
        .unwrap()
        .unwrap();
    let other = crate::support::projector(&pool, folders.manifest("orders")).await;
    for n in 3..9 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
    }
    // Whoever is first applies it; the other finds the checkpoint moved. Nothing is applied twice.
    other.apply(&[log.read(shard, at).await]).await.ok();
    for n in 9..15 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
    }
    running.caught_up(&log, "orders").await;
    assert_eq!(
        column(&pool, "SELECT count(*)::text FROM orders_b1.orders").await,
        ["14"]
    );
    assert_eq!(
        column(&pool, "SELECT count(*)::text FROM annals.parked").await,
        ["0"]
    );
    running.stop().await;
}

impl Running {
    /// Waits until one of two nodes has brought each shard of a projection to the log's end.
    async fn caught_up_together(&self, other: &Self, log: &TestLog, name: &str) {
        let (id, _) = self
            .progress
            .now()
            .into_iter()
            .find(|(id, _)| id.name.as_str() == name)
            .unwrap();
        for shard in (0..SHARDS).map(Shard::new) {
            let end = log.log.end(shard).await.unwrap();
            let (mut mine, mut others) = (
                self.progress.subscribe(&id).unwrap(),
                other.progress.subscribe(&id).unwrap(),
            );
            let there = async {
                tokio::select! {
                    found = mine.wait_for(|progress| progress.next.get(&shard) == Some(&end)) => found.map(drop),
                    found = others.wait_for(|progress| progress.next.get(&shard) == Some(&end)) => found.map(drop),
                }
            };
            tokio::time::timeout(Duration::from_secs(30), there)
                .await
                .unwrap()
                .unwrap();
        }
    }
}

#[tokio::test]
async fn two_nodes_share_the_work_and_one_takes_over_when_the_other_stops() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let folders = Folders::copy();
    let mut log = TestLog::new().await;
    let confirmed =
        json!({"customer": CUSTOMER, "currency": "USD", "ordered_on": "2026-01-02", "total": 1, "units": 1});
    let (a, b) = (
        node(&pool, "a", &log, &folders).await,
        node(&pool, "b", &log, &folders).await,
    );
    for n in 0..20 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 1))
            .await;
        log.write(&order(n), 2, "order.confirmed", &confirmed).await;
    }
    for name in ["orders", "daily_sales"] {
        a.caught_up_together(&b, &log, name).await;
    }
    a.stop().await;
    for n in 20..30 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 1))
            .await;
        log.write(&order(n), 2, "order.confirmed", &confirmed).await;
    }
    for name in ["orders", "daily_sales"] {
        b.caught_up(&log, name).await;
    }
    b.stop().await;
    let sql = "SELECT status || ' ' || count(*) FROM orders_b1.orders GROUP BY status";
    assert_eq!(column(&pool, sql).await, ["confirmed 30"]);
    assert_eq!(
        column(&pool, "SELECT orders::text FROM daily_sales_b1.daily_sales").await,
        ["30"]
    );
}

#[tokio::test]
async fn what_does_not_concern_a_build_costs_it_few_transactions() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    for sql in [
        "CREATE TABLE public.moves (reader text)",
        "CREATE FUNCTION public.count_move() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
         $$ BEGIN INSERT INTO public.moves VALUES (NEW.reader); RETURN NULL; END $$",
        "CREATE TRIGGER moved AFTER INSERT OR UPDATE ON annals.checkpoint
         FOR EACH ROW WHEN (NEW.shard = 0) EXECUTE FUNCTION public.count_move()",
    ] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let (folders, mut log) = (Folders::copy(), TestLog::with_shards(1).await);
    let interval = Duration::from_millis(20);
    let settings = RunnerSettings {
        batch_interval: interval,
        ..RunnerSettings::default()
    };
    let running = node_with(&pool, "a", &log, &folders, settings).await;
    running.caught_up(&log, "products").await;
    let began = tokio::time::Instant::now();
    let mut tick = tokio::time::interval(interval / 4);
    let mut orders = 0;
    while began.elapsed() < 60 * interval {
        log.write(&order(orders), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
        orders += 1;
        tick.tick().await;
    }
    // It comes to the log's end all the same.
    running.caught_up(&log, "products").await;
    running.caught_up(&log, "orders").await;
    let most = began.elapsed().as_millis() / (4 * interval).as_millis() + 2;
    running.stop().await;
    let sql = "SELECT count(*)::text FROM public.moves WHERE reader = 'projection/products/1'";
    let moves: u128 = column(&pool, sql).await.concat().parse().unwrap();
    assert!(
        (1..=most).contains(&moves),
        "{moves} transactions for nothing, at most {most} expected, of {orders} records"
    );
    let sql = "SELECT count(*)::text FROM orders_b1.orders";
    assert_eq!(column(&pool, sql).await, [orders.to_string()]);
}

#[tokio::test]
async fn more_builds_than_connections_wait_for_each_other_and_none_fails() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let all = database.pool().await;
    // Six live builds and one beside them, leases and the look for what is to be done: two connections for all.
    let few = sqlx::postgres::PgPoolOptions::new()
        .max_connections(2)
        .connect_with(all.connect_options().as_ref().clone())
        .await
        .unwrap();
    let (first, new) = (Folders::copy(), Folders::copy());
    let mut log = TestLog::new().await;
    let running = node(&few, "a", &log, &first).await;
    live_with(&all, &mut log, 30).await;
    annals_projection::lifecycle::ask_rebuild(&all, &second(&new))
        .await
        .unwrap();
    for n in 30..60 {
        log.write(&order(n), 1, "order.placed", &placed(CUSTOMER, 100))
            .await;
    }
    at_the_end(&all, &log, &[1, 2]).await;
    running.caught_up(&log, "daily_sales").await;
    let progress = running.progress.now();
    assert_eq!(progress.len(), 7, "{progress:?}");
    assert!(
        progress.iter().all(|(_, progress)| progress.error.is_none()),
        "{progress:?}"
    );
    running.stop().await;
    few.close().await;
}

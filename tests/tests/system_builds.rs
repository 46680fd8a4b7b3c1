//! Read models built anew under live load: no request fails and no row is wrong, whoever is killed meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use annals_tests::cluster::Cluster;
use annals_tests::{Answer, Api, Server, unique};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;

/// Products; each has one writer, and the same number of readers look at all of them.
const PRODUCTS: usize = 8;
/// Between two commands of a writer: a load that a busy machine carries beside a build.
const PACE: Duration = Duration::from_millis(100);
/// Small batches, so that a build takes a while and a kill meets it in the middle; short leases, so that another
/// projector soon goes on; a limit of lag that a test can wait for.
const SETTINGS: &str = "[projection]\nrebuild_events = 100\nready_lag_ms = 2000\n[lease]\nttl_ms = 2000\n";
const PATIENCE: Duration = Duration::from_secs(120);

/// What the load does, and what it has seen.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    /// While no projector runs, nobody asks for rows that are fresh.
    fresh: AtomicBool,
    written: AtomicUsize,
    read: AtomicUsize,
    read_fresh: AtomicUsize,
}

/// Stock is received one by one: the product's row at version v has v - 1 of it, in whatever build.
fn on_hand(answer: &Answer) -> u64 {
    let row = answer.is(200).data();
    let version: u64 = answer.header("annals-version").unwrap().parse().unwrap();
    let on_hand = row["on_hand"].as_u64().unwrap();
    assert_eq!(on_hand + 1, version, "a row that no log makes: {row}");
    on_hand
}

async fn write(load: Arc<Load>, commands: Api, reads: Api, sku: String) -> u64 {
    let mut written = 0;
    let receive = json!({"quantity": 1, "reference": "delivery"});
    while !load.stop.load(Ordering::SeqCst) {
        let path = format!("/v1/products/{sku}/receive");
        let answer = commands.post(&path, &receive).await;
        answer.is(200);
        written += 1;
        tokio::time::sleep(PACE).await;
        load.written.fetch_add(1, Ordering::SeqCst);
        // Its own write, with the token of the answer, whatever happens to builds meanwhile.
        if written % 4 == 0 && load.fresh.load(Ordering::SeqCst) {
            let row = reads
                .get_after(&format!("/v1/products/{sku}"), answer.position())
                .await;
            if row.status == 503 && !load.fresh.load(Ordering::SeqCst) {
                continue; // the projector was killed while it waited
            }
            assert_eq!(on_hand(&row), written, "its own write");
            load.read_fresh.fetch_add(1, Ordering::SeqCst);
        }
    }
    written
}

async fn read(load: Arc<Load>, reads: Api, skus: Vec<String>) {
    let mut last = vec![0; skus.len()];
    while !load.stop.load(Ordering::SeqCst) {
        for (sku, last) in skus.iter().zip(&mut last) {
            let row = on_hand(&reads.get(&format!("/v1/products/{sku}")).await);
            assert!(row >= *last, "{sku} went back from {last} to {row}");
            *last = row;
            load.read.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(PACE / 4).await;
        }
        let list = reads.get("/v1/products?limit=500&sort=name").await;
        assert_eq!(list.is(200).data().as_array().unwrap().len(), skus.len());
    }
}

/// How far a build is: records folded, over all shards; none if nothing is.
async fn folded(pool: &PgPool, build: i32) -> i64 {
    sqlx::query_scalar(
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM annals.checkpoint WHERE reader = 'projection/products/' || $1",
    )
    .bind(build)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Waits until something of the build has moved beyond this; returns where it is.
async fn moved_beyond(pool: &PgPool, build: i32, wanted: i64) -> i64 {
    let until = Instant::now() + PATIENCE;
    let mut before = 0;
    loop {
        let now = folded(pool, build).await;
        assert!(
            now >= before,
            "a checkpoint moved back from {before} to {now} (L8)"
        );
        before = now;
        if now > wanted {
            return now;
        }
        assert!(Instant::now() < until, "build {build} does not go on at {now}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn act(node: &Server, action: &str) -> Answer {
    let path = format!("/admin/projections/products/{action}");
    node.operations(Some("operator")).call("POST", &path).send().await
}

/// The builds as the operators' route tells of them: number, state, live.
async fn builds(node: &Server, status: &str) -> Vec<(i64, String, bool)> {
    let listed = node.operations(Some("operator")).get(status).await;
    let found = listed.is(200).data();
    let build = |build: &Value| {
        (
            build["build"].as_i64().unwrap(),
            build["state"].as_str().unwrap().to_owned(),
            build["live"].as_bool().unwrap(),
        )
    };
    found.as_array().unwrap().iter().map(build).collect()
}

async fn killed(server: Server) {
    tokio::task::spawn_blocking(move || server.kill()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_a_build_is_made_killed_compared_switched_to_rolled_back_and_attested() {
    let Some(cluster) = Cluster::prepare(SETTINGS).await else {
        return;
    };
    let cluster = Arc::new(cluster);
    let pool = cluster.home.database().pool().await;
    let commands = cluster.started("command,process").await;
    let mut projector = cluster.started("projector").await;
    let queries = cluster.started("query,audit").await;
    let (sender, reads) = (commands.api("admin"), queries.api("admin"));
    let mut skus = Vec::new();
    for _ in 0..PRODUCTS {
        let sku = unique("P");
        let register = json!({"name": "A thing", "price": {"amount": 500, "currency": "USD"}});
        let path = format!("/v1/products/{sku}/register");
        let answer = sender.post(&path, &register).await;
        reads
            .get_after(&format!("/v1/products/{sku}"), answer.is(201).position())
            .await
            .is(200);
        skus.push(sku);
    }
    let load = Arc::new(Load::default());
    load.fresh.store(true, Ordering::SeqCst);
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        readers.spawn(read(Arc::clone(&load), reads.clone(), skus.clone()));
    }
    let mut writers = JoinSet::new();
    for sku in skus.clone() {
        let write = write(Arc::clone(&load), sender.clone(), reads.clone(), sku.clone());
        writers.spawn(async move { (sku, write.await) });
    }
    let until = Instant::now() + PATIENCE;
    while load.written.load(Ordering::SeqCst) < 300 {
        assert!(
            Instant::now() < until && readers.try_join_next().is_none() && writers.try_join_next().is_none()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    eprintln!("the load runs");
    // Asked for over HTTP, then killed in the middle, twice; the reads go on, as stale as they say.
    let asked = act(&projector, "rebuild").await;
    let status = asked.is(202).header("location").unwrap().to_owned();
    assert_eq!(status, "/admin/projections/products");
    let mut at = moved_beyond(&pool, 2, 50).await;
    assert!(
        at < folded(&pool, 1).await,
        "the build was done before it could be killed"
    );
    // In the middle, and once more wherever it is by then.
    for _ in 0..2 {
        load.fresh.store(false, Ordering::SeqCst);
        killed(projector).await;
        let left = folded(&pool, 2).await;
        assert!(left >= at, "a checkpoint moved back from {at} to {left} (L8)");
        at = left;
        projector = cluster.started("projector").await;
        eprintln!("killed at {at} records");
    }
    // The same wish again is the same build; it goes on from its checkpoints, and its rows are the live build's.
    let diff = cluster
        .run(&["projections", "rebuild", "products", "--diff", "--output", "json"])
        .await;
    let found: Value = serde_json::from_str(diff.exits(0)).unwrap();
    assert_eq!((&found["live"], &found["other"]), (&json!(1), &json!(2)));
    assert_eq!(found["tables"][0]["differing_rows"], 0, "{found}");
    assert_eq!(found["tables"][0]["actual_rows"], PRODUCTS, "{found}");
    load.fresh.store(true, Ordering::SeqCst);
    eprintln!(
        "compared; the live one stood still for {} ms",
        found["stood_still_ms"]
    );

    let switched = act(&projector, "switch").await;
    assert_eq!(switched.is(202).header("location"), Some(status.as_str()));
    let two_live = [(1, "retired".to_owned(), false), (2, "running".to_owned(), true)];
    assert_eq!(builds(&projector, &status).await, two_live);
    // Under load, with both builds fed, there and back again and again.
    for round in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        act(&projector, "rollback").await.is(202);
        let live = builds(&projector, &status).await;
        assert_eq!(live[0], (1, "running".to_owned(), true), "round {round}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let again = cluster
            .run(&[
                "projections",
                "switch",
                "products",
                "--build",
                "2",
                "--output",
                "json",
            ])
            .await;
        let again: Value = serde_json::from_str(again.exits(0)).unwrap();
        assert_eq!((&again["live"], &again["former"]), (&json!(2), &json!(1)));
        eprintln!(
            "round {round}: the live one stood still for {} ms",
            again["stood_still_ms"]
        );
    }
    // Nothing further to switch to; the live build cannot be dropped, the former one can.
    let refused = act(&projector, "switch").await;
    assert_eq!(refused.problem(409, "rejected")["rejection"]["code"], "not_built");
    let refused = cluster
        .run(&["projections", "drop", "products", "--build", "2"])
        .await;
    refused.exits(1);
    assert!(refused.stderr.contains("live"), "{}", refused.stderr);
    cluster
        .run(&["projections", "drop", "products", "--build", "1"])
        .await
        .exits(0);
    let left: Vec<(i64, String, bool)> = builds(&projector, &status).await;
    assert_eq!(left, [(2, "running".to_owned(), true)]);

    load.stop.store(true, Ordering::SeqCst);
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    let mut received = 0;
    while let Some(ended) = writers.join_next().await {
        let (sku, written) = ended.unwrap();
        received += written;
        let history = cluster
            .run(&["projections", "explain", "products", &sku, "--output", "json"])
            .await;
        let behind: Value = serde_json::from_str(history.exits(0)).unwrap();
        assert_eq!(behind["streams"], json!([format!("product-{sku}")]));
    }
    eprintln!(
        "{received} commands, {} reads, {} of them fresh, none failed",
        load.read.load(Ordering::SeqCst) + load.read_fresh.load(Ordering::SeqCst),
        load.read_fresh.load(Ordering::SeqCst)
    );
    assert!(load.read_fresh.load(Ordering::SeqCst) > 8);

    attested(&cluster, &pool, &skus[0]).await;
    commands.stop();
    queries.stop();
    projector.stop();
    pool.close().await;
    Arc::into_inner(cluster).unwrap().end().await;
}

/// The table equals the log; and once a cell is changed it does not, and both ways of asking say where.
async fn attested(cluster: &Cluster, pool: &PgPool, sku: &str) {
    let attest = ["audit", "attest", "products", "--output", "json"];
    let found: Value = serde_json::from_str(cluster.run(&attest).await.exits(0)).unwrap();
    assert_eq!(
        (&found["attested"], &found["build"]),
        (&json!(true), &json!(2)),
        "{found}"
    );
    sqlx::query("UPDATE products_b2.products SET price = 1 WHERE sku = $1")
        .bind(sku)
        .execute(pool)
        .await
        .unwrap();
    let found: Value = serde_json::from_str(cluster.run(&attest).await.exits(1)).unwrap();
    let difference =
        json!({"table": "products", "key": sku, "column": "price", "expected": 500, "actual": 1});
    assert_eq!(found["differences"], json!([difference]), "{found}");
    let explain = ["projections", "explain", "products", sku, "--output", "json"];
    let found: Value = serde_json::from_str(cluster.run(&explain).await.exits(1)).unwrap();
    assert_eq!(found["differences"], json!([difference]), "{found}");
    assert_eq!(found["steps"][0]["event"], "product.registered", "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_read_models_are_too_far_behind_is_not_ready() {
    let Some(cluster) = Cluster::prepare(SETTINGS).await else {
        return;
    };
    let cluster = Arc::new(cluster);
    let commands = cluster.started("command,process").await;
    let projector = cluster.started("projector").await;
    let queries = cluster.started("query").await;
    queries.operations(None).get("/readyz").await.is(200);
    killed(projector).await;
    let register = json!({"name": "A thing", "price": {"amount": 500, "currency": "USD"}});
    let path = format!("/v1/products/{}/register", unique("P"));
    commands.api("admin").post(&path, &register).await.is(201);
    let until = Instant::now() + PATIENCE;
    let becomes = |wanted: u16| {
        let ops = queries.operations(None);
        async move {
            loop {
                let answer = ops.get("/readyz").await;
                if answer.status == wanted {
                    return answer;
                }
                assert!(Instant::now() < until, "{}: {}", answer.status, answer.text());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let behind = becomes(503).await;
    let text = behind.text();
    assert!(
        text.contains("projection products is") && text.contains("ready_lag_ms 2000"),
        "{text}"
    );
    let metrics = queries.operations(None).get("/metrics").await.text();
    let lag = metrics
        .lines()
        .find_map(|line| line.strip_prefix("annals_projection_lag_seconds{projection=\"products\"} "))
        .and_then(|seconds| seconds.parse::<f64>().ok());
    assert!(lag.is_some_and(|seconds| seconds > 2.0), "{lag:?}");
    // The command node answers for no read model.
    commands.operations(None).get("/readyz").await.is(200);
    let projector = cluster.started("projector").await;
    becomes(200).await;
    commands.stop();
    queries.stop();
    projector.stop();
    Arc::into_inner(cluster).unwrap().end().await;
}

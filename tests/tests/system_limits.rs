//! What the real program answers when something is full, away or broken, with the documented codes; and that it sheds
//! load instead of slowing down.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_tests::fault::Options;
use annals_tests::fault::check::Findings;
use annals_tests::fault::plan::Kind;
use annals_tests::fault::proxy::Mode;
use annals_tests::fault::setup::Ground;
use annals_tests::{Answer, Api, Home, Shop, unique};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long a condition may take to come true; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// What a node accepts is answered within this time, whatever is asked of it.
const LIMIT: Duration = Duration::from_millis(200);
/// A machine with nothing else to do answers within this time at its capacity.
const CALM: Duration = Duration::from_millis(40);

fn receive() -> Value {
    json!({"quantity": 1, "reference": "delivery"})
}

fn path(stream: &str) -> String {
    format!("/v1/products/{}/receive", stream.trim_start_matches("product-"))
}

/// A command node that starts anew, with every stream cold.
async fn restarted(ground: &mut Ground) -> Api {
    ground.commands[0].kill().await;
    ground.commands[0].start(&ground.shared);
    ground.commands[0].ready().await.unwrap();
    api(ground)
}

fn api(ground: &Ground) -> Api {
    let (url, _) = ground.commands[0].addresses().unwrap();
    Api::new(&url, Some(ground.token.clone()))
}

/// Sends until the answer is for good, or one that only an operator or a developer ends.
async fn post(api: &Api, stream: &str) -> Answer {
    let (key, until) = (unique("k"), Instant::now() + PATIENCE);
    loop {
        let answer = api.post_with_key(&path(stream), &key, &receive()).await;
        let passing = matches!(answer.status, 503 | 504) && answer.json()["code"] != "shard-halted";
        if !passing || Instant::now() > until {
            return answer;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_away_is_answered_with_its_code() {
    let options = Options {
        nodes: 1,
        lease_ms: 10_000,
        // Longer than the pools wait for a connection.
        deadline_ms: 8_000,
        ..Options::default()
    };
    let (mut ground, _, _) = Ground::prepare(&options, vec![Kind::Kill]).await.unwrap();
    let streams: Vec<String> = ground.register().await.unwrap().into_values().flatten().collect();

    // A stream in memory, and no answer from the log.
    let hot = &streams[0];
    post(&api(&ground), hot).await.is(200);
    ground.commands[0].proxy.set(Mode::Hold);
    let key = unique("k");
    let silent = api(&ground).post_with_key(&path(hot), &key, &receive()).await;
    silent.problem(504, "outcome-unknown");
    assert_eq!(silent.header("retry-after"), Some("1"));
    ground.commands[0].proxy.set(Mode::Pass);
    let again = api(&ground).post_for_good(&path(hot), &key, &receive()).await;
    assert_eq!(again.is(200).json()["version"], 3, "it happened once");

    // A cold stream, and no journal to load it from.
    let api = restarted(&mut ground).await;
    ground.postgres.crash().await;
    let away = api
        .post_with_key(&path(&streams[1]), &unique("k"), &receive())
        .await;
    away.problem(503, "log-unavailable");
    assert_eq!(away.header("retry-after"), Some("2"));
    ground.postgres.heal().await;
    post(&api, &streams[2]).await.is(200);

    let mut findings = Findings::default();
    ground.end(&mut findings, false).await;
    assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_mailbox_is_503_overloaded_and_nothing_of_it_happened() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__COMMAND__MAILBOX", "4");
    let server = home.dev();
    let shop = Shop::of(&server);
    let sku = shop.product(100, 0).await;
    let target = format!("/v1/products/{sku}/receive");
    let (mut accepted, mut shed) = (0_u64, 0);
    // Until both have been seen: how many arrive at once is the machine's to say.
    while accepted == 0 || shed == 0 {
        let sends = (0..64).map(|_| {
            let (admin, target) = (shop.admin.clone(), target.clone());
            async move { admin.post(&target, &receive()).await }
        });
        for answer in join_all(sends).await {
            if answer.status == 503 {
                answer.problem(503, "overloaded");
                assert_eq!(answer.header("retry-after"), Some("1"));
                shed += 1;
            } else {
                answer.is(200);
                accepted += 1;
            }
        }
    }
    eprintln!("mailbox of 4: {accepted} accepted, {shed} shed");
    let row = shop.product_is(&sku, accepted, 0).await;
    assert_eq!(row["on_hand"], accepted);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_limit_connections_wait_until_there_is_a_place() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__HTTP__CONNECTIONS", "3");
    let server = home.dev();
    let address = server.url.trim_start_matches("http://").to_owned();
    let ask = |address: String| async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = b"GET /v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n";
        socket.write_all(request).await.unwrap();
        let mut first = [0; 15];
        socket.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        socket
    };
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(ask(address.clone()).await);
    }
    let mut fourth = JoinSet::new();
    fourth.spawn(ask(address));
    let early = tokio::time::timeout(Duration::from_millis(500), fourth.join_next()).await;
    assert!(early.is_err(), "three places are taken");
    open.pop();
    let answered = tokio::time::timeout(PATIENCE, fourth.join_next()).await;
    answered.expect("a place is free").unwrap().unwrap();
    drop(open);
    server.stop();
}

/// Commands on many products at once, closed loop: how many a second, and how long they took.
async fn closed_loop(shop: &Shop, skus: &[String], clients: usize, lasts: Duration) -> (f64, Duration) {
    let until = Instant::now() + lasts;
    let began = Instant::now();
    let loops = (0..clients).map(|client| {
        let (admin, skus) = (shop.admin.clone(), skus.to_vec());
        async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                let sent = Instant::now();
                let target = format!("/v1/products/{}/receive", skus[client % skus.len()]);
                admin.post(&target, &receive()).await.is(200);
                took.push(sent.elapsed());
            }
            took
        }
    });
    let took: Vec<Duration> = join_all(loops).await.concat();
    let count = f64::from(u32::try_from(took.len()).unwrap());
    (count / began.elapsed().as_secs_f64(), p99(took))
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_times_its_capacity_a_node_sheds_and_what_it_accepts_is_not_late() {
    const LASTS: Duration = Duration::from_secs(4);
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__COMMAND__MAILBOX", "16");
    let server = home.dev();
    let shop = Shop::of(&server);
    let mut skus = Vec::new();
    for _ in 0..16 {
        skus.push(shop.product(100, 0).await);
    }
    closed_loop(&shop, &skus, 12, Duration::from_secs(1)).await;
    let (capacity, at_capacity) = closed_loop(&shop, &skus, 12, LASTS).await;
    let before = resident(server.pid());
    // Open loop: what comes does not wait for what came before.
    let pause = Duration::from_secs_f64(1.0 / (3.0 * capacity));
    let (began, mut sent) = (Instant::now(), 0_u32);
    let mut sends = JoinSet::new();
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    let mut accepted = Vec::new();
    let mut most = before;
    let mut take = |(status, took): (u16, Duration), accepted: &mut Vec<Duration>| {
        *counts.entry(status).or_default() += 1;
        if status == 200 {
            accepted.push(took);
        }
    };
    let admin = Arc::new(shop.admin.clone());
    while began.elapsed() < LASTS {
        while began.elapsed() >= pause * sent {
            let (admin, sku) = (
                Arc::clone(&admin),
                skus[usize::try_from(sent).unwrap() % skus.len()].clone(),
            );
            sends.spawn(async move {
                let began = Instant::now();
                let target = format!("/v1/products/{sku}/receive");
                let call = admin.call("POST", &target).key(&unique("k")).json(&receive());
                let status = call.try_send().await.map_or(0, |answer| answer.status);
                (status, began.elapsed())
            });
            sent += 1;
        }
        while let Some(done) = sends.try_join_next() {
            take(done.unwrap(), &mut accepted);
        }
        most = most.max(resident(server.pid()));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    while let Some(done) = sends.join_next().await {
        take(done.unwrap(), &mut accepted);
    }
    let late = p99(accepted.clone());
    eprintln!(
        "capacity {capacity:.0}/s with p99 {at_capacity:.1?}; {sent} sent at three times that: {counts:?}, p99 of the accepted \
         {late:.1?}; resident {before} KiB, at most {most} KiB"
    );
    assert!(
        counts.keys().all(|status| matches!(status, 200 | 503)),
        "{counts:?}"
    );
    assert!(counts[&200] > 0);
    assert!(
        counts.contains_key(&503),
        "three times the capacity is more than fits: {counts:?}"
    );
    // A machine on which a command alone takes long says nothing of the service's limit.
    if at_capacity < CALM {
        assert!(late < LIMIT, "p99 {late:?}, and {LIMIT:?} is the limit");
    } else {
        eprintln!(
            "the machine is too busy to hold p99 against {LIMIT:?}: it is {at_capacity:.1?} without overload"
        );
    }
    assert!(most < before + (64 << 10), "{before} KiB became {most} KiB");
    server.stop();
}

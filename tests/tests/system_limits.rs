//! What the real program answers when something is full, away or broken, with the documented codes; and that it sheds
//! load instead of slowing down.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annals_tests::fault::Options;
use annals_tests::fault::check::Findings;
use annals_tests::fault::plan::Kind;
use annals_tests::fault::proxy::Mode;
use annals_tests::fault::setup::Ground;
use annals_tests::server::kafka_broker;
use annals_tests::{Answer, Api, Home, Shop, unique};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long a condition may take to come true; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

fn receive() -> Value {
    json!({"quantity": 1, "reference": "delivery"})
}

fn path(stream: &str) -> String {
    format!("/v1/products/{}/receive", stream.trim_start_matches("product-"))
}

/// A command node that starts anew, with every stream cold.
async fn restarted(ground: &mut Ground) -> Api {
    // In order: it gives its leases back.
    ground.commands[0].term().await.unwrap();
    ground.commands[0].start(&ground.shared);
    ground.commands[0].ready(&ground.shared).await.unwrap();
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
        // Nothing here is a matter of leases, however long it takes.
        lease_ms: 60_000,
        // Much longer than the 5 s that pools wait for a connection: a busy machine is late.
        deadline_ms: 15_000,
        ..Options::default()
    };
    let (mut ground, _) = Ground::prepare(&options, vec![Kind::Kill]).await.unwrap();
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
async fn with_the_log_on_kafka_hot_streams_need_no_postgres_and_cold_ones_say_that_it_is_away() {
    let Some(brokers) = kafka_broker() else { return };
    let options = Options {
        nodes: 1,
        // Its renewals fail all the while, so that leases run out.
        lease_ms: 2_000,
        deadline_ms: 15_000,
        log: "kafka".to_owned(),
        brokers: Some(brokers),
        ..Options::default()
    };
    let (mut ground, _) = Ground::prepare(&options, vec![Kind::Kill]).await.unwrap();
    let streams: Vec<String> = ground.register().await.unwrap().into_values().flatten().collect();
    let (hot, cold) = (&streams[0], &streams[1]);
    let api = restarted(&mut ground).await;
    let key = unique("k");
    let first = api.post_for_good(&path(hot), &key, &receive()).await;
    first.is(200);

    ground.postgres.crash().await;
    let mut version = first.json()["version"].as_u64().unwrap();
    let until = Instant::now() + 3 * options.lease();
    while Instant::now() < until {
        version += 1;
        let next = api.post_with_key(&path(hot), &unique("k"), &receive()).await;
        assert_eq!(
            next.is(200).json()["version"],
            version,
            "nobody was asked, nothing was lost"
        );
    }
    // What was answered before is known without the journal.
    let again = api.post_with_key(&path(hot), &key, &receive()).await;
    assert_eq!(again.is(200).text(), first.text());
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    let away = api.post_with_key(&path(cold), &unique("k"), &receive()).await;
    away.problem(503, "log-unavailable");

    ground.postgres.heal().await;
    post(&api, cold).await.is(200);
    assert_eq!(post(&api, hot).await.is(200).json()["version"], version + 1);
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

/// What clients were told of a load.
#[derive(Default)]
struct Told {
    counts: BTreeMap<u16, usize>,
    /// How long what was accepted took.
    accepted: Vec<Duration>,
    /// Answers of 503 that do not say when to come again, or with another code.
    odd: usize,
}

impl Told {
    fn take(&mut self, answer: Option<Answer>, took: Duration) {
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        *self.counts.entry(status).or_default() += 1;
        match answer {
            Some(_) if status == 200 => self.accepted.push(took),
            Some(answer) if status == 503 => {
                let right = answer.json()["code"] == "overloaded" && answer.header("retry-after").is_some();
                self.odd += usize::from(!right);
            }
            Some(_) | None => {}
        }
    }

    fn count(&self, status: u16) -> f64 {
        f64::from(u32::try_from(self.counts.get(&status).copied().unwrap_or(0)).unwrap())
    }

    fn p99(&mut self) -> Duration {
        self.accepted.sort();
        let place = self.accepted.len() * 99 / 100;
        self.accepted.get(place).copied().unwrap_or_default()
    }
}

/// Resident memory of a process, KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn send(api: &Api, stream: &str) -> (Option<Answer>, Duration) {
    let began = Instant::now();
    let key = unique("k");
    let call = api.call("POST", &path(stream)).key(&key).json(&receive());
    let answer = call.try_send().await.ok();
    (answer, began.elapsed())
}

/// Clients that each wait for an answer before they send again: what the node can do.
async fn closed_loop(api: &Api, streams: &[String], clients: usize, lasts: Duration) -> Told {
    let until = Instant::now() + lasts;
    let loops = (0..clients).map(|client| async move {
        let mut told = Vec::new();
        while Instant::now() < until {
            let (answer, took) = send(api, &streams[client % streams.len()]).await;
            if answer.as_ref().is_none_or(|answer| answer.status == 503) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            told.push((answer, took));
        }
        told
    });
    let mut told = Told::default();
    for (answer, took) in join_all(loops).await.into_iter().flatten() {
        told.take(answer, took);
    }
    told
}

/// Clients that send so many a second, whatever comes of those before; what they were told of what they sent after `warm`,
/// and the most memory.
async fn open_loop(
    api: &Api,
    streams: &[String],
    rate: f64,
    (warm, lasts): (Duration, Duration),
    pid: u32,
) -> (Told, u64) {
    let pause = Duration::from_secs_f64(1.0 / rate);
    let (began, mut sent, mut most) = (Instant::now(), 0_u32, 0);
    let mut sends = JoinSet::new();
    let mut told = Told::default();
    while began.elapsed() < warm + lasts {
        while began.elapsed() >= pause * sent {
            let stream = streams[usize::try_from(sent).unwrap() % streams.len()].clone();
            let (api, counts) = (api.clone(), pause * sent >= warm);
            sends.spawn(async move { (counts, send(&api, &stream).await) });
            sent += 1;
        }
        while let Some(done) = sends.try_join_next() {
            if let (true, (answer, took)) = done.unwrap() {
                told.take(answer, took);
            }
        }
        most = most.max(resident(pid));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    while let Some(done) = sends.join_next().await {
        if let (true, (answer, took)) = done.unwrap() {
            told.take(answer, took);
        }
    }
    (told, most)
}

/// The log takes so many bytes a second: so the capacity is the log's, however busy the machine is.
const TRICKLE: u32 = 60_000;
/// `command.queue_ms` of the test: long enough that so slow a log's appends carry some commands.
const QUEUE: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_times_its_capacity_a_node_sheds_and_what_it_accepts_is_not_late() {
    const LASTS: Duration = Duration::from_secs(5);
    let options = Options {
        nodes: 1,
        lease_ms: 60_000,
        deadline_ms: 60_000,
        ..Options::default()
    };
    let (mut ground, _) = Ground::prepare(&options, vec![Kind::Kill]).await.unwrap();
    let streams: Vec<String> = ground.register().await.unwrap().into_values().flatten().collect();
    let home = &ground.shared.home;
    home.set("ANNALS__COMMAND__QUEUE_MS", &QUEUE.as_millis().to_string());
    ground.commands[0].term().await.unwrap();
    ground.commands[0].start(&ground.shared);
    ground.commands[0].ready(&ground.shared).await.unwrap();
    let (api, pid) = (api(&ground), ground.commands[0].pid().unwrap());
    for stream in &streams {
        post(&api, stream).await.is(200);
    }
    ground.commands[0].proxy.set(Mode::Trickle(TRICKLE));
    closed_loop(&api, &streams, 64, Duration::from_secs(3)).await;
    let mut calm = closed_loop(&api, &streams, 64, LASTS).await;
    let capacity = calm.count(200) / LASTS.as_secs_f64();
    let before = resident(pid);
    // Until the node knows: some appends, each as long as its queue.
    let warm = Duration::from_secs(7);
    let (mut told, most) = open_loop(&api, &streams, 3.0 * capacity, (warm, LASTS), pid).await;
    ground.commands[0].proxy.set(Mode::Pass);
    let (late, goodput) = (told.p99(), told.count(200) / LASTS.as_secs_f64());
    eprintln!(
        "capacity {capacity:.0}/s with p99 {:.1?}; at three times that {goodput:.0}/s accepted with p99 {late:.1?}, answers {:?}; \
         resident {before} KiB, at most {most} KiB",
        calm.p99(),
        told.counts
    );
    assert!(
        told.counts.keys().all(|status| matches!(status, 200 | 503)) && told.odd == 0,
        "{:?}, {} odd",
        told.counts,
        told.odd
    );
    assert!(
        told.count(503) > told.count(200),
        "two of three are too many: {:?}",
        told.counts
    );
    assert!(goodput >= 0.7 * capacity, "{goodput:.0}/s of {capacity:.0}/s");
    // The wait, as long an append as commands may wait for, and as much again for the machine.
    assert!(late <= 3 * QUEUE, "p99 is {late:?} with queue_ms {QUEUE:?}");
    assert!(most < before + (64 << 10), "{before} KiB became {most} KiB");
    let mut findings = Findings::default();
    ground.end(&mut findings, false).await;
    assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
}

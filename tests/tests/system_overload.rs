//! More than the processors can do: clients that do not heed `Retry-After`, on as many connections as they like. What is
//! refused is refused in time, what is accepted is not late, and operators are answered.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annals_tests::{Api, Home, Shop, unique};
use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Products that commands are sent to.
const PRODUCTS: usize = 32;
/// Connections of the flood.
const FLOOD: u16 = 300;
/// `command.queue_ms` as it is if nothing is said.
const QUEUE: Duration = Duration::from_millis(100);
/// As many commands as may be open: fewer than connections, so that some are refused on a fast machine too.
const MAILBOX: u16 = 64;
/// How long a read model, or an operator, may have to wait on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// What one load was told.
#[derive(Default)]
struct Told {
    counts: BTreeMap<u16, u32>,
    /// How long what was accepted took.
    accepted: Vec<Duration>,
    /// Answers of 503 that are not `overloaded` with `Retry-After`.
    odd: Vec<String>,
}

impl Told {
    fn merge(&mut self, other: Self) {
        for (status, count) in other.counts {
            *self.counts.entry(status).or_default() += count;
        }
        self.accepted.extend(other.accepted);
        self.odd.extend(other.odd);
    }

    fn count(&self, status: u16) -> u32 {
        self.counts.get(&status).copied().unwrap_or(0)
    }

    fn p99(&mut self) -> Duration {
        self.accepted.sort();
        let place = self.accepted.len() * 99 / 100;
        self.accepted.get(place).copied().unwrap_or_default()
    }
}

/// One connection, as bare as can be: the clients must leave the processors to the server.
struct Hammer {
    socket: BufReader<TcpStream>,
    head: String,
}

impl Hammer {
    async fn connect(address: &str, token: &str, sku: &str) -> Self {
        let head = format!(
            "POST /v1/products/{sku}/receive HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n"
        );
        Self {
            socket: BufReader::new(TcpStream::connect(address).await.unwrap()),
            head,
        }
    }

    /// Status, whether it says when to come again, and the body.
    async fn send(&mut self, key: &str) -> (u16, bool, String) {
        let body = "{\"quantity\":1,\"reference\":\"delivery\"}";
        let request = format!(
            "{}Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
            self.head,
            body.len()
        );
        self.socket.write_all(request.as_bytes()).await.unwrap();
        let (mut status, mut length, mut later) = (0, 0, false);
        let mut line = String::new();
        loop {
            line.clear();
            self.socket.read_line(&mut line).await.unwrap();
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            match text.split_once(": ") {
                None => status = text.split(' ').nth(1).unwrap().parse().unwrap(),
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("retry-after", _)) => later = true,
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).await.unwrap();
        (status, later, String::from_utf8(body).unwrap())
    }

    /// Sends the next as soon as the last is answered, whatever the answer says; what came after `warm` counts.
    async fn run(mut self, warm: Duration, lasts: Duration) -> (u32, Told) {
        let (began, prefix) = (Instant::now(), unique("h"));
        let (mut told, mut all) = (Told::default(), 0);
        for n in 0_u32.. {
            let sent = began.elapsed();
            if sent >= warm + lasts {
                break;
            }
            let (status, later, body) = self.send(&format!("{prefix}-{n}")).await;
            let took = began.elapsed() - sent;
            all += u32::from(status == 200);
            if sent < warm {
                continue;
            }
            *told.counts.entry(status).or_default() += 1;
            if status == 200 {
                told.accepted.push(took);
            } else if !(later && body.contains("\"code\":\"overloaded\"")) {
                told.odd.push(format!("{status} {body}"));
            }
        }
        (all, told)
    }
}

/// A load of so many connections; how much of all it sent was accepted, and what it was told after `warm`.
async fn hammer(
    api: &Api,
    address: &str,
    skus: &[String],
    connections: usize,
    warm: u64,
    lasts: u64,
) -> (u32, Told) {
    let open = (0..connections).map(|n| Hammer::connect(address, api.token(), &skus[n % skus.len()]));
    let (warm, lasts) = (Duration::from_secs(warm), Duration::from_secs(lasts));
    let mut running = JoinSet::new();
    for hammer in join_all(open).await {
        running.spawn(hammer.run(warm, lasts));
    }
    let (mut all, mut told) = (0, Told::default());
    while let Some(ended) = running.join_next().await {
        let (accepted, seen) = ended.unwrap();
        all += accepted;
        told.merge(seen);
    }
    (all, told)
}

/// Asks again and again until told to stop; the longest that an answer took.
async fn look_after(operations: Api, stop: tokio_util::sync::CancellationToken) -> Duration {
    let mut longest = Duration::ZERO;
    while !stop.is_cancelled() {
        let asked = Instant::now();
        operations.get("/livez").await.is(200);
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    longest
}

/// What the read model has of all products.
async fn stock(shop: &Shop, skus: &[String]) -> u64 {
    let rows = skus.iter().map(|sku| async move {
        let row = shop.admin.get(&format!("/v1/products/{sku}")).await;
        row.is(200).json()["data"]["on_hand"].as_u64().unwrap()
    });
    join_all(rows).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_that_heeds_nothing_is_refused_and_what_is_accepted_is_not_late() {
    let Some(home) = Home::with_database() else { return };
    home.unset("ANNALS__COMMAND__QUEUE_MS");
    home.set("ANNALS__COMMAND__MAILBOX", &MAILBOX.to_string());
    let server = home.dev();
    let shop = Shop::of(&server);
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut skus = Vec::new();
    for _ in 0..PRODUCTS {
        skus.push(shop.product(100, 0).await);
    }
    let admin = &shop.admin;
    let (first, mut calm) = hammer(admin, &address, &skus, PRODUCTS, 2, 4).await;
    let capacity = f64::from(calm.count(200)) / 4.0;

    let stop = tokio_util::sync::CancellationToken::new();
    let mut looking = JoinSet::new();
    looking.spawn(look_after(server.operations(None), stop.clone()));
    let (second, mut told) = hammer(admin, &address, &skus, FLOOD.into(), 3, 5).await;
    stop.cancel();
    let operators = looking.join_next().await.unwrap().unwrap();
    let goodput = f64::from(told.count(200)) / 5.0;
    let (third, after) = hammer(admin, &address, &skus, PRODUCTS, 2, 2).await;
    let again = f64::from(after.count(200)) / 2.0;
    eprintln!(
        "capacity {capacity:.0}/s with p99 {:.1?}; under {FLOOD} connections {goodput:.0}/s accepted with p99 {:.1?}, answers {:?}; \
         operators waited {operators:.1?}; afterwards {again:.0}/s",
        calm.p99(),
        told.p99(),
        told.counts
    );
    assert!(told.odd.is_empty(), "{:?}", told.odd.first());
    let refused = told.count(503);
    assert!(refused > 0, "a flood is refused: {:?}", told.counts);
    // What was answered pays for four refusals each; else one waits for a second, and some more for the window's ends.
    let paid = 4 * told.count(200) + u32::from(FLOOD) * 6;
    assert!(refused <= paid, "{refused} refusals, {paid} are paid for");
    // The machine is others' too: what it can do is the less of before and after.
    let capacity = capacity.min(again);
    // Four refusals a command, each of which costs about a third of one.
    assert!(goodput >= capacity / 3.0, "{goodput:.0}/s of {capacity:.0}/s");
    // That is how long they take that are let in, however slow the machine is.
    let open = Duration::from_secs_f64(f64::from(MAILBOX) / capacity);
    let bound = 3 * (QUEUE + open + calm.p99());
    assert!(told.p99() <= bound, "p99 {:?} is above {bound:?}", told.p99());
    assert!(operators < PATIENCE, "operators waited {operators:?}");
    let sent = u64::from(first + second + third);
    let until = Instant::now() + PATIENCE;
    while stock(&shop, &skus).await < sent && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(stock(&shop, &skus).await, sent, "what was refused did not happen");
    server.stop();
}

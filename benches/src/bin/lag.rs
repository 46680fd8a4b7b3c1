//! How far behind the live read models are under a steady load, and how long after its answer a command's row is there.
//!
//! The backend's own binary with everything on, Postgres log, 5,000 `products/receive` a second whatever it answers (open
//! loop). Once a second it tells how old the oldest record is that a live build has not folded; that is looked at four
//! times a second. Beside the load somebody sends a command, and reads its row: once with `Annals-After`, which waits, and
//! once without, again and again until it is there.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use annals_benches::args::Args;
use annals_benches::cpu;
use annals_benches::database::Server as Databases;
use annals_benches::load::{self, Until};
use annals_benches::products::{self, PRODUCTS};
use annals_benches::real::{self, Server};
use annals_benches::report;
use anyhow::{Context, bail, ensure};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Commands a second.
const RATE: f64 = 5_000.0;
/// Connections that they come over.
const CLIENTS: usize = 128;
/// Between two looks at the gauge.
const LOOK: Duration = Duration::from_millis(250);
/// Between two reads that wait for a row by asking again, and between two probes.
const PAUSE: Duration = Duration::from_millis(2);
const PROBES: Duration = Duration::from_millis(20);

/// Some times, s.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn print(&mut self, what: &str) {
        self.0.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let index = (self.0.len() as f64 * part) as usize;
            self.0
                .get(index.min(self.0.len().saturating_sub(1)))
                .copied()
                .unwrap_or(f64::NAN)
                * 1e3
        };
        println!(
            "{what:<58} | {:>8.1} | {:>8.1} | {:>8.1} | {:>6}",
            at(0.5),
            at(0.99),
            at(1.0),
            self.0.len()
        );
    }
}

/// One caller that sends commands to one product and looks for what comes of them.
struct Probe<'a> {
    server: &'a Server,
    socket: TcpStream,
    answer: Vec<u8>,
    sent: u64,
}

impl<'a> Probe<'a> {
    async fn begin(server: &'a Server) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(server.address).await?;
        socket.set_nodelay(true)?;
        Ok(Self {
            server,
            socket,
            answer: Vec::new(),
            sent: 0,
        })
    }

    /// A header's value in the answer.
    fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.answer);
        let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
        text.split("\r\n").find_map(value)
    }

    fn is(&self, status: &str) -> anyhow::Result<()> {
        let found = self.answer.get(9..12).unwrap_or_default();
        ensure!(
            found == status.as_bytes(),
            "not {status}: {}",
            String::from_utf8_lossy(&self.answer)
        );
        Ok(())
    }

    /// Sends a command; its position and its version.
    async fn send(&mut self) -> anyhow::Result<(String, u64)> {
        self.sent += 1;
        let body = products::receipt(self.sent);
        let request = format!(
            "POST /v1/products/{}/receive HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\nidempotency-key: probe-{}\r\ncontent-length: {}\r\n\r\n{body}",
            products::sku(0),
            self.server.token,
            self.sent,
            body.len()
        );
        load::ask(&mut self.socket, request.as_bytes(), &mut self.answer).await?;
        // A node that has too much to do says so, and is asked again.
        while self.is("503").is_ok() {
            tokio::time::sleep(PROBES).await;
            load::ask(&mut self.socket, request.as_bytes(), &mut self.answer).await?;
        }
        self.is("200")?;
        let version = self
            .header("etag")
            .and_then(|tag| tag.trim_matches('"').parse().ok());
        let position = self
            .header("annals-position")
            .context("an answer has a position")?;
        Ok((position, version.context("an answer has a version")?))
    }

    /// Reads the row, with these headers; its version.
    async fn read(&mut self, headers: &str) -> anyhow::Result<u64> {
        let request = format!(
            "GET /v1/products/{} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n{headers}\r\n",
            products::sku(0),
            self.server.token
        );
        load::ask(&mut self.socket, request.as_bytes(), &mut self.answer).await?;
        self.is("200")?;
        let version = self
            .header("annals-version")
            .and_then(|version| version.parse().ok());
        version.context("a row has a version")
    }

    /// From the answer to the row with `Annals-After`, and without.
    async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<[Times; 2]> {
        let mut times = [Times::default(), Times::default()];
        while !stop.is_cancelled() {
            let (position, version) = self.send().await?;
            let began = Instant::now();
            let found = self.read(&format!("annals-after: {position}\r\n")).await?;
            ensure!(
                found >= version,
                "version {found} after {position}, which made version {version}"
            );
            times[0].0.push(began.elapsed().as_secs_f64());
            tokio::time::sleep(PROBES).await;

            let (_, version) = self.send().await?;
            let began = Instant::now();
            while self.read("").await? < version {
                tokio::time::sleep(PAUSE).await;
            }
            times[1].0.push(began.elapsed().as_secs_f64());
            tokio::time::sleep(PROBES).await;
        }
        Ok(times)
    }
}

/// The worst of the live builds at each look.
async fn lags(server: &Server, stop: &CancellationToken) -> anyhow::Result<Times> {
    let ops = server.ops.context("the backend has a listener of operations")?;
    let mut lags = Times::default();
    while !stop.is_cancelled() {
        tokio::time::sleep(LOOK).await;
        let now = real::metrics(ops, "annals_projection_lag_seconds").await?;
        ensure!(!now.is_empty(), "no lag is told");
        lags.0
            .push(now.iter().fold(0.0, |most, (_, lag)| f64::max(most, *lag)));
    }
    Ok(lags)
}

/// Whether every product is in the read model.
async fn is_ready(server: &Server) -> anyhow::Result<()> {
    let mut probe = Probe::begin(server).await?;
    let began = Instant::now();
    let (position, _) = probe.send().await?;
    let after = format!("annals-after: {position}\r\nprefer: wait=9\r\n");
    while probe.read(&after).await.is_err() {
        if began.elapsed() > Duration::from_secs(60) {
            bail!(
                "the products are not there: {}",
                String::from_utf8_lossy(&probe.answer)
            );
        }
    }
    Ok(())
}

async fn run(args: Args) -> anyhow::Result<()> {
    let time = args.round(8.0, 60.0);
    println!(
        "\nread models under a steady load of {RATE:.0} commands/s (ms)\nopen loop, {CLIENTS} connections, {time:?}, Postgres log, everything on\nload average {}",
        cpu::load_average()
    );
    let binary = match real::binary() {
        Ok(binary) => binary,
        Err(missing) => {
            report::left_off("lag", &format!("{missing:#}"));
            return Ok(());
        }
    };
    let databases = Databases::find().await?;
    let database = databases.database().await?;
    let backend = Server::backend(&binary, &database, None).await?;
    let register = products::register_over_http(&backend.token);
    let all = Until::Requests(PRODUCTS);
    load::run(backend.address, 8, all, b'2', &Arc::default(), &register)
        .await?
        .rate()?;
    is_ready(&backend).await?;

    let receive = products::receive_over_http(&backend.token, "lag", PRODUCTS);
    let until = Until::Due { rate: RATE, time };
    let (next, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let probe = Probe {
        sent: 1, // the first key was used
        ..Probe::begin(&backend).await?
    };
    let loading = async {
        let answers = load::run(backend.address, CLIENTS, until, b'2', &next, &receive).await;
        stop.cancel();
        answers
    };
    let (answers, lags, times) = tokio::join!(loading, lags(&backend, &stop), probe.run(&stop));
    let answers = answers?;
    println!(
        "  {:.0} commands/s were answered, {} refused; p50 {:.1} ms, p99 {:.1} ms from when each was due",
        answers.good as f64 / answers.took.as_secs_f64(),
        answers.bad,
        answers.latency_ms(0.5),
        answers.latency_ms(0.99)
    );
    println!(
        "{:<58} | {:>8} | {:>8} | {:>8} | {:>6}",
        "", "p50", "p99", "max", "n"
    );
    lags?.print("annals_projection_lag_seconds, the worst live build");
    let [after, without] = &mut times?;
    after.print("from the answer to the row, with Annals-After");
    without.print("from the answer to the row, asking every 2 ms");
    drop(backend);
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, run(Args::parse()))
}

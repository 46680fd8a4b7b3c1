//! Commands a second over HTTP on the Postgres log, 64 clients, against the whole path written by hand.
//!
//! Both are processes of their own on databases of their own, are asked by the same clients, and have registered the
//! same 10,000 products before. Must reach 0.8 of the floor.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use annals_benches::args::Args;
use annals_benches::cpu;
use annals_benches::database::Server as Databases;
use annals_benches::load::{self, Answers, Requests, Until};
use annals_benches::products::{PRODUCTS, receive_over_http, register_over_http};
use annals_benches::real::{self, Server};
use annals_benches::report::{self, Must, Pairs};

/// As long as a real token, for the floor alone.
const TOKEN_BYTES: usize = 400;

/// One side, and the requests that it gets.
struct Side {
    server: Server,
    next: Arc<AtomicU64>,
    requests: Requests,
    latencies: Vec<(f64, f64)>,
    cpu_us: Vec<[f64; 3]>,
}

impl Side {
    async fn prepare(server: Server) -> anyhow::Result<Self> {
        let register = register_over_http(&server.token);
        let next = Arc::new(AtomicU64::new(0));
        let all = Until::Requests(PRODUCTS);
        load::run(server.address, 64, all, b'2', &next, &register)
            .await?
            .rate()?;
        let requests = receive_over_http(&server.token, "run", PRODUCTS);
        Ok(Self {
            server,
            next: Arc::default(),
            requests,
            latencies: Vec::new(),
            cpu_us: Vec::new(),
        })
    }

    async fn round(&mut self, clients: usize, time: Duration) -> anyhow::Result<f64> {
        let before = [self.server.cpu(), cpu::named("postgres"), cpu::own()];
        let until = Until::Time(time);
        let answers: Answers = load::run(
            self.server.address,
            clients,
            until,
            b'2',
            &self.next,
            &self.requests,
        )
        .await?;
        let after = [self.server.cpu(), cpu::named("postgres"), cpu::own()];
        self.latencies
            .push((answers.latency_ms(0.5), answers.latency_ms(0.99)));
        let us = |index: usize| (after[index] - before[index]) * 1e6 / answers.good as f64;
        self.cpu_us.push([us(0), us(1), us(2)]);
        answers.rate()
    }

    fn print(&self, name: &str) {
        let of = |value: fn(&(f64, f64)) -> f64| report::median(self.latencies.iter().map(value));
        let cpu = |index: usize| report::median(self.cpu_us.iter().map(|us| us[index]));
        println!(
            "  {name}: p50 {:.1} ms, p99 {:.1} ms; CPU a command: server {:.0} µs, Postgres {:.0} µs (others' included), clients {:.0} µs",
            of(|l| l.0),
            of(|l| l.1),
            cpu(0),
            cpu(1),
            cpu(2)
        );
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let databases = Databases::find().await?;
    let (rounds, time) = (args.rounds(3, 9), args.round(2.5, 8.0));
    let clients: &[usize] = if args.short { &[64] } else { &[64, 256, 1_024] };
    report::head(
        "commands over HTTP, Postgres log (commands/s)",
        &format!(
            "products/receive over {PRODUCTS} products, projections on; {rounds} pairs of rounds of {time:?}"
        ),
    );
    let backend = match real::binary() {
        Ok(binary) => Server::backend(&binary, &databases.database().await?).await,
        Err(missing) => Err(missing),
    };
    let token = match &backend {
        Ok(server) => server.token.clone(),
        Err(why) => {
            report::left_off("the backend's side", &format!("{why:#}"));
            "t".repeat(TOKEN_BYTES)
        }
    };
    let mut floor = Side::prepare(Server::floor(&databases.database().await?, &token).await?).await?;
    let mut ours = match backend {
        Ok(server) => Some(Side::prepare(server).await?),
        Err(_) => None,
    };
    for clients in clients {
        databases.checkpoint().await?;
        let mut pairs = Pairs::default();
        for round in 0..=rounds {
            let of_ours = match &mut ours {
                Some(side) => side.round(*clients, time).await?,
                None => f64::NAN,
            };
            let of_floor = floor.round(*clients, time).await?;
            if round > 0 {
                pairs.push(of_ours, of_floor);
            }
        }
        report::row(&format!("{clients} clients"), &pairs, 0, Must::Reach(0.8));
        ours.iter().for_each(|side| side.print("ours"));
        floor.print("floor");
    }
    drop((ours, floor));
    databases.end().await
}

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, async {
        if real::served_floor().await? {
            return Ok(());
        }
        run(Args::parse()).await
    })
}

//! One side of a comparison over HTTP: a server with its products, and what its rounds cost.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::cpu;
use crate::load::{self, Answers, Requests, Until};
use crate::products::{PRODUCTS, receive_over_http, register_over_http};
use crate::real::Server;
use crate::report;

/// One side, and the requests that it gets.
pub struct Side {
    /// The server.
    pub server: Server,
    next: Arc<AtomicU64>,
    requests: Requests,
    latencies: Vec<(f64, f64)>,
    cpu_us: Vec<[f64; 3]>,
}

impl Side {
    /// Registers the products.
    ///
    /// # Errors
    /// Of the server.
    pub async fn prepare(server: Server) -> anyhow::Result<Self> {
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

    /// One round of receipts.
    ///
    /// # Errors
    /// Of the server.
    pub async fn round(&mut self, clients: usize, until: Until) -> anyhow::Result<Answers> {
        let before = [self.server.cpu(), cpu::named("postgres"), cpu::own()];
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
        Ok(answers)
    }

    /// Prints what the rounds since the last time came to.
    pub fn print(&mut self, name: &str) {
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
        self.latencies.clear();
        self.cpu_us.clear();
    }
}

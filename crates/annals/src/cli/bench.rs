//! `bench`: a load generator. Closed loop: each client has one request under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use annals_client::{Client, Command, Query, Retries};
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::app::{App, Load, Request};
use crate::cli::args::{BenchArgs, Common};
use crate::cli::output::{self, Output, Progress, per_second};
use crate::cli::session;
use crate::exit::{Answer, Usage};

/// The longest latency that is told apart, in µs: one minute.
const LONGEST_US: u64 = 60_000_000;

/// Loads by weight, spread out.
struct Mix(Vec<Load>);

impl Mix {
    fn parse(app: &App, text: Option<&str>) -> anyhow::Result<Self> {
        let known = app.loads();
        let names = || known.iter().map(|load| load.name).collect::<Vec<_>>().join(", ");
        let Some(text) = text else {
            let first = known
                .first()
                .ok_or_else(|| Usage("this app has no kind of load".to_owned()))?;
            return Ok(Self(vec![*first]));
        };
        let mut all = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let load = known.iter().find(|load| load.name == name.trim());
            let load = load
                .ok_or_else(|| Usage(format!("--mix: there is no load `{name}`; there are {}", names())))?;
            let weight: usize = weight
                .parse()
                .ok()
                .filter(|weight| (1..=1_000).contains(weight))
                .ok_or_else(|| {
                    Usage(format!(
                        "--mix: the weight of `{name}` is a number from 1 to 1000"
                    ))
                })?;
            all.extend(std::iter::repeat_n(*load, weight));
        }
        Ok(Self(all))
    }
}

/// What one client saw.
struct Seen {
    latency: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    broken: u64,
}

impl Seen {
    fn new() -> Self {
        let latency =
            Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are fit for a histogram");
        Self {
            latency,
            statuses: BTreeMap::new(),
            broken: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.latency += &other.latency;
        self.broken += other.broken;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    clients: u16,
    seconds: f64,
    requests: u64,
    per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    statuses: BTreeMap<u16, u64>,
    broken: u64,
}

pub(crate) async fn run(app: &App, common: &Common, args: BenchArgs) -> anyhow::Result<Answer> {
    let mix = Mix::parse(app, args.mix.as_deref())?;
    let client = session::client(common, &args.client)?;
    prepare(&client, &mix, &args).await?;
    let client = client.with_retries(Retries::NONE);
    let run = crate::ambient::system().uuid();
    let (next, mix) = (Arc::new(AtomicU32::new(0)), Arc::new(mix.0));
    let began = Instant::now();
    let until = began + args.duration;
    let mut tasks = JoinSet::new();
    for _ in 0..args.clients {
        let (client, next, mix) = (client.clone(), Arc::clone(&next), Arc::clone(&mix));
        let streams = args.streams;
        tasks.spawn(async move {
            let mut seen = Seen::new();
            while Instant::now() < until {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let load = mix[usize::try_from(n).unwrap_or(0) % mix.len()];
                let started = Instant::now();
                let status = send(
                    &client,
                    &(load.next)(scattered(n) % streams),
                    &format!("{run}-{n}"),
                )
                .await;
                let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(LONGEST_US);
                match status {
                    Ok(status) => {
                        seen.latency.saturating_record(took);
                        *seen.statuses.entry(status).or_default() += 1;
                    }
                    Err(_) => seen.broken += 1,
                }
            }
            seen
        });
    }
    let mut all = Seen::new();
    while let Some(seen) = tasks.join_next().await {
        all.add(&seen?);
    }
    report(common.output, &args, &all, began.elapsed())
}

/// Neighbours apart, each stream as often as others. Source: Knuth, TAOCP 3, section 6.4, multiplicative hashing.
fn scattered(n: u32) -> u32 {
    n.wrapping_mul(2_654_435_761)
}

async fn prepare(client: &Client, mix: &Mix, args: &BenchArgs) -> anyhow::Result<()> {
    let mut done: Vec<&str> = Vec::new();
    for load in &mix.0 {
        let Some(request) = load.prepare.filter(|_| !done.contains(&load.name)) else {
            continue;
        };
        done.push(load.name);
        let mut progress = Progress::new(format!("prepare {}", load.name), u64::from(args.streams));
        let sends = (0..args.streams).map(|n| {
            let key = format!("bench-prepare-{}-{n}", load.name);
            async move { send(client, &request(n), &key).await }
        });
        let mut sends = futures_util::stream::iter(sends).buffer_unordered(usize::from(args.clients));
        while let Some(status) = sends.next().await {
            let status = status?;
            // 409: it is there already, from a run whose keys are forgotten.
            anyhow::ensure!(
                status < 300 || status == 409,
                "preparing {} was answered {status}",
                load.name
            );
            progress.add(1);
        }
        progress.finish();
    }
    Ok(())
}

async fn send(
    client: &Client,
    request: &Request,
    idempotency_key: &str,
) -> Result<u16, annals_client::Error> {
    let answer = match request {
        Request::Command {
            resource,
            key,
            name,
            data,
        } => {
            client
                .send(&Command::new(
                    resource,
                    key,
                    name,
                    data.to_string(),
                    idempotency_key,
                ))
                .await?
        }
        Request::Get { resource, key } => client.get(resource, Some(key), &Query::default()).await?,
    };
    Ok(answer.status.as_u16())
}

fn report(output: Output, args: &BenchArgs, seen: &Seen, took: Duration) -> anyhow::Result<Answer> {
    let ms = |quantile: f64| {
        let us = seen.latency.value_at_quantile(quantile);
        u32::try_from(us).map_or(f64::INFINITY, |us| f64::from(us) / 1_000.0)
    };
    let requests: u64 = seen.statuses.values().sum();
    let report = Report {
        clients: args.clients,
        seconds: took.as_secs_f64(),
        requests,
        per_second: per_second(requests, took),
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p95_ms: ms(0.95),
        p99_ms: ms(0.99),
        max_ms: ms(1.0),
        statuses: seen.statuses.clone(),
        broken: seen.broken,
    };
    if output == Output::Table {
        output::text(&format!(
            "{} requests in {:.1} s, {:.0}/s, {} clients\nlatency ms: p50 {:.2}  p90 {:.2}  p95 {:.2}  p99 {:.2}  max {:.2}\nstatus: {:?}, without answer: {}",
            report.requests,
            report.seconds,
            report.per_second,
            report.clients,
            report.p50_ms,
            report.p90_ms,
            report.p95_ms,
            report.p99_ms,
            report.max_ms,
            report.statuses,
            report.broken
        ))?;
    } else {
        output.print(&report)?;
    }
    let good = seen.broken == 0 && seen.statuses.keys().all(|status| *status < 500);
    Ok(if good { Answer::Done } else { Answer::No })
}

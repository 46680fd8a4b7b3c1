//! `bench`: a load generator.
//!
//! Closed loop: each client has one request under way. With `--rate` and `--ramp` requests are due at a rate, whatever
//! the server does, and latency counts from when a request was due: a server that stalls cannot hide it.

mod load;
mod ramp;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_client::{Client, Command, Query, Retries};
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::app::{App, Load, Request};
use crate::cli::args::{BenchArgs, Common};
use crate::cli::output::{self, Output, Progress, per_second};
use crate::cli::session;
use crate::exit::{Answer, Usage};
use load::{Generator, Seen};
use ramp::{P99_MS, Ramp, Step};

/// Where a ramp begins, requests a second.
const FIRST_RATE: f64 = 250.0;

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

#[derive(Debug, Serialize)]
struct Report {
    clients: u16,
    /// Requests due a second; none: as many as the clients got answered.
    offered: Option<f64>,
    seconds: f64,
    requests: u64,
    per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Of these, what the server neither refused for now nor failed.
    served_per_second: f64,
    served_p50_ms: f64,
    served_p99_ms: f64,
    statuses: BTreeMap<u16, u64>,
    broken: u64,
}

pub(crate) async fn run(app: &App, common: &Common, args: BenchArgs) -> anyhow::Result<Answer> {
    let mix = Mix::parse(app, args.mix.as_deref())?;
    let client = session::client(common, &args.client)?;
    prepare(&client, &mix, &args).await?;
    let generator = Generator {
        client: client.with_retries(Retries::NONE),
        mix: mix.0.into(),
        streams: args.streams,
        clients: args.clients,
        run: crate::ambient::system().uuid(),
        next: Arc::default(),
    };
    if args.ramp {
        return ramp(common.output, &generator, &args).await;
    }
    let (seen, took) = generator.run(args.rate.map(f64::from), args.duration).await?;
    report(
        common.output,
        &Report::new(&args, args.rate.map(f64::from), &seen, took),
    )
}

/// Raises the rate to the knee, and prints each step as it ends.
async fn ramp(output: Output, generator: &Generator, args: &BenchArgs) -> anyhow::Result<Answer> {
    let mut ramp = Ramp::new(args.rate.map_or(FIRST_RATE, f64::from));
    let mut steps = Vec::new();
    let mut rate = ramp.first();
    loop {
        let (seen, took) = generator.run(Some(rate), args.step).await?;
        let step = Report::new(args, Some(rate), &seen, took);
        if output == Output::Table {
            output::text(&step.line())?;
        }
        let next = ramp.next(&Step {
            rate,
            per_second: step.per_second,
            p99_ms: step.p99_ms,
            failed: step.failed(),
        });
        steps.push(step);
        match next {
            Some(next) => rate = next,
            None => break,
        }
    }
    let knee = steps
        .iter()
        .filter(|step| ramp.knee() == step.offered)
        .max_by(|a, b| a.per_second.total_cmp(&b.per_second));
    if output == Output::Table {
        let text = match knee {
            Some(knee) => format!(
                "knee: {:.0}/s, p99 {:.2} ms (above it: p99 over {P99_MS} ms, over 0.1 % failed, or behind the rate)",
                knee.offered.unwrap_or_default(),
                knee.p99_ms
            ),
            None => "knee: below the first rate; begin lower with --rate".to_owned(),
        };
        output::text(&text)?;
    } else {
        output.print(&serde_json::json!({"steps": steps, "knee": knee}))?;
    }
    Ok(if knee.is_some() { Answer::Done } else { Answer::No })
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

impl Report {
    fn new(args: &BenchArgs, offered: Option<f64>, seen: &Seen, took: Duration) -> Self {
        let ms_of = |latency: &Histogram<u64>, quantile: f64| {
            let us = latency.value_at_quantile(quantile);
            u32::try_from(us).map_or(f64::INFINITY, |us| f64::from(us) / 1_000.0)
        };
        let ms = |quantile| ms_of(&seen.latency, quantile);
        let requests: u64 = seen.statuses.values().sum();
        Self {
            clients: args.clients,
            offered,
            seconds: took.as_secs_f64(),
            requests,
            per_second: per_second(requests, took),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p95_ms: ms(0.95),
            p99_ms: ms(0.99),
            max_ms: ms(1.0),
            served_per_second: per_second(seen.served.len(), took),
            served_p50_ms: ms_of(&seen.served, 0.5),
            served_p99_ms: ms_of(&seen.served, 0.99),
            statuses: seen.statuses.clone(),
            broken: seen.broken,
        }
    }

    /// The share of requests that the server failed: refused for now, erred, or left without an answer.
    fn failed(&self) -> f64 {
        let erred = self.statuses.iter().filter(|(status, _)| **status >= 500);
        let erred: u64 = erred.map(|(_, count)| count).sum();
        let share = per_second(erred + self.broken, Duration::from_secs(1));
        share / per_second(self.requests + self.broken, Duration::from_secs(1)).max(1.0)
    }

    fn line(&self) -> String {
        format!(
            "{:>8.0}/s due: {:>8.0}/s answered  p50 {:>8.2}  p95 {:>8.2}  p99 {:>8.2} ms  failed {:.2} %",
            self.offered.unwrap_or_default(),
            self.per_second,
            self.p50_ms,
            self.p95_ms,
            self.p99_ms,
            self.failed() * 100.0
        )
    }
}

fn report(output: Output, report: &Report) -> anyhow::Result<Answer> {
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
        if report.failed() > 0.0 {
            output::text(&format!(
                "served: {:.0}/s, p50 {:.2}  p99 {:.2} ms",
                report.served_per_second, report.served_p50_ms, report.served_p99_ms
            ))?;
        }
    } else {
        output.print(report)?;
    }
    let good = report.broken == 0 && report.statuses.keys().all(|status| *status < 500);
    Ok(if good { Answer::Done } else { Answer::No })
}

//! Latency of commands at half of the most that the server takes, against the log's own at that batch size.
//!
//! The most is what 64 clients get that ask as fast as they are answered. At half of it requests are due at fixed times,
//! whatever the server does, and a latency counts from then. The floor is one statement written by hand with as many rows
//! as the server's had on average, as often a second. p99 must stay within 3 of the floor's.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::time::Duration;

use annals_benches::appender::{ByHand, TABLES};
use annals_benches::args::Args;
use annals_benches::database::Server as Databases;
use annals_benches::load::Until;
use annals_benches::products::PRODUCTS;
use annals_benches::real::{self, Server};
use annals_benches::report::{self, Must, Pairs};
use annals_benches::side::Side;
use anyhow::Context;
use sqlx::ConnectOptions;

const CLIENTS: usize = 64;
/// What a receipt's value takes in the log, about.
const VALUE_BYTES: usize = 520;

async fn run(args: Args) -> anyhow::Result<()> {
    let databases = Databases::find().await?;
    let (rounds, time) = (args.rounds(3, 9), args.round(3.0, 10.0));
    report::head(
        "p99 of commands over HTTP at half of the maximum, Postgres log (ms)",
        &format!(
            "products/receive over {PRODUCTS} products, projections on; {rounds} pairs of rounds of {time:?}"
        ),
    );
    let server = Server::backend(&real::binary()?, &databases.database().await?, None).await?;
    let ops = server.ops.context("the backend has operations")?;
    let mut ours = Side::prepare(server).await?;
    let mut most = Vec::new();
    for _ in 0..3 {
        most.push(ours.round(CLIENTS, Until::Time(time)).await?.rate()?);
    }
    let rate = report::median(most) / 2.0;
    let database = databases.database().await?;
    let mut connection = database
        .options
        .clone()
        .disable_statement_logging()
        .connect()
        .await?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    let mut floor = ByHand::new(connection);
    let appends = async || -> anyhow::Result<(f64, f64)> {
        let of = |name| real::metric(ops, name);
        Ok((
            of("annals_log_appended_total").await?,
            of("annals_log_append_batches_total").await?,
        ))
    };
    let (mut p50, mut p99, mut sizes) = (Pairs::default(), Pairs::default(), Vec::new());
    for round in 0..=rounds {
        let before = appends().await?;
        let answers = ours.round(CLIENTS, Until::Due { rate, time }).await?;
        answers.rate()?;
        let after = appends().await?;
        let (rows, batches) = (after.0 - before.0, after.1 - before.1);
        let size = (rows / batches.max(1.0)).round().max(1.0);
        let every = Duration::from_secs_f64(size / rate);
        let by_hand = floor.paced(size as usize, VALUE_BYTES, every, time).await?;
        if round > 0 {
            p50.push(answers.latency_ms(0.5), by_hand.0);
            p99.push(answers.latency_ms(0.99), by_hand.1);
            sizes.push(size);
        }
    }
    println!(
        "  {rate:.0} commands/s, {:.0} rows a statement",
        report::median(sizes)
    );
    report::row("p50", &p50, 2, Must::Nothing);
    report::row("p99", &p99, 2, Must::StayWithin(3.0));
    drop(ours);
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, run(Args::parse()))
}

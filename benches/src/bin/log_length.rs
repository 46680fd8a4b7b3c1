//! Cost of a command and of taking a shard over, with ever longer logs. Both must be flat: within 1.2 of the shortest.
//!
//! Each length has a database of its own, filled with commits of other streams. A round takes every shard over with a
//! new node, sends commands to streams that are not in memory, and ends the node; the lengths take turns.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::time::Instant;

use annals_benches::args::Args;
use annals_benches::database::{Database, Server};
use annals_benches::node::{Node, shard_count};
use annals_benches::products::{catalog, receipts};
use annals_benches::report::{self, Must, Pairs};
use annals_log::testing::Chained;
use annals_log::{Appended, Log, PostgresLog, PostgresSettings, Wakes};
use anyhow::bail;

/// Streams that commands go to.
const PRODUCTS: u64 = 2_000;
const SENDERS: usize = 64;
/// Records of one append while a log is filled.
const FILL: u64 = 500;

/// Fills a log with this many records, over all shards and some ten thousand streams.
async fn fill(database: &Database, records: u64) -> anyhow::Result<()> {
    let catalog = catalog()?;
    let (app, shards) = (catalog.app().clone(), shard_count());
    let pool = database.pool(3).await?;
    PostgresLog::create(&pool, &app, shards).await?;
    let (log, task) = PostgresLog::open(
        pool.clone(),
        &app,
        None,
        PostgresSettings::default(),
        Wakes::default(),
    )
    .await?;
    let task = tokio::spawn(task.run());
    let mut writers: Vec<_> = shards
        .shards()
        .map(|shard| Chained::new(app.clone(), shard, shards))
        .collect();
    let mut made = 0;
    while made < records {
        let mut under_way = Vec::new();
        for writer in &mut writers {
            let at = writer.head();
            let mut batch = Vec::new();
            if made == 0 {
                batch.push(writer.claim());
            }
            for _ in 0..FILL.min(records / 16) {
                made += 1;
                batch.push(writer.commit(&format!("order-filler-{:05}", made % 9_973), 1, 1));
            }
            under_way.push(log.append(writer.shard(), at, batch));
        }
        for append in under_way {
            match append.await {
                Appended::Landed(_) => {}
                other => bail!("the log could not be filled: {other:?}"),
            }
        }
    }
    drop(log);
    task.await?;
    sqlx::raw_sql("VACUUM ANALYZE annals.journal")
        .execute(&pool)
        .await?;
    pool.close().await;
    Ok(())
}

/// Milliseconds until every shard was owned, and microseconds a command.
async fn round(database: &Database, number: u64, commands: u64) -> anyhow::Result<(f64, f64)> {
    let node = Node::on_postgres(database, &format!("node-{number}")).await?;
    if number == 0 {
        node.register(PRODUCTS).await?;
    }
    let requests = receipts(&node.catalog, number * commands, commands, PRODUCTS)?;
    let began = Instant::now();
    node.send(requests, SENDERS).await?;
    let us = began.elapsed().as_secs_f64() * 1e6 / commands as f64;
    let ms = node.took_over.as_secs_f64() * 1e3;
    node.end().await?;
    Ok((ms, us))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let databases = Server::find().await?;
    let lengths: &[u64] = if args.short {
        &[10_000, 100_000]
    } else {
        &[10_000, 1_000_000, 10_000_000]
    };
    let (rounds, commands) = (args.rounds(5, 9), if args.short { 8_000 } else { 40_000 });
    report::head(
        "cost of a command and of taking over, by the log's length (ms to take over 16 shards; µs a command)",
        &format!(
            "{SENDERS} senders, {PRODUCTS} cold streams, {commands} commands a round, {rounds} rounds; floor: the shortest log"
        ),
    );
    let mut filled = Vec::new();
    for length in lengths {
        let database = databases.database().await?;
        let began = Instant::now();
        fill(&database, *length).await?;
        println!(
            "  filled {length} records in {:.1} s",
            began.elapsed().as_secs_f64()
        );
        filled.push(database);
    }
    databases.checkpoint().await?;
    let mut pairs = vec![(Pairs::default(), Pairs::default()); lengths.len()];
    for number in 0..=u64::try_from(rounds)? {
        let shortest = round(&filled[0], number, commands).await?;
        for (database, (take_over, cost)) in filled.iter().zip(&mut pairs).skip(1) {
            let longer = round(database, number, commands).await?;
            if number > 0 {
                take_over.push(longer.0, shortest.0);
                cost.push(longer.1, shortest.1);
            }
        }
    }
    for (length, (take_over, cost)) in lengths.iter().zip(&pairs).skip(1) {
        report::row(
            &format!("take over, {length} records"),
            take_over,
            1,
            Must::StayWithin(1.2),
        );
        report::row(
            &format!("command, {length} records"),
            cost,
            1,
            Must::StayWithin(1.2),
        );
    }
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, run(Args::parse()))
}

//! Builds made anew beside the live ones, from a long log: `orders` (rows of one stream) and `daily_sales` (shared rows).
//!
//! A log is filled with the reference backend's orders by the real engine and writer. Then the backend's own binary runs as
//! a projector; its first builds catch up as live ones do. `projections rebuild` makes a second build of each beside them,
//! as an operator would ask for it, while orders go on being placed; what it prints of progress, rate and time left is
//! printed here. The floor is a rebuild by hand of a part of the same journal ([`annals_benches::by_hand`]).
//!
//! `--events N` says how long the log is: 150,000 in the short form, 1,000,000 without; 5,000,000 take about 7 GB of disk.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use annals_benches::args::Args;
use annals_benches::by_hand;
use annals_benches::database::Server as Databases;
use annals_benches::node::{Node, SHARDS};
use annals_benches::orders::{self, EVENTS};
use annals_benches::real::{self, Server};
use annals_benches::report::{self, Must, Pairs};
use annals_benches::site::Site;
use annals_command::EngineSettings;
use annals_projection::Manifest;
use anyhow::{Context, bail};
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Commands under way while the log is filled.
const SENDERS: usize = 512;
/// Orders placed, confirmed and shipped a second while a build is made.
const LIVE_ORDERS: u64 = 100;
/// The floor takes no more of the log than this: its rate does not change with more.
const FLOOR_EVENTS: u64 = 500_000;
const LOOK: Duration = Duration::from_millis(250);
const MIB: f64 = 1024.0 * 1024.0;
const PROJECTIONS: [&str; 2] = ["orders", "daily_sales"];

/// What was seen of the projector while something went on.
#[derive(Default)]
struct Watched {
    least: f64,
    most: f64,
    lag_s: f64,
}

async fn watch(projector: &Server, stop: &CancellationToken) -> Watched {
    let mut seen = Watched {
        least: f64::INFINITY,
        ..Watched::default()
    };
    while !stop.is_cancelled() {
        let resident = projector.resident();
        seen.least = seen.least.min(resident);
        seen.most = seen.most.max(resident);
        if let Some(ops) = projector.ops
            && let Ok(lags) = real::metrics(ops, "annals_projection_lag_seconds").await
        {
            seen.lag_s = lags.iter().fold(seen.lag_s, |most, (_, lag)| most.max(*lag));
        }
        tokio::time::sleep(LOOK).await;
    }
    seen
}

/// Whole orders at a steady pace from this one on, until it is to stop; how many.
async fn live(node: &Node, first: u64, stop: &CancellationToken) -> anyhow::Result<u64> {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut next = first;
    while !stop.is_cancelled() {
        tick.tick().await;
        for command in ["place", "confirm", "ship"] {
            let orders = next..next + LIVE_ORDERS / 10;
            let requests = orders.map(|order| orders::request(&node.catalog, order, command));
            node.send_all(requests, SENDERS).await?;
        }
        next += LIVE_ORDERS / 10;
    }
    Ok(next - first)
}

/// Waits until the live builds have nothing before them; seconds since they began.
async fn caught_up(pool: &PgPool, began: Instant, limit: Duration) -> anyhow::Result<f64> {
    loop {
        let behind: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(h.next_offset - coalesce(c.next_offset, 0)), 0)::bigint
             FROM annals.log_head h CROSS JOIN unnest($1::text[]) AS p(name)
             LEFT JOIN annals.checkpoint c ON c.shard = h.shard AND c.reader = 'projection/' || p.name || '/1'",
        )
        .bind(PROJECTIONS.map(str::to_owned).to_vec())
        .fetch_one(pool)
        .await?;
        if behind == 0 {
            return Ok(began.elapsed().as_secs_f64());
        }
        if began.elapsed() > limit {
            bail!("the first builds are {behind} records behind after {limit:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn bytes(pool: &PgPool, of: &str) -> anyhow::Result<f64> {
    let sql = format!("SELECT coalesce({of}, 0)::float8");
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_one(pool)
        .await?)
}

/// What a build's tables take.
fn of_schema(schema: &str) -> String {
    format!(
        "(SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = '{schema}' AND c.relkind = 'r')"
    )
}

/// A second build of one projection beside the live ones; events a second.
async fn rebuild(
    site: &Site,
    projector: &Server,
    node: &Node,
    pool: &PgPool,
    name: &str,
    first: u64,
) -> anyhow::Result<f64> {
    let wal = "pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')";
    let written = bytes(pool, wal).await?;
    let stop = CancellationToken::new();
    let running = async {
        let words = ["projections", "rebuild", name, "--output", "json"];
        let done = site.run(&words, |line| println!("  | {line}")).await;
        stop.cancel();
        done
    };
    let (done, seen, placed) = tokio::join!(running, watch(projector, &stop), live(node, first, &stop));
    let done: Value = serde_json::from_str(&done?)?;
    let number = |field: &str| {
        done[field]
            .as_f64()
            .with_context(|| format!("`rebuild` tells its {field}"))
    };
    let (records, seconds) = (number("records")?, number("seconds")?);
    println!(
        "  {name}: {records:.0} records in {seconds:.1} s, {:.0}/s; {} orders placed meanwhile; live builds at most {:.2} s behind;\n  \
         memory of the projector {:.0}–{:.0} MiB; the build takes {:.0} MiB, {:.0} MiB of WAL were written",
        records / seconds,
        placed?,
        seen.lag_s,
        seen.least / MIB,
        seen.most / MIB,
        bytes(pool, &of_schema(&format!("{name}_b2"))).await? / MIB,
        (bytes(pool, wal).await? - written) / MIB
    );
    Ok(records / seconds)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let orders = args.events(150_000, 1_000_000).div_ceil(EVENTS);
    let cores = std::thread::available_parallelism()?.get();
    report::head(
        "builds beside the live ones (records/s)",
        &format!(
            "{} events of {orders} orders, {SHARDS} shards; {LIVE_ORDERS} orders/s go on",
            orders * EVENTS
        ),
    );
    let binary = match real::binary() {
        Ok(binary) => binary,
        Err(missing) => {
            report::left_off("builds", &format!("{missing:#}"));
            return Ok(());
        }
    };
    let databases = Databases::find().await?;
    let database = databases.database().await?;
    let pool = database.pool(2 + u32::try_from(cores)?).await?;
    let catalog = orders::catalog()?;
    // Nothing is shed: to fill a log is no service.
    let settings = EngineSettings {
        queue_ms: 60_000,
        ..EngineSettings::default()
    };
    let node = Node::of_catalog(&database, "bench", settings, catalog).await?;
    let rate = node
        .send_all(orders::commands(&node.catalog, 0, orders), SENDERS)
        .await?;
    println!(
        "  filled by the engine: {rate:.0} commands/s; the journal takes {:.0} MiB",
        bytes(&pool, "pg_total_relation_size('annals.journal')").await? / MIB
    );
    sqlx::query("VACUUM ANALYZE").execute(&pool).await?;
    databases.checkpoint().await?;

    let site = Site::make(&binary, &database, &PROJECTIONS).await?;
    let began = Instant::now();
    let projector = site.node("projector").await?;
    let stop = CancellationToken::new();
    let catching = async {
        let seconds = caught_up(&pool, began, Duration::from_secs(60 + orders / 1_000)).await;
        stop.cancel();
        seconds
    };
    let (seconds, seen) = tokio::join!(catching, watch(&projector, &stop));
    let seconds = seconds?;
    println!(
        "  first builds, both at once in batches of live ones: {seconds:.1} s, {:.0} records/s each; memory {:.0}–{:.0} MiB",
        (orders * EVENTS) as f64 / seconds,
        seen.least / MIB,
        seen.most / MIB
    );
    for (round, name) in (0..).zip(PROJECTIONS) {
        let first = orders + round * 1_000_000;
        let ours = rebuild(&site, &projector, &node, &pool, name, first).await?;
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../projections")
            .join(name);
        let workers = if name == "orders" { cores } else { 1 };
        let part = FLOOR_EVENTS.min(orders * EVENTS);
        let floor = by_hand::rebuild(&pool, &Manifest::load(&dir)?, SHARDS, workers, part).await?;
        let mut pairs = Pairs::default();
        pairs.push(ours, floor);
        report::row(
            &format!("{name}, beside (floor: by hand)"),
            &pairs,
            0,
            Must::Reach(0.8),
        );
    }
    drop(projector);
    node.end().await?;
    pool.close().await;
    site.end().await?;
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, run(Args::parse()))
}

//! Commands a second through the engine without HTTP, against bare appends of the same bytes.
//!
//! On the Postgres log beside one statement a batch written by hand, on Kafka beside a bare idempotent producer (must
//! reach 0.7 of it). Commands are made before each round: parsing belongs to the edge. Every sender waits for its
//! answer before it sends again.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::time::Duration;

use annals_benches::appender::{Bare, ByHand, TABLES};
use annals_benches::args::Args;
use annals_benches::cpu;
use annals_benches::database::{Database, Server};
use annals_benches::node::{Node, SHARDS};
use annals_benches::products::{PRODUCTS, receipts};
use annals_benches::report::{self, Must, Pairs};
use annals_record::AppName;
use sqlx::{ConnectOptions, PgConnection};

/// Names the brokers; without it the Kafka log is left off.
const BROKERS: &str = "ANNALS_TEST_KAFKA";
/// What a receipt's value takes in the log, about.
const VALUE_BYTES: usize = 520;

/// Commands of a node, numbered on from round to round.
struct Ours {
    node: Node,
    sent: u64,
    rate: f64,
    cpu_us: Vec<f64>,
}

impl Ours {
    async fn new(node: Node) -> anyhow::Result<Self> {
        node.register(PRODUCTS).await?;
        Ok(Self {
            node,
            sent: 0,
            rate: 4_000.0,
            cpu_us: Vec::new(),
        })
    }

    /// As many commands as will take about `time`.
    async fn round(&mut self, senders: usize, time: Duration) -> anyhow::Result<f64> {
        let count = (self.rate * time.as_secs_f64()) as u64 + 1;
        let requests = receipts(&self.node.catalog, self.sent, count, PRODUCTS)?;
        self.sent += count;
        let before = cpu::own();
        self.rate = self.node.send(requests, senders).await?;
        self.cpu_us.push((cpu::own() - before) * 1e6 / count as f64);
        Ok(self.rate)
    }
}

async fn postgres(args: &Args, databases: &Server) -> anyhow::Result<()> {
    let database = databases.database().await?;
    let mut ours = Ours::new(Node::on_postgres(&database, "bench").await?).await?;
    let mut connection = by_hand(&databases.database().await?).await?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    let mut floor = ByHand::new(connection);
    for senders in [64, 256] {
        databases.checkpoint().await?;
        let (rounds, time) = (args.rounds(5, 11), args.round(1.2, 5.0));
        let mut pairs = Pairs::default();
        for round in 0..=rounds {
            let of_ours = ours.round(senders, time).await?;
            let of_floor = floor.round(senders, VALUE_BYTES, time).await?;
            if round > 0 {
                pairs.push(of_ours, of_floor);
            }
        }
        report::row(
            &format!("Postgres log, {senders} senders"),
            &pairs,
            0,
            Must::Nothing,
        );
        println!(
            "  CPU a command in this process: {:.0} µs",
            report::median(ours.cpu_us.drain(..))
        );
    }
    ours.node.end().await
}

async fn by_hand(database: &Database) -> anyhow::Result<PgConnection> {
    Ok(database
        .options
        .clone()
        .disable_statement_logging()
        .connect()
        .await?)
}

async fn kafka(args: &Args, databases: &Server, brokers: &str) -> anyhow::Result<()> {
    let app: AppName = format!("bench{:x}", std::process::id()).as_str().try_into()?;
    let node = Node::on_kafka(brokers, &app, &databases.database().await?).await?;
    let mut ours = Ours::new(node).await?;
    let topic = format!("{app}.log");
    let floor_app: AppName = format!("bare{:x}", std::process::id()).as_str().try_into()?;
    let other = Node::on_kafka(brokers, &floor_app, &databases.database().await?).await?;
    other.end().await?;
    let floor_topic = format!("{floor_app}.log");
    let floor = Bare::new(brokers, &floor_topic)?;
    for senders in [64, 256] {
        let (rounds, time) = (args.rounds(5, 11), args.round(1.2, 5.0));
        let mut pairs = Pairs::default();
        for round in 0..=rounds {
            let of_ours = ours.round(senders, time).await?;
            let of_floor = floor.round(senders, SHARDS.into(), VALUE_BYTES, time).await?;
            if round > 0 {
                pairs.push(of_ours, of_floor);
            }
        }
        report::row(
            &format!("Kafka log, {senders} senders"),
            &pairs,
            0,
            Must::Reach(0.7),
        );
        println!(
            "  CPU a command in this process: {:.0} µs",
            report::median(ours.cpu_us.drain(..))
        );
    }
    floor.close();
    ours.node.end().await?;
    annals_benches::appender::delete_topics(brokers, &[&topic, &floor_topic]).await
}

async fn run(args: Args) -> anyhow::Result<()> {
    let databases = Server::find().await?;
    report::head(
        "commands through the engine, without HTTP (commands/s)",
        &format!(
            "products/receive over {PRODUCTS} products, {SHARDS} shards, values of about {VALUE_BYTES} bytes"
        ),
    );
    postgres(&args, &databases).await?;
    match std::env::var(BROKERS) {
        Ok(brokers) => kafka(&args, &databases, &brokers).await?,
        Err(_) => report::left_off("Kafka log", &format!("{BROKERS} is not set")),
    }
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, run(Args::parse()))
}

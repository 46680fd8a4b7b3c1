//! Commands a second over HTTP on either log, 64 clients, against the whole path written by hand.
//!
//! Both are processes of their own on databases of their own, are asked by the same clients, and have registered the
//! same 10,000 products before. Must reach 0.8 of the floor.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use annals_benches::appender::{create_topic, delete_topics};
use annals_benches::args::Args;
use annals_benches::database::Server as Databases;
use annals_benches::load::Until;
use annals_benches::products::PRODUCTS;
use annals_benches::real::{self, Server, Topic};
use annals_benches::report::{self, Must, Pairs};
use annals_benches::side::Side;

/// Names the brokers; without it the Kafka log is left off.
const BROKERS: &str = "ANNALS_TEST_KAFKA";

/// As long as a real token, for the floor alone.
const TOKEN_BYTES: usize = 400;

/// Ours beside the floor, both on this log.
async fn on(
    args: &Args,
    databases: &Databases,
    log: &str,
    topics: Option<[Topic<'_>; 2]>,
) -> anyhow::Result<()> {
    let (rounds, time) = (args.rounds(3, 9), args.round(2.5, 8.0));
    let clients: &[usize] = if args.short { &[64] } else { &[64, 256, 1_024] };
    let [of_ours, of_floor] = topics.map_or([None, None], |topics| topics.map(Some));
    let backend = match real::binary() {
        Ok(binary) => Server::backend(&binary, &databases.database().await?, of_ours).await,
        Err(missing) => Err(missing),
    };
    let token = match &backend {
        Ok(server) => server.token.clone(),
        Err(why) => {
            report::left_off("the backend's side", &format!("{why:#}"));
            "t".repeat(TOKEN_BYTES)
        }
    };
    let floor = Server::floor(&databases.database().await?, &token, of_floor).await?;
    let mut floor = Side::prepare(floor).await?;
    let mut ours = match backend {
        Ok(server) => Some(Side::prepare(server).await?),
        Err(_) => None,
    };
    for clients in clients {
        databases.checkpoint().await?;
        let mut pairs = Pairs::default();
        for round in 0..=rounds {
            let of_ours = match &mut ours {
                Some(side) => side.round(*clients, Until::Time(time)).await?.rate()?,
                None => f64::NAN,
            };
            let of_floor = floor.round(*clients, Until::Time(time)).await?.rate()?;
            if round > 0 {
                pairs.push(of_ours, of_floor);
            }
        }
        report::row(&format!("{log}, {clients} clients"), &pairs, 0, Must::Reach(0.8));
        ours.iter_mut().for_each(|side| side.print("ours"));
        floor.print("floor");
    }
    Ok(())
}

async fn run(args: Args) -> anyhow::Result<()> {
    let databases = Databases::find().await?;
    report::head(
        "commands over HTTP (commands/s)",
        &format!("products/receive over {PRODUCTS} products, projections on; pairs of rounds"),
    );
    on(&args, &databases, "Postgres log", None).await?;
    match std::env::var(BROKERS) {
        Ok(brokers) => {
            let names = ["ours", "floor"].map(|side| format!("bench{}.{side}", std::process::id()));
            create_topic(&brokers, &names[1]).await?;
            let topics = [&names[0], &names[1]].map(|name| Topic {
                brokers: &brokers,
                name,
            });
            on(&args, &databases, "Kafka log", Some(topics)).await?;
            delete_topics(&brokers, &[&names[0], &names[1]]).await?;
        }
        Err(_) => report::left_off("Kafka log", &format!("{BROKERS} is not set")),
    }
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, async {
        if real::served_floor().await? {
            return Ok(());
        }
        run(Args::parse()).await
    })
}

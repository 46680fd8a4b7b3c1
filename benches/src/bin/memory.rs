//! Memory of a command node while ever more streams are touched: bounded by the cache's setting.
//!
//! Products are registered one after the other, each a stream of its own. The resident memory is read whenever there are
//! twice as many. The floor is the cache's setting: what comes on top is the program, its buffers, and the allocator's.
//! What the node keeps must not grow any more once the cache is full: the last doubling may add a tenth.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use annals_benches::args::Args;
use annals_benches::cpu;
use annals_benches::database::Server;
use annals_benches::node::Node;
use annals_benches::products::{registration, request, sku};
use annals_benches::report::{self, Must, Pairs};
use annals_command::EngineSettings;

const SENDERS: usize = 256;
/// Requests that are made at once; they are not the node's memory.
const CHUNK: u64 = 2_000;
const MIB: f64 = 1_048_576.0;

async fn run(args: Args) -> anyhow::Result<()> {
    let databases = Server::find().await?;
    let (streams, cache_bytes) = if args.short {
        (160_000, 32 << 20)
    } else {
        (1_000_000, 128 << 20)
    };
    report::head(
        "memory of a command node by streams touched (MiB resident; floor: the cache's setting)",
        &format!("products/register, {SENDERS} senders, {streams} streams"),
    );
    let settings = EngineSettings {
        cache_bytes,
        ..EngineSettings::default()
    };
    let node = Node::with_settings(&databases.database().await?, "memory", settings).await?;
    println!("  nothing touched: {:.0} MiB", cpu::resident() / MIB);
    let (mut done, mut marks, mut seen) = (0, vec![streams], Vec::new());
    while marks.last().is_some_and(|mark| mark / 2 >= streams / 64) {
        marks.push(marks.last().copied().unwrap_or(1) / 2);
    }
    while let Some(mark) = marks.pop() {
        while done < mark {
            let to = mark.min(done + CHUNK);
            let one = |n: u64| {
                let key = format!("register-{n}");
                request(&node.catalog, &sku(n), "register", &key, &registration(n))
            };
            let requests = (done..to).map(one).collect::<Result<Vec<_>, _>>()?;
            node.send(requests, SENDERS).await?;
            done = to;
        }
        let resident = cpu::resident();
        println!("  {done:>8} streams: {:.0} MiB", resident / MIB);
        seen.push(resident);
    }
    let mut against_setting = Pairs::default();
    against_setting.push(cpu::resident() / MIB, cache_bytes as f64 / MIB);
    report::row(
        "at the end, beside the setting",
        &against_setting,
        0,
        Must::Nothing,
    );
    if let [.., before, last] = seen[..] {
        let mut growth = Pairs::default();
        growth.push(last / MIB, before / MIB);
        report::row("the last doubling", &growth, 0, Must::StayWithin(1.1));
    }
    node.end().await?;
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, run(Args::parse()))
}

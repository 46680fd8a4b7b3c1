//! How many rows a second one appender writes: one task submits batches of 64 rows over 16 shards.
//!
//! `ANNALS_TEST_DATABASE_URL=… cargo run --release -p annals-log --example append_speed --features …`; the server's
//! CPU a row is read from `/proc` where the server runs on the same machine.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::as_conversions
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_log::testing::Chained;
use annals_log::{Appended, Log, PostgresLog, PostgresSettings, Wakes};
use annals_record::{AppName, ShardCount};
use annals_store::testing::TestDatabase;
use tokio::task::JoinSet;

const SHARDS: u32 = 16;
const ROWS: u64 = 64;

#[tokio::main]
async fn main() {
    let Some(database) = TestDatabase::create().await else {
        return;
    };
    let pool = database.pool().await;
    let (app, shards) = (
        AppName::try_from("speed").unwrap(),
        ShardCount::try_from(SHARDS).unwrap(),
    );
    PostgresLog::create(&pool, &app, shards).await.unwrap();
    let opened = PostgresLog::open(pool, &app, None, PostgresSettings::default(), Wakes::default());
    let (log, task) = opened.await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(task.run());
    let log: Arc<dyn Log> = Arc::new(log);
    let mut writers: Vec<_> = shards
        .shards()
        .map(|shard| Chained::new(app.clone(), shard, shards))
        .collect();
    for ahead in [1, 2, 4] {
        run(&log, &mut writers, ahead).await;
    }
    drop(log);
    while tasks.join_next().await.is_some() {}
}

/// `ahead` batches are under way at a time.
async fn run(log: &Arc<dyn Log>, writers: &mut [Chained], ahead: usize) {
    let (mut rows, mut making) = (0_u64, Duration::ZERO);
    let (cpu, own) = (server_cpu(), own_cpu());
    let began = Instant::now();
    let mut under_way = std::collections::VecDeque::new();
    while began.elapsed() < Duration::from_secs(5) {
        let made = Instant::now();
        let mut batch = Vec::new();
        for writer in writers.iter_mut() {
            let at = writer.head();
            let records: Vec<_> = (0..ROWS / u64::from(SHARDS))
                .map(|_| {
                    rows += 1;
                    writer.commit(&format!("order-{:08}", rows % 10_000), 1, 1)
                })
                .collect();
            batch.push((writer.shard(), at, records));
        }
        making += made.elapsed();
        let answers: Vec<_> = batch
            .into_iter()
            .map(|(shard, at, records)| log.append(shard, at, records))
            .collect();
        under_way.push_back(answers);
        if under_way.len() >= ahead {
            for answer in under_way.pop_front().unwrap() {
                assert!(matches!(answer.await, Appended::Landed(_)));
            }
        }
    }
    for answer in under_way.into_iter().flatten() {
        assert!(matches!(answer.await, Appended::Landed(_)));
    }
    let seconds = began.elapsed().as_secs_f64();
    let server = server_cpu()
        .zip(cpu)
        .map(|(after, before)| (after - before) * 1e6 / rows as f64);
    let own = own_cpu()
        .zip(own)
        .map(|(after, before)| (after - before) * 1e6 / rows as f64);
    println!(
        "batches under way {ahead}: {rows} rows in {seconds:.1} s, {:.0} rows/s; CPU a row: server {server:.1?} µs, this program {own:.1?} µs; making records {:.0} ms",
        rows as f64 / seconds,
        making.as_secs_f64() * 1e3,
    );
}

/// CPU seconds of all server processes of this machine so far.
fn server_cpu() -> Option<f64> {
    let mut seconds = 0.0;
    for entry in std::fs::read_dir("/proc").ok()? {
        let path = entry.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim() == "postgres" {
            seconds += cpu(&path.join("stat")).unwrap_or(0.0);
        }
    }
    Some(seconds)
}

fn own_cpu() -> Option<f64> {
    cpu(std::path::Path::new("/proc/self/stat"))
}

/// User and system time, in ticks of 10 ms. Source: proc(5).
fn cpu(stat: &std::path::Path) -> Option<f64> {
    let stat = std::fs::read_to_string(stat).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

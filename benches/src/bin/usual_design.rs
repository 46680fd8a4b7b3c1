//! Commands a second against the usual design: load the stream, decide, insert with the expected version, one
//! transaction a command, a connection a client, on the same Postgres. Must reach five times as many at 64 clients.
//!
//! Neither side has HTTP. The floor's streams hold the same few events and its rows the same bytes; no snapshot is
//! needed at such lengths.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals_benches::args::Args;
use annals_benches::database::Server;
use annals_benches::node::Node;
use annals_benches::products::{PRODUCTS, product_of, receipts};
use annals_benches::report::{self, Must, Pairs};
use anyhow::ensure;
use sqlx::{Connection, PgConnection, PgPool, Row};
use tokio::task::JoinSet;

const CLIENTS: usize = 64;
const VALUE_BYTES: usize = 520;

const TABLES: &str = "
CREATE SCHEMA usual;
CREATE TABLE usual.events (
    position bigserial PRIMARY KEY, stream text COLLATE \"C\" NOT NULL, version bigint NOT NULL, id uuid NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(), value bytea NOT NULL, UNIQUE (stream, version));
ALTER TABLE usual.events ALTER COLUMN value SET COMPRESSION lz4;";

/// One command: `false` if another was quicker, which a client tries again.
async fn command(connection: &mut PgConnection, stream: &str, value: &[u8]) -> anyhow::Result<bool> {
    let mut transaction = connection.begin().await?;
    let rows = sqlx::query("SELECT version, value FROM usual.events WHERE stream = $1 ORDER BY version")
        .bind(stream)
        .fetch_all(&mut *transaction)
        .await?;
    // The fold of the state: as cheap as it can be.
    let mut version = 0_i64;
    for row in &rows {
        let (next, value): (i64, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        ensure!(next == version + 1 && !value.is_empty(), "a stream with a hole");
        version = next;
    }
    let inserted = sqlx::query(
        "INSERT INTO usual.events (stream, version, id, value) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(stream)
    .bind(version + 1)
    .bind(uuid::Uuid::now_v7())
    .bind(value)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(inserted.rows_affected() == 1)
}

async fn usual_round(pool: &PgPool, next: &Arc<AtomicU64>, time: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (mut connection, next) = (pool.acquire().await?, Arc::clone(next));
        clients.spawn(async move {
            let (value, mut done) = (vec![b'x'; VALUE_BYTES], 0_u64);
            while began.elapsed() < time {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let stream = format!("product-P{:06}", product_of(n, PRODUCTS));
                while !command(&mut connection, &stream, &value).await? {}
                done += 1;
            }
            anyhow::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(ended) = clients.join_next().await {
        done += ended??;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

async fn run(args: Args) -> anyhow::Result<()> {
    let databases = Server::find().await?;
    let (rounds, time) = (args.rounds(4, 9), args.round(2.0, 6.0));
    report::head(
        "commands against the usual design, without HTTP (commands/s)",
        &format!("{CLIENTS} clients, {PRODUCTS} products; {rounds} pairs of rounds of {time:?}"),
    );
    let node = Node::on_postgres(&databases.database().await?, "bench").await?;
    node.register(PRODUCTS).await?;
    let pool = databases.database().await?.pool(u32::try_from(CLIENTS)?).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    sqlx::query(
        "INSERT INTO usual.events (stream, version, id, value)
         SELECT 'product-P' || lpad(n::text, 6, '0'), 1, gen_random_uuid(), $2 FROM generate_series(0, $1 - 1) n",
    )
    .bind(i64::try_from(PRODUCTS)?)
    .bind(vec![b'x'; VALUE_BYTES])
    .execute(&pool)
    .await?;
    databases.checkpoint().await?;
    let (next, mut sent, mut rate) = (Arc::new(AtomicU64::new(0)), 0, 4_000.0);
    let mut pairs = Pairs::default();
    for round in 0..=rounds {
        let count = (rate * time.as_secs_f64()) as u64 + 1;
        rate = node
            .send(receipts(&node.catalog, sent, count, PRODUCTS)?, CLIENTS)
            .await?;
        sent += count;
        let usual = usual_round(&pool, &next, time).await?;
        if round > 0 {
            pairs.push(rate, usual);
        }
    }
    report::row(&format!("{CLIENTS} clients"), &pairs, 0, Must::Reach(5.0));
    pool.close().await;
    node.end().await?;
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    report::on_runtime(2, run(Args::parse()))
}

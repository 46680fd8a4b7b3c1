//! Queries over HTTP: a row by its key against the same SQL through sqlx without a server (must reach half of it), and
//! 304 answers against a bare axum handler (must reach 0.7 of it): one beside the clients, in their process, and one in a
//! process of its own, as the backend is, which looks the token up and gives as many headers.
//!
//! The backend runs as a process of its own with 10,000 products in its read model.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals_benches::args::Args;
use annals_benches::database::Server as Databases;
use annals_benches::load::{self, Requests, Until};
use annals_benches::products::{PRODUCTS, product_of, register_over_http, sku};
use annals_benches::real::{self, Server};
use annals_benches::report::{self, Must, Pairs};
use annals_record::hash::sha256;
use anyhow::{Context, bail};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use uuid::Uuid;

const CLIENTS: usize = 64;

fn get(token: &str, etag: Option<&str>) -> Requests {
    let (token, etag) = (token.to_owned(), etag.map(str::to_owned));
    Arc::new(move |n, into| {
        use std::io::Write;
        // A conditional request asks for the row that the tag is of.
        let sku = sku(if etag.is_some() {
            1
        } else {
            product_of(n, PRODUCTS)
        });
        let head = format!(
            "GET /v1/products/{sku} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
        );
        let condition = etag
            .as_ref()
            .map(|etag| format!("if-none-match: {etag}\r\n"))
            .unwrap_or_default();
        write!(into, "{head}{condition}\r\n").expect("a vector takes any bytes");
    })
}

/// Rows a second by the statement alone, as many tasks as there are clients over one pool, each row read as JSON.
async fn by_sqlx(
    pool: &PgPool,
    statement: &str,
    next: &Arc<AtomicU64>,
    time: Duration,
) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (pool, statement, next) = (pool.clone(), statement.to_owned(), Arc::clone(next));
        clients.spawn(async move {
            let mut done = 0_u64;
            while began.elapsed() < time {
                let key = sku(product_of(next.fetch_add(1, Ordering::Relaxed), PRODUCTS));
                let row: String = sqlx::query_scalar(AssertSqlSafe(statement.clone()))
                    .bind(key)
                    .fetch_one(&pool)
                    .await?;
                done += u64::from(!row.is_empty());
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

/// A handler that compares a tag and answers 304.
async fn bare() -> anyhow::Result<SocketAddr> {
    let handler = async |headers: HeaderMap| match headers.get(header::IF_NONE_MATCH) {
        Some(tag) => (StatusCode::NOT_MODIFIED, [(header::ETAG, tag.clone())]),
        None => (
            StatusCode::OK,
            [(header::ETAG, HeaderValue::from_static("W/\"1\""))],
        ),
    };
    let routes = axum::Router::new().route("/v1/products/{sku}", axum::routing::get(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// The word that makes this program the floor in a process of its own.
const FLOOR: &str = "serve-bare";

/// The same with the caller's token looked up by its hash, and the headers that every answer of the backend has.
async fn alone(token: String) -> anyhow::Result<()> {
    let known = HashMap::from([(sha256(token.as_bytes()), "bench")]);
    let handler = async move |headers: HeaderMap| {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer "));
        let caller = token.and_then(|token| known.get(&sha256(token.as_bytes())));
        let (Some(_), Some(tag)) = (caller, headers.get(header::IF_NONE_MATCH)) else {
            return StatusCode::UNAUTHORIZED.into_response();
        };
        let text = HeaderValue::from_static;
        let positions = (0..16)
            .map(|shard| format!("{shard}:1042"))
            .collect::<Vec<_>>()
            .join(", ");
        let of_row = [
            ("annals-position", HeaderValue::from_str(&positions)),
            (
                "correlation-id",
                HeaderValue::from_str(&Uuid::new_v4().to_string()),
            ),
            ("annals-lag-ms", Ok(text("0"))),
            ("x-content-type-options", Ok(text("nosniff"))),
            ("referrer-policy", Ok(text("no-referrer"))),
            ("cache-control", Ok(text("private, no-cache"))),
            (
                "content-security-policy",
                Ok(text("default-src 'none'; frame-ancestors 'none'")),
            ),
        ];
        let mut answer = (StatusCode::NOT_MODIFIED, [(header::ETAG, tag.clone())]).into_response();
        for (name, value) in of_row {
            if let Ok(value) = value {
                answer.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        answer
    };
    let routes = axum::Router::new().route("/v1/products/{sku}", axum::routing::get(handler));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("ready http://{}", listener.local_addr()?);
    axum::serve(listener, routes).await?;
    Ok(())
}

/// The entity tag of one product, once its row is there.
async fn etag(server: &Server, product: u64) -> anyhow::Result<String> {
    let began = Instant::now();
    loop {
        let mut socket = tokio::net::TcpStream::connect(server.address).await?;
        let request = format!(
            "GET /v1/products/{} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            sku(product),
            server.token
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let tag = answer.lines().find_map(|line| line.strip_prefix("etag: "));
        if answer.starts_with("HTTP/1.1 200") {
            return tag.map(str::to_owned).context("a row has an entity tag");
        }
        if began.elapsed() > Duration::from_secs(30) {
            bail!("no row: {answer}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The live schema of projection `products`.
async fn statement(pool: &PgPool) -> anyhow::Result<String> {
    let schema: String = sqlx::query_scalar(
        "SELECT table_schema::text FROM information_schema.tables
         WHERE table_name = 'products' AND table_schema <> 'annals' ORDER BY table_schema DESC LIMIT 1",
    )
    .fetch_one(pool)
    .await?;
    Ok(format!(
        "SELECT to_jsonb(p)::text FROM {schema}.products p WHERE p.sku = $1"
    ))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let (rounds, time) = (args.rounds(4, 9), args.round(1.2, 5.0));
    report::head(
        "queries over HTTP (answers/s)",
        &format!("{CLIENTS} clients, {PRODUCTS} products; {rounds} pairs of rounds of {time:?}"),
    );
    let binary = match real::binary() {
        Ok(binary) => binary,
        Err(missing) => {
            report::left_off("queries", &format!("{missing:#}"));
            return Ok(());
        }
    };
    let databases = Databases::find().await?;
    let database = databases.database().await?;
    let backend = match Server::backend(&binary, &database, None).await {
        Ok(backend) => backend,
        Err(why) => {
            report::left_off("queries", &format!("{why:#}"));
            return databases.end().await;
        }
    };
    let register = register_over_http(&backend.token);
    let all = Until::Requests(PRODUCTS);
    load::run(backend.address, CLIENTS, all, b'2', &Arc::default(), &register)
        .await?
        .rate()?;
    let _last = etag(&backend, PRODUCTS - 1).await?;
    let tag = etag(&backend, 1).await?;
    let pool = database.pool(16).await?;
    let sql = statement(&pool).await?;
    let next = Arc::new(AtomicU64::new(0));

    let ask = async |address, digit, requests: &Requests| {
        let answers = load::run(address, CLIENTS, Until::Time(time), digit, &next, requests).await?;
        answers.rate()
    };
    let plain = get(&backend.token, None);
    let pairs = Pairs::take(
        rounds,
        async || ask(backend.address, b'2', &plain).await,
        async || by_sqlx(&pool, &sql, &next, time).await,
    );
    report::row("by key (floor: sqlx)", &pairs.await?, 0, Must::Reach(0.5));

    let bare = bare().await?;
    let conditional = get(&backend.token, Some(&tag));
    let pairs = Pairs::take(
        rounds,
        async || ask(backend.address, b'3', &conditional).await,
        async || ask(bare, b'3', &conditional).await,
    );
    report::row("304 (floor: axum)", &pairs.await?, 0, Must::Reach(0.7));

    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.args([FLOOR, &backend.token]);
    let alone = Server::of(command).await?;
    let pairs = Pairs::take(
        rounds,
        async || ask(backend.address, b'3', &conditional).await,
        async || ask(alone.address, b'3', &conditional).await,
    );
    report::row(
        "304 (floor: axum, a process, token)",
        &pairs.await?,
        0,
        Must::Reach(0.7),
    );
    pool.close().await;
    drop(backend);
    databases.end().await
}

#[global_allocator]
static ALLOCATOR: annals_benches::Allocator = annals_benches::Allocator;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, token] = &words[..]
        && word == FLOOR
    {
        return report::on_runtime(2, alone(token.clone()));
    }
    report::on_runtime(2, run(Args::parse()))
}

//! What a command costs at the edge alone: the real edge on a socket over an engine that says yes at once, beside a
//! bare axum handler that reads the same request and gives the same answer.
//!
//! One connection, one thread. For a look inside, count instructions, which do not hang on what else the machine does:
//! `valgrind --tool=callgrind target/release/edge ours 20000` (or `floor`); the difference between two counts is what
//! the requests between them took.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use annals_auth::token::{KeySource, Settings as TokenSettings, TokenVerifier};
use annals_auth::{
    CommandSealer, DevIssuer, Grant, KeyRing, Policies, PolicyTable, SecurityLog, SubjectKeys, Surface,
};
use annals_benches::args::Args;
use annals_benches::cpu;
use annals_benches::database::Server as Databases;
use annals_benches::load::{self, Until};
use annals_benches::node::System;
use annals_benches::products::{PRODUCTS, catalog, receive_over_http};
use annals_benches::report::{self, Must, Pairs};
use annals_command::{Answer, EventRef, Outcome, Place, SendError};
use annals_domain::{Ambient, CommandRequest};
use annals_http::{Commands, Edge, Engine, Parts, Settings, serve};
use annals_record::{EventId, Generation, Offset, Position, RecordId, Shard, StreamId, Version};
use anyhow::{Context, anyhow};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

const ROLES: &str = r#"[{"uid": {"type": "Role", "id": "clerk"}, "attrs": {}, "parents": []}]"#;
const POLICIES: &str = r#"permit (principal in Role::"clerk", action in
    [Action::"products/register", Action::"products/receive"], resource);"#;

/// An engine that accepts everything, once it was asked twice: the caller's task waits, as it does for a real one.
struct Yes;

impl Commands for Yes {
    fn place(&self, _: &StreamId) -> Place {
        Place::Here { owner: true }
    }

    fn is_full(&self, _: &StreamId) -> bool {
        false
    }

    fn send(&self, request: CommandRequest, deadline: Duration) -> BoxFuture<'_, Result<Answer, SendError>> {
        Box::pin(async move {
            let waited = tokio::time::timeout(deadline, tokio::task::yield_now()).await;
            waited.map_err(|_| SendError::OutcomeUnknown)?;
            let record = RecordId::from_parts(1_790_000_000_000, [7; 10]);
            let event = EventRef {
                id: EventId::of(record, 0),
                event_type: "product.stock_received".to_owned(),
                version: Version::new(2),
            };
            Ok(Answer {
                record,
                stream: request.stream,
                position: Position::new(Generation::FIRST, Shard::new(3), Offset::new(1_042)),
                version: Version::new(2),
                outcome: Outcome::Committed(vec![event]),
                replayed: false,
            })
        })
    }
}

/// The edge as a node serves it; gives its address and a token.
async fn ours(database: &annals_benches::database::Database) -> anyhow::Result<(SocketAddr, String)> {
    let ambient = Ambient::new(System);
    let dir = tempfile::tempdir()?;
    let issuer = DevIssuer::open_or_create(dir.path(), "bench", ambient.clone())?;
    let tokens = TokenSettings::new(KeySource::File(issuer.jwks_file().to_owned()), "bench");
    let tokens = TokenVerifier::new(tokens, ambient.clone()).map_err(|why| anyhow!(why))?;
    tokens.refresh().await?;
    let token = issuer.issue(&Grant {
        sub: "bench",
        roles: &["clerk"],
        ttl_s: 7_200,
        owner: None,
    })?;
    let catalog = catalog()?;
    let policies = Policies::from_files([("bench.cedar", POLICIES), ("roles.json", ROLES)])?;
    let policies = PolicyTable::build(&policies, &Surface::new(&catalog, []))?;
    let ring = KeyRing::open_or_create(&dir.path().join("subject.key"))?;
    let keys = SubjectKeys::new(database.pool(1).await?, ring, 100, ambient.clone());
    let settings = Settings::default();
    let edge = Edge::new(Parts {
        settings: settings.clone(),
        catalog,
        tokens: Arc::new(tokens),
        policies: Arc::new(policies),
        security: Arc::new(SecurityLog::new(ambient.clone())),
        ambient,
        commands: Some(Engine {
            commands: Arc::new(Yes),
            sealer: Arc::new(CommandSealer::open(keys).await?),
        }),
        definitions: Vec::new(),
        reads: None,
        audits: None,
        node: None,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = serve::App::public(&edge, &settings);
    tokio::spawn(
        async move { serve::serve(listener, app, &settings, "public", CancellationToken::new()).await },
    );
    Ok((address, token))
}

/// A handler that looks at the same headers, reads the body and answers as much.
async fn floor() -> anyhow::Result<SocketAddr> {
    const BODY: &str = r#"{"stream":"product-P000001","version":2,"position":"3:1042","record":"01a0c36b-f400-7707-8707-070707070707","events":[{"id":"8e9b5f0e-5f0e-5f0e-8f0e-5f0e5f0e5f0e","type":"product.stock_received","stream_version":2}]}"#;
    async fn answer(headers: HeaderMap, body: axum::body::Bytes) -> Result<Response, StatusCode> {
        let key = HeaderName::from_static("idempotency-key");
        let known = headers.contains_key(header::AUTHORIZATION) && headers.contains_key(key);
        if !known || body.is_empty() {
            return Err(StatusCode::BAD_REQUEST);
        }
        tokio::task::yield_now().await;
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::ETAG, "\"2\""),
            (HeaderName::from_static("annals-position"), "3:1042"),
        ];
        Ok((headers, BODY).into_response())
    }
    let routes = axum::Router::new().route("/v1/products/{sku}/{command}", axum::routing::post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// Requests a CPU second of this process, the client included.
async fn rate(address: SocketAddr, token: &str, until: Until, next: &Arc<AtomicU64>) -> anyhow::Result<f64> {
    let before = cpu::own();
    let requests = receive_over_http(token, "edge", PRODUCTS);
    let answers = load::run(address, 1, until, b'2', next, &requests).await?;
    answers.rate()?;
    Ok(answers.good as f64 / (cpu::own() - before).max(0.01))
}

async fn compare() -> anyhow::Result<()> {
    let args = Args::parse();
    let (rounds, time) = (args.rounds(4, 9), args.round(1.0, 3.0));
    report::head(
        "commands at the edge (a CPU second, the client's included)",
        &format!("one connection; {rounds} pairs of rounds of {time:?}"),
    );
    let databases = Databases::find().await?;
    let (address, token) = ours(&databases.database().await?).await?;
    let bare = floor().await?;
    let next = Arc::new(AtomicU64::new(0));
    let pairs = Pairs::take(
        rounds,
        async || rate(address, &token, Until::Time(time), &next).await,
        async || rate(bare, "bare", Until::Time(time), &next).await,
    );
    report::row("edge (floor: axum)", &pairs.await?, 0, Must::Nothing);
    databases.end().await
}

/// One of the two, so many requests: for a profiler.
async fn only(which: &str, count: u64) -> anyhow::Result<()> {
    let databases = Databases::find().await?;
    let (address, token) = match which {
        "ours" => ours(&databases.database().await?).await?,
        _ => (floor().await?, "bare".to_owned()),
    };
    let next = Arc::new(AtomicU64::new(0));
    rate(address, &token, Until::Requests(count), &next).await?;
    databases.end().await
}

fn main() -> anyhow::Result<()> {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new();
    recorder
        .install_recorder()
        .context("no other recorder is there")?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("info,sqlx=warn")
        .json()
        .init();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let run = async {
        match words[..] {
            [which @ ("ours" | "floor"), count] => only(which, count.parse()?).await,
            _ => compare().await,
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(run)
}

//! The whole path written by hand: what a team would write for one kind of command, and no more.
//!
//! axum → one engine task → one group append with its head's compare-and-set → the answer; a journal with two indexes
//! and one set-based projection behind it; a token lookup, the hashes and the chain. No schemas, no policies, no
//! encryption, no restart, no shards. With brokers the log is a topic of one partition, written by an idempotent producer
//! a batch at a time, and the journal is filled behind it.

mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use annals_record::hash::{chain, sha256};
use annals_record::{Hash32, KeyHash};
use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::appender::{Bare, TABLES};
use store::Store;

/// The read model and its checkpoint; columns and indexes as projection `products` has them.
const READ_MODEL: &str = "
CREATE TABLE floor.products (
    sku text COLLATE \"C\" PRIMARY KEY, name text NOT NULL, price bigint NOT NULL, currency text NOT NULL,
    on_hand bigint NOT NULL DEFAULT 0, reserved bigint NOT NULL DEFAULT 0,
    available bigint NOT NULL GENERATED ALWAYS AS (on_hand - reserved) STORED, status text NOT NULL,
    version bigint NOT NULL) WITH (fillfactor = 70);
CREATE INDEX products_status ON floor.products (status);
CREATE INDEX products_name ON floor.products (name, sku);
CREATE INDEX products_price ON floor.products (price, sku);
CREATE TABLE floor.checkpoint (next bigint NOT NULL);
INSERT INTO floor.checkpoint VALUES (0);";

const REGISTERED: &str = "
INSERT INTO floor.products (sku, name, price, currency, status, version)
SELECT sku, data->>'name', (data->'price'->>'amount')::bigint, data->'price'->>'currency', 'active', version
FROM UNNEST($1::text[], $2::bigint[], $3::jsonb[]) AS e(sku, version, data)";

const RECEIVED: &str = "
UPDATE floor.products p SET on_hand = p.on_hand + m.quantity, version = m.version
FROM (SELECT sku, sum((data->>'quantity')::bigint)::bigint AS quantity, max(version) AS version
      FROM UNNEST($1::text[], $2::bigint[], $3::jsonb[]) AS e(sku, version, data) GROUP BY sku) m
WHERE p.sku = m.sku";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    amount: i64,
    currency: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    name: String,
    price: Price,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipt {
    quantity: i64,
    reference: String,
}

enum Body {
    Register,
    Receive(Receipt),
}

struct Command {
    stream: String,
    body: Body,
    /// The data as they are recorded.
    data: String,
    fingerprint: Hash32,
    key: KeyHash,
    caller: Arc<str>,
    reply: oneshot::Sender<Option<Done>>,
}

/// What an answer says.
struct Done {
    record: Uuid,
    version: i64,
    position: i64,
}

#[derive(Default)]
struct Product {
    version: i64,
    on_hand: i64,
}

/// A decided command.
struct Written {
    record: Uuid,
    time_ms: i64,
    version: i64,
    prev: Hash32,
    key: KeyHash,
    value: String,
    stream: String,
    event: &'static str,
    data: String,
    reply: oneshot::Sender<Option<Done>>,
}

/// What the projection takes in.
struct Fact {
    event: &'static str,
    stream: String,
    version: i64,
    data: String,
}

#[derive(Clone)]
struct Edge {
    callers: Arc<HashMap<Hash32, Arc<str>>>,
    engine: mpsc::Sender<Command>,
}

/// Makes the tables and serves on a free port until the process ends; `ready` is called with the address. `topic` is that
/// of the Kafka log, with its brokers in front; it has one partition.
///
/// # Errors
/// Of the database, the brokers or the socket.
pub async fn serve(
    database: &str,
    token: &str,
    topic: Option<(&str, &str)>,
    ready: impl FnOnce(std::net::SocketAddr),
) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(database).await?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    sqlx::raw_sql(READ_MODEL).execute(&mut connection).await?;
    let (engine, commands) = mpsc::channel(1_024);
    let (facts, applied) = mpsc::channel(1_024);
    let mut tasks = JoinSet::new();
    let store = match topic {
        None => Store::postgres(connection),
        Some((brokers, topic)) => {
            let (journal, landed) = mpsc::channel(1_024);
            tasks.spawn(store::journal(landed, connection));
            let producer = Bare::new(brokers, topic)?;
            Store::Kafka { producer, journal }
        }
    };
    tasks.spawn(decide(commands, store, facts));
    tasks.spawn(project(applied, PgConnection::connect(database).await?));
    let edge = Edge {
        callers: Arc::new(HashMap::from([(sha256(token.as_bytes()), "bench".into())])),
        engine,
    };
    let routes = Router::new()
        .route("/v1/products/{sku}/{command}", axum::routing::post(answer))
        .with_state(edge);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?);
    tokio::select! {
        served = axum::serve(axum::serve::ListenerExt::tap_io(listener, |socket| {
            socket.set_nodelay(true).ok();
        }), routes) => Ok(served?),
        Some(ended) = tasks.join_next() => ended?.context("a task of the floor ended"),
    }
}

async fn answer(
    State(edge): State<Edge>,
    Path((sku, command)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, StatusCode> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let token = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let caller = token.and_then(|token| edge.callers.get(&sha256(token.as_bytes())));
    let caller = Arc::clone(caller.ok_or(StatusCode::UNAUTHORIZED)?);
    let key = text(header::HeaderName::from_static("idempotency-key")).ok_or(StatusCode::BAD_REQUEST)?;
    let (body, data) = parse(&command, &body).ok_or(StatusCode::UNPROCESSABLE_ENTITY)?;
    let print = [
        caller.as_bytes(),
        b"\0",
        command.as_bytes(),
        b"\0\0",
        data.as_bytes(),
    ]
    .concat();
    let (reply, answered) = oneshot::channel();
    let stream = format!("product-{sku}");
    let asked = Command {
        stream: stream.clone(),
        body,
        data,
        fingerprint: sha256(&print),
        key: KeyHash::of(key),
        caller,
        reply,
    };
    edge.engine
        .try_send(asked)
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let done = answered
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?
        .ok_or(StatusCode::CONFLICT)?;
    let Done {
        record,
        version,
        position,
    } = done;
    let event = Uuid::new_v5(&record, b"0");
    let answer = serde_json::json!({
        "stream": stream, "version": version, "position": format!("0:{position}"), "record": record,
        "events": [{"id": event, "type": command, "stream_version": version}],
    });
    let etag = format!("\"{version}\"");
    let position = format!("0:{position}");
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ETAG, etag.as_str()),
        (
            header::HeaderName::from_static("annals-position"),
            position.as_str(),
        ),
    ];
    Ok((headers, answer.to_string()).into_response())
}

fn parse(command: &str, body: &[u8]) -> Option<(Body, String)> {
    match command {
        "register" => {
            let body: Registration = serde_json::from_slice(body).ok()?;
            let data = serde_json::to_string(&body).ok()?;
            Some((Body::Register, data))
        }
        "receive" => {
            let body: Receipt = serde_json::from_slice(body).ok()?;
            let data = serde_json::to_string(&body).ok()?;
            (1..=1_000_000_000)
                .contains(&body.quantity)
                .then_some((Body::Receive(body), data))
        }
        _ => None,
    }
}

/// Decides whatever has gathered, appends it in one statement, answers.
async fn decide(
    mut commands: mpsc::Receiver<Command>,
    mut store: Store,
    facts: mpsc::Sender<Vec<Fact>>,
) -> anyhow::Result<()> {
    let mut products: HashMap<String, Product> = HashMap::new();
    let mut head = sha256(b"genesis");
    let mut batch = Vec::new();
    while commands.recv_many(&mut batch, 1_024).await > 0 {
        let mut written = Vec::with_capacity(batch.len());
        for command in batch.drain(..) {
            let product = products.entry(command.stream.clone()).or_default();
            let event = match &command.body {
                Body::Register if product.version == 0 => "product.registered",
                Body::Receive(receipt) if product.version > 0 => {
                    product.on_hand += receipt.quantity;
                    "product.stock_received"
                }
                Body::Register | Body::Receive(_) => {
                    command.reply.send(None).ok();
                    continue;
                }
            };
            product.version += 1;
            let decided = record(command, event, product.version, head);
            head = chain(head, hash(&decided));
            written.push(decided);
        }
        if written.is_empty() {
            continue;
        }
        let mut next = store.append(&written, head).await?;
        let mut happened = Vec::with_capacity(written.len());
        for written in written {
            let done = Done {
                record: written.record,
                version: written.version,
                position: next,
            };
            next += 1;
            written.reply.send(Some(done)).ok();
            happened.push(Fact {
                event: written.event,
                stream: written.stream,
                version: written.version,
                data: written.data,
            });
        }
        facts.send(happened).await.context("the projection has ended")?;
    }
    Ok(())
}

fn record(command: Command, event: &'static str, version: i64, prev: Hash32) -> Written {
    let Command {
        stream,
        data,
        fingerprint,
        key,
        caller,
        reply,
        ..
    } = command;
    let (record, time_ms) = (Uuid::now_v7(), chrono::Utc::now().timestamp_millis());
    let name = if version == 1 { "register" } else { "receive" };
    let value = format!(
        r#"{{"stream":"{stream}","command":{{"name":"{name}","fingerprint":"{fingerprint}","actor":{{"sub":"{caller}","roles":["clerk"]}},"data":{data}}},"events":[{{"id":"{}","type":"{event}","schema":1,"data":{data}}}],"metadata":{{}},"correlation":"{record}","causation":null}}"#,
        Uuid::new_v5(&record, b"0"),
    );
    Written {
        record,
        time_ms,
        version,
        prev,
        key,
        value,
        stream,
        event,
        data,
        reply,
    }
}

fn hash(written: &Written) -> Hash32 {
    let mut all = Vec::with_capacity(256);
    all.extend_from_slice(&written.time_ms.to_be_bytes());
    all.extend_from_slice(written.stream.as_bytes());
    all.extend_from_slice(sha256(written.value.as_bytes()).as_bytes());
    all.extend_from_slice(written.record.as_bytes());
    all.extend_from_slice(&written.version.to_be_bytes());
    all.extend_from_slice(written.prev.as_bytes());
    all.extend_from_slice(written.key.as_bytes());
    sha256(&all)
}

/// How long facts gather; as `projection.batch_ms` has it.
const GATHER: Duration = Duration::from_millis(50);

/// Applies whatever has gathered, set by set, with the checkpoint in one transaction.
async fn project(mut facts: mpsc::Receiver<Vec<Fact>>, mut connection: PgConnection) -> anyhow::Result<()> {
    let mut next = 0_i64;
    let mut gathered = Vec::new();
    while facts.recv_many(&mut gathered, 1_024).await > 0 {
        tokio::time::sleep(GATHER).await;
        while let Ok(more) = facts.try_recv() {
            gathered.push(more);
        }
        let facts: Vec<Fact> = gathered.drain(..).flatten().collect();
        for facts in facts.chunks(2_000) {
            let mut transaction = connection.begin().await?;
            for (event, sql) in [
                ("product.registered", REGISTERED),
                ("product.stock_received", RECEIVED),
            ] {
                let of: Vec<&Fact> = facts.iter().filter(|fact| fact.event == event).collect();
                if of.is_empty() {
                    continue;
                }
                let sku = |fact: &&Fact| fact.stream.trim_start_matches("product-").to_owned();
                let data = of
                    .iter()
                    .map(|fact| serde_json::value::RawValue::from_string(fact.data.clone()));
                sqlx::query(sql)
                    .bind(of.iter().map(sku).collect::<Vec<_>>())
                    .bind(of.iter().map(|fact| fact.version).collect::<Vec<_>>())
                    .bind(
                        data.map(|data| data.map(sqlx::types::Json))
                            .collect::<Result<Vec<_>, _>>()?,
                    )
                    .execute(&mut *transaction)
                    .await?;
            }
            let to = next + i64::try_from(facts.len())?;
            let moved = sqlx::query("UPDATE floor.checkpoint SET next = $1 WHERE next = $2")
                .bind(to)
                .bind(next)
                .execute(&mut *transaction)
                .await?;
            ensure!(moved.rows_affected() == 1, "the checkpoint has moved");
            transaction.commit().await?;
            next = to;
        }
    }
    Ok(())
}

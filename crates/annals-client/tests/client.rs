//! The client against a small server in this process.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use annals_client::{
    BatchLine, Client, Command, Error, Fixed, PeerError, Peers, Precondition, Query, Retries, Settings, Token,
};
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

/// How often the server was called, and with which keys.
#[derive(Clone, Default)]
struct Seen {
    calls: Arc<AtomicU32>,
    keys: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Seen {
    fn call(&self, headers: &HeaderMap) -> u32 {
        let key = headers
            .get("idempotency-key")
            .map_or("", |key| key.to_str().unwrap());
        self.keys.lock().unwrap().push(key.to_owned());
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn problem(status: StatusCode, body: &Value) -> axum::response::Response {
    let headers = [("content-type", "application/problem+json"), ("retry-after", "0")];
    (status, headers, body.to_string()).into_response()
}

/// Refuses twice in passing, then answers.
async fn place(State(seen): State<Seen>, headers: HeaderMap, body: Bytes) -> axum::response::Response {
    match seen.call(&headers) {
        1 => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"code": "shard-unavailable"}),
        ),
        2 => problem(StatusCode::GATEWAY_TIMEOUT, &json!({"code": "outcome-unknown"})),
        _ => {
            let echo = json!({
                "token": headers["authorization"].to_str().unwrap(),
                "if_match": headers.get("if-match").map(|value| value.to_str().unwrap()),
                "body": serde_json::from_slice::<Value>(&body).unwrap(),
            });
            (StatusCode::CREATED, [("annals-position", "3:7")], Json(echo)).into_response()
        }
    }
}

async fn refuse(State(seen): State<Seen>, headers: HeaderMap) -> axum::response::Response {
    seen.call(&headers);
    let detail = json!({"code": "rejected", "title": "Rejected",
        "rejection": {"code": "out_of_stock", "detail": {"available": 2}}, "record": "r"});
    problem(StatusCode::CONFLICT, &detail)
}

async fn halted(State(seen): State<Seen>, headers: HeaderMap) -> axum::response::Response {
    seen.call(&headers);
    problem(StatusCode::SERVICE_UNAVAILABLE, &json!({"code": "shard-halted"}))
}

/// Three pages of two rows.
async fn rows(uri: http::Uri, headers: HeaderMap) -> axum::response::Response {
    assert_eq!(headers["annals-after"], "0:1, 3:9");
    assert_eq!(headers["prefer"], "wait=5");
    let query = uri.query().unwrap();
    assert!(query.starts_with("total.gte=100&status=placed"), "{query}");
    let page: u32 = query
        .split_once("cursor=p")
        .map_or(0, |(_, page)| page.parse().unwrap());
    let next = (page < 2).then(|| format!("p{}", page + 1));
    let body = json!({"data": [{"n": 2 * page}, {"n": 2 * page + 1}], "next": next});
    ([("annals-position", "0:9")], Json(body)).into_response()
}

async fn one_row(Path(key): Path<String>) -> Json<Value> {
    Json(json!({"data": {"key": key}}))
}

/// Answers each line as it comes: an echo.
async fn batch(request: axum::extract::Request) -> axum::response::Response {
    let mut line = 0;
    let pieces = request.into_body().into_data_stream().map(move |piece| {
        let mut out = String::new();
        for text in String::from_utf8(piece.unwrap().to_vec()).unwrap().lines() {
            line += 1;
            let sent: BatchLine = serde_json::from_str(text).unwrap();
            let result = json!({"line": line, "status": 201, "result": {"key": sent.key}});
            out = format!("{out}{result}\n");
        }
        Ok::<_, std::convert::Infallible>(out)
    });
    (
        [("content-type", "application/x-ndjson")],
        axum::body::Body::from_stream(pieces),
    )
        .into_response()
}

async fn server() -> (String, Seen) {
    let seen = Seen::default();
    let router = Router::new()
        .route("/v1/orders/{key}/place", post(place))
        .route("/v1/orders/{key}/reserve", post(refuse))
        .route("/v1/orders/{key}/cancel", post(halted))
        .route("/v1/orders", get(rows))
        .route("/v1/daily_sales/{key}", get(one_row))
        .route("/v1/batch", post(batch))
        .with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, seen)
}

fn client(url: &str) -> Client {
    let tokens = Arc::new(Fixed(Token::new(" secret\n")));
    Client::new(url, tokens, Settings::default()).unwrap()
}

#[tokio::test]
async fn a_command_is_tried_again_under_the_same_key() {
    let (url, seen) = server().await;
    let command = Command::new("orders", "o1", "place", r#"{"a":1}"#, "k1").only_if(Precondition::Version(3));
    let answer = client(&url).send(&command).await.unwrap();
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.position(), Some("3:7"));
    let echo: Value = answer.json().unwrap();
    assert_eq!(
        echo,
        json!({"token": "Bearer secret", "if_match": "\"3\"", "body": {"a": 1}})
    );
    assert_eq!(*seen.keys.lock().unwrap(), ["k1", "k1", "k1"]);
}

#[tokio::test]
async fn without_retries_the_first_answer_is_the_answer() {
    let (url, seen) = server().await;
    let client = client(&url).with_retries(Retries::NONE);
    let answer = client
        .send(&Command::new("orders", "o1", "place", "{}", "k1"))
        .await
        .unwrap();
    assert_eq!(answer.problem().unwrap().code, "shard-unavailable");
    assert_eq!(seen.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_rejection_is_an_answer_and_final() {
    let (url, seen) = server().await;
    let answer = client(&url)
        .send(&Command::new("orders", "o1", "reserve", "{}", "k"))
        .await
        .unwrap();
    assert_eq!(answer.rejection().as_deref(), Some("out_of_stock"));
    assert_eq!(
        answer.summary(),
        "409 rejected: out_of_stock {\"available\":2} (Rejected)"
    );
    assert_eq!(answer.problem().unwrap().rest["record"], "r");
    assert_eq!(seen.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_halted_shard_is_not_asked_again() {
    let (url, seen) = server().await;
    let answer = client(&url)
        .send(&Command::new("orders", "o1", "cancel", "{}", "k"))
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(seen.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn pages_follow_their_cursors() {
    let (url, _) = server().await;
    let query = Query::default()
        .with("total.gte", "100")
        .with("status", "placed")
        .after("0:1")
        .after("3:9")
        .wait_s(5);
    let mut found = Vec::new();
    let ended = client(&url)
        .list("orders", &query, |row| found.push(row["n"].as_u64().unwrap()))
        .await;
    assert!(ended.unwrap().is_none());
    assert_eq!(found, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn keys_are_encoded_as_paths_need_it() {
    let (url, _) = server().await;
    let answer = client(&url)
        .get("daily_sales", Some("1996-01-02,U/D"), &Query::default())
        .await
        .unwrap();
    assert_eq!(
        answer.json::<Value>().unwrap(),
        json!({"data": {"key": "1996-01-02,U/D"}})
    );
}

#[tokio::test]
async fn batches_stream_both_ways() {
    let (url, _) = server().await;
    let (send, lines) = tokio::sync::mpsc::channel::<BatchLine>(1);
    let lines = stream::unfold(
        lines,
        |mut lines| async move { Some((lines.recv().await?, lines)) },
    );
    let mut results = client(&url).batch(lines).await.unwrap().unwrap();
    for n in 1..=3_u64 {
        let line =
            json!({"resource": "orders", "key": n.to_string(), "command": "place", "idempotency_key": "k"});
        send.send(serde_json::from_value(line).unwrap()).await.unwrap();
        let result = results.next().await.unwrap().unwrap();
        assert_eq!((result.line, result.status), (n, 201));
        assert_eq!(result.result.unwrap()["key"], n.to_string());
    }
    drop(send);
    assert!(results.next().await.is_none());
}

#[tokio::test]
async fn nothing_listening_is_told_apart_from_no_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = Settings {
        timeout: Duration::from_millis(50),
        retries: Retries::NONE,
        ..Settings::default()
    };
    let client = Client::new(&url, Arc::new(annals_client::NoToken), silent).unwrap();
    let command = Command::new("orders", "o1", "place", "{}", "k");
    let error = client.send(&command).await.unwrap_err();
    assert!(
        matches!(error, Error::Unknown { .. }) && !error.is_not_sent(),
        "{error:?}"
    );
    drop(listener);
    let error = client.send(&command).await.unwrap_err();
    assert!(
        matches!(error, Error::NotSent { attempts: 1, .. }) && error.is_not_sent(),
        "{error:?}"
    );
    let peers = Peers::new(Duration::from_secs(1)).unwrap();
    let refused = peers
        .call(&url, http::Request::new(Bytes::new()))
        .await
        .unwrap_err();
    assert!(matches!(refused, PeerError::NotSent(_)), "{refused:?}");
}

#[tokio::test]
async fn peers_pass_head_and_body_through() {
    let (url, seen) = server().await;
    seen.calls.store(2, Ordering::Relaxed);
    let mut request = http::Request::post("/v1/orders/o1/place")
        .body(Bytes::from_static(b"[1]"))
        .unwrap();
    request
        .headers_mut()
        .insert("authorization", "Bearer client".parse().unwrap());
    request
        .headers_mut()
        .insert("idempotency-key", "k9".parse().unwrap());
    let answer = Peers::new(Duration::from_secs(5))
        .unwrap()
        .call(&url, request)
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["annals-position"], "3:7");
    let echo: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(
        echo,
        json!({"token": "Bearer client", "if_match": null, "body": [1]})
    );
    assert_eq!(*seen.keys.lock().unwrap(), ["k9"]);
}

//! What each kind of answer, or none, means for the next attempt.

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;
use crate::fixture::{order, usd_money};
use crate::limits::PaymentMethod;

fn ask() -> Authorize {
    Authorize {
        payment: order(1),
        amount: usd_money(3000),
        method: PaymentMethod::new("tok_ok").unwrap(),
    }
}

/// A gateway that answers every authorization with this.
async fn answering(status: u16, body: &str) -> (HttpGateway, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    let body = body.to_owned();
    let answer = move || async move {
        Response::builder()
            .status(status)
            .header("location", "/base/elsewhere")
            .body(Body::from(body))
            .unwrap()
    };
    let routes = Router::new()
        .route("/base/authorizations", post(answer.clone()))
        .route("/base/captures", post(answer));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (HttpGateway::new(&url, &Settings::default()).unwrap(), server)
}

async fn retry_of(status: u16, body: &str) -> Retry {
    let (gateway, _server) = answering(status, body).await;
    gateway.authorize(&ask(), "k").await.unwrap_err().retry
}

#[tokio::test]
async fn answers_say_whether_trying_again_can_help() {
    for status in [408, 409, 425, 429, 503] {
        assert_eq!(retry_of(status, "").await, Retry::Later, "{status}");
    }
    for status in [500, 502, 504] {
        assert_eq!(retry_of(status, "").await, Retry::Unknown, "{status}");
    }
    for status in [400, 401, 404, 422, 301, 307] {
        assert_eq!(retry_of(status, "").await, Retry::Never, "{status}");
    }
}

#[tokio::test]
async fn only_an_explicit_no_is_a_no() {
    assert_eq!(retry_of(200, "no").await, Retry::Never);
    assert_eq!(retry_of(200, r#"{"status":"pending"}"#).await, Retry::Never);
    let (gateway, _server) = answering(200, r#"{"status":"declined","reason":"poor","code":7}"#).await;
    let verdict = gateway.authorize(&ask(), "k").await.unwrap();
    let reason = Reason::new("poor").unwrap();
    assert_eq!(verdict, Verdict::Declined { reason });
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    assert_eq!(
        retry_of(200, &" ".repeat(MAX_ANSWER_BYTES + 1)).await,
        Retry::Never
    );
}

#[tokio::test]
async fn a_gateway_that_is_not_there_was_not_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let gateway = HttpGateway::new(&url, &Settings::default()).unwrap();
    assert_eq!(
        gateway.authorize(&ask(), "k").await.unwrap_err().retry,
        Retry::Later
    );
}

#[test]
fn an_address_names_its_host() {
    let target = |url: &str| HttpGateway::new(url, &Settings::default()).map(|gateway| gateway.target());
    assert_eq!(target("https://pay.example/v1").unwrap(), "pay.example");
    assert_eq!(target("http://127.0.0.1:4100").unwrap(), "127.0.0.1:4100");
    for wrong in ["pay.example", "ftp://pay.example", ""] {
        assert!(matches!(target(wrong), Err(SetupError::Url { .. })), "{wrong}");
    }
}

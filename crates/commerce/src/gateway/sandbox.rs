//! The sandbox gateway: a payment gateway for development, over real HTTP, that does as the payment's token says.
//!
//! | token | authorization |
//! |---|---|
//! | `tok_ok` | authorized |
//! | `tok_declined` | declined: `insufficient_funds` |
//! | `tok_flaky` | one in four requests fails with 500 before anything is done, one in four is done and loses its answer; else authorized |
//! | `tok_hang` | never answered, as long as the connection lives |
//! | any other | declined: `unknown_method` |
//!
//! The requests are those of [`super::http`]. A first answer is given again to its key; a void is final, also for
//! a payment that comes later; a refund before its capture is 409. All is in memory, a bounded number of payments and
//! keys: a capture, void or refund of a payment that the sandbox does not know is accepted, because it may have been
//! authorized before a restart. `GET /payments` gives what it has of each payment, and under how many idempotency keys
//! it was asked for each thing: more than one authorization or capture of a payment would be a customer charged twice.

mod books;

use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Json, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::books::{Answer, Books, REMEMBERED, Reply, Request};
use super::http::{Decision, Part, Whole};
use super::{Authorize, Notice};
use crate::limits::{Reason, Reference};

/// No request is larger.
const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// What `tok_flaky` begins from.
const SEED: u64 = 8;

#[derive(Clone)]
struct Sandbox {
    books: Arc<Mutex<Books>>,
    stop: CancellationToken,
}

/// Serves the sandbox gateway until `stop`; requests that hang end then with 503.
///
/// # Errors
/// The listener's.
pub async fn serve(listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    let sandbox = Sandbox {
        books: Arc::new(Mutex::new(Books::new(SEED, REMEMBERED))),
        stop: stop.clone(),
    };
    let routes = axum::Router::new()
        .route("/authorizations", post(authorize))
        .route("/captures", post(capture))
        .route("/voids", post(void))
        .route("/refunds", post(refund))
        .route("/payments", get(payments))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(sandbox);
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

type Sent<T> = Result<Json<T>, JsonRejection>;

async fn authorize(State(sandbox): State<Sandbox>, headers: HeaderMap, body: Sent<Authorize>) -> Response {
    sandbox.ask(&headers, body, Request::Authorize).await
}

async fn capture(State(sandbox): State<Sandbox>, headers: HeaderMap, body: Sent<Part>) -> Response {
    let notice = |Part { payment, amount }| Request::Tell(Notice::Capture { payment, amount });
    sandbox.ask(&headers, body, notice).await
}

async fn void(State(sandbox): State<Sandbox>, headers: HeaderMap, body: Sent<Whole>) -> Response {
    let notice = |Whole { payment }| Request::Tell(Notice::Void { payment });
    sandbox.ask(&headers, body, notice).await
}

async fn refund(State(sandbox): State<Sandbox>, headers: HeaderMap, body: Sent<Part>) -> Response {
    let notice = |Part { payment, amount }| Request::Tell(Notice::Refund { payment, amount });
    sandbox.ask(&headers, body, notice).await
}

async fn payments(State(sandbox): State<Sandbox>) -> Response {
    let books = sandbox.books.lock().expect("nobody panics while holding it");
    ok(&json!({ "payments": books.accounts() }))
}

impl Sandbox {
    async fn ask<T>(&self, headers: &HeaderMap, body: Sent<T>, read: impl FnOnce(T) -> Request) -> Response {
        let key = headers
            .get("idempotency-key")
            .and_then(|key| key.to_str().ok())
            .filter(|key| (1..=255).contains(&key.len()));
        let Some(key) = key else {
            return problem(StatusCode::BAD_REQUEST, "Idempotency-Key is missing");
        };
        let request = match body {
            Ok(Json(body)) => read(body),
            Err(rejection) => return rejection.into_response(),
        };
        let reply = self
            .books
            .lock()
            .expect("nobody panics while holding it")
            .ask(key, &request);
        match reply {
            Reply::Answer(answer) => respond(answer, &request),
            Reply::Fail => problem(StatusCode::INTERNAL_SERVER_ERROR, "bad luck"),
            Reply::Drop => broken(),
            Reply::Hang => {
                self.stop.cancelled().await;
                problem(StatusCode::SERVICE_UNAVAILABLE, "the sandbox gateway stops")
            }
        }
    }
}

fn respond(answer: Answer, request: &Request) -> Response {
    match answer {
        Answer::Authorized => {
            let payment = match request {
                Request::Authorize(ask) => ask.payment.to_string(),
                Request::Tell(_) => String::new(),
            };
            let reference =
                Reference::new(format!("sandbox-{payment}")).expect("at most 44 characters, not empty");
            ok(&Decision::Authorized { reference })
        }
        Answer::Declined(reason) => {
            let reason = Reason::new(reason).expect("a word of the books");
            ok(&Decision::Declined { reason })
        }
        Answer::Done => ok(&json!({ "status": "done" })),
        Answer::NotYet(why) => problem(StatusCode::CONFLICT, why),
        Answer::Refused(why) => problem(StatusCode::UNPROCESSABLE_ENTITY, why),
    }
}

fn ok(body: &impl Serialize) -> Response {
    let body = serde_json::to_value(body).unwrap_or(Value::Null);
    Json(body).into_response()
}

fn problem(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "title": why }))).into_response()
}

/// An answer whose body breaks off, and the connection with it.
fn broken() -> Response {
    let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "tok_flaky loses this answer");
    Body::from_stream(stream::iter([Err::<Vec<u8>, _>(cut)])).into_response()
}

#[cfg(test)]
mod tests;

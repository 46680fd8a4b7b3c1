//! Many commands in one request: NDJSON in, one result a line out, in order, while more comes in.
//!
//! Each line is judged as a request of its own would be, and a bad one is reported alone. Lines of one stream keep
//! their order: each waits for the one before it. At most `batch_concurrency` lines are under way, and no more is
//! read before there is room, so neither side's speed fills memory.

mod line;
mod lines;

use std::collections::HashMap;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use annals_domain::Permission;
use annals_domain::catalog::AggregateType;
use annals_record::{Key, StreamId};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use tokio::sync::oneshot;

use crate::authenticate::Who;
use crate::command::Call;
use crate::command::head::CommandHead;
use crate::edge::{Ids, Inner};
use crate::problem::{Code, Problem, Scene};
use crate::reply::Reply;
use crate::{body, metrics, request};
use line::Line;
use lines::Lines;

/// The content type of both directions.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// What a line may have beside its data, in bytes.
const ENVELOPE: usize = 8 << 10;
/// With more streams remembered than this, those without a line under way are forgotten.
const REMEMBERED: usize = 1_024;

/// What all lines share.
struct Batch {
    inner: Arc<Inner>,
    who: Who,
    correlation: Arc<str>,
    traceparent: Option<annals_record::Traceparent>,
    forwards: bool,
}

/// A line that may be sent.
struct Planned {
    resource: &'static str,
    name: &'static str,
    key: Key,
    stream: StreamId,
    permission: Permission,
    head: CommandHead,
    data: Bytes,
}

/// Answers a batch; itself 200 as soon as it may be sent at all.
///
/// # Errors
/// 415 or 400; what is wrong with lines is in the answer.
pub(crate) fn run(
    inner: Arc<Inner>,
    forwards: bool,
    who: Who,
    ids: &Ids,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    inner.engine()?;
    if !hyper::body::Body::is_end_stream(&body) {
        body::form(headers, NDJSON)?;
    }
    if let Some(problem) = &ids.refused {
        return Err(problem.clone());
    }
    let settings = &inner.settings;
    let concurrency = settings.batch_concurrency;
    let lines = Lines::new(body, settings.body_bytes + ENVELOPE, settings.request_time());
    let batch = Arc::new(Batch {
        inner,
        who,
        correlation: Arc::clone(&ids.correlation),
        traceparent: ids.traceparent,
        forwards,
    });
    let mut order = Order::default();
    let within = request::current();
    let results = stream::unfold(lines, async |mut lines| {
        lines.next().await.map(|line| (line, lines))
    })
    .map(move |(number, line)| {
        let batch = Arc::clone(&batch);
        let planned = line.and_then(|line| batch.plan(&line));
        let turn = planned.as_ref().ok().map(|planned| order.turn(&planned.stream));
        let within = within.clone();
        async move {
            let result = batch.result(number, planned, turn);
            let result = match &within {
                Some(request) => request.around(result).await,
                None => result.await,
            };
            Ok::<_, Infallible>(result)
        }
    })
    .buffered(concurrency);
    let mut response = Response::new(Body::from_stream(results));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    Ok(response)
}

impl Batch {
    /// Judges a line as far as can be done without waiting.
    fn plan(&self, line: &Bytes) -> Result<Planned, Problem> {
        let inner = &self.inner;
        let expired = self
            .who
            .expires_ms
            .is_some_and(|until| inner.ambient.now_ms() >= until);
        if expired {
            return Err(Problem::unauthenticated(Some("the token has expired")));
        }
        let line = Line::read(line, inner.settings.json_depth)?;
        let aggregate = inner
            .catalog
            .resource(&line.resource)
            .ok_or(Code::UnknownResource)?;
        let name = crate::route::command(aggregate, &line.command)?;
        let key = line
            .key
            .as_deref()
            .map(|key| crate::route::key_of(aggregate, key))
            .transpose()?;
        if key.is_none() && !aggregate.is_keyless(name) {
            return Err(Problem::method_not_allowed("OPTIONS"));
        }
        let permission = inner.permission(&self.who, aggregate.resource(), name)?;
        let limit = inner.settings.body_bytes;
        if line.data.len() > limit {
            return Err(body::too_large(limit));
        }
        let head = CommandHead {
            idempotency_key: line.idempotency_key()?,
            precondition: line.precondition()?,
            correlation: Arc::clone(&self.correlation),
            causation: None,
            traceparent: self.traceparent,
            metadata: None,
        };
        let key = Call::key(inner, aggregate, key, &self.who, &head)?;
        Ok(Planned {
            resource: aggregate.resource(),
            name,
            stream: StreamId::new(aggregate.category(), &key),
            key,
            permission,
            head,
            data: line.data,
        })
    }

    async fn result(&self, number: u64, planned: Result<Planned, Problem>, turn: Option<Turn>) -> Bytes {
        let scene = Scene {
            instance: "/v1/batch",
            correlation: &self.correlation,
        };
        let reply = match planned {
            Ok(planned) => {
                let mut turn = turn.unwrap_or_default();
                turn.come().await;
                // Its end lets the stream's next line go on.
                let _turn = turn.done;
                // The answer's head is long gone: a panic must not take the other lines with it.
                let sent = AssertUnwindSafe(self.send(planned)).catch_unwind().await;
                sent.unwrap_or_else(|_| {
                    ::metrics::counter!(metrics::PANICS).increment(1);
                    tracing::error!(line = number, "a line's handler panicked");
                    Err(Code::Internal.into())
                })
            }
            Err(problem) => Err(problem),
        };
        let reply = reply.unwrap_or_else(|problem| Reply::problem(&problem, scene));
        let status = reply.status.as_u16();
        let member = if status < 400 { "result" } else { "problem" };
        let before = format!("{{\"line\":{number},\"status\":{status},\"{member}\":");
        [before.as_bytes(), &reply.body, b"}\n"].concat().into()
    }

    async fn send(&self, planned: Planned) -> Result<Reply, Problem> {
        let aggregate: &AggregateType = self
            .inner
            .catalog
            .resource(planned.resource)
            .ok_or(Code::UnknownResource)?;
        let call = Call {
            inner: &self.inner,
            engine: self.inner.engine()?,
            aggregate,
            name: planned.name,
            key: planned.key,
            stream: planned.stream,
            who: &self.who,
            permission: planned.permission,
            head: planned.head,
            body: planned.data,
        };
        let scene = Scene {
            instance: "/v1/batch",
            correlation: &self.correlation,
        };
        Ok(call.run(self.forwards, scene).await)
    }
}

/// Whose turn it is, by stream.
#[derive(Default)]
struct Order(HashMap<StreamId, oneshot::Receiver<()>>);

/// When a line may go on, and what tells the next one.
#[derive(Default)]
struct Turn {
    before: Option<oneshot::Receiver<()>>,
    done: Option<oneshot::Sender<()>>,
}

impl Order {
    fn turn(&mut self, stream: &StreamId) -> Turn {
        if self.0.len() > REMEMBERED {
            self.0
                .retain(|_, before| matches!(before.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        }
        let (done, mine) = oneshot::channel();
        Turn {
            before: self.0.insert(stream.clone(), mine),
            done: Some(done),
        }
    }
}

impl Turn {
    /// Waits for the line before, however that ends.
    async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = before.await;
        }
    }
}

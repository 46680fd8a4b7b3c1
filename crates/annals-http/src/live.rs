//! Live changes as server-sent events.
//!
//! | field or event | meaning |
//! |---|---|
//! | `snapshot` | all rows: `{"data": [row…]}`; what was held before is forgotten |
//! | `change` | one row that is new or different: `{"key": "…", "version": 3, "data": {…}}` |
//! | `remove` | one row that is gone, or no longer this caller's to see: `{"key": "…"}` |
//! | `end` | the last event: a problem document that says why. Come back with the last id |
//! | `id` | what is held after the event: send it as `Last-Event-ID` |
//! | `:` | a comment: nothing happened for `query.live_heartbeat_ms` |
//!
//! A stream ends with its token, with its listener, and when its changes are not taken in time. What is written waits
//! for the socket to take it; nothing is kept for a slow reader but its place in the changes that all share.
//!
//! **Source:** WHATWG HTML, section 9.2, "Server-sent events".

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use annals_auth::{SecurityEvent, SecurityLog};
use annals_query::live::{End, Next};
use annals_query::{Event, LiveId, Request as QueryRequest};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::authenticate::Who;
use crate::edge::{Ids, Inner};
use crate::ports::Reads;
use crate::problem::{Code, Problem, Scene};
use crate::query::{fresh, problem_of};
use crate::reply::Reply;
use crate::serve::Shutdown;

/// The content type of live changes.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// After what pause a browser comes back by itself, ms: the first line of every stream.
const OPENING: &str = "retry: 1000\n\n";
const HEARTBEAT: &[u8] = b":\n\n";

/// A stream on its way to a client.
struct Stream {
    events: BoxStream<'static, Next>,
    heartbeat: Duration,
    /// When the caller's token stops being good.
    expires: Option<Instant>,
    shutdown: CancellationToken,
    security: Arc<SecurityLog>,
    sub: String,
    resource: String,
    /// How many personal columns each look opens, where that is recorded.
    opened: usize,
    path: String,
    correlation: Arc<str>,
    opening: Option<&'static str>,
    ended: bool,
}

impl Inner {
    /// Answers with a stream of live changes.
    ///
    /// # Errors
    /// 400, then what the read model says.
    pub(crate) async fn follow(
        &self,
        who: &Who,
        reads: &dyn Reads,
        request: QueryRequest,
        opened: usize,
        head: &Head,
        ids: &Ids,
    ) -> Result<Response, Problem> {
        let last = last_event_id(&head.headers)?;
        let resource = request.resource.clone();
        let following = reads.follow(request, &who.caller.sub, last);
        let followed = tokio::time::timeout(self.settings.request_time(), following).await;
        let live = followed
            .map_err(|_| Problem::new(Code::Overloaded))?
            .map_err(|error| problem_of(&error))?;
        let left = who.expires_ms.map(|until| {
            let left = u64::try_from(until - self.ambient.now_ms()).unwrap_or(0);
            Instant::now() + Duration::from_millis(left)
        });
        let shutdown = head.extensions.get::<Shutdown>();
        let stream = Stream {
            events: live.events,
            heartbeat: self.settings.live_heartbeat(),
            expires: left,
            shutdown: shutdown.map(|shutdown| shutdown.0.clone()).unwrap_or_default(),
            security: Arc::clone(&self.security),
            sub: who.caller.sub.to_string(),
            resource,
            opened,
            path: head.uri.path().to_owned(),
            correlation: Arc::clone(&ids.correlation),
            opening: Some(OPENING),
            ended: false,
        };
        let reply = fresh(Reply::empty(StatusCode::OK), &live.meta).without_tag();
        let mut response = reply.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.body_mut() = Body::from_stream(stream::unfold(stream, Stream::next));
        Ok(response)
    }
}

impl Stream {
    /// The next piece of the body.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(opening) = self.opening.take() {
            return Some((Ok(Bytes::from_static(opening.as_bytes())), self));
        }
        if self.ended {
            return None;
        }
        let expiry = async |until: Option<Instant>| match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        };
        let piece = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                let why = "This node is stopping: come back with the last id, and another one answers.";
                self.end(&Problem::because(Code::Overloaded, why))
            }
            () = expiry(self.expires) => self.end(&Problem::unauthenticated(Some("the token has expired"))),
            next = self.events.next() => match next {
                Some(Next::Events(events)) => self.events(&events),
                Some(Next::End(End::TooSlow)) => {
                    let why = "Changes came faster than they were taken, and were forgotten: come back with the last id.";
                    self.end(&Problem::because(Code::Overloaded, why))
                }
                Some(Next::End(End::Failed(error))) => self.end(&problem_of(&error)),
                None => return None,
            },
            () = tokio::time::sleep(self.heartbeat) => Bytes::from_static(HEARTBEAT),
        };
        Some((Ok(piece), self))
    }

    fn events(&self, events: &[Event]) -> Bytes {
        if self.opened > 0 {
            self.security.record(&SecurityEvent::PrivacyRead {
                sub: &self.sub,
                what: &self.resource,
                values: self.opened,
            });
        }
        let mut text = String::with_capacity(events.iter().map(|event| event.data.len() + 128).sum());
        for event in events {
            write(&mut text, Some(&event.id), event.kind.name(), &event.data);
        }
        text.into()
    }

    fn end(&mut self, problem: &Problem) -> Bytes {
        self.ended = true;
        let scene = Scene {
            instance: &self.path,
            correlation: &self.correlation,
        };
        let mut text = String::new();
        write(&mut text, None, "end", &problem.document(scene).to_string());
        text.into()
    }
}

/// One event. A line break in the data would end its field, so each line is a field of its own.
fn write(text: &mut String, id: Option<&LiveId>, kind: &str, data: &str) {
    if let Some(id) = id {
        text.extend(["id: ", &id.to_string(), "\n"]);
    }
    text.extend(["event: ", kind, "\n"]);
    for line in data.split(['\n', '\r']) {
        text.extend(["data: ", line, "\n"]);
    }
    text.push('\n');
}

/// The header's value; an empty one is none, as browsers have it.
///
/// # Errors
/// 400.
fn last_event_id(headers: &HeaderMap) -> Result<Option<LiveId>, Problem> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    match text {
        Some("") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|error| wrong(&format!("is {error}"))),
        None => Err(wrong("must be there once, and plain text")),
    }
}

fn wrong(what: &str) -> Problem {
    let detail = format!("The header last-event-id {what}. Leave it out to begin anew.");
    Problem::because(Code::InvalidParameter, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_data_are_fields_of_their_own() {
        let mut text = String::new();
        write(&mut text, None, "change", "{\n\"a\":1}");
        assert_eq!(text, "event: change\ndata: {\ndata: \"a\":1}\n\n");
    }
}

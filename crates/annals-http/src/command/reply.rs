//! An engine's answer as a reply.

use annals_command::{Answer, EventRef, Outcome};
use annals_domain::catalog::AggregateType;
use annals_record::Version;
use http::header::{ETAG, LOCATION};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::problem::{Code, Problem, Scene};
use crate::reply::{ANNALS_POSITION, IDEMPOTENT_REPLAYED, Reply};

/// What a body has beside its events and texts, and what an event has, about; bytes.
const BODY: usize = 128;
const EVENT: usize = 128;

pub(super) fn answer(aggregate: &AggregateType, answer: &Answer, scene: Scene<'_>) -> Reply {
    let reply = match &answer.outcome {
        Outcome::Committed(events) => {
            let position = answer.position.to_string();
            let body = body(answer, &position, events);
            accepted(aggregate, answer, body).with_owned(ANNALS_POSITION, position)
        }
        Outcome::Rejected { code, detail } => {
            let detail: Value = serde_json::from_str(detail.get()).unwrap_or_else(|_| json!({}));
            let problem = Problem::because(Code::Rejected, format!("The rules said no: {code}."))
                .with("rejection", json!({"code": code, "detail": detail}));
            on_record(problem, answer, scene)
        }
        Outcome::VersionMismatch { current } => {
            let detail = format!("The stream was at version {current} when it was compared.");
            let problem = Problem::because(Code::VersionMismatch, detail).with("current", current.get());
            on_record(problem, answer, scene)
        }
    };
    match answer.replayed {
        true => reply.with(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true")),
        false => reply,
    }
}

/// The body of a 200 or 201. Written straight into one buffer: ids and numbers need no escape, nor does a stream's
/// name, whose grammar has no character that would.
fn body(answer: &Answer, position: &str, events: &[EventRef]) -> Vec<u8> {
    let mut body = Vec::with_capacity(BODY + answer.stream.as_str().len() + events.len() * EVENT);
    body.extend_from_slice(b"{\"stream\":\"");
    body.extend_from_slice(answer.stream.as_str().as_bytes());
    body.extend_from_slice(b"\",\"version\":");
    number(&mut body, answer.version.get());
    body.extend_from_slice(b",\"position\":\"");
    body.extend_from_slice(position.as_bytes());
    body.extend_from_slice(b"\",\"record\":\"");
    uuid(&mut body, answer.record.get());
    body.extend_from_slice(b"\",\"events\":[");
    for (n, event) in events.iter().enumerate() {
        body.extend_from_slice(if n == 0 { b"{\"id\":\"" } else { b",{\"id\":\"" });
        uuid(&mut body, event.id.get());
        body.extend_from_slice(b"\",\"type\":");
        serde_json::to_writer(&mut body, &event.event_type).expect("a string can be written");
        body.extend_from_slice(b",\"stream_version\":");
        number(&mut body, event.version.get());
        body.push(b'}');
    }
    body.extend_from_slice(b"]}");
    body
}

/// A version as an entity tag.
fn tag(version: Version) -> Vec<u8> {
    let mut tag = Vec::with_capacity(24);
    tag.push(b'"');
    number(&mut tag, version.get());
    tag.push(b'"');
    tag
}

fn uuid(into: &mut Vec<u8>, uuid: Uuid) {
    let mut text = Uuid::encode_buffer();
    into.extend_from_slice(uuid.hyphenated().encode_lower(&mut text).as_bytes());
}

fn number(into: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(into, &number).expect("a number can be written");
}

fn accepted(aggregate: &AggregateType, answer: &Answer, body: Vec<u8>) -> Reply {
    let status = match answer.began() {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let reply = Reply::json(status, body).with_owned(ETAG, tag(answer.version));
    match answer.began() {
        true => {
            let location = format!("/v1/{}/{}", aggregate.resource(), answer.stream.key());
            reply.with_text(LOCATION, &location)
        }
        false => reply,
    }
}

/// Refusals are records: the caller learns which.
fn on_record(problem: Problem, answer: &Answer, scene: Scene<'_>) -> Reply {
    let problem = problem
        .with("record", answer.record.to_string())
        .with("position", answer.position.to_string());
    Reply::problem(&problem, scene)
}

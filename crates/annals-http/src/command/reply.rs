//! An engine's answer as a reply.

use annals_command::{Answer, Outcome};
use annals_domain::catalog::AggregateType;
use annals_record::{EventId, RecordId, StreamId, Version};
use http::header::{ETAG, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::problem::{Code, Problem, Scene};
use crate::reply::{ANNALS_POSITION, IDEMPOTENT_REPLAYED, Reply};

/// The body of a 200 or 201.
#[derive(Serialize)]
struct Accepted<'a> {
    stream: &'a StreamId,
    version: Version,
    position: String,
    record: RecordId,
    events: Vec<AcceptedEvent<'a>>,
}

#[derive(Serialize)]
struct AcceptedEvent<'a> {
    id: EventId,
    #[serde(rename = "type")]
    event_type: &'a str,
    stream_version: Version,
}

pub(super) fn answer(aggregate: &AggregateType, answer: &Answer, scene: Scene<'_>) -> Reply {
    let reply = match &answer.outcome {
        Outcome::Committed(events) => {
            let events = events.iter().map(|event| AcceptedEvent {
                id: event.id,
                event_type: &event.event_type,
                stream_version: event.version,
            });
            let position = answer.position.to_string();
            let body = Accepted {
                stream: &answer.stream,
                version: answer.version,
                position: position.clone(),
                record: answer.record,
                events: events.collect(),
            };
            let body = serde_json::to_vec(&body).expect("ids, numbers and strings can be written");
            accepted(aggregate, answer, body).with_text(ANNALS_POSITION, &position)
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

fn accepted(aggregate: &AggregateType, answer: &Answer, body: Vec<u8>) -> Reply {
    let status = match answer.began() {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let reply = Reply::json(status, body).with_text(ETAG, &format!("\"{}\"", answer.version));
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

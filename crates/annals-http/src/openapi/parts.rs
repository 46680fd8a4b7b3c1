//! What many operations share: parameters, headers, responses, schemas.

use serde_json::{Map, Value, json};

use crate::problem::{CONTENT, Code};

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// `{"$ref": "#/components/{kind}/{name}"}`.
pub(super) fn of(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// The request headers.
pub(super) fn parameters() -> Map<String, Value> {
    let header = |name: &str, required: bool, doc: &str, schema: Value| json!({"name": name, "in": "header", "required": required, "description": doc, "schema": schema});
    let text = || json!({"type": "string"});
    map(json!({
        "IdempotencyKey": header("Idempotency-Key", true,
            "Tells a repeat from a new command, on its stream, for 24 hours: 1 to 255 characters, as `\"k\"` or `k`. \
             Another caller's or another body's reuse is 422.",
            json!({"type": "string", "minLength": 1, "maxLength": 512})),
        "IfMatch": header("If-Match", false,
            "`\"3\"`: only if the stream is at version 3; `*`: only if it exists.", text()),
        "IfNoneMatchStream": header("If-None-Match", false,
            "`*`: only if the stream does not exist.", json!({"const": "*"})),
        "Metadata": header("Annals-Metadata", false,
            "A JSON object of at most 4 KiB, kept in the record and never read by rules.", text()),
        "Traceparent": header("traceparent", false, "W3C trace context, kept in the record.", text()),
        "CorrelationId": header("Correlation-Id", false,
            "Kept in the record and sent back; made if it is not there.",
            json!({"type": "string", "pattern": "^[A-Za-z0-9._~:/+=@-]{1,128}$"})),
        "After": header("Annals-After", false,
            "Positions with commas between: the answer is at least that fresh.", text()),
        "Prefer": header("Prefer", false,
            "`wait=5`: wait at most 5 s for `Annals-After` (2 s without it); `count=exact`: `count` in a list's body, \
             which costs what it counts.",
            text()),
        "LastEventId": header("Last-Event-ID", false,
            "Live changes: the id of the last event that was seen; the answer goes on behind it.", text()),
        "IfNoneMatchTag": header("If-None-Match", false, "An entity tag that the caller has already.", text()),
    }))
}

/// The response headers.
pub(super) fn headers() -> Map<String, Value> {
    let header = |doc: &str| json!({"description": doc, "schema": {"type": "string"}});
    map(json!({
        "ETag": header("The stream's version, or a read model's weak entity tag."),
        "Position": header("The record's position, or the last one folded of each shard."),
        "Location": header("Where the stream's row will be."),
        "Replayed": header("`true`: a first answer given again."),
        "CorrelationId": header("Ties together all that the request led to."),
        "LagMs": header("How old the oldest record is that the read model has not folded, ms."),
        "Parked": header("How many streams of the read model are parked; not there if none."),
        "Version": header("The version of the stream behind the row, for `If-Match`."),
        "Link": header("The next page, `rel=\"next\"`."),
        "PreferenceApplied": header("What of `Prefer` was honoured."),
        "RetryAfter": header("Seconds to wait."),
        "Allow": header("The path's methods."),
        "Challenge": header("What is needed to be known."),
        "RateLimit": header("What is left of a quota."),
        "RateLimitPolicy": header("The quota."),
    }))
}

/// One response for each status of a problem, by its number.
pub(super) fn responses() -> Map<String, Value> {
    let mut responses = Map::new();
    for code in Code::ALL {
        let status = code.entry().status;
        let same: Vec<_> = Code::ALL
            .iter()
            .filter(|other| other.entry().status == status)
            .collect();
        let names: Vec<_> = same.iter().map(|code| code.name()).collect();
        let lines: Vec<_> = same
            .iter()
            .map(|code| format!("`{}`: {}", code.name(), code.entry().title))
            .collect();
        let mut headers = json!({"Correlation-Id": of("headers", "CorrelationId")});
        let mut with = |name: &str, part: &str| headers[name] = of("headers", part);
        match status {
            401 => with("WWW-Authenticate", "Challenge"),
            405 => with("Allow", "Allow"),
            409 | 412 => with("Idempotent-Replayed", "Replayed"),
            429 => {
                with("Retry-After", "RetryAfter");
                with("RateLimit", "RateLimit");
                with("RateLimit-Policy", "RateLimitPolicy");
            }
            503 | 504 => with("Retry-After", "RetryAfter"),
            _ => {}
        }
        let mut members = Map::new();
        for (name, meaning) in same.iter().flat_map(|code| code.entry().members) {
            members.insert((*name).to_owned(), json!({"description": meaning}));
        }
        members.insert("code".to_owned(), json!({"enum": names}));
        let schema = json!({"allOf": [of("schemas", "Problem"), {"type": "object", "properties": members}]});
        let response = json!({
            "description": lines.join("; "),
            "headers": headers,
            "content": {CONTENT: {"schema": schema}},
        });
        responses.insert(status.to_string(), response);
    }
    responses
}

/// References to the responses of these statuses.
pub(super) fn refer(statuses: &[u16]) -> Map<String, Value> {
    let refer = |status: &u16| (status.to_string(), of("responses", &status.to_string()));
    statuses.iter().map(refer).collect()
}

/// The schemas that belong to no aggregate and no read model.
pub(super) fn schemas() -> Map<String, Value> {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
    let text = || json!({"type": "string"});
    let version = || json!({"type": "integer", "minimum": 0});
    map(json!({
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "instance", "code", "correlation_id"],
            "properties": {
                "type": {"type": "string", "format": "uri-reference"},
                "title": text(), "status": {"type": "integer"}, "detail": text(),
                "instance": {"type": "string", "format": "uri-reference"},
                "code": {"enum": codes}, "correlation_id": text(),
            },
        },
        "Position": {"type": "string", "pattern": "^[0-9]+:[0-9]+(~[0-9]+)?$"},
        "Accepted": {
            "type": "object",
            "required": ["stream", "version", "position", "record", "events"],
            "properties": {
                "stream": text(), "version": version(), "position": of("schemas", "Position"),
                "record": {"type": "string", "format": "uuid"},
                "events": {"type": "array", "items": {
                    "type": "object",
                    "required": ["id", "type", "stream_version"],
                    "properties": {
                        "id": {"type": "string", "format": "uuid"}, "type": text(), "stream_version": version(),
                    },
                }},
            },
        },
        "BatchLine": {
            "type": "object",
            "required": ["resource", "command", "idempotency_key"],
            "additionalProperties": false,
            "properties": {
                "resource": text(), "key": text(), "command": text(),
                "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 255},
                "if_match": {"type": ["string", "integer"]}, "if_none_match": {"const": "*"},
                "data": {"type": "object"},
            },
        },
        "BatchResult": {
            "type": "object",
            "required": ["line", "status"],
            "properties": {
                "line": {"type": "integer", "minimum": 1}, "status": {"type": "integer"},
                "result": of("schemas", "Accepted"), "problem": of("schemas", "Problem"),
            },
        },
    }))
}

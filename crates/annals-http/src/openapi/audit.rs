//! The operations of auditors.

use serde_json::{Value, json};

use super::Document;
use super::parts::{of, refer};
use crate::audit::MAX_PAGE;

/// Whatever an auditor can be answered with beside 200.
const FAILURES: [u16; 10] = [400, 401, 403, 404, 405, 406, 421, 431, 500, 503];

pub(super) fn add(document: &mut Document) {
    let text = || json!({"type": "string"});
    let time = || json!({"type": "string", "format": "date-time"});
    let query = |name: &str, doc: &str, schema: Value| json!({"name": name, "in": "query", "required": false, "description": doc, "schema": schema});
    let path = |name: &str| json!({"name": name, "in": "path", "required": true, "schema": text()});
    let limit = || {
        query(
            "limit",
            "Records of a page, 50 without it.",
            json!({"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
        )
    };
    let item = json!({
        "type": "object",
        "required": ["position", "record", "kind", "stream", "version", "time", "hash"],
        "properties": {
            "position": of("schemas", "Position"), "record": {"type": "string", "format": "uuid"},
            "kind": {"enum": ["commit", "refusal", "claim", "close"]}, "stream": {"type": ["string", "null"]},
            "version": {"type": ["integer", "null"]}, "time": time(), "actor": {"type": "object"},
            "command": {"type": "object"}, "events": {"type": "array"}, "refusal": {"type": "object"}, "hash": text(),
        },
    });
    document.schemas.insert("AuditItem".to_owned(), item);
    let item = of("schemas", "AuditItem");
    let list = json!({
        "type": "object", "required": ["data", "next"],
        "properties": {"data": {"type": "array", "items": item}, "next": {"type": ["string", "null"]}},
    });
    let state = json!({
        "type": "object", "required": ["stream", "version", "position", "data"],
        "properties": {
            "stream": text(), "version": {"type": "integer"}, "position": of("schemas", "Position"),
            "data": {"type": "object"},
        },
    });
    let object = json!({"type": "object"});
    let mut get = |route: &str, id: &str, doc: &str, parameters: Vec<Value>, schema: &Value| {
        let shared = ["After", "Prefer", "Traceparent", "CorrelationId"];
        let shared = shared.iter().map(|name| of("parameters", name));
        let mut responses = refer(&FAILURES);
        let found = json!({
            "description": doc,
            "headers": {
                "Annals-Position": of("headers", "Position"), "Annals-Lag-Ms": of("headers", "LagMs"),
                "Correlation-Id": of("headers", "CorrelationId"),
                "Preference-Applied": of("headers", "PreferenceApplied"),
            },
            "content": {"application/json": {"schema": schema}},
        });
        responses.insert("200".to_owned(), found);
        let operation = json!({
            "operationId": format!("audit.{id}"), "tags": ["audit"], "summary": doc,
            "parameters": parameters.into_iter().chain(shared).collect::<Vec<_>>(), "responses": responses,
        });
        document.operation(&format!("/v1/audit/{route}"), "get", operation);
    };
    let history = vec![
        path("stream"),
        query("after", "Behind this position.", text()),
        limit(),
    ];
    get(
        "streams/{stream}",
        "history",
        "A stream's records, oldest first.",
        history,
        &list,
    );
    let moment = vec![
        path("stream"),
        query(
            "version",
            "Up to and with this version.",
            json!({"type": "integer", "minimum": 1}),
        ),
        query("at", "As it was then.", time()),
    ];
    get(
        "streams/{stream}/state",
        "state",
        "A stream's state at a moment, by replay.",
        moment,
        &state,
    );
    let search = vec![
        query("after", "`next` of the page before.", text()),
        query("category", "The kind of aggregate.", text()),
        query("type", "A type of event that the record holds.", text()),
        query("actor", "Who sent the command.", text()),
        query(
            "kind",
            "The kind of record.",
            json!({"enum": ["commit", "refusal", "claim", "close"]}),
        ),
        query("from", "Decided at or after.", time()),
        query("to", "Decided before.", time()),
        limit(),
    ];
    get(
        "records",
        "records",
        "Records by what is known of them.",
        search,
        &list,
    );
    get("records/{id}", "record", "One record.", vec![path("id")], &item);
    get(
        "records/{id}/raw",
        "raw",
        "One record's exact bytes.",
        vec![path("id")],
        &object,
    );
    get(
        "shards",
        "shards",
        "Every shard: end, epoch, chain, the time of its latest decision, owner.",
        Vec::new(),
        &object,
    );
}

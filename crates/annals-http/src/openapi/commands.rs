//! The operations of commands.

use annals_domain::catalog::{AggregateType, RegisteredCommand};
use serde_json::{Value, json};

use super::Document;
use super::parts::{of, refer};
use crate::batch::NDJSON;

/// Whatever a command can be answered with beside 200 and 201.
const FAILURES: [u16; 16] = [
    400, 401, 403, 404, 405, 409, 412, 413, 415, 421, 422, 429, 431, 500, 503, 504,
];

pub(super) fn add(document: &mut Document, aggregate: &AggregateType) {
    let resource = aggregate.resource();
    for command in aggregate.commands() {
        let name = command.command.name;
        let schema = body_schema(document, resource, command);
        let key = json!({
            "name": "key", "in": "path", "required": true, "description": "The stream's key.",
            "schema": aggregate.key_schema().to_value(),
        });
        let operation = operation(aggregate, command, &schema, Some(key));
        document.operation(&format!("/v1/{resource}/{{key}}/{name}"), "post", operation);
        if aggregate.is_keyless(name) {
            let operation = self::operation(aggregate, command, &schema, None);
            document.operation(&format!("/v1/{resource}/{name}"), "post", operation);
        }
    }
}

fn operation(
    aggregate: &AggregateType,
    command: &RegisteredCommand,
    schema: &Value,
    key: Option<Value>,
) -> Value {
    let (resource, name) = (aggregate.resource(), command.command.name);
    let id = match key {
        Some(_) => format!("{resource}.{name}"),
        None => format!("{resource}.{name}.keyless"),
    };
    let accepted = |description: &str| {
        json!({
            "description": description,
            "headers": {
                "ETag": of("headers", "ETag"), "Annals-Position": of("headers", "Position"),
                "Idempotent-Replayed": of("headers", "Replayed"), "Correlation-Id": of("headers", "CorrelationId"),
            },
            "content": {"application/json": {"schema": of("schemas", "Accepted")}},
        })
    };

    let mut responses = refer(&FAILURES);
    responses.insert(
        "200".to_owned(),
        accepted("Done, or nothing had to change (then without events)."),
    );
    let mut created = accepted("The stream begins.");
    created["headers"]["Location"] = of("headers", "Location");
    responses.insert("201".to_owned(), created);
    if let Some(rejected) = rejections(aggregate) {
        responses.insert("409".to_owned(), rejected);
    }
    let headers = [
        "IdempotencyKey",
        "IfMatch",
        "IfNoneMatchStream",
        "Metadata",
        "Traceparent",
        "CorrelationId",
    ];
    let headers = headers.iter().map(|name| of("parameters", name));
    json!({
        "operationId": id,
        "tags": [resource],
        "summary": command.command.doc,
        "parameters": key.into_iter().chain(headers).collect::<Vec<_>>(),
        "requestBody": {
            "required": false,
            "description": "No body means {}.",
            "content": {"application/json": {"schema": schema}},
        },
        "responses": responses,
    })
}

/// The 409 of an aggregate names its own codes.
fn rejections(aggregate: &AggregateType) -> Option<Value> {
    let codes = aggregate.rejections();
    if codes.is_empty() {
        return None;
    }
    let mut response = super::parts::responses().remove("409")?;
    let rejection = json!({
        "type": "object", "required": ["code", "detail"],
        "properties": {"code": {"enum": codes}, "detail": {"type": "object"}},
    });
    let content = &mut response["content"][crate::problem::CONTENT]["schema"]["allOf"][1]["properties"];
    content["rejection"] = rejection;
    Some(response)
}

/// The command's schema under `components/schemas`, its own definitions beside it.
fn body_schema(document: &mut Document, resource: &str, command: &RegisteredCommand) -> Value {
    let prefix = format!("{resource}.{}", command.command.name);
    let mut schema = command.schema.clone().to_value();
    let mut definitions = None;
    if let Value::Object(map) = &mut schema {
        map.remove("$schema");
        definitions = map.remove("$defs");
    }
    if let Some(Value::Object(definitions)) = definitions {
        for (name, mut definition) in definitions {
            redirect(&mut definition, &prefix);
            document.schemas.insert(component(&prefix, &name), definition);
        }
    }
    redirect(&mut schema, &prefix);
    document.schemas.insert(prefix.clone(), schema);
    of("schemas", &prefix)
}

/// A name that components may have.
fn component(prefix: &str, name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            c
        } else {
            '_'
        }
    };
    format!("{prefix}.{}", name.chars().map(plain).collect::<String>())
}

fn redirect(schema: &mut Value, prefix: &str) {
    match schema {
        Value::Object(map) => {
            for (name, member) in map {
                let target = member.as_str().and_then(|target| target.strip_prefix("#/$defs/"));
                match (name.as_str(), target) {
                    ("$ref", Some(target)) => {
                        *member = format!("#/components/schemas/{}", component(prefix, target)).into();
                    }
                    _ => redirect(member, prefix),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|item| redirect(item, prefix)),
        _ => {}
    }
}

pub(super) fn add_batch(document: &mut Document) {
    let mut responses = refer(&[400, 401, 405, 415, 421, 431, 500]);
    let result = json!({
        "description": "One result a line, in the order of the lines, while more of them come in.",
        "headers": {"Correlation-Id": of("headers", "CorrelationId")},
        "content": {NDJSON: {"schema": of("schemas", "BatchResult")}},
    });
    responses.insert("200".to_owned(), result);
    let operation = json!({
        "operationId": "batch",
        "tags": ["batch"],
        "summary": "Many commands, one a line. Lines of one stream keep their order; a bad line is reported alone.",
        "parameters": [of("parameters", "Traceparent"), of("parameters", "CorrelationId")],
        "requestBody": {"required": true, "content": {NDJSON: {"schema": of("schemas", "BatchLine")}}},
        "responses": responses,
    });
    document.operation("/v1/batch", "post", operation);
}

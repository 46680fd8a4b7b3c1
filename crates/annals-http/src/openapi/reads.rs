//! The operations of read models.

use annals_query::value::SqlType;
use annals_query::{Column, Definition};
use serde_json::{Map, Value, json};

use super::Document;
use super::parts::{of, refer};

/// Whatever a query can be answered with beside 200 and 304.
const FAILURES: [u16; 11] = [400, 401, 403, 404, 405, 406, 421, 429, 431, 500, 503];

/// What is said of `text/event-stream`.
const LIVE: &str = "Live changes. Events: `snapshot` (`{\"data\": [row…]}`: all rows, whatever was held before is \
    forgotten), `change` (a row that is new or different), `remove` (`{\"key\": \"…\"}`: a row that is gone, does not \
    match any more, or is no longer the caller's), `end` (the last one, a problem document). A row is \
    `{\"key\": \"…\", \"version\": 3, \"data\": {…}}`. An event's id is `positions;digest`: what is held after it. With it as \
    Last-Event-ID any node goes on without loss or repeat, or with a new `snapshot` where it cannot say exactly what was \
    missed. A list is followed whole (400 if it has too many rows), with `limit` as its first rows; `cursor` is 400.";

/// The operators of filters.
const OPERATORS: [&str; 7] = ["eq", "ne", "gt", "gte", "lt", "lte", "in"];

pub(super) fn add(document: &mut Document, definition: &Definition, columns: &[Column]) {
    let resource = &definition.resource;
    let row = format!("{resource}.row");
    document
        .schemas
        .insert(row.clone(), row_schema(definition, columns));
    let list = json!({
        "type": "object", "required": ["data", "next"],
        "properties": {
            "data": {"type": "array", "items": of("schemas", &row)},
            "next": {"type": ["string", "null"], "description": "The next page's cursor."},
            "count": {"type": "integer", "description": "With `Prefer: count=exact`."},
        },
    });
    let one = json!({"type": "object", "required": ["data"], "properties": {"data": of("schemas", &row)}});
    let shared = [
        "After",
        "Prefer",
        "IfNoneMatchTag",
        "LastEventId",
        "Traceparent",
        "CorrelationId",
    ];
    let shared = || shared.iter().map(|name| of("parameters", name));
    let parameters: Vec<_> = list_parameters(definition, columns)
        .into_iter()
        .chain(shared())
        .collect();
    document.operation(
        &format!("/v1/{resource}"),
        "get",
        operation(definition, "list", parameters, &list, "Link", "Link"),
    );
    let key = json!({
        "name": "key", "in": "path", "required": true,
        "description": format!("{}, with commas between.", definition.key.join(", ")),
        "schema": {"type": "string"},
    });
    let shown = shown_parameters(definition, columns);
    let parameters: Vec<_> = std::iter::once(key).chain(shown).chain(shared()).collect();
    document.operation(
        &format!("/v1/{resource}/{{key}}"),
        "get",
        operation(definition, "row", parameters, &one, "Annals-Version", "Version"),
    );
}

fn operation(
    definition: &Definition,
    kind: &str,
    parameters: Vec<Value>,
    schema: &Value,
    header: &str,
    header_part: &str,
) -> Value {
    let mut headers = json!({
        "ETag": of("headers", "ETag"), "Annals-Position": of("headers", "Position"),
        "Annals-Lag-Ms": of("headers", "LagMs"), "Annals-Parked": of("headers", "Parked"),
        "Preference-Applied": of("headers", "PreferenceApplied"), "Correlation-Id": of("headers", "CorrelationId"),
    });
    let mut responses = refer(&FAILURES);
    let unchanged = json!({"description": "The caller has it already.", "headers": headers});
    responses.insert("304".to_owned(), unchanged);
    headers[header] = of("headers", header_part);
    let found = json!({
        "description": definition.doc,
        "headers": headers,
        "content": {
            "application/json": {"schema": schema},
            "text/event-stream": {"schema": {"type": "string", "description": LIVE}},
        },
    });
    responses.insert("200".to_owned(), found);
    json!({
        "operationId": format!("{}.{kind}", definition.resource),
        "tags": [definition.resource],
        "summary": definition.doc,
        "parameters": parameters,
        "responses": responses,
    })
}

fn query(name: &str, doc: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": doc, "schema": schema})
}

fn list_parameters(definition: &Definition, columns: &[Column]) -> Vec<Value> {
    let mut parameters = vec![
        query(
            "limit",
            "Rows of a page, 50 without it.",
            json!({"type": "integer", "minimum": 1, "maximum": 500}),
        ),
        query(
            "cursor",
            "`next` of the page before, with the same filters and sort.",
            json!({"type": "string"}),
        ),
    ];
    if !definition.sort.is_empty() {
        let both = definition
            .sort
            .iter()
            .flat_map(|name| [name.clone(), format!("-{name}")]);
        let sort = json!({"enum": both.collect::<Vec<_>>()});
        parameters.push(query("sort", "One column, with - in front for descending.", sort));
    }
    for name in &definition.filter {
        let schema = column(columns, name).map_or_else(|| json!({"type": "string"}), |c| type_schema(c.ty));
        parameters.push(query(name, "Equal to; repeat for AND.", schema.clone()));
        for operator in OPERATORS {
            let schema = if operator == "in" {
                json!({"type": "string"})
            } else {
                schema.clone()
            };
            parameters.push(query(&format!("{name}.{operator}"), "Compared.", schema));
        }
        let null = json!({"enum": ["null", "not_null"]});
        parameters.push(query(&format!("{name}.is"), "Whether there is a value.", null));
    }
    parameters.extend(shown_parameters(definition, columns));
    parameters
}

fn shown_parameters(definition: &Definition, columns: &[Column]) -> Vec<Value> {
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    let doc = format!("Columns to show, with commas between: {}.", names.join(", "));
    let mut parameters = vec![query("fields", &doc, json!({"type": "string"}))];
    if !definition.expand.is_empty() {
        let names: Vec<_> = definition.expand.keys().map(String::as_str).collect();
        let doc = format!(
            "Rows to show with each row, with commas between: {}.",
            names.join(", ")
        );
        parameters.push(query("expand", &doc, json!({"type": "string"})));
    }
    parameters
}

fn column<'a>(columns: &'a [Column], name: &str) -> Option<&'a Column> {
    columns.iter().find(|column| column.name == name)
}

fn row_schema(definition: &Definition, columns: &[Column]) -> Value {
    let mut properties = Map::new();
    for column in columns {
        let mut schema = type_schema(column.ty);
        // A private column is null to who may not see it.
        if (!column.not_null || column.private)
            && let Some(kind) = schema.get("type").cloned()
        {
            schema["type"] = json!([kind, "null"]);
        }
        properties.insert(column.name.clone(), schema);
    }
    for (name, expansion) in &definition.expand {
        let target = of("schemas", &format!("{}.row", expansion.resource));
        properties.insert(name.clone(), json!({"anyOf": [target, {"type": "null"}]}));
    }
    json!({"type": "object", "properties": properties})
}

fn type_schema(ty: SqlType) -> Value {
    match ty {
        SqlType::Uuid => json!({"type": "string", "format": "uuid"}),
        SqlType::Text | SqlType::Char => json!({"type": "string"}),
        SqlType::SmallInt | SqlType::Int | SqlType::BigInt => json!({"type": "integer"}),
        SqlType::Numeric | SqlType::Double => json!({"type": "number"}),
        SqlType::Bool => json!({"type": "boolean"}),
        SqlType::Date => json!({"type": "string", "format": "date"}),
        SqlType::Timestamptz | SqlType::Timestamp => json!({"type": "string", "format": "date-time"}),
        SqlType::Other => json!({}),
    }
}

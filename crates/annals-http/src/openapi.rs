//! `/v1/openapi.json`: OpenAPI 3.1, made from what is served: the catalog's commands and the read models' resources.
//!
//! **Source:** OpenAPI Specification 3.1.1; its schemas are JSON Schema 2020-12, as the catalog's are.

mod audit;
mod commands;
mod parts;
mod reads;

use serde_json::{Map, Value, json};

use crate::edge::Inner;

/// Collects paths and schemas.
#[derive(Default)]
struct Document {
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Document {
    fn operation(&mut self, path: &str, method: &str, operation: Value) {
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            item.insert(method.to_owned(), operation);
        }
    }
}

/// The document.
pub(crate) fn document(inner: &Inner) -> Value {
    let mut document = Document::default();
    for aggregate in inner.catalog.aggregates() {
        commands::add(&mut document, aggregate);
    }
    commands::add_batch(&mut document);
    for definition in inner.definitions.values() {
        let columns = inner
            .reads
            .as_ref()
            .map(|reads| reads.columns(&definition.resource));
        reads::add(&mut document, definition, &columns.unwrap_or_default());
    }
    audit::add(&mut document);
    let mut schemas = parts::schemas();
    schemas.extend(document.schemas);
    json!({
        "openapi": "3.1.1",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": inner.catalog.app().as_str(),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Commands change streams; queries read what follows from them. Every command's answer \
                names a position, and every query can be asked to be at least that fresh (`Annals-After`).",
        },
        "security": [{"bearer": []}],
        "paths": document.paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "parameters": parts::parameters(),
            "headers": parts::headers(),
            "responses": parts::responses(),
            "schemas": schemas,
        },
    })
}

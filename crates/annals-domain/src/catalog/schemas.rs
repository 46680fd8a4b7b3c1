//! Every schema of a program as files: what `schemas write` writes and `schemas check` compares.

use serde_json::Value;

use super::Catalog;
use crate::personal;

impl Catalog {
    /// The JSON Schema of every command and of every schema of every event, each with the path of its file below
    /// `schemas/`: `commands/{category}/{name}.json` and `events/{type}/{schema}.json`, in the order of registration.
    ///
    /// `$id` is where other systems find it: `/schemas/commands/{category}/{name}.json` and, as CloudEvents'
    /// `dataschema` says, `/schemas/{type}/{schema}.json`. `title` is the command's name or the event's type, and
    /// `description` its documentation, unless the struct has its own. A personal field of a command is as clients
    /// send it; one of an event may also be sealed or erased.
    pub fn schemas(&self) -> Vec<(String, Value)> {
        let commands = self.aggregates().flat_map(|aggregate| {
            let category = aggregate.category();
            aggregate.commands().map(move |registered| {
                let command = &registered.command;
                let path = format!("commands/{category}/{}.json", command.name);
                let id = format!("/schemas/{path}");
                (path, titled(&registered.schema, id, command.name, command.doc))
            })
        });
        let events = self.events().flat_map(|event| {
            event.versions.iter().map(|version| {
                let file = format!("{}/{}.json", event.name, version.number);
                let schema = (version.schema)();
                let mut schema = titled(&schema, format!("/schemas/{file}"), event.name, event.doc);
                personal::as_stored(&mut schema);
                (format!("events/{file}"), schema)
            })
        });
        commands.chain(events).collect()
    }
}

fn titled(schema: &schemars::Schema, id: String, title: &str, doc: &str) -> Value {
    let mut schema = schema.clone();
    schema.insert("$id".to_owned(), id.into());
    schema.insert("title".to_owned(), title.into());
    if !doc.is_empty() && schema.get("description").is_none() {
        schema.insert("description".to_owned(), doc.into());
    }
    schema.to_value()
}

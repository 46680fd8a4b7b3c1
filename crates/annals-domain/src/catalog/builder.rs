//! Collecting aggregates, and every check that can be made before the first command.

use std::sync::{Arc, LazyLock, OnceLock};

use annals_record::{AppName, Category};
use indexmap::IndexMap;
use serde_json::Value;

use super::erased::Typed;
use super::{AggregateType, Catalog, CatalogError, RegisteredCommand};
use crate::{Aggregate, VERSION_MISMATCH, personal};

/// Collects aggregates.
pub struct Builder {
    app: AppName,
    aggregates: Vec<AggregateType>,
}

impl Catalog {
    /// Begins the catalog of an app.
    pub fn builder(app: AppName) -> Builder {
        Builder {
            app,
            aggregates: Vec::new(),
        }
    }
}

impl Builder {
    /// Adds an aggregate.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.aggregates.push(AggregateType {
            category: Category::try_from(A::CATEGORY).unwrap_or_else(|_| UNNAMED.clone()),
            resource: A::RESOURCE,
            keyless: A::KEYLESS,
            erasures: <A::Event as crate::Event>::types()
                .iter()
                .any(|event| event.erasure),
            commands: registered::<A>(),
            rejections: <A::Rejection as crate::Rejection>::CODES,
            erased: Box::new(Typed::<A>::new()),
        });
        self
    }

    /// Checks names and makes the catalog.
    ///
    /// # Errors
    /// [`CatalogError`] with the first name that is wrong or taken, or the first command that is not closed.
    pub fn build(self) -> Result<Catalog, CatalogError> {
        let mut aggregates = IndexMap::new();
        let mut by_resource = IndexMap::new();
        let mut events = IndexMap::new();
        for aggregate in self.aggregates {
            let category = aggregate.erased.category();
            check_names(&aggregate, category)?;
            check_closed(&aggregate, category)?;
            let index = aggregates.len();
            if by_resource.insert(aggregate.resource, index).is_some() {
                return Err(CatalogError::Twice {
                    what: "resource",
                    name: aggregate.resource.to_owned(),
                });
            }
            for event in aggregate.erased.events() {
                if events.insert(event.name, (index, event.clone())).is_some() {
                    return Err(CatalogError::Twice {
                        what: "event type",
                        name: event.name.to_owned(),
                    });
                }
            }
            if aggregates.insert(category, aggregate).is_some() {
                return Err(CatalogError::Twice {
                    what: "category",
                    name: category.to_owned(),
                });
            }
        }
        Ok(Catalog {
            app: self.app,
            aggregates: Arc::new(aggregates),
            by_resource: Arc::new(by_resource),
            events: Arc::new(events),
        })
    }
}

/// Stands in for a category outside its grammar until `build` refuses it.
static UNNAMED: LazyLock<Category> =
    LazyLock::new(|| Category::try_from("unnamed").expect("it is of the grammar"));

fn registered<A: Aggregate>() -> IndexMap<&'static str, RegisteredCommand> {
    let commands = <A::Command as crate::Command>::types()
        .into_iter()
        .map(|command| {
            let schema = (command.schema)();
            let personal = personal::occurs_in(&schema);
            (
                command.name,
                RegisteredCommand {
                    command,
                    schema,
                    personal,
                    validator: OnceLock::new(),
                },
            )
        });
    commands.collect()
}

fn check_names(aggregate: &AggregateType, category: &'static str) -> Result<(), CatalogError> {
    let wrong = |why: String| Err(CatalogError::Name { category, why });
    if let Err(error) = Category::try_from(category) {
        return wrong(format!("its category: {error}"));
    }
    let resource = aggregate.resource;
    if Category::try_from(resource).is_err() {
        return wrong(format!(
            "its resource `{resource}` must be of a-z, 0-9 and _, beginning with a letter"
        ));
    }
    if let Some(name) = aggregate
        .keyless
        .iter()
        .find(|name| !aggregate.commands.contains_key(**name))
    {
        return wrong(format!(
            "KEYLESS names `{name}`, which is not one of its commands"
        ));
    }
    if !aggregate.keyless.is_empty() && aggregate.make_key(uuid::Uuid::nil()).is_none() {
        return wrong("KEYLESS needs a key that can be made from a UUID".to_owned());
    }
    if aggregate.rejections.contains(&VERSION_MISMATCH) {
        return wrong(format!("`{VERSION_MISMATCH}` is taken by failed preconditions"));
    }
    match aggregate
        .erased
        .events()
        .iter()
        .find(|event| !event.name.starts_with(&format!("{category}.")))
    {
        Some(event) => wrong(format!(
            "its event `{}` must begin with `{category}.`",
            event.name
        )),
        None => Ok(()),
    }
}

/// Refuses a command with an object that takes fields beside its own.
fn check_closed(aggregate: &AggregateType, category: &'static str) -> Result<(), CatalogError> {
    for (name, registered) in &aggregate.commands {
        if let Some(pointer) = open_object(registered.schema.as_value(), String::new()) {
            return Err(CatalogError::OpenCommand {
                category,
                command: name,
                pointer,
            });
        }
    }
    Ok(())
}

/// Where a schema has an object with named fields that takes others too.
fn open_object(schema: &Value, pointer: String) -> Option<String> {
    let Value::Object(keywords) = schema else {
        return None;
    };
    let closed = |keyword| keywords.contains_key(keyword);
    if keywords.contains_key("properties")
        && !closed("additionalProperties")
        && !closed("unevaluatedProperties")
    {
        return Some(pointer);
    }
    keywords.iter().find_map(|(keyword, value)| {
        let below = format!("{pointer}/{}", escape(keyword));
        match (keyword.as_str(), value) {
            // Values, which may look like anything.
            ("const" | "enum" | "default" | "examples", _) => None,
            // Schemas by name.
            ("properties" | "patternProperties" | "dependentSchemas" | "$defs", Value::Object(named)) => {
                named
                    .iter()
                    .find_map(|(name, schema)| open_object(schema, format!("{below}/{}", escape(name))))
            }
            (_, Value::Array(list)) => (0..)
                .zip(list)
                .find_map(|(index, schema): (usize, _)| open_object(schema, format!("{below}/{index}"))),
            (_, schema) => open_object(schema, below),
        }
    })
}

/// One member's name in a JSON Pointer. **Source:** RFC 6901, section 3.
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

//! The only place where types are erased: every aggregate of a program, by name.
//!
//! *Invariant:* a [`Catalog`] is checked when it is built; after that a name that it gives out is right.

mod erased;

use std::sync::{Arc, OnceLock};

use annals_record::{AppName, Category, Key};
use indexmap::IndexMap;
use schemars::Schema;
use serde_json::value::RawValue;

pub use erased::{AnyCommand, AnyState, Decision, EncodedEvent};

use crate::{
    Aggregate, CommandType, EventType, InvalidKey, ReadError, VERSION_MISMATCH, Violation, personal,
};
use erased::{Erased, Typed};

/// Every aggregate of a program.
#[derive(Clone)]
pub struct Catalog {
    app: AppName,
    aggregates: Arc<IndexMap<&'static str, AggregateType>>,
    by_resource: Arc<IndexMap<&'static str, usize>>,
    events: Arc<IndexMap<&'static str, (usize, EventType)>>,
}

/// One aggregate with its types erased.
pub struct AggregateType {
    category: Category,
    resource: &'static str,
    keyless: &'static [&'static str],
    erasures: bool,
    commands: IndexMap<&'static str, RegisteredCommand>,
    rejections: &'static [&'static str],
    erased: Box<dyn Erased>,
}

/// One command of the catalog.
pub struct RegisteredCommand {
    /// Name, documentation, schema.
    pub command: CommandType,
    /// The schema, made once.
    pub schema: Schema,
    /// Whether a field of it is personal.
    pub personal: bool,
    validator: OnceLock<Option<jsonschema::Validator>>,
}

/// Why a body is not a command.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// No such command.
    #[error("no such command")]
    UnknownCommand,
    /// It does not fit; never empty.
    #[error("the body does not fit the command's schema")]
    Invalid(Vec<Violation>),
}

/// Why a catalog cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Two aggregates share a name.
    #[error("two aggregates have the {what} `{name}`: give each its own")]
    Twice {
        /// Category, resource or event type.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name outside its grammar, or an event type that does not begin with its category.
    #[error("aggregate `{category}`: {why}")]
    Name {
        /// The aggregate.
        category: &'static str,
        /// What is wrong with which name.
        why: String,
    },
}

impl Catalog {
    /// Begins the catalog of an app.
    pub fn builder(app: AppName) -> Builder {
        Builder {
            app,
            aggregates: Vec::new(),
        }
    }
    /// The app's name.
    pub fn app(&self) -> &AppName {
        &self.app
    }
    /// An aggregate by category.
    pub fn category(&self, category: &str) -> Option<&AggregateType> {
        self.aggregates.get(category)
    }
    /// An aggregate by the plural under which HTTP knows it.
    pub fn resource(&self, resource: &str) -> Option<&AggregateType> {
        let index = self.by_resource.get(resource)?;
        self.aggregates.get_index(*index).map(|(_, aggregate)| aggregate)
    }
    /// All aggregates, in the order in which they were registered.
    pub fn aggregates(&self) -> impl Iterator<Item = &AggregateType> {
        self.aggregates.values()
    }
    /// A type of event by name.
    pub fn event(&self, event_type: &str) -> Option<&EventType> {
        self.events.get(event_type).map(|(_, event)| event)
    }
    /// All types of events.
    pub fn events(&self) -> impl Iterator<Item = &EventType> {
        self.events.values().map(|(_, event)| event)
    }
    /// Brings an event's data up to the newest schema; `None` if they are there already.
    ///
    /// # Errors
    /// [`ReadError`], if type or schema are unknown or the data do not fit.
    pub fn upcast(
        &self,
        event_type: &str,
        schema: u32,
        data: &RawValue,
    ) -> Result<Option<Box<RawValue>>, ReadError> {
        let Some((aggregate, event)) = self.events.get(event_type) else {
            return Err(ReadError::Unknown {
                name: event_type.to_owned(),
            });
        };
        let newest = event.newest();
        if schema == newest {
            return Ok(None);
        }
        if schema == 0 || schema > newest {
            return Err(ReadError::UnknownSchema {
                name: event_type.to_owned(),
                schema,
                newest,
            });
        }
        self.aggregates[*aggregate]
            .erased
            .upcast(event_type, schema, data)
            .map(Some)
    }
}

impl EventType {
    /// The number of the newest schema.
    pub fn newest(&self) -> u32 {
        self.versions.last().map_or(1, |version| version.number)
    }
}

impl AggregateType {
    /// Its category.
    pub fn category(&self) -> &Category {
        &self.category
    }
    /// Its resource.
    pub fn resource(&self) -> &'static str {
        self.resource
    }
    /// Its commands.
    pub fn commands(&self) -> impl Iterator<Item = &RegisteredCommand> {
        self.commands.values()
    }
    /// One command.
    pub fn command(&self, name: &str) -> Option<&RegisteredCommand> {
        self.commands.get(name)
    }
    /// The codes of its rejections.
    pub fn rejections(&self) -> &'static [&'static str] {
        self.rejections
    }
    /// Whether a client may leave the key of this command to the server.
    pub fn is_keyless(&self, command: &str) -> bool {
        self.keyless.contains(&command)
    }
    /// Whether one of its events marks an erasure.
    pub fn has_erasure(&self) -> bool {
        self.erasures
    }
    /// Brings a key into its one form.
    ///
    /// # Errors
    /// [`InvalidKey`] if it is not of the aggregate's type; at the edge a 404.
    pub fn parse_key(&self, text: &str) -> Result<Key, InvalidKey> {
        self.erased.parse_key(text)
    }
    /// The key that the server makes from a UUID; `None` if the type cannot be made so.
    pub fn make_key(&self, uuid: uuid::Uuid) -> Option<Key> {
        self.erased.make_key(uuid)
    }
    /// The JSON Schema of its key.
    pub fn key_schema(&self) -> Schema {
        self.erased.key_schema()
    }
    /// The JSON Schema of its state.
    pub fn state_schema(&self) -> Schema {
        self.erased.state_schema()
    }
    /// Reads a client's body: parsed once into the command's type; the schema only explains a failure.
    ///
    /// # Errors
    /// [`ParseError`] with every violation.
    pub fn parse(&self, key: &Key, name: &str, body: &[u8]) -> Result<AnyCommand, ParseError> {
        let registered = self.commands.get(name).ok_or(ParseError::UnknownCommand)?;
        let parsed = personal::from_client(|| self.erased.read_command(key, name, body));
        let error = match parsed {
            Ok(command) => {
                let violations = self.erased.check(&command);
                return if violations.is_empty() {
                    Ok(command)
                } else {
                    Err(ParseError::Invalid(violations))
                };
            }
            Err(error) => error,
        };
        let explained = registered.explain(body);
        Err(ParseError::Invalid(if explained.is_empty() {
            vec![Violation::at("", error.to_string())]
        } else {
            explained
        }))
    }
    /// Reads a command from the form that records have.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_stored(&self, key: &Key, name: &str, data: &[u8]) -> Result<AnyCommand, ReadError> {
        self.erased.read_command(key, name, data)
    }
    /// The state of a stream that has not begun.
    pub fn initial(&self) -> AnyState {
        self.erased.initial()
    }
    /// The state in a snapshot whose fingerprint is [`Self::fingerprint`].
    ///
    /// # Errors
    /// What the parser says; the snapshot is then of no use.
    pub fn restore(&self, snapshot: &[u8]) -> Result<AnyState, serde_json::Error> {
        self.erased.restore(snapshot)
    }
    /// SHA-256 over the state's schema and [`Aggregate::REVISION`]: a snapshot with another one is discarded.
    pub fn fingerprint(&self) -> annals_record::Hash32 {
        self.erased.fingerprint()
    }
    /// Whose personal data the command carries.
    pub fn data_subject(&self, command: &AnyCommand) -> crate::DataSubject {
        self.erased.data_subject(command)
    }
}

impl RegisteredCommand {
    fn explain(&self, body: &[u8]) -> Vec<Violation> {
        let Ok(value) = serde_json::from_slice(body) else {
            return Vec::new();
        };
        let validator = self.validator.get_or_init(|| {
            jsonschema::options()
                .should_validate_formats(true)
                .build(self.schema.as_value())
                .ok()
        });
        let Some(validator) = validator else {
            return Vec::new();
        };
        let errors = validator.iter_errors(&value).take(MAX_VIOLATIONS);
        errors
            .map(|error| Violation::at(error.instance_path().to_string(), error.masked().to_string()))
            .collect()
    }
}

/// No answer lists more violations: the rest comes after these are mended.
const MAX_VIOLATIONS: usize = 50;

/// Collects aggregates.
pub struct Builder {
    app: AppName,
    aggregates: Vec<AggregateType>,
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
    /// [`CatalogError`] with the first name that is wrong or taken.
    pub fn build(self) -> Result<Catalog, CatalogError> {
        let mut aggregates = IndexMap::new();
        let mut by_resource = IndexMap::new();
        let mut events = IndexMap::new();
        for aggregate in self.aggregates {
            let category = aggregate.erased.category();
            check_names(&aggregate, category)?;
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
static UNNAMED: std::sync::LazyLock<Category> =
    std::sync::LazyLock::new(|| Category::try_from("unnamed").expect("it is of the grammar"));

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
    if !aggregate
        .resource
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
    {
        return wrong(format!(
            "its resource `{}` must be of a-z, 0-9 and _",
            aggregate.resource
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

/// Writes JSON into a [`RawValue`].
pub(crate) fn to_raw<E>(
    write: impl FnOnce(&mut serde_json::Serializer<&mut Vec<u8>>) -> Result<(), E>,
) -> Result<Box<RawValue>, E>
where
    E: serde::de::Error,
{
    let mut bytes = Vec::with_capacity(128);
    write(&mut serde_json::Serializer::new(&mut bytes))?;
    let text = String::from_utf8(bytes).map_err(E::custom)?;
    RawValue::from_string(text).map_err(E::custom)
}

//! The only place where types are erased: every aggregate of a program, by name.
//!
//! *Invariant:* a [`Catalog`] is checked when it is built; after that a name that it gives out is right.

mod builder;
mod canonical;
mod erased;
mod explain;
mod schemas;

use std::sync::{Arc, OnceLock};

use annals_record::{AppName, Category, Key};
use indexmap::IndexMap;
use schemars::Schema;
use serde_json::value::RawValue;

pub use builder::Builder;
pub use erased::{AnyCommand, AnyState, Decision, EncodedEvent};

use crate::{CommandType, EventType, InvalidKey, ReadError, Violation, personal};
use erased::Erased;
pub(crate) use erased::fingerprint;

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
    /// A command that would take fields that it does not know, and drop them silently.
    #[error(
        "command `{command}` of aggregate `{category}` takes unknown fields at `{pointer}` of its schema: add \
         `#[serde(deny_unknown_fields)]` to that struct"
    )]
    OpenCommand {
        /// The aggregate.
        category: &'static str,
        /// The command.
        command: &'static str,
        /// Where in its schema, as a JSON Pointer; empty for the command's own struct.
        pointer: String,
    },
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

impl Catalog {
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
    /// `key` is in its one form already ([`Self::parse_key`]). No violation repeats a value of the body, which may
    /// be personal; one of an unknown field has the field's name in its pointer.
    ///
    /// # Errors
    /// [`ParseError`] with every violation.
    pub fn parse(&self, key: &Key, name: &str, body: &[u8]) -> Result<AnyCommand, ParseError> {
        let registered = self.commands.get(name).ok_or(ParseError::UnknownCommand)?;
        let parsed = personal::from_client(|| self.erased.read_command(key, name, body));
        let command =
            parsed.map_err(|error| ParseError::Invalid(explain::violations(registered, body, &error)))?;
        match self.erased.check(&command) {
            violations if violations.is_empty() => Ok(command),
            violations => Err(ParseError::Invalid(violations)),
        }
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
    /// SHA-256 over the state's schema and [`Aggregate::REVISION`](crate::Aggregate::REVISION): a snapshot with another one is discarded.
    pub fn fingerprint(&self) -> annals_record::Hash32 {
        self.erased.fingerprint()
    }
    /// Whose personal data the command carries.
    pub fn data_subject(&self, command: &AnyCommand) -> crate::DataSubject {
        self.erased.data_subject(command)
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

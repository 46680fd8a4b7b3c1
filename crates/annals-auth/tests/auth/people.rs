//! A small domain with personal fields, written without the derive macros.

use annals_domain::catalog::AggregateType;
use annals_domain::{
    Aggregate, AggregateKey, Catalog, Command, CommandType, Context, Event, EventType, EventVersion,
    InvalidKey, Owner, Personal, ReadError, Rejection,
};
use annals_record::{AppName, Key};
use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    name: Personal<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<Personal<String>>,
    aliases: Vec<Personal<String>>,
    /// Looks like an erased field, and is none.
    flag: Flag,
    age: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Flag {
    erased: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    text: String,
    amount: f64,
}

#[derive(Debug, Clone)]
pub(crate) enum PersonCommand {
    Register(Register),
    Note(Note),
}

impl Command for PersonCommand {
    fn types() -> Vec<CommandType> {
        vec![
            CommandType {
                name: "register",
                doc: "",
                schema: || schema_for!(Register),
            },
            CommandType {
                name: "note",
                doc: "",
                schema: || schema_for!(Note),
            },
        ]
    }
    fn name(&self) -> &'static str {
        match self {
            Self::Register(_) => "register",
            Self::Note(_) => "note",
        }
    }
    fn read(name: &str, data: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        match name {
            "register" => Some(serde_json::from_slice(data).map(Self::Register)),
            "note" => Some(serde_json::from_slice(data).map(Self::Note)),
            _ => None,
        }
    }
    fn write<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Register(data) => data.serialize(serializer),
            Self::Note(data) => data.serialize(serializer),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Registered {}

impl Event for Registered {
    fn types() -> Vec<EventType> {
        vec![EventType {
            name: "person.registered",
            doc: "",
            versions: vec![EventVersion {
                number: 1,
                schema: || schema_for!(Registered),
            }],
            erasure: false,
        }]
    }
    fn event_type(&self) -> &'static str {
        "person.registered"
    }
    fn schema(&self) -> u32 {
        1
    }
    fn write<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }
    fn read(event_type: &str, _schema: u32, data: &RawValue) -> Result<Self, ReadError> {
        serde_json::from_str(data.get()).map_err(|source| ReadError::Data {
            name: event_type.to_owned(),
            schema: 1,
            source,
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Never {}

impl Rejection for Never {
    const CODES: &'static [&'static str] = &[];
    fn code(&self) -> &'static str {
        match *self {}
    }
    fn write_detail<S: serde::Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        match *self {}
    }
}

#[derive(Debug, Clone)]
pub(crate) struct PersonId(Key);

impl AggregateKey for PersonId {
    fn parse(text: &str) -> Result<Self, InvalidKey> {
        let expected = InvalidKey { expected: "a key" };
        Key::try_from(text).map(Self).map_err(|_| expected)
    }
    fn to_key(&self) -> Key {
        self.0.clone()
    }
    fn schema() -> Schema {
        schema_for!(String)
    }
}

#[derive(Debug, Default, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Person {}

impl Aggregate for Person {
    const CATEGORY: &'static str = "person";
    const RESOURCE: &'static str = "people";
    const REVISION: u32 = 1;
    type Key = PersonId;
    type Command = PersonCommand;
    type Event = Registered;
    type Rejection = Never;

    fn decide(&self, _: &PersonCommand, _: &Context<'_, Self>) -> Result<Vec<Registered>, Never> {
        Ok(vec![Registered {}])
    }
    fn evolve(&mut self, _: &Registered) {}
    fn owner(&self, key: &PersonId, _: &PersonCommand) -> Option<Owner> {
        Some(Owner::new(key.0.as_str()))
    }
}

pub(crate) fn catalog() -> Catalog {
    let app = AppName::try_from("people").unwrap();
    Catalog::builder(app).aggregate::<Person>().build().unwrap()
}

pub(crate) fn person(catalog: &Catalog) -> &AggregateType {
    catalog.resource("people").unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

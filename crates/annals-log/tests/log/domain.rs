//! An aggregate `order` with an event of two schemas, written by hand: what the reader upcasts.

use annals_domain::{
    Aggregate, AggregateKey, Catalog, Command, CommandType, Context, Event, EventType, EventVersion,
    InvalidKey, Owner, ReadError, Rejection,
};
use annals_record::{AppName, Key};
use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

#[derive(Default, Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Order {}

#[derive(Clone, Debug)]
pub struct OrderKey(Key);

/// Schema 2; schema 1 had no `count`, which was one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Happened {
    #[serde(default)]
    pub what: String,
    pub count: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct HappenedV1 {
    #[serde(default)]
    what: String,
}

#[derive(Clone, Debug)]
pub enum NoCommand {}

#[derive(Clone, Debug)]
pub enum NoRejection {}

pub fn catalog() -> Catalog {
    let app = AppName::try_from("example").unwrap();
    Catalog::builder(app).aggregate::<Order>().build().unwrap()
}

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
    const RESOURCE: &'static str = "orders";
    const REVISION: u32 = 1;
    type Key = OrderKey;
    type Command = NoCommand;
    type Event = Happened;
    type Rejection = NoRejection;

    fn decide(&self, command: &NoCommand, _: &Context<'_, Self>) -> Result<Vec<Happened>, NoRejection> {
        match *command {}
    }
    fn evolve(&mut self, _: &Happened) {}
    fn owner(&self, _: &OrderKey, _: &NoCommand) -> Option<Owner> {
        None
    }
}

impl AggregateKey for OrderKey {
    fn parse(text: &str) -> Result<Self, InvalidKey> {
        Key::try_from(text)
            .map(Self)
            .map_err(|_| InvalidKey { expected: "a key" })
    }
    fn to_key(&self) -> Key {
        self.0.clone()
    }
    fn schema() -> Schema {
        schema_for!(String)
    }
}

impl Command for NoCommand {
    fn types() -> Vec<CommandType> {
        Vec::new()
    }
    fn name(&self) -> &'static str {
        match *self {}
    }
    fn read(_: &str, _: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        None
    }
    fn write<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match *self {}
    }
}

impl Event for Happened {
    fn types() -> Vec<EventType> {
        let versions = vec![
            EventVersion {
                number: 1,
                schema: || schema_for!(HappenedV1),
            },
            EventVersion {
                number: 2,
                schema: || schema_for!(Happened),
            },
        ];
        vec![EventType {
            name: "order.happened",
            doc: "",
            versions,
            erasure: false,
        }]
    }
    fn event_type(&self) -> &'static str {
        "order.happened"
    }
    fn schema(&self) -> u32 {
        2
    }
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }
    fn read(event_type: &str, schema: u32, data: &RawValue) -> Result<Self, ReadError> {
        let wrong = |source| ReadError::Data {
            name: event_type.to_owned(),
            schema,
            source,
        };
        if schema == 2 {
            return serde_json::from_str(data.get()).map_err(wrong);
        }
        let old: HappenedV1 = serde_json::from_str(data.get()).map_err(wrong)?;
        Ok(Self {
            what: old.what,
            count: 1,
        })
    }
}

impl Rejection for NoRejection {
    const CODES: &'static [&'static str] = &[];
    fn code(&self) -> &'static str {
        match *self {}
    }
    fn write_detail<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        match *self {}
    }
}

//! The events of commerce by name, their data unread: enough of a catalog for projections.

use annals_domain::{
    Aggregate, AggregateKey, Catalog, Command, CommandType, Context, Event, EventType, EventVersion,
    InvalidKey, Owner, ReadError, Rejection,
};
use annals_record::{AppName, Key};
use serde_json::value::RawValue;

fn any_schema() -> schemars::Schema {
    schemars::Schema::default()
}

#[derive(Debug, Clone)]
pub struct AnyKey(Key);

impl AggregateKey for AnyKey {
    fn parse(text: &str) -> Result<Self, InvalidKey> {
        Key::try_from(text)
            .map(Self)
            .map_err(|_| InvalidKey { expected: "a key" })
    }
    fn to_key(&self) -> Key {
        self.0.clone()
    }
    fn schema() -> schemars::Schema {
        any_schema()
    }
}

#[derive(Debug, Clone)]
pub struct NoCommand;

impl Command for NoCommand {
    fn types() -> Vec<CommandType> {
        Vec::new()
    }
    fn name(&self) -> &'static str {
        "none"
    }
    fn read(_: &str, _: &[u8]) -> Option<Result<Self, serde_json::Error>> {
        None
    }
    fn write<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

#[derive(Debug, Clone)]
pub struct NoRejection;

impl Rejection for NoRejection {
    const CODES: &'static [&'static str] = &[];
    fn code(&self) -> &'static str {
        "none"
    }
    fn write_detail<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

macro_rules! aggregate {
    ($name:ident, $event:ident, $category:literal, $resource:literal, [$($type:literal),*]) => {
        #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub struct $name;

        #[derive(Debug, Clone)]
        pub struct $event(Box<RawValue>);

        impl Event for $event {
            fn types() -> Vec<EventType> {
                let versions = || vec![EventVersion { number: 1, schema: any_schema }];
                vec![$(EventType {
                    name: concat!($category, ".", $type),
                    doc: "",
                    versions: versions(),
                    erasure: false,
                }),*]
            }
            fn event_type(&self) -> &'static str {
                concat!($category, ".any")
            }
            fn schema(&self) -> u32 {
                1
            }
            fn write<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde::Serialize::serialize(&self.0, serializer)
            }
            fn read(_: &str, _: u32, data: &RawValue) -> Result<Self, ReadError> {
                Ok(Self(data.to_owned()))
            }
        }

        impl Aggregate for $name {
            const CATEGORY: &'static str = $category;
            const RESOURCE: &'static str = $resource;
            const REVISION: u32 = 1;
            type Key = AnyKey;
            type Command = NoCommand;
            type Event = $event;
            type Rejection = NoRejection;
            fn decide(&self, _: &NoCommand, _: &Context<'_, Self>) -> Result<Vec<$event>, NoRejection> {
                Ok(Vec::new())
            }
            fn evolve(&mut self, _: &$event) {}
            fn owner(&self, _: &AnyKey, _: &NoCommand) -> Option<Owner> {
                None
            }
        }
    };
}

aggregate!(
    Product,
    ProductEvent,
    "product",
    "products",
    [
        "registered",
        "repriced",
        "stock_received",
        "stock_adjusted",
        "stock_reserved",
        "reservation_released",
        "stock_shipped",
        "discontinued",
        "reinstated"
    ]
);
aggregate!(
    Customer,
    CustomerEvent,
    "customer",
    "customers",
    [
        "registered",
        "contact_changed",
        "order_admitted",
        "blocked",
        "unblocked",
        "erased"
    ]
);
aggregate!(
    Order,
    OrderEvent,
    "order",
    "orders",
    [
        "placed",
        "confirmed",
        "rejected",
        "cancelled",
        "shipped",
        "delivered",
        "returned"
    ]
);
aggregate!(
    Payment,
    PaymentEvent,
    "payment",
    "payments",
    [
        "requested",
        "authorized",
        "declined",
        "captured",
        "voided",
        "refunded"
    ]
);

pub fn commerce() -> Catalog {
    Catalog::builder(AppName::try_from("commerce").unwrap())
        .aggregate::<Product>()
        .aggregate::<Customer>()
        .aggregate::<Order>()
        .aggregate::<Payment>()
        .build()
        .unwrap()
}

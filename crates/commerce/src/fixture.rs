//! What the tests of all aggregates share: ids, money, and commands from JSON as clients write them.

use annals_domain::{Aggregate, Command as _};
use serde_json::{Value, json};

use crate::limits::{CustomerId, OrderId, Sku};
use crate::money::{Money, Price};

/// An order by number.
pub(crate) fn order(n: u128) -> OrderId {
    OrderId::new(uuid::Uuid::from_u128(
        0x0192_f1c0_0000_7000_8000_0000_0000_0000 + n,
    ))
}

/// A customer by number.
pub(crate) fn customer(n: u128) -> CustomerId {
    CustomerId::new(uuid::Uuid::from_u128(
        0x0192_f1c0_0000_7000_8000_0000_0001_0000 + n,
    ))
}

/// A product by name.
pub(crate) fn sku(text: &str) -> Sku {
    text.parse().unwrap()
}

/// Dollars in cents, as a price.
pub(crate) fn usd_price(amount: i64) -> Price {
    serde_json::from_value(usd(amount)).unwrap()
}

/// Dollars in cents, as money.
pub(crate) fn usd_money(amount: i64) -> Money {
    serde_json::from_value(usd(amount)).unwrap()
}

/// Dollars in cents.
pub(crate) fn usd(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "USD" })
}

/// Euros in cents.
pub(crate) fn eur(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "EUR" })
}

/// The command `name` with these data.
pub(crate) fn command<A: Aggregate>(name: &str, data: Value) -> A::Command {
    A::Command::read(name, data.to_string().as_bytes())
        .unwrap_or_else(|| panic!("there is a command `{name}`"))
        .unwrap_or_else(|error| panic!("{name} {data}: {error}"))
}

/// The event `name` with these data, of schema 1.
pub(crate) fn event<A: Aggregate>(name: &str, data: Value) -> A::Event {
    let raw = serde_json::value::to_raw_value(&data).unwrap();
    annals_domain::Event::read(name, 1, &raw).unwrap_or_else(|error| panic!("{name} {data}: {error}"))
}

/// The version of a stream.
pub(crate) fn version(n: u64) -> annals_record::Version {
    annals_record::Version::new(n)
}

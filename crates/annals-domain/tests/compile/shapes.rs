//! Variants and enums that the derives cannot take.

use annals_domain as annals;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Place {}

#[derive(Debug, Clone, annals::Command)]
enum NamedFields {
    Place { sku: String },
}

#[derive(Debug, Clone, annals::Command)]
enum TwoStructs {
    Place(Place, Place),
}

#[derive(Debug, Clone, annals::Command)]
enum SameName {
    Place(Place),
    #[command(name = "place")]
    Order(Place),
}

#[derive(Debug, Clone, annals::Command)]
struct NoEnum {}

#[derive(Debug, Clone, annals::Rejection)]
enum UnnamedFields {
    OutOfStock(u32),
}

#[derive(Debug, annals::Input)]
enum Unit {
    TimedOut,
}

fn main() {}

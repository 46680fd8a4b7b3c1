//! An older shape without an upcaster, and attributes that contradict each other.

use annals_domain as annals;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Placed {}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct PlacedV1 {}

#[derive(Debug, Clone, annals::Event)]
#[event(category = "order")]
enum NoUpcaster {
    #[event(schema = 2, was(PlacedV1))]
    Placed(Placed),
}

#[derive(Debug, Clone, annals::Event)]
#[event(category = "order")]
enum Miscounted {
    #[event(schema = 3, was(PlacedV1))]
    Placed(Placed),
}

#[derive(Debug, Clone, annals::Event)]
enum NoCategory {
    Placed(Placed),
}

#[derive(Debug, Clone, annals::Event)]
#[event(category = "order-line")]
enum BadCategory {
    Placed(Placed),
}

#[derive(Debug, Clone, annals::Event)]
#[event(category = "order")]
enum BadAttribute {
    #[event(version = 2)]
    Placed(Placed),
}

fn main() {}

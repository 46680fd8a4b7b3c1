//! An aggregate without the owner, and derives that were forgotten.

use annals_domain::{self as annals, Aggregate, Context, Empty, Owner};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

annals::uuid_key!(
    struct OrderId;
);

#[derive(Debug, Clone, annals::Command)]
enum Command {
    Place,
}

#[derive(Debug, Clone, annals::Event)]
#[event(category = "order")]
enum Event {
    Placed(Empty),
}

#[derive(Debug, Clone, annals::Rejection)]
enum Rejection {
    AlreadyPlaced,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
struct NoOwner {}

impl Aggregate for NoOwner {
    const CATEGORY: &'static str = "order";
    const RESOURCE: &'static str = "orders";
    const REVISION: u32 = 1;
    type Key = OrderId;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, _: &Command, _: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> {
        Ok(Vec::new())
    }
    fn evolve(&mut self, _: &Event) {}
}

#[derive(Debug, Clone)]
enum Underived {}

#[derive(Debug, Clone, Default)]
struct NoDerives {}

impl Aggregate for NoDerives {
    const CATEGORY: &'static str = "order";
    const RESOURCE: &'static str = "orders";
    const REVISION: u32 = 1;
    type Key = OrderId;
    type Command = Underived;
    type Event = Underived;
    type Rejection = Underived;

    fn decide(&self, _: &Underived, _: &Context<'_, Self>) -> Result<Vec<Underived>, Underived> {
        Ok(Vec::new())
    }
    fn evolve(&mut self, _: &Underived) {}
    fn owner(&self, _: &OrderId, _: &Underived) -> Option<Owner> {
        None
    }
}

fn main() {}

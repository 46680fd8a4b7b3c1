//! A small shop: one aggregate with everything that a domain can have.

use annals_domain::{self as annals, Aggregate, Bounded, Context, Owner, Personal, Text, Violation, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::violations::Pay;

annals::uuid_key!(
    /// The id of an order.
    pub struct OrderId;
);

annals::text_key!(
    /// A stock keeping unit.
    pub struct Sku(max = 64);
);

#[derive(Debug, Clone, annals::Command)]
pub(crate) enum Command {
    /// Places an order
    /// of one article.
    ///
    /// More that clients need not read.
    Place(Place),
    Confirm,
    #[command(name = "call-off")]
    Cancel(Cancel),
    /// Changes nothing; it is there for its shape.
    Pay(Pay),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) sku: Sku,
    pub(crate) quantity: Bounded<1, 1_000>,
    pub(crate) customer: OrderId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<Personal<Text<20>>>,
    #[serde(default)]
    pub(crate) tags: Vec<Text<5>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancel {
    pub(crate) reason: Text<500>,
}

#[derive(Debug, Clone, PartialEq, Eq, annals::Event)]
#[event(category = "order")]
pub(crate) enum Event {
    /// An order came in.
    #[event(schema = 3, was(PlacedV1, PlacedV2))]
    Placed(Placed),
    Confirmed,
    #[event(erasure)]
    CalledOff(CalledOff),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Placed {
    pub(crate) sku: Sku,
    pub(crate) quantity: i64,
    pub(crate) customer: Option<OrderId>,
    pub(crate) note: Option<Personal<Text<20>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PlacedV1 {
    sku: Sku,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PlacedV2 {
    sku: Sku,
    quantity: i64,
}

impl From<PlacedV1> for Placed {
    fn from(older: PlacedV1) -> Self {
        Self {
            sku: older.sku,
            quantity: 1,
            customer: None,
            note: None,
        }
    }
}

impl From<PlacedV2> for Placed {
    fn from(older: PlacedV2) -> Self {
        Self {
            sku: older.sku,
            quantity: older.quantity,
            customer: None,
            note: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct CalledOff {
    pub(crate) reason: Text<500>,
}

#[derive(Debug, Clone, PartialEq, Eq, annals::Rejection)]
pub(crate) enum Rejection {
    AlreadyPlaced,
    UnknownOrder,
    WrongStatus {
        status: Status,
        r#type: u8,
    },
    #[rejection(code = "too_late")]
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Placed,
    Confirmed,
    CalledOff,
}

/// The state of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Order {
    pub(crate) status: Option<Status>,
    pub(crate) customer: Option<OrderId>,
    pub(crate) quantity: i64,
}

impl Order {
    fn must_be(&self, status: Status) -> Result<(), Rejection> {
        let is = self.status.ok_or(Rejection::UnknownOrder)?;
        ensure(
            is == status,
            Rejection::WrongStatus {
                status: is,
                r#type: 7,
            },
        )
    }
}

impl Aggregate for Order {
    const CATEGORY: &'static str = "order";
    const RESOURCE: &'static str = "orders";
    const REVISION: u32 = 1;
    const KEYLESS: &'static [&'static str] = &["place"];
    type Key = OrderId;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, ctx: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Place(c) => {
                ensure(self.status.is_none(), Rejection::AlreadyPlaced)?;
                Ok(vec![Event::Placed(Placed {
                    sku: c.sku.clone(),
                    quantity: c.quantity.get(),
                    customer: Some(c.customer),
                    note: c.note.clone(),
                })])
            }
            Command::Confirm if self.status == Some(Status::Confirmed) => Ok(Vec::new()),
            Command::Pay(_) => Ok(Vec::new()),
            Command::Confirm => self.must_be(Status::Placed).map(|()| vec![Event::Confirmed]),
            Command::Cancel(c) => {
                ensure(ctx.time().timestamp() < 2_000_000_000, Rejection::Late)?;
                self.must_be(Status::Placed)?;
                Ok(vec![Event::CalledOff(CalledOff {
                    reason: c.reason.clone(),
                })])
            }
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Placed(e) => {
                self.status = Some(Status::Placed);
                self.customer = e.customer;
                self.quantity = e.quantity;
            }
            Event::Confirmed => self.status = Some(Status::Confirmed),
            Event::CalledOff(_) => self.status = Some(Status::CalledOff),
        }
    }

    fn owner(&self, _: &OrderId, command: &Command) -> Option<Owner> {
        match command {
            Command::Place(c) => Some(c.customer.into()),
            Command::Confirm | Command::Cancel(_) | Command::Pay(_) => self.customer.map(Owner::from),
        }
    }

    fn check(command: &Command) -> Vec<Violation> {
        match command {
            Command::Place(c) if c.tags.len() > 2 => {
                vec![Violation::at("/tags", "must have at most 2 items")]
            }
            Command::Place(_) | Command::Confirm | Command::Cancel(_) | Command::Pay(_) => Vec::new(),
        }
    }
}

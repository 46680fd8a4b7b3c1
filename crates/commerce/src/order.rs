//! Orders: what a customer wants, at which prices, and how far it has come.
//!
//! ```text
//! placed ──► confirmed ──► shipped ──► delivered ──► returned (all of it)
//!    ├──► rejected  └──► cancelled
//!    └──► cancelled
//! ```
//!
//! *Invariant:* confirming and cancelling exclude each other in time, because this stream alone decides: whoever
//! asks second is refused.

#![deny(clippy::wildcard_enum_match_arm)]

mod shapes;

use std::collections::BTreeMap;

use annals_domain::{self as annals, Aggregate, Context, Owner, Violation, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{
    Amount, CustomerId, Day, LineNumber, LineQuantity, OrderId, Sku, UnitPrice, Units, clamped,
};
use crate::money::{Currency, checked_product, checked_sum};
pub use shapes::{
    Because, Cancelled, Confirmed, Place, PlaceLine, Placed, PlacedLine, Return, ReturnLine, Returned,
    ReturnedLine, Shipment,
};

/// What an order can be asked.
#[derive(Debug, Clone, annals::Command)]
pub enum Command {
    /// Places an order.
    Place(Place),
    /// Promises it: everything is reserved and its payment authorized.
    Confirm,
    /// Turns it down.
    Reject(Because),
    /// Calls it off, before it is shipped.
    Cancel(Because),
    /// Hands it to a carrier.
    Ship(Shipment),
    /// Says that it arrived.
    Deliver,
    /// Takes back all of it or a part.
    Return(Return),
}

/// What can have happened to an order.
#[derive(Debug, Clone, PartialEq, Eq, annals::Event)]
#[event(category = "order")]
pub enum Event {
    /// It was placed.
    Placed(Placed),
    /// It was promised.
    Confirmed(Confirmed),
    /// It was turned down.
    Rejected(Because),
    /// It was called off.
    Cancelled(Cancelled),
    /// A carrier has it.
    Shipped(Shipment),
    /// It arrived.
    Delivered,
    /// A part of it, or all, came back.
    Returned(Returned),
}

/// How an order's rules say no.
#[derive(Debug, Clone, PartialEq, Eq, annals::Rejection)]
pub enum Rejection {
    /// There is such an order.
    AlreadyPlaced,
    /// There is no such order.
    UnknownOrder,
    /// Its day has not come yet, in UTC.
    DateInFuture,
    /// It has come too far, or not far enough.
    WrongStatus {
        /// How far it has come.
        status: Status,
    },
    /// The order has no line of this number.
    NoSuchLine {
        /// Which number.
        line: LineNumber,
    },
    /// More comes back than was sent and has not come back yet.
    ReturnExceedsOrder {
        /// Of which line.
        line: LineNumber,
    },
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It waits for the checkout.
    Placed,
    /// It is promised.
    Confirmed,
    /// It was turned down.
    Rejected,
    /// It was called off.
    Cancelled,
    /// It is on its way.
    Shipped,
    /// It arrived; a part of it may have come back.
    Delivered,
    /// All of it came back.
    Returned,
}

/// An order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Order(Option<Book>);

/// What is known of an order that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Book {
    status: Status,
    customer: CustomerId,
    currency: Currency,
    ordered_on: Day,
    total: Amount,
    units: Units,
    /// In order, numbered from 1; at most 100.
    lines: Vec<BookLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct BookLine {
    sku: Sku,
    quantity: LineQuantity,
    unit_price: UnitPrice,
    /// How many came back; at most `quantity`.
    returned: i64,
}

impl Order {
    /// How far it has come; `None` if there is no such order.
    pub fn status(&self) -> Option<Status> {
        self.0.as_ref().map(|book| book.status)
    }

    /// The order, if it is at one of `allowed`.
    fn at(&self, allowed: &[Status]) -> Result<&Book, Rejection> {
        let book = self.0.as_ref().ok_or(Rejection::UnknownOrder)?;
        let status = book.status;
        ensure(allowed.contains(&status), Rejection::WrongStatus { status })?;
        Ok(book)
    }

    fn place(&self, c: &Place, ctx: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> {
        ensure(self.0.is_none(), Rejection::AlreadyPlaced)?;
        let today = Day::nearest(ctx.today());
        let ordered_on = c.ordered_on.unwrap_or(today);
        ensure(ordered_on <= today, Rejection::DateInFuture)?;
        Ok(vec![Event::Placed(Placed::of(c, ordered_on))])
    }
}

impl Book {
    fn of(placed: &Placed) -> Self {
        let lines = placed.lines.iter().map(|line| BookLine {
            sku: line.sku.clone(),
            quantity: line.quantity,
            unit_price: line.unit_price,
            returned: 0,
        });
        Self {
            status: Status::Placed,
            customer: placed.customer,
            currency: placed.currency,
            ordered_on: placed.ordered_on,
            total: placed.total,
            units: placed.units,
            lines: lines.collect(),
        }
    }

    fn line(&self, number: LineNumber) -> Option<&BookLine> {
        let index = usize::try_from(number.get()).ok()?.checked_sub(1)?;
        self.lines.get(index)
    }

    fn confirmed(&self) -> Confirmed {
        Confirmed {
            customer: self.customer,
            currency: self.currency,
            ordered_on: self.ordered_on,
            total: self.total,
            units: self.units,
        }
    }

    /// What there is to take back: nothing, if it was never counted.
    fn cancelled(&self, c: &Because) -> Cancelled {
        let counted = i128::from(self.status == Status::Confirmed);
        Cancelled {
            reason: c.reason.clone(),
            customer: self.customer,
            currency: self.currency,
            ordered_on: self.ordered_on,
            total: clamped(counted * i128::from(self.total.get())),
            units: clamped(counted * i128::from(self.units.get())),
        }
    }

    /// What comes back, each line once; or the first line that cannot.
    fn returned(&self, c: &Return) -> Result<Returned, Rejection> {
        let mut wanted = BTreeMap::<LineNumber, i64>::new();
        for asked in c.lines.iter() {
            let line = asked.line;
            let kept = self.line(line).ok_or(Rejection::NoSuchLine { line })?;
            let sum = wanted.entry(line).or_default();
            *sum = sum.saturating_add(asked.quantity.get());
            ensure(*sum <= kept.left(), Rejection::ReturnExceedsOrder { line })?;
        }
        let complete = self.lines.iter().zip(1_i64..).all(|(kept, number)| {
            let back = LineNumber::new(number)
                .ok()
                .and_then(|number| wanted.get(&number));
            back.copied().unwrap_or(0) == kept.left()
        });
        let lines: Vec<_> = wanted
            .into_iter()
            .filter_map(|(line, quantity)| {
                let kept = self.line(line)?;
                let quantity = clamped(quantity.into());
                Some(ReturnedLine {
                    line,
                    sku: kept.sku.clone(),
                    quantity,
                    amount: amount(quantity, kept.unit_price),
                })
            })
            .collect();
        Ok(Returned {
            reason: c.reason.clone(),
            customer: self.customer,
            currency: self.currency,
            ordered_on: self.ordered_on,
            amount: sum_of(lines.iter().map(|line| line.amount)),
            units: units_of(lines.iter().map(|line| line.quantity)),
            complete,
            lines,
        })
    }

    fn take_back(&mut self, returned: &Returned) {
        for back in &returned.lines {
            let index = usize::try_from(back.line.get())
                .ok()
                .and_then(|number| number.checked_sub(1));
            if let Some(kept) = index.and_then(|index| self.lines.get_mut(index)) {
                kept.returned = kept.returned.saturating_add(back.quantity.get());
            }
        }
        if returned.complete {
            self.status = Status::Returned;
        }
    }
}

impl BookLine {
    /// How many have not come back.
    fn left(&self) -> i64 {
        self.quantity.get().saturating_sub(self.returned)
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
        use Status::{Confirmed, Delivered, Placed, Shipped};
        let event = match command {
            Command::Place(c) => return self.place(c, ctx),
            Command::Confirm => Event::Confirmed(self.at(&[Placed])?.confirmed()),
            Command::Reject(c) => self.at(&[Placed]).map(|_| Event::Rejected(c.clone()))?,
            Command::Cancel(c) => Event::Cancelled(self.at(&[Placed, Confirmed])?.cancelled(c)),
            Command::Ship(c) => self.at(&[Confirmed]).map(|_| Event::Shipped(c.clone()))?,
            Command::Deliver => self.at(&[Shipped]).map(|_| Event::Delivered)?,
            Command::Return(c) => Event::Returned(self.at(&[Delivered])?.returned(c)?),
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: &Event) {
        if let Event::Placed(e) = event {
            self.0 = Some(Book::of(e));
        }
        let Some(book) = &mut self.0 else { return };
        match event {
            Event::Placed(_) => {}
            Event::Confirmed(_) => book.status = Status::Confirmed,
            Event::Rejected(_) => book.status = Status::Rejected,
            Event::Cancelled(_) => book.status = Status::Cancelled,
            Event::Shipped(_) => book.status = Status::Shipped,
            Event::Delivered => book.status = Status::Delivered,
            Event::Returned(e) => book.take_back(e),
        }
    }

    /// The customer of the order, or of the order to be placed.
    fn owner(&self, _: &OrderId, command: &Command) -> Option<Owner> {
        let customer = match command {
            // An order that exists is its customer's, whatever a second `place` says.
            Command::Place(c) => Some(self.0.as_ref().map_or(c.customer, |book| book.customer)),
            Command::Confirm
            | Command::Reject(_)
            | Command::Cancel(_)
            | Command::Ship(_)
            | Command::Deliver
            | Command::Return(_) => self.0.as_ref().map(|book| book.customer),
        };
        customer.map(Owner::from)
    }

    fn check(command: &Command) -> Vec<Violation> {
        match command {
            Command::Place(c) => c.violations(),
            Command::Confirm
            | Command::Reject(_)
            | Command::Cancel(_)
            | Command::Ship(_)
            | Command::Deliver
            | Command::Return(_) => Vec::new(),
        }
    }
}

/// What a line costs. `check` has refused what is beyond the limit.
fn amount(quantity: LineQuantity, unit_price: UnitPrice) -> Amount {
    checked_product(quantity, unit_price).unwrap_or_else(|| clamped(i128::MAX))
}

/// What lines cost together. `check` has refused what is beyond the limit.
fn sum_of(amounts: impl Iterator<Item = Amount>) -> Amount {
    checked_sum(amounts).unwrap_or_else(|| clamped(i128::MAX))
}

/// Pieces of at most 100 lines.
fn units_of(quantities: impl Iterator<Item = LineQuantity>) -> Units {
    clamped(quantities.map(|quantity| i128::from(quantity.get())).sum())
}

#[cfg(test)]
mod tests;

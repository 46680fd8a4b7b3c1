//! Products: a price, and a stock of which orders hold parts until they are shipped.
//!
//! *Invariant:* 0 ≤ reserved ≤ on hand; reserved is the sum of what orders hold.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use annals_domain::{self as annals, Aggregate, Context, Owner, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{Delta, Name, OrderId, Reason, ReceiptQuantity, Reference, ReserveQuantity, Sku};
use crate::money::{Currency, Price};

/// What a product can be asked.
#[derive(Debug, Clone, annals::Command)]
pub enum Command {
    /// Registers a product with its price; the price's currency stays.
    Register(Registration),
    /// Changes the price.
    Reprice(Repricing),
    /// Takes in goods.
    Receive(Receipt),
    /// Corrects the stock after a count.
    Adjust(Adjustment),
    /// Holds a part of the stock for an order.
    Reserve(Reservation),
    /// Gives back what an order holds.
    Release(OfOrder),
    /// Takes what an order holds out of the stock.
    Ship(OfOrder),
    /// Ends the sale; what orders hold can still be shipped.
    Discontinue(Because),
    /// Takes up the sale again.
    Reinstate(Because),
}

/// What can have happened to a product.
#[derive(Debug, Clone, PartialEq, Eq, annals::Event)]
#[event(category = "product")]
pub enum Event {
    /// The product is on sale.
    Registered(Registration),
    /// It has another price.
    Repriced(Repricing),
    /// Goods came in.
    StockReceived(Receipt),
    /// A count was off.
    StockAdjusted(Adjustment),
    /// An order holds a part of the stock.
    StockReserved(Reservation),
    /// An order holds it no longer.
    ReservationReleased(Held),
    /// What an order held has left the stock.
    StockShipped(Held),
    /// It is on sale no longer.
    Discontinued(Because),
    /// It is on sale again.
    Reinstated(Because),
}

/// How a product says no.
#[derive(Debug, Clone, PartialEq, Eq, annals::Rejection)]
pub enum Rejection {
    /// There is such a product.
    AlreadyRegistered,
    /// There is no such product.
    UnknownProduct,
    /// It is not on sale.
    Discontinued,
    /// It is on sale.
    NotDiscontinued,
    /// Its prices are in another currency.
    CurrencyDiffers {
        /// Which one.
        currency: Currency,
    },
    /// It costs something else by now.
    PriceChanged {
        /// What it costs.
        price: Price,
    },
    /// Less is left than was asked for.
    OutOfStock {
        /// How much is left.
        available: i64,
    },
    /// The order holds a part of the stock on other terms.
    ReservationDiffers {
        /// How much it holds.
        quantity: ReserveQuantity,
    },
    /// The order holds nothing.
    NoSuchReservation,
    /// Orders hold more than would be left.
    BelowReserved {
        /// How much they hold.
        reserved: i64,
    },
}

/// What a new product is called and costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// What it is called: a thing's name, nobody's personal data.
    pub name: Name,
    /// What one piece costs.
    pub price: Price,
}

/// What it costs from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repricing {
    /// What one piece costs.
    pub price: Price,
}

/// Goods that came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// How many.
    pub quantity: ReceiptQuantity,
    /// The delivery's number.
    pub reference: Reference,
}

/// A correction of the stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adjustment {
    /// What has to be added to the stock; negative for what is missing.
    pub delta: Delta,
    /// Why.
    pub reason: Reason,
}

/// A part of the stock, for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Which order.
    pub order: OrderId,
    /// How many: all lines of the order together.
    pub quantity: ReserveQuantity,
    /// The price that the order was placed at.
    pub unit_price: Price,
}

/// Whatever an order holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfOrder {
    /// Which order.
    pub order: OrderId,
}

/// What an order held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Which order.
    pub order: OrderId,
    /// How many.
    pub quantity: ReserveQuantity,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// Why.
    pub reason: Reason,
}

/// Whether a product is on sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is.
    Active,
    /// It was.
    Discontinued,
}

/// A product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Product {
    sale: Option<Sale>,
    /// Pieces in the house. Exact: 2^63 would take nine billion of the largest receipts.
    on_hand: i64,
    reserved: i64,
    /// What orders hold now; each holds a piece at least, so there are no more of them than pieces.
    reservations: BTreeMap<OrderId, Terms>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Sale {
    status: Status,
    price: Price,
}

/// What one order holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Terms {
    quantity: ReserveQuantity,
    unit_price: Price,
}

impl Product {
    /// Pieces in the house.
    pub fn on_hand(&self) -> i64 {
        self.on_hand
    }
    /// Pieces that orders hold.
    pub fn reserved(&self) -> i64 {
        self.reserved
    }
    /// Pieces that an order could still have.
    pub fn available(&self) -> i64 {
        self.on_hand.saturating_sub(self.reserved)
    }
    /// Whether it is on sale; `None` if there is no such product.
    pub fn status(&self) -> Option<Status> {
        self.sale.map(|sale| sale.status)
    }
    /// How many pieces `order` holds.
    pub fn held_by(&self, order: OrderId) -> Option<ReserveQuantity> {
        self.reservations.get(&order).map(|terms| terms.quantity)
    }

    fn known(&self) -> Result<Sale, Rejection> {
        self.sale.ok_or(Rejection::UnknownProduct)
    }

    fn register(&self, c: &Registration) -> Result<Vec<Event>, Rejection> {
        ensure(self.sale.is_none(), Rejection::AlreadyRegistered)?;
        Ok(vec![Event::Registered(c.clone())])
    }

    fn reprice(&self, c: &Repricing) -> Result<Vec<Event>, Rejection> {
        let currency = self.known()?.price.currency;
        ensure(
            c.price.currency == currency,
            Rejection::CurrencyDiffers { currency },
        )?;
        Ok(vec![Event::Repriced(c.clone())])
    }

    fn adjust(&self, c: &Adjustment) -> Result<Vec<Event>, Rejection> {
        self.known()?;
        let left = self.on_hand.saturating_add(c.delta.get());
        let reserved = self.reserved;
        ensure(left >= reserved, Rejection::BelowReserved { reserved })?;
        Ok(vec![Event::StockAdjusted(c.clone())])
    }

    /// What an order holds already comes first: asking for it again must get the same answer whatever has
    /// become of price and stock.
    fn reserve(&self, c: &Reservation) -> Result<Vec<Event>, Rejection> {
        let Sale { status, price } = self.known()?;
        if let Some(terms) = self.reservations.get(&c.order) {
            let quantity = terms.quantity;
            let equal = quantity == c.quantity && terms.unit_price == c.unit_price;
            return ensure(equal, Rejection::ReservationDiffers { quantity }).map(|()| Vec::new());
        }
        ensure(status == Status::Active, Rejection::Discontinued)?;
        let currency = price.currency;
        ensure(
            c.unit_price.currency == currency,
            Rejection::CurrencyDiffers { currency },
        )?;
        ensure(c.unit_price == price, Rejection::PriceChanged { price })?;
        let available = self.available();
        ensure(c.quantity.get() <= available, Rejection::OutOfStock { available })?;
        Ok(vec![Event::StockReserved(c.clone())])
    }

    fn held(&self, c: &OfOrder) -> Option<Held> {
        let quantity = self.held_by(c.order)?;
        Some(Held {
            order: c.order,
            quantity,
        })
    }

    fn let_go(&mut self, held: &Held) {
        self.reservations.remove(&held.order);
        self.reserved = self.reserved.saturating_sub(held.quantity.get());
    }

    fn set_status(&mut self, status: Status) {
        if let Some(sale) = &mut self.sale {
            sale.status = status;
        }
    }
}

impl Aggregate for Product {
    const CATEGORY: &'static str = "product";
    const RESOURCE: &'static str = "products";
    const REVISION: u32 = 1;
    type Key = Sku;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, _: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Register(c) => self.register(c),
            Command::Reprice(c) => self.reprice(c),
            Command::Receive(c) => self.known().map(|_| vec![Event::StockReceived(c.clone())]),
            Command::Adjust(c) => self.adjust(c),
            Command::Reserve(c) => self.reserve(c),
            Command::Release(c) => {
                self.known()?;
                Ok(self.held(c).map(Event::ReservationReleased).into_iter().collect())
            }
            Command::Ship(c) => {
                self.known()?;
                let held = self.held(c).ok_or(Rejection::NoSuchReservation)?;
                Ok(vec![Event::StockShipped(held)])
            }
            Command::Discontinue(c) => {
                ensure(self.known()?.status == Status::Active, Rejection::Discontinued)?;
                Ok(vec![Event::Discontinued(c.clone())])
            }
            Command::Reinstate(c) => {
                ensure(
                    self.known()?.status == Status::Discontinued,
                    Rejection::NotDiscontinued,
                )?;
                Ok(vec![Event::Reinstated(c.clone())])
            }
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Registered(e) => {
                self.sale = Some(Sale {
                    status: Status::Active,
                    price: e.price,
                })
            }
            Event::Repriced(e) => {
                if let Some(sale) = &mut self.sale {
                    sale.price = e.price;
                }
            }
            Event::StockReceived(e) => self.on_hand = self.on_hand.saturating_add(e.quantity.get()),
            Event::StockAdjusted(e) => self.on_hand = self.on_hand.saturating_add(e.delta.get()),
            Event::StockReserved(e) => {
                let terms = Terms {
                    quantity: e.quantity,
                    unit_price: e.unit_price,
                };
                self.reservations.insert(e.order, terms);
                self.reserved = self.reserved.saturating_add(e.quantity.get());
            }
            Event::ReservationReleased(e) => self.let_go(e),
            Event::StockShipped(e) => {
                self.let_go(e);
                self.on_hand = self.on_hand.saturating_sub(e.quantity.get());
            }
            Event::Discontinued(_) => self.set_status(Status::Discontinued),
            Event::Reinstated(_) => self.set_status(Status::Active),
        }
    }

    /// Nobody's: a product belongs to the shop.
    fn owner(&self, _: &Sku, _: &Command) -> Option<Owner> {
        None
    }
}

#[cfg(test)]
mod tests;

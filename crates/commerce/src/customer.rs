//! Customers: how to reach them, and whether they may order.
//!
//! *Invariant:* what is personal is kept in the events only, sealed; the state has none of it.

#![deny(clippy::wildcard_enum_match_arm)]

use annals_domain::{self as annals, Aggregate, Context, Owner, Personal, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{Address, CustomerId, Email, Name, OrderId, Reason};
use crate::money::Currency;

/// What a customer can be asked.
#[derive(Debug, Clone, annals::Command)]
pub enum Command {
    /// Registers a customer.
    Register(Contact),
    /// Replaces how to reach the customer.
    ChangeContact(Contact),
    /// Lets an order of the customer go ahead; the first one fixes the currency.
    Admit(Admission),
    /// Takes no more orders from the customer.
    Block(Because),
    /// Takes orders again.
    Unblock(Because),
    /// Destroys what is personal, for good.
    Erase(Because),
}

/// What can have happened to a customer.
#[derive(Debug, Clone, PartialEq, Eq, annals::Event)]
#[event(category = "customer")]
pub enum Event {
    /// The customer is known.
    Registered(Contact),
    /// The customer is reached in another way.
    ContactChanged(Contact),
    /// An order may go ahead.
    OrderAdmitted(Admission),
    /// No more orders are taken.
    Blocked(Because),
    /// Orders are taken again.
    Unblocked(Because),
    /// What was personal is to be unreadable.
    #[event(erasure)]
    Erased(Because),
}

/// How a customer's rules say no.
#[derive(Debug, Clone, PartialEq, Eq, annals::Rejection)]
pub enum Rejection {
    /// There is such a customer.
    AlreadyRegistered,
    /// There is no such customer.
    UnknownCustomer,
    /// No orders are taken from the customer.
    Blocked,
    /// Orders are taken from the customer.
    NotBlocked,
    /// The customer was erased.
    Erased,
    /// The customer pays in another currency.
    CurrencyDiffers {
        /// Which one.
        currency: Currency,
    },
}

/// How to reach a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// What the customer is called.
    pub name: Personal<Name>,
    /// Where electronic mail goes.
    pub email: Personal<Email>,
    /// Where parcels go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Personal<Address>>,
}

/// An order that may go ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// Which order.
    pub order: OrderId,
    /// What it is paid in.
    pub currency: Currency,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// Why.
    pub reason: Reason,
}

/// How a customer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// May order.
    Active,
    /// May not order.
    Blocked,
    /// Is gone for good.
    Erased,
}

/// A customer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Customer {
    status: Option<Status>,
    /// What the first admitted order was paid in.
    currency: Option<Currency>,
}

impl Customer {
    /// How the customer stands; `None` if there is none.
    pub fn status(&self) -> Option<Status> {
        self.status
    }
    /// What the customer pays in, once an order was admitted.
    pub fn currency(&self) -> Option<Currency> {
        self.currency
    }

    /// Active or blocked.
    fn present(&self) -> Result<Status, Rejection> {
        match self.status {
            None => Err(Rejection::UnknownCustomer),
            Some(Status::Erased) => Err(Rejection::Erased),
            Some(status @ (Status::Active | Status::Blocked)) => Ok(status),
        }
    }

    fn register(&self, c: &Contact) -> Result<Vec<Event>, Rejection> {
        ensure(self.status != Some(Status::Erased), Rejection::Erased)?;
        ensure(self.status.is_none(), Rejection::AlreadyRegistered)?;
        Ok(vec![Event::Registered(c.clone())])
    }

    fn admit(&self, c: &Admission) -> Result<Vec<Event>, Rejection> {
        ensure(self.present()? == Status::Active, Rejection::Blocked)?;
        let currency = self.currency.unwrap_or(c.currency);
        ensure(c.currency == currency, Rejection::CurrencyDiffers { currency })?;
        Ok(vec![Event::OrderAdmitted(c.clone())])
    }
}

impl Aggregate for Customer {
    const CATEGORY: &'static str = "customer";
    const RESOURCE: &'static str = "customers";
    const REVISION: u32 = 1;
    const KEYLESS: &'static [&'static str] = &["register"];
    type Key = CustomerId;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, _: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Register(c) => self.register(c),
            Command::ChangeContact(c) => self.present().map(|_| vec![Event::ContactChanged(c.clone())]),
            Command::Admit(c) => self.admit(c),
            Command::Block(c) => {
                ensure(self.present()? == Status::Active, Rejection::Blocked)?;
                Ok(vec![Event::Blocked(c.clone())])
            }
            Command::Unblock(c) => {
                ensure(self.present()? == Status::Blocked, Rejection::NotBlocked)?;
                Ok(vec![Event::Unblocked(c.clone())])
            }
            Command::Erase(c) => self.present().map(|_| vec![Event::Erased(c.clone())]),
        }
    }

    fn evolve(&mut self, event: &Event) {
        match event {
            Event::Registered(_) | Event::Unblocked(_) => self.status = Some(Status::Active),
            Event::ContactChanged(_) => {}
            Event::OrderAdmitted(e) => self.currency = Some(e.currency),
            Event::Blocked(_) => self.status = Some(Status::Blocked),
            Event::Erased(_) => self.status = Some(Status::Erased),
        }
    }

    /// The customer's own.
    fn owner(&self, key: &CustomerId, _: &Command) -> Option<Owner> {
        Some(key.into())
    }
}

#[cfg(test)]
mod tests;

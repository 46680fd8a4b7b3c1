//! Payments: the money of one order, from the request to the last refund. Its key is the order's.
//!
//! ```text
//! requested ──► authorized ──► captured ──► refunded (all of it)
//!    ├──► declined  └──► voided
//!    └──► voided
//! ```
//!
//! *Invariant:* refunds never exceed what was captured.

#![deny(clippy::wildcard_enum_match_arm)]

use annals_domain::{self as annals, Aggregate, Context, Owner, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{CustomerId, OrderId, PaymentMethod, Reason, Reference};
use crate::money::{Currency, Money};

/// What a payment can be asked.
#[derive(Debug, Clone, annals::Command)]
pub enum Command {
    /// Begins the payment of an order.
    Request(Request),
    /// Says that the gateway holds the money.
    Authorize(Authorization),
    /// Says that the gateway refused.
    Decline(Because),
    /// Takes the money.
    Capture,
    /// Lets the money go, before it was taken.
    Void,
    /// Gives back a part of the money, or all.
    Refund(Refund),
}

/// What can have happened to a payment.
#[derive(Debug, Clone, PartialEq, Eq, annals::Event)]
#[event(category = "payment")]
pub enum Event {
    /// It began.
    Requested(Request),
    /// The gateway holds the money.
    Authorized(Authorization),
    /// The gateway refused.
    Declined(Because),
    /// The money was taken.
    Captured(Moved),
    /// The money was let go.
    Voided(Moved),
    /// Money was given back.
    Refunded(Moved),
}

/// How a payment's rules say no.
#[derive(Debug, Clone, PartialEq, Eq, annals::Rejection)]
pub enum Rejection {
    /// There is such a payment.
    AlreadyRequested,
    /// There is no such payment.
    UnknownPayment,
    /// It has come too far, or not far enough.
    WrongStatus {
        /// How far it has come.
        status: Status,
    },
    /// It is in another currency.
    CurrencyDiffers {
        /// Which one.
        currency: Currency,
    },
    /// All refunds together would be more than was captured.
    ExceedsCaptured {
        /// What was captured.
        captured: Money,
    },
}

/// What is to be paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Who pays.
    pub customer: CustomerId,
    /// How much.
    pub amount: Money,
    /// The gateway's token of how.
    pub method: PaymentMethod,
}

/// The gateway's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    /// The gateway's number.
    pub reference: Reference,
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// Why.
    pub reason: Reason,
}

/// How much to give back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refund {
    /// How much.
    pub amount: Money,
}

/// Money that was taken, let go or given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// Whose.
    pub customer: CustomerId,
    /// How much.
    pub amount: Money,
}

/// How far a payment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The gateway is asked.
    Requested,
    /// The gateway holds the money.
    Authorized,
    /// The gateway refused.
    Declined,
    /// The money was taken; a part of it may have been given back.
    Captured,
    /// The money was let go.
    Voided,
    /// All of the money was given back.
    Refunded,
}

/// A payment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Payment(Option<Ledger>);

/// What is known of a payment that was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
struct Ledger {
    status: Status,
    customer: CustomerId,
    amount: Money,
    /// At most `amount`, and nothing before it was captured.
    refunded: Money,
}

impl Payment {
    /// How far it has come; `None` if there is no such payment.
    pub fn status(&self) -> Option<Status> {
        self.0.map(|ledger| ledger.status)
    }
    /// What was captured and not given back; `None` if nothing was captured, or all of it given back.
    pub fn refundable(&self) -> Option<Money> {
        let ledger = self.0.filter(|ledger| ledger.status == Status::Captured)?;
        ledger.amount.checked_sub(ledger.refunded)
    }

    /// The payment, if it is at one of `allowed`.
    fn at(&self, allowed: &[Status]) -> Result<Ledger, Rejection> {
        let ledger = self.0.ok_or(Rejection::UnknownPayment)?;
        let status = ledger.status;
        ensure(allowed.contains(&status), Rejection::WrongStatus { status })?;
        Ok(ledger)
    }

    fn refund(&self, c: &Refund) -> Result<Vec<Event>, Rejection> {
        let ledger = self.at(&[Status::Captured])?;
        let captured = ledger.amount;
        let currency = captured.currency;
        ensure(
            c.amount.currency == currency,
            Rejection::CurrencyDiffers { currency },
        )?;
        let left = captured.checked_sub(ledger.refunded);
        let fits = left.is_some_and(|left| left.checked_sub(c.amount).is_some());
        ensure(fits, Rejection::ExceedsCaptured { captured })?;
        Ok(vec![Event::Refunded(ledger.moved(c.amount))])
    }
}

impl Ledger {
    fn moved(&self, amount: Money) -> Moved {
        Moved {
            customer: self.customer,
            amount,
        }
    }

    fn give_back(&mut self, amount: Money) {
        self.refunded = self.refunded.checked_add(amount).unwrap_or(self.amount);
        if self.refunded == self.amount {
            self.status = Status::Refunded;
        }
    }
}

impl Aggregate for Payment {
    const CATEGORY: &'static str = "payment";
    const RESOURCE: &'static str = "payments";
    const REVISION: u32 = 1;
    type Key = OrderId;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(&self, command: &Command, _: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> {
        use Status::{Authorized, Captured, Requested, Voided};
        match command {
            Command::Request(c) => {
                ensure(self.0.is_none(), Rejection::AlreadyRequested)?;
                Ok(vec![Event::Requested(c.clone())])
            }
            Command::Authorize(c) => self.at(&[Requested]).map(|_| vec![Event::Authorized(c.clone())]),
            Command::Decline(c) => self.at(&[Requested]).map(|_| vec![Event::Declined(c.clone())]),
            Command::Capture if self.status() == Some(Captured) => Ok(Vec::new()),
            Command::Capture => {
                let ledger = self.at(&[Authorized])?;
                Ok(vec![Event::Captured(ledger.moved(ledger.amount))])
            }
            Command::Void if self.status() == Some(Voided) => Ok(Vec::new()),
            Command::Void => {
                let ledger = self.at(&[Requested, Authorized])?;
                Ok(vec![Event::Voided(ledger.moved(ledger.amount))])
            }
            Command::Refund(c) => self.refund(c),
        }
    }

    fn evolve(&mut self, event: &Event) {
        if let Event::Requested(e) = event {
            self.0 = Some(Ledger {
                status: Status::Requested,
                customer: e.customer,
                amount: e.amount,
                refunded: Money::zero(e.amount.currency),
            });
        }
        let Some(ledger) = &mut self.0 else { return };
        match event {
            Event::Requested(_) => {}
            Event::Authorized(_) => ledger.status = Status::Authorized,
            Event::Declined(_) => ledger.status = Status::Declined,
            Event::Captured(_) => ledger.status = Status::Captured,
            Event::Voided(_) => ledger.status = Status::Voided,
            Event::Refunded(e) => ledger.give_back(e.amount),
        }
    }

    /// Nobody's: finance and the checkout move money.
    fn owner(&self, _: &OrderId, _: &Command) -> Option<Owner> {
        None
    }
}

#[cfg(test)]
mod tests;

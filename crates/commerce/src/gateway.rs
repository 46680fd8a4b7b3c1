//! The payment gateway, seen from the checkout: what it is asked, what it is told, and what it answers.
//!
//! Two effects, because they are withdrawn apart: what asks for money may be taken back while it has not been
//! sent; what tells of a payment's fate must arrive.
//!
//! | effect | payload | answer |
//! |---|---|---|
//! | [`AuthorizePayment`] | [`Authorize`] | `payments/authorize` or `payments/decline` |
//! | [`TellGateway`] | [`Notice`] | none: the fate is on the record already |
//!
//! [`http`] is the way to a real gateway, [`sandbox`] the one of development.
//!
//! *Invariant:* only an explicit no becomes `decline`; whatever else goes wrong is an [`EffectError`], which the
//! outbox tries again.

pub mod http;
pub mod sandbox;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use annals_domain::{Effect, EffectError, EffectFuture, SendCommand};
use serde::{Deserialize, Serialize};

use crate::limits::{OrderId, PaymentMethod, Reason, Reference};
use crate::money::Money;
use crate::payment::{self, Payment};

/// Asks the gateway to hold the money of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authorize {
    /// The payment: the order's key.
    pub payment: OrderId,
    /// How much.
    pub amount: Money,
    /// The token of how the customer pays.
    pub method: PaymentMethod,
}

/// Tells the gateway what became of a payment.
///
/// A void is final there: it holds for payments that the gateway has not heard of yet, whose later
/// authorization it declines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case", deny_unknown_fields)]
pub enum Notice {
    /// Take the money that is held.
    Capture {
        /// The payment: the order's key.
        payment: OrderId,
        /// How much.
        amount: Money,
    },
    /// Let the money go.
    Void {
        /// The payment: the order's key.
        payment: OrderId,
    },
    /// Give money back.
    Refund {
        /// The payment: the order's key.
        payment: OrderId,
        /// How much of what was captured.
        amount: Money,
    },
}

/// The gateway's answer to [`Authorize`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The money is held.
    Authorized {
        /// The gateway's number.
        reference: Reference,
    },
    /// An explicit no.
    Declined {
        /// In the gateway's words.
        reason: Reason,
    },
}

/// What a call to the gateway gives back.
pub type GatewayFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, EffectError>> + Send + 'a>>;

/// A way to the gateway. It knows each idempotency key and answers a known one as it did before.
pub trait Gateway: Send + Sync + 'static {
    /// The gateway's host, for the circuit breaker and the allow-list.
    fn target(&self) -> String;
    /// Asks it to hold money.
    fn authorize<'a>(&'a self, ask: &'a Authorize, idempotency_key: &'a str) -> GatewayFuture<'a, Verdict>;
    /// Tells it what became of a payment. A refund that overtakes its capture is to be tried again later.
    fn tell<'a>(&'a self, notice: &'a Notice, idempotency_key: &'a str) -> GatewayFuture<'a, ()>;
}

/// The effect that asks for an authorization.
#[derive(Clone)]
pub struct AuthorizePayment(pub Arc<dyn Gateway>);

/// The effect that tells of captures, voids and refunds.
#[derive(Clone)]
pub struct TellGateway(pub Arc<dyn Gateway>);

impl Effect for AuthorizePayment {
    const NAME: &'static str = "authorize-payment";
    type Payload = Authorize;

    fn target(&self, _: &Authorize) -> String {
        self.0.target()
    }

    fn perform<'a>(&'a self, ask: &'a Authorize, idempotency_key: &'a str) -> EffectFuture<'a> {
        Box::pin(async move {
            let verdict = self.0.authorize(ask, idempotency_key).await?;
            Ok(Some(SendCommand::to::<Payment>(&ask.payment, &verdict.into())))
        })
    }
}

impl Effect for TellGateway {
    const NAME: &'static str = "tell-gateway";
    type Payload = Notice;

    fn target(&self, _: &Notice) -> String {
        self.0.target()
    }

    fn perform<'a>(&'a self, notice: &'a Notice, idempotency_key: &'a str) -> EffectFuture<'a> {
        Box::pin(async move {
            self.0.tell(notice, idempotency_key).await?;
            Ok(None)
        })
    }
}

impl From<Verdict> for payment::Command {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Authorized { reference } => Self::Authorize(payment::Authorization { reference }),
            Verdict::Declined { reason } => Self::Decline(payment::Because { reason }),
        }
    }
}

#[cfg(test)]
mod tests;

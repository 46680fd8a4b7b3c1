//! Effects: what a process asks of the world outside, and how the answer comes back as a command.

use std::future::Future;
use std::pin::Pin;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Retry, SendCommand};

/// What [`Effect::perform`] gives back: nothing runs until the outbox polls it.
pub type EffectFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<SendCommand>, EffectError>> + Send + 'a>>;

/// One kind of request to another system. Sent at least once, so the other system must know the key.
pub trait Effect: Send + Sync + 'static {
    /// Its name in the outbox and in metrics, `payment-gateway`.
    const NAME: &'static str;
    /// What is asked; kept in the outbox as JSON.
    type Payload: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The part of the outside world this request goes to (a host), for the circuit breaker and the allow-list.
    fn target(&self, payload: &Self::Payload) -> String;

    /// Asks once. The outbox sees to the time-out, the retries, the breaker and parking.
    ///
    /// The command in the answer goes through the same outbox, so the answer is on the record.
    fn perform<'a>(&'a self, payload: &'a Self::Payload, idempotency_key: &'a str) -> EffectFuture<'a>;
}

/// An attempt that did not give an answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EffectError {
    /// Whether trying again can help.
    pub retry: Retry,
    /// What was tried and what happened; no secrets, no personal data.
    pub message: String,
}

//! The way to a payment gateway over HTTP: four requests, and what each kind of answer means for the next attempt.
//!
//! | request | body | answer, 200 |
//! |---|---|---|
//! | `POST {url}/authorizations` | `{"payment", "amount", "method"}` | `{"status": "authorized", "reference"}` or `{"status": "declined", "reason"}` |
//! | `POST {url}/captures`, `/refunds` | `{"payment", "amount"}` | any |
//! | `POST {url}/voids` | `{"payment"}` | any |
//!
//! Each carries `Idempotency-Key`. What else may come back:
//!
//! | answer | [`Retry`] |
//! |---|---|
//! | no connection, 408, 425, 429, 503; 409: a request with this key is under way, or a refund overtook its capture | `Later` |
//! | no answer in time, a connection that broke, other 5xx | `Unknown` |
//! | other 4xx, 3xx (redirects are not followed), an answer that does not read or is too large | `Never` |
//!
//! **Source:** draft-ietf-httpapi-idempotency-key-header-07, section 2.7, for 409 and 422.

use std::time::Duration;

use annals_domain::{EffectError, Retry};
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};

use super::{Authorize, Gateway, GatewayFuture, Notice, Verdict};
use crate::limits::{OrderId, Reason, Reference};
use crate::money::Money;

/// More of an answer is not read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How long a gateway may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// One request, from its connection to the answer's last byte. Less than the outbox gives an effect (10 s).
    pub timeout: Duration,
    /// The connection alone.
    pub connect_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
        }
    }
}

/// A gateway at an address. Clones share connections.
#[derive(Debug, Clone)]
pub struct HttpGateway {
    base: Url,
    target: String,
    http: reqwest::Client,
}

/// An address or a machine that no gateway can be reached with.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Not an address.
    #[error("commerce.gateway_url `{url}` is no address ({cause}); it looks like https://gateway.example/v1")]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        cause: String,
    },
    /// The HTTP client cannot be made: the machine's certificates.
    #[error("the HTTP client for the payment gateway cannot be made")]
    Client(#[source] reqwest::Error),
}

/// An amount of a payment: the body of captures and refunds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// Which payment.
    pub(super) payment: OrderId,
    /// How much of it.
    pub(super) amount: Money,
}

/// A payment: the body of voids.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whole {
    /// Which payment.
    pub(super) payment: OrderId,
}

/// The answer to an authorization. Fields that are not known here are left alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(super) enum Decision {
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

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Authorized { reference } => Self::Authorized { reference },
            Decision::Declined { reason } => Self::Declined { reason },
        }
    }
}

impl HttpGateway {
    /// The gateway at `url`; a path in it is kept. A proxy of the environment is used, but not to this machine.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(url: &str, settings: &Settings) -> Result<Self, SetupError> {
        let wrong = |cause: String| SetupError::Url {
            url: url.to_owned(),
            cause,
        };
        let base: Url = url
            .parse()
            .map_err(|error: <Url as std::str::FromStr>::Err| wrong(error.to_string()))?;
        let host = match base.host_str() {
            Some(host) if matches!(base.scheme(), "http" | "https") => host.to_owned(),
            Some(_) | None => {
                return Err(wrong(
                    "it must begin with http:// or https:// and name a host".to_owned(),
                ));
            }
        };
        let mut http = reqwest::Client::builder()
            .timeout(settings.timeout)
            .connect_timeout(settings.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if matches!(host.as_str(), "127.0.0.1" | "localhost" | "[::1]") {
            http = http.no_proxy();
        }
        let target = base.port().map_or(host.clone(), |port| format!("{host}:{port}"));
        Ok(Self {
            target,
            base,
            http: http.build().map_err(SetupError::Client)?,
        })
    }

    /// Asks once; the body of a 2xx.
    async fn post(&self, path: &str, body: &impl Serialize, key: &str) -> Result<Vec<u8>, EffectError> {
        let failed = |retry, what: String| EffectError {
            retry,
            message: format!("`{}` {what} {path}", self.target),
        };
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| failed(Retry::Never, "has an address without room for".to_owned()))?
            .pop_if_empty()
            .push(path);
        let request = self.http.post(url).header("idempotency-key", key).json(body);
        let broken = |error: &reqwest::Error| match error {
            error if error.is_connect() => failed(Retry::Later, "cannot be reached for".to_owned()),
            error if error.is_timeout() => failed(Retry::Unknown, "gave no answer in time to".to_owned()),
            error if error.is_builder() => failed(Retry::Never, "cannot be sent".to_owned()),
            _ => failed(Retry::Unknown, "broke the connection of".to_owned()),
        };
        let mut response = request.send().await.map_err(|error| broken(&error))?;
        let status = response.status();
        if let Some(retry) = refused(status) {
            return Err(failed(retry, format!("answered {} to", status.as_u16())));
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                let what = format!("answered with more than {MAX_ANSWER_BYTES} bytes to");
                return Err(failed(Retry::Never, what));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer)
    }
}

/// What a status other than 2xx means for the next attempt.
fn refused(status: StatusCode) -> Option<Retry> {
    match status {
        status if status.is_success() => None,
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => Some(Retry::Later),
        status if status.is_server_error() => Some(Retry::Unknown),
        _ => Some(Retry::Never),
    }
}

impl Gateway for HttpGateway {
    /// Host, and port where the address names one.
    fn target(&self) -> String {
        self.target.clone()
    }

    fn authorize<'a>(&'a self, ask: &'a Authorize, idempotency_key: &'a str) -> GatewayFuture<'a, Verdict> {
        Box::pin(async move {
            let answer = self.post("authorizations", ask, idempotency_key).await?;
            let decision: Decision = serde_json::from_slice(&answer).map_err(|error| EffectError {
                retry: Retry::Never,
                message: format!("`{}` gave an answer that is no verdict: {error}", self.target),
            })?;
            Ok(decision.into())
        })
    }

    fn tell<'a>(&'a self, notice: &'a Notice, idempotency_key: &'a str) -> GatewayFuture<'a, ()> {
        Box::pin(async move {
            let part = |&payment, &amount| Part { payment, amount };
            match notice {
                Notice::Capture { payment, amount } => {
                    self.post("captures", &part(payment, amount), idempotency_key)
                        .await
                }
                Notice::Refund { payment, amount } => {
                    self.post("refunds", &part(payment, amount), idempotency_key)
                        .await
                }
                Notice::Void { payment } => {
                    let whole = Whole { payment: *payment };
                    self.post("voids", &whole, idempotency_key).await
                }
            }
            .map(drop)
        })
    }
}

#[cfg(test)]
mod tests;

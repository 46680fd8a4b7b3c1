//! What came back: status, headers, bytes; and problem documents.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;

/// The positions that an answer is true at, or that its record has.
pub const ANNALS_POSITION: HeaderName = HeaderName::from_static("annals-position");
/// `true` on a first answer that is given again.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Where it came from, for messages.
    pub url: String,
}

/// A problem document (RFC 9457). Source: 4-http.md.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `/problems/{code}`.
    #[serde(rename = "type", default)]
    pub type_: String,
    /// The stable code.
    #[serde(default)]
    pub code: String,
    /// What the code means.
    #[serde(default)]
    pub title: String,
    /// What happened this time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The id that the server's logs have it under.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub correlation_id: String,
    /// Why the rules said no; with code `rejected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    /// All else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A rejection: the rules said no.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// The rule's code: `out_of_stock`.
    pub code: String,
    /// What the rule said beside it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

impl Response {
    /// A header's text; `None` if it is not there or not ASCII.
    #[must_use]
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Annals-Position`.
    #[must_use]
    pub fn position(&self) -> Option<&str> {
        self.header(ANNALS_POSITION)
    }

    /// Whether this is a first answer given again.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.header(IDEMPOTENT_REPLAYED) == Some("true")
    }

    /// The problem document; `None` if it is none.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        let kind = self.header(CONTENT_TYPE)?;
        if !kind.starts_with("application/problem+json") {
            return None;
        }
        serde_json::from_slice(&self.body).ok()
    }

    /// The rejection's code, if the rules said no.
    #[must_use]
    pub fn rejection(&self) -> Option<String> {
        (self.status == StatusCode::CONFLICT)
            .then(|| self.problem()?.rejection.map(|rejection| rejection.code))?
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Malformed {
            url: self.url.clone(),
            what: format!("status {}, {error}", self.status),
        })
    }

    /// One line for people: status, code, detail.
    #[must_use]
    pub fn summary(&self) -> String {
        let Some(problem) = self.problem() else {
            return format!("status {}", self.status);
        };
        let rejection = problem
            .rejection
            .map(|rejection| match rejection.detail {
                Value::Null => format!(": {}", rejection.code),
                detail => format!(": {} {detail}", rejection.code),
            })
            .unwrap_or_default();
        let detail = match problem.detail.is_empty() {
            true => problem.title,
            false => problem.detail,
        };
        format!("{} {}{rejection} ({detail})", self.status.as_u16(), problem.code)
    }
}

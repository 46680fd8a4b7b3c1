//! One command, and what its acceptance says.

use bytes::Bytes;
use http::Method;
use http::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{Client, Prepared, json_headers};
use crate::error::Error;
use crate::response::Response;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CORRELATION_ID: HeaderName = HeaderName::from_static("correlation-id");
const METADATA: HeaderName = HeaderName::from_static("annals-metadata");

/// What must hold for a command to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The stream is at this version: `If-Match: "3"`.
    Version(u64),
    /// The stream exists: `If-Match: *`.
    Exists,
    /// It does not: `If-None-Match: *`.
    New,
}

/// A command to be sent.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    /// The plural name of the aggregate: `orders`.
    pub resource: &'a str,
    /// The stream's key; `None`: the server makes it.
    pub key: Option<&'a str>,
    /// The command's name: `place`.
    pub name: &'a str,
    /// Its data, JSON; empty: none, which means `{}`.
    pub data: Bytes,
    /// The same for every attempt; at most 255 characters.
    pub idempotency_key: &'a str,
    /// What must hold.
    pub precondition: Precondition,
    /// Carried into the record; `None`: the server makes one.
    pub correlation: Option<&'a str>,
    /// The sender's own, a JSON object of at most 4 KiB; kept in the record.
    pub metadata: Option<&'a str>,
}

impl<'a> Command<'a> {
    /// A command without preconditions.
    pub fn new(
        resource: &'a str,
        key: &'a str,
        name: &'a str,
        data: impl Into<Bytes>,
        idempotency_key: &'a str,
    ) -> Self {
        Self {
            resource,
            key: Some(key),
            name,
            data: data.into(),
            idempotency_key,
            precondition: Precondition::None,
            correlation: None,
            metadata: None,
        }
    }

    /// The same, if this holds.
    #[must_use]
    pub fn only_if(mut self, precondition: Precondition) -> Self {
        self.precondition = precondition;
        self
    }
}

/// What an acceptance says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accepted {
    /// The stream: `order-0192f…`.
    pub stream: String,
    /// Its version after the command.
    pub version: u64,
    /// Where the record is: `3:1042`.
    pub position: String,
    /// The record's id.
    pub record: String,
    /// The events; none if the command changed nothing.
    pub events: Vec<EventRef>,
}

/// An event of an acceptance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventRef {
    /// Its id.
    pub id: String,
    /// Its type: `order.placed`.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its version in the stream, from 1.
    pub stream_version: u64,
}

impl Client {
    /// Sends a command, again with the same key where that may help, and gives the last answer.
    ///
    /// # Errors
    /// [`Error`]; a rejection or another problem is an answer, not an error.
    pub async fn send(&self, command: &Command<'_>) -> Result<Response, Error> {
        let segments = ["v1", command.resource]
            .into_iter()
            .chain(command.key)
            .chain([command.name]);
        let url = self.path(segments)?;
        let mut headers = json_headers();
        let header = |what, text: &str| HeaderValue::from_str(text).map_err(|_| Error::Unsendable { what });
        if !command.idempotency_key.is_empty() {
            headers.insert(
                IDEMPOTENCY_KEY,
                header("the idempotency key", command.idempotency_key)?,
            );
        }
        match command.precondition {
            Precondition::None => None,
            Precondition::Version(version) => headers.insert(IF_MATCH, quoted(version)),
            Precondition::Exists => headers.insert(IF_MATCH, HeaderValue::from_static("*")),
            Precondition::New => headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*")),
        };
        if let Some(correlation) = command.correlation {
            headers.insert(CORRELATION_ID, header("the correlation id", correlation)?);
        }
        if let Some(metadata) = command.metadata {
            headers.insert(METADATA, header("the metadata", metadata)?);
        }
        let prepared = Prepared {
            method: Method::POST,
            url,
            headers,
            body: command.data.clone(),
        };
        self.execute(prepared).await
    }

    /// Sends a command whose data are a value.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_json(
        &self,
        (resource, key, name): (&str, &str, &str),
        data: &Value,
        idempotency_key: &str,
        precondition: Precondition,
    ) -> Result<Response, Error> {
        let command = Command::new(resource, key, name, data.to_string(), idempotency_key);
        self.send(&command.only_if(precondition)).await
    }
}

fn quoted(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes are fit for a header")
}

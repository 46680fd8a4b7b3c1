//! A finished answer that can become a response of its own or a line of a batch.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{Either, Full};

use crate::body::Outbound;
use crate::problem::{CONTENT, Problem, Scene};

/// Position of the record behind an answer, or the positions that a query's answer is true at.
pub(crate) const ANNALS_POSITION: HeaderName = HeaderName::from_static("annals-position");
/// `true` on a first answer that is given again.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The id that ties together all that one request led to.
pub(crate) const CORRELATION_ID: HeaderName = HeaderName::from_static("correlation-id");
/// W3C trace context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The content type of all other answers.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Room for the headers of every usual answer, those that all answers carry among them.
const HEADERS: usize = 12;

/// A finished answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// JSON.
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::with_capacity(HEADERS),
            body: Bytes::new(),
        }
    }

    pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            body,
            ..Self::empty(status)
        }
        .with(CONTENT_TYPE, JSON)
    }

    pub(crate) fn problem(problem: &Problem, scene: Scene<'_>) -> Self {
        let mut reply = Self::empty(problem.status());
        reply.headers.extend(problem.headers().iter().cloned());
        reply.body = problem.bytes(scene);
        reply.with(CONTENT_TYPE, HeaderValue::from_static(CONTENT))
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// With a header whose value is made of what is fit for headers (ids, numbers).
    pub(crate) fn with_text(self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => self.with(name, value),
            Err(_) => self,
        }
    }

    /// [`Self::with_text`] of a text that is given away.
    pub(crate) fn with_owned(self, name: HeaderName, value: impl Into<Bytes>) -> Self {
        match HeaderValue::from_maybe_shared(value.into()) {
            Ok(value) => self.with(name, value),
            Err(_) => self,
        }
    }

    /// Without an entity tag: what goes on has none.
    pub(crate) fn without_tag(mut self) -> Self {
        self.headers.remove(http::header::ETAG);
        self
    }

    pub(crate) fn into_response(self) -> Response {
        self.into_outbound().map(Body::new)
    }

    /// The same with its body as it is.
    pub(crate) fn into_outbound(self) -> Response<Outbound> {
        let mut response = Response::new(Either::Left(Full::new(self.body)));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

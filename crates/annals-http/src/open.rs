//! What needs no token: the description of the interface, its readable form, the pages of error codes.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use utoipa_swagger_ui::{Config, serve};

use crate::edge::Inner;
use crate::problem::{self, Code, Problem};
use crate::reply::JSON;
use crate::route::{Open, reading};

/// These pages run their own scripts and styles, load nothing from elsewhere and call this server only.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
);
const FOR_ALL: HeaderValue = HeaderValue::from_static("public, max-age=300");

impl Inner {
    /// Answers what needs no token.
    ///
    /// # Errors
    /// 404 or 405.
    pub(crate) fn open(&self, method: &Method, open: Open<'_>) -> Result<Response, Problem> {
        let found = match open {
            Open::Description => {
                let description = self
                    .description
                    .get_or_init(|| crate::openapi::document(self).to_string().into());
                page(JSON, description.clone())
            }
            Open::Docs("") => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                // Relative, so that a prefix in front of the server stays: the page's files lie under `docs/`.
                response
                    .headers_mut()
                    .insert(LOCATION, HeaderValue::from_static("docs/"));
                response
            }
            Open::Docs(tail) => docs(tail)?,
            Open::Problem(name) => {
                let code = Code::named(name).ok_or(Code::NotFound)?;
                page(
                    HeaderValue::from_static("text/html; charset=utf-8"),
                    problem::page(code),
                )
            }
        };
        reading(method)?;
        Ok(found)
    }
}

fn docs(tail: &str) -> Result<Response, Problem> {
    let config = Config::from("/v1/openapi.json");
    let file = serve(tail.trim_start_matches('/'), Arc::new(config)).map_err(|error| {
        tracing::error!(%error, "a page of the documentation cannot be made");
        Problem::new(Code::Internal)
    })?;
    let file = file.ok_or(Code::NotFound)?;
    let content = HeaderValue::from_str(&file.content_type).map_err(|_| Code::Internal)?;
    Ok(page(content, Bytes::from(file.bytes.into_owned())))
}

fn page(content: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content);
    headers.insert(CACHE_CONTROL, FOR_ALL);
    headers.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    response
}

//! Every error that leaves this program: its code, its status and its words, as a problem document.
//!
//! A [`Problem`] is made where something is refused and knows nothing of the request; [`Problem::response`] adds
//! what the request adds (`instance`, `correlation_id`). Outside text is written for the caller; what is inside
//! (SQL, addresses, panics) is logged with the correlation id and never gets in.
//!
//! *Invariant:* no other module names a status of 4xx or 5xx or an error code.
//!
//! **Source:** RFC 9457 for the document; the design's table of statuses for the codes.

mod convert;
mod pages;
mod table;

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

pub use pages::{markdown, page};
pub use table::{Code, Entry};

/// The content type of every problem document.
pub const CONTENT: &str = "application/problem+json";
/// `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// `RateLimit-Policy` of the same draft.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// An error on its way to a caller.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    members: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Which request a problem document is about.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The request's path.
    pub instance: &'a str,
    /// The request's correlation id.
    pub correlation: &'a str,
}

impl Problem {
    /// A problem with a code's usual words.
    #[must_use]
    pub fn new(code: Code) -> Self {
        let mut problem = Self {
            code,
            detail: Cow::Borrowed(code.entry().detail),
            members: Vec::new(),
            headers: Vec::new(),
        };
        if let Some(seconds) = code.entry().retry_after_s {
            problem = problem.with_header(RETRY_AFTER, HeaderValue::from(seconds));
        }
        problem
    }

    /// A problem with words of its own; they are read by callers and hold no internals.
    #[must_use]
    pub fn because(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            detail: detail.into(),
            ..Self::new(code)
        }
    }

    /// With an extension member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    /// With a header; another of its name is replaced.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        self
    }

    /// No token, or one that is refused: `why` is fit to be sent.
    ///
    /// **Source:** RFC 6750, section 3.
    #[must_use]
    pub fn unauthenticated(why: Option<&str>) -> Self {
        let challenge = match why {
            None => "Bearer realm=\"annals\"".to_owned(),
            Some(why) => {
                format!("Bearer realm=\"annals\", error=\"invalid_token\", error_description=\"{why}\"")
            }
        };
        let problem = Self::new(Code::Unauthenticated);
        let problem = match why {
            None => problem,
            Some(why) => Self {
                detail: format!("The bearer token is refused: {why}.").into(),
                ..problem
            },
        };
        let challenge =
            HeaderValue::from_str(&challenge).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
        problem.with_header(WWW_AUTHENTICATE, challenge)
    }

    /// A method that the path does not have; `allow` lists those that it has.
    #[must_use]
    pub fn method_not_allowed(allow: &str) -> Self {
        let allow = HeaderValue::from_str(allow).unwrap_or_else(|_| HeaderValue::from_static("OPTIONS"));
        Self::new(Code::MethodNotAllowed).with_header(ALLOW, allow)
    }

    /// A used-up refusal budget.
    ///
    /// **Source:** draft-ietf-httpapi-ratelimit-headers-10; the window is the time that an empty bucket takes to fill.
    #[must_use]
    pub fn refusal_budget(retry_after: Duration, burst: u32, per_minute: u32) -> Self {
        let wait_s = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        let wait_s = wait_s.max(1);
        let window_s = (u64::from(burst) * 60).div_ceil(u64::from(per_minute.max(1)));
        let problem = Self::new(Code::QuotaExceeded).with_header(RETRY_AFTER, HeaderValue::from(wait_s));
        let policy = HeaderValue::from_str(&format!("\"refusals\";q={burst};w={window_s}"));
        let limit = HeaderValue::from_str(&format!("\"refusals\";r=0;t={wait_s}"));
        match (policy, limit) {
            (Ok(policy), Ok(limit)) => problem
                .with_header(RATE_LIMIT_POLICY, policy)
                .with_header(RATE_LIMIT, limit),
            // Digits are fit for a header.
            _ => problem,
        }
    }

    /// A caller that follows as many live changes as one may.
    #[must_use]
    pub fn live_quota(limit: usize) -> Self {
        let detail = format!("You follow {limit} live changes already: end one, then begin another.");
        let problem = Self::because(Code::QuotaExceeded, detail).with_header(RETRY_AFTER, HeaderValue::from(5u32));
        match HeaderValue::from_str(&format!("\"live\";q={limit}")) {
            Ok(policy) => problem
                .with_header(RATE_LIMIT_POLICY, policy)
                .with_header(RATE_LIMIT, HeaderValue::from_static("\"live\";r=0")),
            // Digits are fit for a header.
            Err(_) => problem,
        }
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Its headers, the content type not among them.
    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The document.
    #[must_use]
    pub fn document(&self, scene: Scene<'_>) -> Value {
        let entry = self.code.entry();
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        put("type", format!("/problems/{}", entry.name).into());
        put("title", entry.title.into());
        put("status", entry.status.into());
        put("detail", self.detail.as_ref().into());
        put("instance", scene.instance.into());
        put("code", entry.name.into());
        put("correlation_id", scene.correlation.into());
        for (name, value) in &self.members {
            put(name, value.clone());
        }
        Value::Object(map)
    }

    /// The document's bytes.
    #[must_use]
    pub fn bytes(&self, scene: Scene<'_>) -> Bytes {
        self.document(scene).to_string().into()
    }

    /// The response.
    #[must_use]
    pub fn response(&self, scene: Scene<'_>) -> Response {
        let mut response = Response::new(Body::from(self.bytes(scene)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        response
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

//! One server's address, one source of tokens, one pool of connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::Url;

use crate::error::Error;
use crate::response::Response;
use crate::retry::{self, Retries};
use crate::token::TokenSource;

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// One attempt takes no longer, from its connection to the answer's last byte.
    pub timeout: Duration,
    /// A connection is there within this time or counts as failed.
    pub connect_timeout: Duration,
    /// What is tried again.
    pub retries: Retries,
    /// Speak HTTP/2 without asking first: one connection for all requests.
    pub http2: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            retries: Retries::default(),
            http2: false,
        }
    }
}

/// A client of one server. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    base: Url,
    tokens: Arc<dyn TokenSource>,
    settings: Settings,
}

/// One request, ready to be sent any number of times.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    /// A client of the server at `url` (scheme, host, port; a path in front of `/v1` is kept).
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Setup`].
    pub fn new(url: &str, tokens: Arc<dyn TokenSource>, settings: Settings) -> Result<Self, Error> {
        let wrong = |cause: &dyn std::fmt::Display| Error::Url {
            url: url.to_owned(),
            cause: cause.to_string(),
        };
        let base: Url = url.parse().map_err(|error| wrong(&error))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong(&"it must begin with http:// or https:// and name a host"));
        }
        let mut builder = reqwest::Client::builder()
            .timeout(settings.timeout)
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(1_024)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true);
        if settings.http2 {
            builder = builder.http2_prior_knowledge();
        }
        Ok(Self {
            http: builder.build().map_err(Error::Setup)?,
            base,
            tokens,
            settings,
        })
    }

    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The same server with tokens from elsewhere.
    #[must_use]
    pub fn with_tokens(&self, tokens: Arc<dyn TokenSource>) -> Self {
        Self {
            tokens,
            ..self.clone()
        }
    }

    /// The same server, with another patience.
    #[must_use]
    pub fn with_retries(&self, retries: Retries) -> Self {
        let mut client = self.clone();
        client.settings.retries = retries;
        client
    }

    /// Sends any request; the target is path and query, `/v1/orders?limit=2`. Tried again as [`Retries`] says, so it
    /// must be one that may be repeated.
    ///
    /// Cancel safe in the sense that dropping it gives up the answer, not the request.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn raw(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, Error> {
        let url = self.target(target)?;
        let prepared = Prepared {
            method,
            url,
            headers,
            body,
        };
        self.execute(prepared).await
    }

    /// An address under the server's.
    pub(crate) fn target(&self, target: &str) -> Result<Url, Error> {
        let joined = format!("{}{target}", self.url());
        Url::parse(&joined).map_err(|error| Error::Url {
            url: joined.clone(),
            cause: error.to_string(),
        })
    }

    /// An address of segments, each percent-encoded as it needs.
    pub(crate) fn path<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Result<Url, Error> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Error::Unsendable { what: "the path" })?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    /// Sends until there is an answer that stays, or patience ends; then gives the last answer or failure.
    pub(crate) async fn execute(&self, prepared: Prepared) -> Result<Response, Error> {
        let retries = self.settings.retries;
        let began = tokio::time::Instant::now();
        let mut pauses = retries.pauses();
        let mut attempts = 0_u32;
        loop {
            attempts = attempts.saturating_add(1);
            let outcome = self.once(&prepared).await?;
            let asked = match &outcome {
                Ok(response) if retry::is_passing(response) => retry::retry_after(response),
                Ok(_) => return outcome.map_err(|cause| self.failed(attempts, cause)),
                Err(_) => None,
            };
            let pause = pauses.next().unwrap_or(retries.max);
            match retries.next(began.elapsed(), pause, asked) {
                None => return outcome.map_err(|cause| self.failed(attempts, cause)),
                Some(pause) => {
                    let why = outcome
                        .map_or_else(|error| error.to_string(), |response| response.status.to_string());
                    tracing::debug!(attempts, ?pause, why, "trying again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn once(&self, prepared: &Prepared) -> Result<Result<Response, reqwest::Error>, Error> {
        let mut request = self
            .http
            .request(prepared.method.clone(), prepared.url.clone())
            .headers(prepared.headers.clone());
        if let Some(authorization) = self.authorization()? {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !prepared.body.is_empty() {
            request = request.body(prepared.body.clone());
        }
        Ok(async {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            Ok(Response {
                status,
                headers,
                body: response.bytes().await?,
                url: prepared.url.to_string(),
            })
        }
        .await)
    }

    /// The header of the token to send now.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        let Some(token) = self.tokens.token().map_err(Error::Token)? else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
            .map_err(|_| Error::Unsendable { what: "the token" })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    pub(crate) fn failed(&self, attempts: u32, cause: reqwest::Error) -> Error {
        let url = self.url().to_owned();
        match cause.is_connect() {
            true => Error::NotSent { url, attempts, cause },
            false => Error::Unknown { url, attempts, cause },
        }
    }
}

/// The headers of a request with a JSON body.
pub(crate) fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

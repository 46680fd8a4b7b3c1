//! Requests, and what every answer must be.

use std::time::{Duration, Instant};

use annals_record::{ShardCount, StreamId};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method};
use serde_json::Value;

/// How long a condition may take to come true; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(90);
/// As the logs of all these tests are made.
const SHARDS: u32 = 16;

/// A server, as one caller.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Api {
    /// Of a server's address.
    ///
    /// # Panics
    /// If no client can be made.
    #[must_use]
    pub fn new(base: &str, token: Option<String>) -> Self {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .no_proxy();
        let http = client
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client can be made");
        Self {
            http,
            base: base.to_owned(),
            token,
        }
    }

    /// The token in use.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// A request to be made.
    ///
    /// # Panics
    /// If the method is none.
    pub fn call(&self, method: &str, path: &str) -> Call {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Call {
            request,
            path: path.to_owned(),
        }
    }

    /// Reads.
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path).send().await
    }

    /// Reads what is at least as fresh as this position, or these with commas.
    pub async fn get_after(&self, path: &str, position: &str) -> Answer {
        self.call("GET", path)
            .header("annals-after", position)
            .header("prefer", "wait=10")
            .send()
            .await
    }

    /// Sends a command with a key of its own.
    pub async fn post(&self, path: &str, data: &Value) -> Answer {
        self.post_with_key(path, &crate::unique("k"), data).await
    }

    /// Sends a command with this idempotency key.
    pub async fn post_with_key(&self, path: &str, key: &str, data: &Value) -> Answer {
        self.call("POST", path).key(key).json(data).send().await
    }

    /// Sends a command until it is answered for good: what the contract says may pass is sent again, with the same
    /// key.
    pub async fn post_for_good(&self, path: &str, key: &str, data: &Value) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.post_with_key(path, key, data).await;
            if !matches!(answer.status, 503 | 504) || Instant::now() > until {
                return answer;
            }
        }
    }

    /// The position behind the last one of a shard that the read model behind a row has folded.
    async fn unfolded(&self, path: &str, shard: u32) -> String {
        let resource: Vec<_> = path.split(['/', '?']).take(3).collect();
        let list = self.get(&format!("{}?limit=1", resource.join("/"))).await;
        list.is(200).behind(shard, 1)
    }

    /// Reads again and again until `done`, each time waiting for the next record of the shard of `stream` to be
    /// folded: no pauses, no missed moment. A row may still be missing.
    ///
    /// # Panics
    /// If it does not come true in time.
    pub async fn wait_until(&self, path: &str, stream: &str, done: impl Fn(&Value) -> bool) -> Answer {
        let shard = shard_of(stream);
        let until = Instant::now() + PATIENCE;
        let mut after: Option<String> = None;
        let mut last = String::new();
        while Instant::now() < until {
            let seen = match &after {
                Some(_) => None,
                // Read before the row: whatever is missing there comes behind it.
                None => Some(self.unfolded(path, shard).await),
            };
            let mut call = self.call("GET", path).header("prefer", "wait=5");
            if let Some(after) = &after {
                call = call.header("annals-after", after);
            }
            let answer = call.send().await;
            last = answer.text();
            match answer.status {
                503 => continue,
                404 => after = seen,
                _ if done(&answer.is(200).json()) => return answer,
                _ => after = Some(answer.behind(shard, 0)),
            }
        }
        panic!("{path}: not within {PATIENCE:?}; last seen: {last}");
    }
}

/// The shard of a stream.
///
/// # Panics
/// If it is no stream.
#[must_use]
pub fn shard_of(stream: &str) -> u32 {
    let stream: StreamId = stream.parse().expect("a stream id");
    ShardCount::try_from(SHARDS)
        .expect("a shard count")
        .shard_of(&stream)
        .get()
}

/// A request that is being put together.
#[derive(Debug)]
#[must_use]
pub struct Call {
    request: reqwest::RequestBuilder,
    path: String,
}

impl Call {
    /// With this idempotency key, in quotes as the standard has it.
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", &format!("\"{key}\""))
    }

    /// With one more header.
    ///
    /// # Panics
    /// If it is none.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header's value");
        self.request = self.request.header(name, value);
        self
    }

    /// With a JSON body.
    pub fn json(self, data: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(data.to_string())
    }

    /// With a body, and nothing said of its type.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.request = self.request.body(body);
        self
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Panics
    /// If there is none.
    pub async fn send(self) -> Answer {
        let Self { request, path } = self;
        Self { request, path }
            .try_send()
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends it; its body comes as it comes.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn open(self) -> reqwest::Response {
        let sent = self.request.send().await;
        sent.unwrap_or_else(|error| panic!("{}: no answer: {error:?}", self.path))
    }

    /// The same; no answer is told and not the end.
    ///
    /// # Errors
    /// What happened, in words.
    pub async fn try_send(self) -> Result<Answer, String> {
        let told = |error: reqwest::Error| format!("{}: no answer: {error:?}", self.path);
        let response = self.request.send().await.map_err(told)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let told = |error: reqwest::Error| format!("{}: the answer broke off: {error:?}", self.path);
        let body = response.bytes().await.map_err(told)?.to_vec();
        Ok(Answer {
            path: self.path.clone(),
            status,
            headers,
            body,
        })
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The request's path and query.
    pub path: String,
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Itself, if it has this status.
    ///
    /// # Panics
    /// If not, with all of it.
    #[track_caller]
    pub fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}: {}", self.path, self.text());
        self
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, of the right content type.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        let kind = self.header("content-type").unwrap_or_default();
        assert!(
            kind.starts_with("application/json") || kind.starts_with("application/problem+json"),
            "{kind}"
        );
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.path, self.text()))
    }

    /// The member `data` of a 200.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    #[track_caller]
    pub fn data(&self) -> Value {
        self.is(200).json()["data"].clone()
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Annals-Position`.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    #[track_caller]
    pub fn position(&self) -> &str {
        let position = self.header("annals-position");
        position.unwrap_or_else(|| {
            panic!(
                "{}: no Annals-Position: {} {}",
                self.path,
                self.status,
                self.text()
            )
        })
    }

    /// The offset of this shard in `Annals-Position`.
    #[must_use]
    pub fn position_in(&self, shard: u32) -> Option<u64> {
        let positions = self.header("annals-position")?.split(',').map(str::trim);
        let mut pairs = positions.filter_map(|position| position.split_once(':'));
        let (_, offset) = pairs.find(|(of, _)| *of == shard.to_string())?;
        let offset = offset.split_once('~').map_or(offset, |(offset, _)| offset);
        offset.parse().ok()
    }

    /// The position behind that, in the same generation of the log; `none` if the shard is not in it.
    fn behind(&self, shard: u32, none: u64) -> String {
        let next = self.position_in(shard).map_or(none, |offset| offset + 1);
        let generation = self.header("annals-position").and_then(|all| all.split_once('~'));
        let generation = generation.map(|(_, rest)| rest.split(',').next().unwrap_or(rest).trim());
        let generation = generation.map_or(String::new(), |number| format!("~{number}"));
        format!("{shard}:{next}{generation}")
    }

    /// The problem document, if it is one of this status and code with all that the contract says of every one.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}: not {code}: {}", self.path, self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}",
            self.path
        );
        let body = self.json();
        assert_eq!(body["code"], code, "{}: {body}", self.path);
        assert_eq!(body["type"], format!("/problems/{code}"), "{body}");
        for member in ["title", "detail", "instance", "correlation_id"] {
            assert!(
                body[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member}: {body}"
            );
        }
        assert_eq!(
            body["instance"],
            self.path.split('?').next().unwrap_or_default(),
            "{body}"
        );
        assert_eq!(
            body["correlation_id"].as_str(),
            self.header("correlation-id"),
            "{body}"
        );
        for internal in ["panicked", "src/", ".rs:", "SELECT", "postgres://"] {
            assert!(!self.text().contains(internal), "internals in an answer: {body}");
        }
        body
    }

    /// The detail of a rejection with this code.
    ///
    /// # Panics
    /// If it is none, or not on the record.
    #[track_caller]
    pub fn rejection(&self, code: &str) -> Value {
        let body = self.problem(409, "rejected");
        assert_eq!(body["rejection"]["code"], code, "{body}");
        assert!(
            body["record"].is_string() && body["position"].is_string(),
            "not on the record: {body}"
        );
        body["rejection"]["detail"].clone()
    }
}

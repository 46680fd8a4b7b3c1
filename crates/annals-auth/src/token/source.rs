//! Where an issuer's keys come from: a file, or the issuer itself by discovery.

use std::path::PathBuf;
use std::time::Duration;

use annals_record::Hash32;
use annals_record::hash::sha256;
use reqwest::Url;
use serde_json::Value;
use tokio::sync::Mutex;

use super::keys::KeySet;

/// The largest key set or discovery document, in bytes.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// How long one request to the issuer may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long a connection to the issuer may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Where the issuer's public keys are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// A JWK set in a file (`auth.jwks_file`), read again when a token comes that is not known yet.
    File(PathBuf),
    /// An issuer (`auth.issuer`) that is asked for `/.well-known/openid-configuration` and its `jwks_uri`.
    Issuer(String),
}

impl KeySource {
    pub(super) fn validate(&self) -> Result<(), String> {
        match self {
            Self::File(_) => Ok(()),
            Self::Issuer(url) => safe_url(url)
                .map(drop)
                .map_err(|why| format!("auth.issuer: {why}")),
        }
    }
}

/// The issuer's keys could not be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the keys of {place}: {why}")]
pub struct KeysUnavailable {
    place: String,
    why: String,
}

pub(super) enum Loaded {
    NotDue,
    Same,
    Keys(KeySet),
}

/// Loads keys, one at a time, and knows what it loaded last.
pub(super) struct Loader {
    source: KeySource,
    client: reqwest::Client,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    attempt_ms: Option<i64>,
    content: Option<Hash32>,
    number: u64,
}

impl Loader {
    pub(super) fn new(source: KeySource) -> Result<Self, String> {
        // Redirects could lead inside the house.
        let client = reqwest::Client::builder()
            .timeout(REQUEST)
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("auth.issuer: no HTTP client: {error}"))?;
        Ok(Self {
            source,
            client,
            last: Mutex::default(),
        })
    }

    /// After how many ms keys are looked at again.
    pub(super) fn poll_ms(&self) -> i64 {
        match self.source {
            KeySource::File(_) => 1_000,
            KeySource::Issuer(_) => 600_000,
        }
    }

    /// How many ms lie between two looks for a key that is not known: strangers can name any.
    pub(super) fn unknown_key_ms(&self) -> i64 {
        match self.source {
            KeySource::File(_) => 1_000,
            KeySource::Issuer(_) => 30_000,
        }
    }

    /// Whoever comes while another loads waits for it and then finds that it is not due any more.
    pub(super) async fn load(
        &self,
        now_ms: i64,
        due: impl Fn(i64) -> bool,
    ) -> Result<Loaded, KeysUnavailable> {
        let mut last = self.last.lock().await;
        if let Some(attempt_ms) = last.attempt_ms {
            let age_ms = now_ms.saturating_sub(attempt_ms);
            // A clock that was set back must not stop this for long.
            if age_ms >= 0 && !due(age_ms) {
                return Ok(Loaded::NotDue);
            }
        }
        last.attempt_ms = Some(now_ms);
        let json = self.read().await.map_err(|why| self.unavailable(why))?;
        let content = sha256(&json);
        if last.content == Some(content) {
            return Ok(Loaded::Same);
        }
        let number = last.number + 1;
        let keys = KeySet::parse(number, &json).map_err(|why| self.unavailable(why))?;
        last.content = Some(content);
        last.number = number;
        Ok(Loaded::Keys(keys))
    }

    fn unavailable(&self, why: String) -> KeysUnavailable {
        let place = match &self.source {
            KeySource::File(path) => path.display().to_string(),
            KeySource::Issuer(url) => url.clone(),
        };
        KeysUnavailable { place, why }
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match &self.source {
            KeySource::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string()),
            KeySource::Issuer(issuer) => {
                let base = issuer.trim_end_matches('/');
                let well_known = safe_url(&format!("{base}/.well-known/openid-configuration"))?;
                let document = self.get(well_known).await?;
                let document: Value =
                    serde_json::from_slice(&document).map_err(|_| "its discovery document is not JSON")?;
                // OpenID Connect Discovery 1.0, section 4.3: else another could speak for it.
                if document["issuer"].as_str() != Some(issuer) {
                    return Err("its discovery document names another issuer".to_owned());
                }
                let keys = document["jwks_uri"]
                    .as_str()
                    .ok_or("its discovery document has no `jwks_uri`")?;
                self.get(safe_url(keys)?).await
            }
        }
    }

    async fn get(&self, url: Url) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_DOCUMENT_BYTES {
                return Err(format!("its answer is over {MAX_DOCUMENT_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Keys decide who anybody is: they come over TLS, or from this machine.
fn safe_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}` is no URL: {error}"))?;
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if local => Ok(url),
        _ => Err(format!("`{text}` is not an https URL")),
    }
}

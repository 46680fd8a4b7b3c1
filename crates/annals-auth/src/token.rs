//! A bearer token (JWT) becomes an [`Identity`], or a reason for a 401.
//!
//! The signature is checked once; after that the token is known by its SHA-256 until it expires or the issuer's
//! keys change. Algorithms are bound to keys, never taken from the token: a key set's key says what it verifies,
//! and symmetric keys in a key set are ignored.
//!
//! Source: RFC 7519 (JWT), RFC 7517 (JWK), RFC 8725 (JWT best current practices), OpenID Connect Discovery 1.0.

mod claims;
mod keys;
mod source;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use annals_domain::{Ambient, Caller};
use annals_record::{Hash32, hash::sha256};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use jsonwebtoken::Validation;
use metrics::{Counter, counter};
use moka::Expiry;
use serde_json::Value;

use crate::metrics as names;
pub(crate) use claims::{RuleBreak, check_role, check_sub};
use keys::KeySet;
pub use keys::SigningAlgorithm;
pub use source::{KeySource, KeysUnavailable};
use source::{Loaded, Loader};

/// The longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// How many ms lie between two attempts to have any keys at all.
const RETRY_MS: i64 = 1_000;
/// How long a token is remembered at most, in ms; then its signature is checked again.
const MAX_KEPT_MS: i64 = 86_400_000;

/// The settings of section `auth` that concern tokens.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the issuer's public keys are.
    pub keys: KeySource,
    /// What `iss` must be. `None`: it is not looked at (keys from a file, whose holders are all trusted).
    /// With [`KeySource::Issuer`] it is always that issuer.
    pub issuer: Option<String>,
    /// What `aud` must be or contain.
    pub audience: String,
    /// What signatures are accepted.
    pub algorithms: Vec<SigningAlgorithm>,
    /// JSON Pointer (RFC 6901) to the roles, an array of strings.
    pub roles_claim: String,
    /// JSON Pointer to the claim that owned rows are compared with.
    pub owner_claim: String,
    /// How far the issuer's clock may be off, in seconds; 0 to 60.
    pub leeway_s: u32,
    /// How many verified tokens are remembered.
    pub cached_tokens: u64,
}

impl Settings {
    /// The defaults, for keys from `keys` and tokens for `audience`.
    #[must_use]
    pub fn new(keys: KeySource, audience: impl Into<String>) -> Self {
        Self {
            keys,
            issuer: None,
            audience: audience.into(),
            algorithms: SigningAlgorithm::ALL.to_vec(),
            roles_claim: "/roles".to_owned(),
            owner_claim: "/sub".to_owned(),
            leeway_s: 5,
            cached_tokens: 100_000,
        }
    }

    /// # Errors
    /// The first setting that is wrong, in words.
    pub fn validate(&self) -> Result<(), String> {
        let pointer = |name: &str, text: &str| match text.starts_with('/') {
            true => Ok(()),
            false => Err(format!(
                "auth.{name}: `{text}` is no JSON Pointer: it begins with `/`"
            )),
        };
        pointer("roles_claim", &self.roles_claim)?;
        pointer("owner_claim", &self.owner_claim)?;
        if self.audience.is_empty() {
            return Err("auth.audience: empty; name the audience of this backend's tokens".to_owned());
        }
        if self.algorithms.is_empty() {
            return Err("auth.algorithms: empty; EdDSA, ES256 and RS256 can be named".to_owned());
        }
        if self.leeway_s > 60 {
            return Err("auth.leeway_s: at most 60".to_owned());
        }
        self.keys.validate()
    }
}

/// Who a verified token says is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Id, roles and owner claim, as the engine and the record know them.
    pub caller: Caller,
    /// When the token stops being good, leeway included; milliseconds since 1970, exclusive.
    pub expires_ms: i64,
}

/// Why a token is refused. The texts are safe to send: none repeats what the token holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`MAX_TOKEN_BYTES`].
    #[error("the token is too long")]
    TooLong,
    /// Not a JWT.
    #[error("the token is malformed")]
    Malformed,
    /// Its algorithm is not allowed, or not the one of the key that it names.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// No key of the issuer fits.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` is past, or missing.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is another one.
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud` is another one.
    #[error("the token is for another audience")]
    Audience,
    /// `sub`, roles or owner are missing or not of their grammar.
    #[error("the token's claims cannot be used")]
    Claims,
    /// It claims what only nodes may be: role `system`, or a `sub` that begins with `process:`.
    #[error("the token claims what no client can be")]
    Reserved,
    /// The issuer's keys could not be had: a 503, not a 401.
    #[error("the issuer's keys cannot be had now")]
    KeysUnavailable,
}

impl TokenError {
    /// Whether the token may be good and the same request may succeed later (503 in place of 401).
    #[must_use]
    pub fn is_unavailable(self) -> bool {
        self == Self::KeysUnavailable
    }

    /// One word for counters and security events.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::Reserved => "reserved",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }
}

/// The token that came last on one connection, where the next one is the same most often: compared, not hashed and
/// looked up. In constant time, since a proxy's connection carries many callers' tokens.
#[derive(Default)]
pub struct LastToken(Mutex<Option<(Box<str>, Known)>>);

impl LastToken {
    fn is(&self, token: &str) -> Option<Known> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (text, known) = last.as_ref()?;
        verify_slices_are_equal(text.as_bytes(), token.as_bytes()).ok()?;
        Some(known.clone())
    }

    fn put(&self, token: &str, known: Known) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((token.into(), known));
    }
}

impl fmt::Debug for LastToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastToken")
    }
}

/// Verifies tokens, and remembers those that it has verified.
pub struct TokenVerifier {
    rules: claims::Rules,
    algorithms: Vec<SigningAlgorithm>,
    loader: Loader,
    keys: RwLock<Arc<KeySet>>,
    cache: moka::sync::Cache<Hash32, Known>,
    counted: OnceLock<Counter>,
    ambient: Ambient,
}

/// A verified token. A new key set has a new number, and forgets all of them.
#[derive(Clone)]
struct Known {
    key_set: u64,
    identity: Arc<Identity>,
    /// How long it is worth the room.
    kept: Duration,
}

/// Frees the room of expired tokens. What is good is decided by the injected clock, in [`TokenVerifier::cached`].
struct UntilExpired;

impl Expiry<Hash32, Known> for UntilExpired {
    fn expire_after_create(&self, _: &Hash32, known: &Known, _: Instant) -> Option<Duration> {
        Some(known.kept)
    }
    fn expire_after_update(
        &self,
        _: &Hash32,
        known: &Known,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(known.kept)
    }
}

impl TokenVerifier {
    /// Reads no keys yet: [`Self::refresh`] does, and so does the first token.
    ///
    /// # Errors
    /// What [`Settings::validate`] says.
    pub fn new(settings: Settings, ambient: Ambient) -> Result<Self, String> {
        settings.validate()?;
        let issuer = match &settings.keys {
            KeySource::Issuer(url) => Some(url.clone()),
            KeySource::File(_) => settings.issuer,
        };
        Ok(Self {
            rules: claims::Rules {
                issuer,
                audience: settings.audience,
                roles_claim: settings.roles_claim,
                owner_claim: settings.owner_claim,
                leeway_s: i64::from(settings.leeway_s),
            },
            algorithms: settings.algorithms,
            loader: Loader::new(settings.keys)?,
            keys: RwLock::default(),
            cache: moka::sync::Cache::builder()
                .max_capacity(settings.cached_tokens)
                .expire_after(UntilExpired)
                .build(),
            counted: OnceLock::new(),
            ambient,
        })
    }

    /// The caller behind a token that was verified before and is still good: a hash and a look-up, no signature.
    #[must_use]
    pub fn cached(&self, token: &str) -> Option<Arc<Identity>> {
        self.known(token).map(|known| known.identity)
    }

    /// [`Self::cached`] on a connection whose last good token is `last`, or becomes it.
    #[must_use]
    pub fn cached_after(&self, last: &LastToken, token: &str) -> Option<Arc<Identity>> {
        if let Some(known) = last.is(token)
            && self.is_good(&known)
        {
            return Some(known.identity);
        }
        let known = self.known(token)?;
        last.put(token, known.clone());
        Some(known.identity)
    }

    fn known(&self, token: &str) -> Option<Known> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let known = self.cache.get(&sha256(token.as_bytes()))?;
        self.is_good(&known).then_some(known)
    }

    /// Counts those that are.
    fn is_good(&self, known: &Known) -> bool {
        let good = known.key_set == self.keys().number && self.ambient.now_ms() < known.identity.expires_ms;
        if good {
            let counter = self.counted.get_or_init(|| counter!(names::TOKENS_CACHED));
            counter.increment(1);
        }
        good
    }

    /// The caller behind a token. Fetches the issuer's keys if they are old, or if the token names one that is
    /// not known: for such tokens at most once in 30 s (keys in a file: once a second).
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn verify(&self, token: &str) -> Result<Arc<Identity>, TokenError> {
        if let Some(identity) = self.cached(token) {
            return Ok(identity);
        }
        let verified = self.verify_anew(token).await;
        let outcome = verified.as_ref().map_or_else(|error| error.reason(), |_| "ok");
        counter!(names::TOKENS, "outcome" => outcome).increment(1);
        verified
    }

    /// Reads the issuer's keys now. To be called at start, and then every minute or so: that is what makes a key
    /// that the issuer withdrew end the tokens that are remembered.
    ///
    /// # Errors
    /// [`KeysUnavailable`]; the keys that are there stay in use.
    pub async fn refresh(&self) -> Result<(), KeysUnavailable> {
        self.load(|_| true).await
    }

    async fn verify_anew(&self, token: &str) -> Result<Arc<Identity>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| header_error(&error))?;
        let algorithm = SigningAlgorithm::from_jose(header.alg)
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or(TokenError::Algorithm)?;
        // RFC 7515, section 4.1.11: what is critical and not understood is refused; nothing is understood here.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(TokenError::Malformed);
        }
        // A failure to renew keys that are there is no reason to refuse: it is counted and logged.
        let poll_ms = if self.keys().is_empty() {
            RETRY_MS
        } else {
            self.loader.poll_ms()
        };
        let _ = self.load(|age_ms| age_ms >= poll_ms).await;
        let mut keys = self.keys();
        if keys.find(header.kid.as_deref(), algorithm).is_none() {
            let _ = self.load(|age_ms| age_ms >= self.loader.unknown_key_ms()).await;
            keys = self.keys();
        }
        if keys.is_empty() {
            return Err(TokenError::KeysUnavailable);
        }
        let key = keys
            .find(header.kid.as_deref(), algorithm)
            .ok_or(TokenError::UnknownKey)?;
        let claims = jsonwebtoken::decode::<Value>(token, key, &signature_only(algorithm.jose()))
            .map_err(|error| signature_error(&error))?
            .claims;
        let now_ms = self.ambient.now_ms();
        let identity = Arc::new(self.rules.identity(&claims, now_ms)?);
        let left_ms = identity.expires_ms.saturating_sub(now_ms).clamp(0, MAX_KEPT_MS);
        let known = Known {
            key_set: keys.number,
            identity: identity.clone(),
            kept: Duration::from_millis(left_ms.unsigned_abs()),
        };
        self.cache.insert(sha256(token.as_bytes()), known);
        Ok(identity)
    }

    fn keys(&self) -> Arc<KeySet> {
        // Nothing panics while it holds this lock.
        let keys = self
            .keys
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.clone()
    }

    /// Loads the keys if `due` says so of the age of the last attempt, in ms.
    async fn load(&self, due: impl Fn(i64) -> bool) -> Result<(), KeysUnavailable> {
        let loaded = self.loader.load(self.ambient.now_ms(), due).await;
        let outcome = match &loaded {
            Ok(Loaded::NotDue) => return Ok(()),
            Ok(Loaded::Keys(_)) => "changed",
            Ok(Loaded::Same) => "same",
            Err(error) => {
                tracing::warn!(%error, "the token issuer's keys cannot be had");
                "failed"
            }
        };
        counter!(names::KEY_REFRESHES, "outcome" => outcome).increment(1);
        if let Loaded::Keys(keys) = loaded? {
            *self
                .keys
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(keys);
        }
        Ok(())
    }
}

/// Signature and algorithm are the library's business, claims are ours: it has a clock of its own.
pub(crate) fn signature_only(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn header_error(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
        // The header parses as JSON but names an algorithm that the library lacks, `none` among them.
        ErrorKind::Json(json) if json.is_data() => TokenError::Algorithm,
        _ => TokenError::Malformed,
    }
}

pub(crate) fn signature_error(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
        ErrorKind::Json(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidToken => TokenError::Malformed,
        _ => TokenError::Signature,
    }
}

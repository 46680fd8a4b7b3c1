//! An issuer's public keys, each bound to the one algorithm that it verifies.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// The most keys of one set; a larger one is refused.
const MAX_KEYS: usize = 64;

/// A signature algorithm that may be allowed. Symmetric ones cannot be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA with P-256 and SHA-256 (RFC 7518, section 3.4).
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 and keys of at least 2,048 bits (RFC 7518, section 3.3).
    Rs256,
}

impl SigningAlgorithm {
    /// All of them: the default of `auth.algorithms`.
    pub const ALL: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    pub(super) fn jose(self) -> Algorithm {
        match self {
            Self::EdDsa => Algorithm::EdDSA,
            Self::Es256 => Algorithm::ES256,
            Self::Rs256 => Algorithm::RS256,
        }
    }

    pub(super) fn from_jose(algorithm: Algorithm) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.jose() == algorithm)
    }

    /// What a key verifies; `None` if it is of a kind that is not used here.
    fn of(jwk: &Jwk) -> Option<Self> {
        match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(pair) => {
                (pair.curve == EllipticCurve::Ed25519).then_some(Self::EdDsa)
            }
            AlgorithmParameters::EllipticCurve(key) => {
                (key.curve == EllipticCurve::P256).then_some(Self::Es256)
            }
            AlgorithmParameters::RSA(_) => Some(Self::Rs256),
            _ => None,
        }
    }

    fn is_named_by(self, named: KeyAlgorithm) -> bool {
        match self {
            Self::EdDsa => named == KeyAlgorithm::EdDSA,
            Self::Es256 => named == KeyAlgorithm::ES256,
            Self::Rs256 => named == KeyAlgorithm::RS256,
        }
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        })
    }
}

impl FromStr for SigningAlgorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|known| known.to_string() == name);
        known.ok_or_else(|| format!("`{name}` is no algorithm for tokens: EdDSA, ES256 and RS256 are"))
    }
}

/// The keys of an issuer at one time.
#[derive(Default)]
pub(super) struct KeySet {
    /// Another content, another number; 0 before the first.
    pub(super) number: u64,
    keys: Vec<VerifyingKey>,
}

struct VerifyingKey {
    kid: Option<String>,
    algorithm: SigningAlgorithm,
    key: DecodingKey,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517). Keys that cannot be used here are passed over.
    ///
    /// # Errors
    /// In words, if it is no key set or holds no key that can be used.
    pub(super) fn parse(number: u64, json: &[u8]) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(json).map_err(|_| "it is not JSON".to_owned())?;
        let listed = set["keys"].as_array().ok_or("it has no array `keys`")?;
        if listed.len() > MAX_KEYS {
            return Err(format!("it has more than {MAX_KEYS} keys"));
        }
        let keys: Vec<_> = listed.iter().filter_map(VerifyingKey::read).collect();
        if keys.is_empty() {
            return Err("it holds no key for signatures of EdDSA, ES256 or RS256".to_owned());
        }
        Ok(Self { number, keys })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a token names; for a token that names none, the only key of its algorithm.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: SigningAlgorithm) -> Option<&DecodingKey> {
        let fits =
            |key: &&VerifyingKey| key.algorithm == algorithm && (kid.is_none() || key.kid.as_deref() == kid);
        let mut fitting = self.keys.iter().filter(fits);
        let found = fitting.next()?;
        fitting.next().is_none().then_some(&found.key)
    }
}

impl VerifyingKey {
    fn read(json: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
        let algorithm = SigningAlgorithm::of(&jwk)?;
        let fits = jwk
            .common
            .public_key_use
            .as_ref()
            .is_none_or(|used| *used == PublicKeyUse::Signature)
            && jwk
                .common
                .key_algorithm
                .is_none_or(|named| algorithm.is_named_by(named));
        fits.then_some(Self {
            kid: jwk.common.key_id.clone(),
            algorithm,
            key: DecodingKey::from_jwk(&jwk).ok()?,
        })
    }
}

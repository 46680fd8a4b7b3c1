//! The development issuer: an Ed25519 key in the data directory that signs tokens for `dev`, `token` and tests.
//!
//! `issuer.key` (PKCS#8, PEM, mode 0600) and `issuer.jwks` (the public key as a JWK set). The key comes from the
//! system's generator. Not for production: whoever reads the key file is everybody.

use std::path::{Path, PathBuf};

use annals_domain::Ambient;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use zeroize::Zeroizing;

use crate::key_file::{self, KeyFileError};
use crate::token::{RuleBreak, check_role, check_sub};
use annals_record::hash::sha256;

/// The `iss` of the development issuer's tokens.
pub const ISSUER: &str = "annals-dev";
/// The private key's file in the data directory.
pub const KEY_FILE: &str = "issuer.key";
/// The public key's file in the data directory: what `auth.jwks_file` names in `dev`.
pub const JWKS_FILE: &str = "issuer.jwks";

/// What a token of the development issuer says.
#[derive(Debug, Clone)]
pub struct Grant<'a> {
    /// Its `sub`.
    pub sub: &'a str,
    /// Its roles.
    pub roles: &'a [&'a str],
    /// How long it is good, in seconds.
    pub ttl_s: u32,
    /// A claim `owner`, for settings whose `auth.owner_claim` is `/owner`. (By default the owner is `sub`.)
    pub owner: Option<&'a str>,
}

/// Why no token is issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Role `system` or a `sub` that begins with `process:`.
    #[error("no client can have the role `system` or be a `process:`")]
    Reserved,
    /// Empty, too long, or with characters that a claim may not have.
    #[error("subject and roles are short printable text: 1 to 255 and 1 to 64 characters")]
    Grammar,
    /// Does not happen with a key that was read.
    #[error("the token could not be signed")]
    Signing,
}

impl From<RuleBreak> for IssueError {
    fn from(wrong: RuleBreak) -> Self {
        match wrong {
            RuleBreak::Grammar => Self::Grammar,
            RuleBreak::Reserved => Self::Reserved,
        }
    }
}

/// An issuer with its key.
pub struct DevIssuer {
    key: EncodingKey,
    kid: String,
    audience: String,
    jwks_file: PathBuf,
    ambient: Ambient,
}

impl DevIssuer {
    /// Takes the key in `dir`, or makes one; writes the public key beside it. Several processes may do so at once.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open_or_create(dir: &Path, audience: &str, ambient: Ambient) -> Result<Self, KeyFileError> {
        let pem = key_file::read_or_create(&dir.join(KEY_FILE), make_key)?;
        Self::from_pem(dir, &pem, audience, ambient)
    }

    /// Takes the key in `dir`. For clients, which make none.
    ///
    /// # Errors
    /// [`KeyFileError`], also if there is none.
    pub fn open(dir: &Path, audience: &str, ambient: Ambient) -> Result<Self, KeyFileError> {
        let pem = key_file::read(&dir.join(KEY_FILE))?;
        Self::from_pem(dir, &pem, audience, ambient)
    }

    fn from_pem(dir: &Path, pem: &[u8], audience: &str, ambient: Ambient) -> Result<Self, KeyFileError> {
        let path = dir.join(KEY_FILE);
        let wrong = || KeyFileError::content(&path, "an Ed25519 key, PKCS#8 in PEM");
        let der = from_pem(pem).ok_or_else(wrong)?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| wrong())?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let kid = thumbprint(&x);
        let jwks = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": x}
        ]});
        let jwks_file = dir.join(JWKS_FILE);
        let jwks = format!("{jwks}\n");
        if std::fs::read(&jwks_file).ok().as_deref() != Some(jwks.as_bytes()) {
            key_file::replace(&jwks_file, jwks.as_bytes(), 0o644)?;
        }
        Ok(Self {
            key: EncodingKey::from_ed_der(&der),
            kid,
            audience: audience.to_owned(),
            jwks_file,
            ambient,
        })
    }

    /// The file with the public key.
    #[must_use]
    pub fn jwks_file(&self) -> &Path {
        &self.jwks_file
    }

    /// A token.
    ///
    /// # Errors
    /// [`IssueError`]: what every verifier here would refuse is not issued.
    pub fn issue(&self, grant: &Grant<'_>) -> Result<String, IssueError> {
        check_sub(grant.sub)?;
        grant.roles.iter().try_for_each(|role| check_role(role))?;
        let now_s = self.ambient.now_ms().div_euclid(1000);
        let mut claims = json!({
            "iss": ISSUER, "aud": self.audience, "sub": grant.sub, "roles": grant.roles,
            "iat": now_s, "nbf": now_s, "exp": now_s + i64::from(grant.ttl_s),
        });
        if let Some(owner) = grant.owner {
            check_sub(owner)?;
            claims["owner"] = owner.into();
        }
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|_| IssueError::Signing)
    }
}

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// PKCS#8 version 1 (48 bytes): the form that every reader takes.
fn make_key() -> Zeroizing<Vec<u8>> {
    let pair = Ed25519KeyPair::generate().expect("the system's generator answers");
    let der = pair
        .to_pkcs8v1()
        .expect("a key that was just made can be written");
    let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
    // 48 bytes are 64 characters: one line of RFC 7468.
    Zeroizing::new(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", body.as_str()).into_bytes())
}

fn from_pem(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(pem).ok()?.trim();
    let body = text.strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
}

/// RFC 7638 for an Ed25519 key: SHA-256 of its required members in order.
fn thumbprint(x: &str) -> String {
    sha256(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#).as_bytes()).to_base64url()
}

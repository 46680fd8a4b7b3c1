//! The tokens with which nodes call each other, on the internal listener and nowhere else.
//!
//! A node token is a JWT with `alg` `HS256`, `typ` `annals-node+jwt` and `aud` `annals-node`. Symmetric on
//! purpose: every node both signs and verifies with the same file (`node.key_file`, 32 bytes), so a key pair would
//! protect nobody from anybody. The HMAC key is HKDF-SHA256 of the file's key with the label
//! `annals/node-token/v1`, so that the file may serve other ends too. Its holder is a node of the cluster, and
//! may act as any process manager: role `system`, which no client's token can hold.
//!
//! Source: RFC 7515, RFC 7519; explicit typing from RFC 8725, section 3.11.

use std::path::Path;
use std::sync::Arc;

use annals_domain::{Ambient, Caller};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key_file::{self, KeyFileError};
use crate::token::{MAX_TOKEN_BYTES, TokenError, signature_error, signature_only};

/// The audience of node tokens.
pub const AUDIENCE: &str = "annals-node";
/// How long a node token is good, in seconds.
pub const TTL_S: i64 = 60;
/// How far the nodes' clocks may be apart, in seconds: the same bound within which nodes decide at all.
const LEEWAY_S: i64 = 5;
const TYPE: &str = "annals-node+jwt";
const LABEL: &[u8] = b"annals/node-token/v1";
const PROCESS_PREFIX: &str = "process:";

/// The key that all nodes of a cluster share.
pub struct NodeKey {
    signing: EncodingKey,
    verifying: DecodingKey,
    ambient: Ambient,
}

/// Which node calls, and for which process manager if for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The node's id.
    pub node: Arc<str>,
    /// The process manager that sends this command, with role `system`. `None`: a client's request is being
    /// forwarded, and its own token says who asks.
    pub process: Option<Caller>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    iat: i64,
    exp: i64,
}

impl NodeKey {
    /// Takes the key in a file, or makes one (system's generator, mode 0600).
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open_or_create(path: &Path, ambient: Ambient) -> Result<Self, KeyFileError> {
        let bytes = key_file::read_or_create(path, || Zeroizing::new(key_file::random::<32>().to_vec()))?;
        Self::from_bytes(path, &bytes, ambient)
    }

    /// Takes the key in a file: every node of a cluster is given the same.
    ///
    /// # Errors
    /// [`KeyFileError`], also if there is none.
    pub fn open(path: &Path, ambient: Ambient) -> Result<Self, KeyFileError> {
        Self::from_bytes(path, &key_file::read(path)?, ambient)
    }

    fn from_bytes(path: &Path, bytes: &[u8], ambient: Ambient) -> Result<Self, KeyFileError> {
        let key: &[u8; 32] = bytes
            .try_into()
            .map_err(|_| KeyFileError::content(path, "32 random bytes"))?;
        let mut derived = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, &[])
            .extract(key)
            .expand(&[LABEL], HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *derived))
            .expect("32 bytes are one block of HKDF-SHA256");
        Ok(Self {
            signing: EncodingKey::from_secret(&*derived),
            verifying: DecodingKey::from_secret(&*derived),
            ambient,
        })
    }

    /// A token for one call of the node `node`, good for [`TTL_S`]; with `process`, the call is a command of the
    /// process manager of that name.
    #[must_use]
    pub fn issue(&self, node: &str, process: Option<&str>) -> String {
        let now_s = self.ambient.now_ms().div_euclid(1000);
        let claims = Claims {
            aud: AUDIENCE.to_owned(),
            sub: node.to_owned(),
            actor: process.map(|name| format!("{PROCESS_PREFIX}{name}")),
            iat: now_s,
            exp: now_s + TTL_S,
        };
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.to_owned());
        jsonwebtoken::encode(&header, &claims, &self.signing).expect("an HMAC over three strings cannot fail")
    }

    /// Who is behind a node token.
    ///
    /// # Errors
    /// [`TokenError`]; to be recorded as a security event.
    pub fn verify(&self, token: &str) -> Result<NodeIdentity, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let decoded =
            jsonwebtoken::decode::<Claims>(token, &self.verifying, &signature_only(Algorithm::HS256))
                .map_err(|error| signature_error(&error))?;
        let Claims {
            aud,
            sub,
            actor,
            iat,
            exp,
        } = decoded.claims;
        if decoded.header.typ.as_deref() != Some(TYPE) || decoded.header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        if aud != AUDIENCE {
            return Err(TokenError::Audience);
        }
        let now_s = self.ambient.now_ms().div_euclid(1000);
        if now_s >= exp.saturating_add(LEEWAY_S) || exp.saturating_sub(iat) > TTL_S {
            return Err(TokenError::Expired);
        }
        if now_s < iat.saturating_sub(LEEWAY_S) {
            return Err(TokenError::NotYetValid);
        }
        let process = actor.map(|actor| match actor.strip_prefix(PROCESS_PREFIX) {
            Some(name) if !name.is_empty() => Ok(process_caller(&actor)),
            _ => Err(TokenError::Claims),
        });
        Ok(NodeIdentity {
            node: sub.into(),
            process: process.transpose()?,
        })
    }
}

/// The caller that the process manager `name` is.
#[must_use]
pub fn process(name: &str) -> Caller {
    process_caller(&format!("{PROCESS_PREFIX}{name}"))
}

fn process_caller(actor: &str) -> Caller {
    Caller {
        sub: actor.into(),
        roles: [Arc::<str>::from(Caller::SYSTEM)].into(),
        owner: None,
    }
}

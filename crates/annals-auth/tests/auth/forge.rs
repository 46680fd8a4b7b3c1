//! Tokens made by hand, right and wrong, and the public keys that go with them.

use annals_domain::{Ambient, Fixed};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::Arc;

/// 2026-11-01T00:00:00Z, in seconds.
pub(crate) const NOW_S: i64 = 1_793_491_200;
pub(crate) const AUDIENCE: &str = "shop";

pub(crate) fn clock() -> (Ambient, Arc<Fixed>) {
    Ambient::fixed(NOW_S * 1000, 1)
}

pub(crate) enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// A private key with a name.
pub(crate) struct Forge {
    pub(crate) kid: String,
    signer: Signer,
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Forge {
    pub(crate) fn ed(kid: &str) -> Self {
        Self::new(kid, Signer::Ed(Ed25519KeyPair::generate().unwrap()))
    }
    pub(crate) fn ec(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::new(kid, Signer::Ec(pair))
    }
    pub(crate) fn rsa(kid: &str) -> Self {
        Self::new(
            kid,
            Signer::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
        )
    }
    fn new(kid: &str, signer: Signer) -> Self {
        Self {
            kid: kid.to_owned(),
            signer,
        }
    }

    pub(crate) fn alg(&self) -> &'static str {
        match self.signer {
            Signer::Ed(_) => "EdDSA",
            Signer::Ec(_) => "ES256",
            Signer::Rsa(_) => "RS256",
        }
    }

    pub(crate) fn public(&self) -> Vec<u8> {
        match &self.signer {
            Signer::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Signer::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Signer::Rsa(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let public = self.public();
        let mut jwk = match self.signer {
            Signer::Ed(_) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(public)}),
            Signer::Ec(_) => {
                json!({"kty": "EC", "crv": "P-256", "x": b64(&public[1..33]), "y": b64(&public[33..])})
            }
            // SEQUENCE { INTEGER n, INTEGER e }: n begins behind three headers and a zero byte.
            Signer::Rsa(_) => json!({"kty": "RSA", "n": b64(&public[9..265]), "e": "AQAB"}),
        };
        jwk["kid"] = self.kid.as_str().into();
        jwk
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.signer {
            Signer::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.alg(), "typ": "JWT", "kid": self.kid}), claims)
    }

    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        format!("{message}.{}", b64(self.sign(message.as_bytes())))
    }
}

/// Header and claims, as they are signed.
pub(crate) fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
}

pub(crate) fn jwks(forges: &[&Forge]) -> Value {
    json!({"keys": forges.iter().map(|forge| forge.jwk()).collect::<Vec<_>>()})
}

/// Claims of a token that is good for ten minutes.
pub(crate) fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": AUDIENCE, "sub": "ada", "roles": ["clerk"],
           "iat": NOW_S, "exp": NOW_S + 600})
}

/// The same with some claims replaced, or removed by null.
pub(crate) fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    claims
}

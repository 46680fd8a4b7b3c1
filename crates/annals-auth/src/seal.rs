//! The exact bytes of a sealed personal value.
//!
//! ```text
//! text       = "1." ‖ base64url(data subject, UTF-8) ‖ "." ‖ base64url(rest)
//! rest       = 0x01 ‖ salt (32) ‖ nonce (12) ‖ commitment (32) ‖ ciphertext ‖ tag (16)
//! key ‖ commitment = HKDF-SHA256(secret: the data subject's key, salt: salt, info: "annals/personal/v1"), 64 bytes
//! ciphertext ‖ tag = AES-256-GCM(key, nonce, plaintext: the value as JSON text,
//!                                associated data: "annals/personal/v1" ‖ 0x00 ‖ data subject)
//! ```
//!
//! base64url is without padding and has one spelling (spare bits are zero). Each value has a key of its own, since
//! the salt is new. The salt is HMAC-SHA-256 with 32 random bytes as the key over
//! `"annals/personal-salt/v1" ‖ 0x00 ‖ the data subject's key ‖ value`: random as long as either the random bytes
//! or the values differ, so that a generator that repeats itself still makes no two values share a key.
//!
//! GCM alone would let somebody with two keys make one ciphertext that opens with both. The commitment binds it to
//! one: two keys with one commitment are a collision of SHA-256. No record's id is in it, so that a sealed value
//! may be copied into other records.
//!
//! Source: RFC 5869 (HKDF), NIST SP 800-38D (GCM); key commitment after Albertini, Duong, Gueron, Kölbl, Luykx,
//! Schmieg, "How to Abuse and Fix Authenticated Encryption Without Key Commitment" (USENIX Security 2022).

use std::sync::Arc;

use annals_domain::personal::Sealer;
use annals_domain::{Ambient, DataSubject};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::subject::{Key, SubjectKey};

const PREFIX: &str = "1.";
const FORMAT: u8 = 1;
const LABEL: &[u8] = b"annals/personal/v1";
const SALT_LABEL: &[u8] = b"annals/personal-salt/v1\0";
const SALT: std::ops::Range<usize> = 1..33;
const NONCE: std::ops::Range<usize> = 33..45;
const COMMITMENT: std::ops::Range<usize> = 45..77;
/// What comes before the ciphertext.
const HEAD_BYTES: usize = 77;

/// A sealed value, taken apart but not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedValue {
    subject: DataSubject,
    rest: Vec<u8>,
}

impl SealedValue {
    /// Takes a text apart; `None` if it is not of the format.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (subject, rest) = text.strip_prefix(PREFIX)?.split_once('.')?;
        let subject = String::from_utf8(URL_SAFE_NO_PAD.decode(subject).ok()?).ok()?;
        let rest = URL_SAFE_NO_PAD.decode(rest).ok()?;
        let whole = rest.len() >= HEAD_BYTES + AES_256_GCM.tag_len() && rest[0] == FORMAT;
        whole.then(|| Self {
            subject: DataSubject::from_text(&subject),
            rest,
        })
    }

    /// Whose key seals it.
    #[must_use]
    pub fn subject(&self) -> &DataSubject {
        &self.subject
    }

    /// The plain value; `None` if another key sealed it or a bit of it was changed.
    #[must_use]
    pub fn open(&self, key: &Key) -> Option<Value> {
        let derived = Derived::of(key, &self.rest[SALT]);
        verify_slices_are_equal(&*derived.commitment, &self.rest[COMMITMENT]).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(&self.rest[NONCE]).ok()?;
        let mut body = Zeroizing::new(self.rest[HEAD_BYTES..].to_vec());
        let plain = derived
            .key
            .open_in_place(nonce, aad(&self.subject), &mut body)
            .ok()?;
        serde_json::from_slice(plain).ok()
    }
}

/// Seals the personal fields of one data subject.
pub struct SubjectSealer {
    subject: DataSubject,
    key: SubjectKey,
    ambient: Ambient,
}

impl SubjectSealer {
    /// With the key that the data subject has, or had. The random bytes of `ambient` become salts and nonces.
    #[must_use]
    pub fn new(subject: DataSubject, key: SubjectKey, ambient: Ambient) -> Self {
        Self {
            subject,
            key,
            ambient,
        }
    }
}

impl Sealer for SubjectSealer {
    fn seal(&self, plain: &str) -> Option<String> {
        match &self.key {
            SubjectKey::Live(key) => Some(seal(key, &self.subject, plain, &self.ambient)),
            SubjectKey::Destroyed => None,
        }
    }
}

fn seal(key: &Arc<Key>, subject: &DataSubject, plain: &str, ambient: &Ambient) -> String {
    let salt = fresh_salt(key, plain, &ambient.random());
    let nonce: [u8; 12] = ambient.random();
    let derived = Derived::of(key, &salt);
    let mut rest = Vec::with_capacity(HEAD_BYTES + plain.len() + AES_256_GCM.tag_len());
    rest.push(FORMAT);
    rest.extend_from_slice(&salt);
    rest.extend_from_slice(&nonce);
    rest.extend_from_slice(&*derived.commitment);
    // The ciphertext grows in place behind the head, so that no copy of the value is left behind.
    rest.extend_from_slice(plain.as_bytes());
    let tag = derived
        .key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            aad(subject),
            &mut rest[HEAD_BYTES..],
        )
        .expect("a command's body is far below what GCM seals");
    rest.extend_from_slice(tag.as_ref());
    let name = URL_SAFE_NO_PAD.encode(subject.as_str());
    format!("{PREFIX}{name}.{}", URL_SAFE_NO_PAD.encode(&rest))
}

fn fresh_salt(key: &Key, plain: &str, random: &[u8; 32]) -> [u8; 32] {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, random));
    mac.update(SALT_LABEL);
    mac.update(key.bytes());
    mac.update(plain.as_bytes());
    let mut salt = [0; 32];
    salt.copy_from_slice(mac.sign().as_ref());
    salt
}

fn aad(subject: &DataSubject) -> Aad<Vec<u8>> {
    Aad::from([LABEL, &[0], subject.as_str().as_bytes()].concat())
}

/// What one salt makes of a data subject's key.
struct Derived {
    key: LessSafeKey,
    commitment: Zeroizing<[u8; 32]>,
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Derived {
    fn of(key: &Key, salt: &[u8]) -> Self {
        let mut both = Zeroizing::new([0; 64]);
        Salt::new(HKDF_SHA256, salt)
            .extract(key.bytes())
            .expand(&[LABEL], Length(64))
            .and_then(|okm| okm.fill(&mut *both))
            .expect("64 bytes are two blocks of HKDF-SHA256");
        let mut commitment = Zeroizing::new([0; 32]);
        commitment.copy_from_slice(&both[32..]);
        let key = UnboundKey::new(&AES_256_GCM, &both[..32]).expect("32 bytes are an AES-256 key");
        Self {
            key: LessSafeKey::new(key),
            commitment,
        }
    }
}

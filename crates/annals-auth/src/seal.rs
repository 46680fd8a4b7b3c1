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

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by other code: Python's `cryptography` (HKDF, AESGCM), with the data subject's key 32 times 0x07,
    /// salt 0x00 to 0x1f, nonce 0x64 to 0x6f and the value `"Ada Lovelace"`.
    const GOLDEN: &str = "1.Y3VzdG9tZXItMDE5MmYwYzE.AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fZGVmZ2hpamtsbW5v4ZuTyKl9OTBUvXEZPIsiJ9Q8zHFuE8eVeb_s20_kDvw4irKcSyilntiFhvLUhwHfhX4hoNiHnzutX1s3Ows";

    fn subject() -> DataSubject {
        DataSubject::from_text("customer-0192f0c1")
    }

    fn sealed(plain: &str, seed: u64) -> String {
        let (ambient, _) = Ambient::fixed(0, seed);
        seal(&Arc::new(Key::of(7)), &subject(), plain, &ambient)
    }

    #[test]
    fn opens_what_another_implementation_sealed() {
        let value = SealedValue::parse(GOLDEN).unwrap();
        assert_eq!(value.subject(), &subject());
        assert_eq!(value.open(&Key::of(7)), Some("Ada Lovelace".into()));
        assert_eq!(value.open(&Key::of(8)), None);
    }

    #[test]
    fn what_is_sealed_opens_again_and_looks_different_each_time() {
        let (ambient, _) = Ambient::fixed(0, 1);
        let sealer = SubjectSealer::new(subject(), SubjectKey::Live(Arc::new(Key::of(7))), ambient);
        let plain = r#"{"street":"Straße 1","lines":["a",2]}"#;
        let (one, two) = (sealer.seal(plain).unwrap(), sealer.seal(plain).unwrap());
        assert_ne!(one, two);
        for text in [one, two] {
            let value = SealedValue::parse(&text).unwrap().open(&Key::of(7)).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(plain).unwrap());
        }
    }

    #[test]
    fn a_generator_that_repeats_itself_makes_no_two_values_share_a_salt() {
        let salt = |text: &str| SealedValue::parse(text).unwrap().rest[SALT].to_vec();
        assert_eq!(sealed("1", 9), sealed("1", 9));
        assert_ne!(salt(&sealed("1", 9)), salt(&sealed("2", 9)));
        assert_ne!(salt(&sealed("1", 9)), salt(&sealed("1", 8)));
    }

    #[test]
    fn no_character_can_be_changed_and_nothing_cut_off() {
        let text = sealed("\"Ada\"", 1);
        for place in 0..text.len() {
            for other in ['A', 'B', '_', '.', '='] {
                let mut changed = text.clone();
                changed.replace_range(place..=place, &other.to_string());
                let opened = SealedValue::parse(&changed).and_then(|value| value.open(&Key::of(7)));
                assert!(changed == text || opened.is_none(), "{place}: {other}");
            }
            let opened = SealedValue::parse(&text[..place]).and_then(|value| value.open(&Key::of(7)));
            assert_eq!(opened, None, "cut at {place}");
        }
    }

    /// Each bit of the binary part, also where the text's characters would not reach it.
    #[test]
    fn no_bit_can_be_flipped() {
        let value = SealedValue::parse(&sealed("\"Ada\"", 1)).unwrap();
        for bit in 0..value.rest.len() * 8 {
            let mut changed = value.clone();
            changed.rest[bit / 8] ^= 1 << (bit % 8);
            if bit >= 8 {
                assert_eq!(changed.open(&Key::of(7)), None, "bit {bit}");
            }
            let text = format!(
                "1.{}.{}",
                URL_SAFE_NO_PAD.encode(subject().as_str()),
                URL_SAFE_NO_PAD.encode(&changed.rest)
            );
            assert_eq!(
                SealedValue::parse(&text).and_then(|value| value.open(&Key::of(7))),
                None
            );
        }
    }

    #[test]
    fn a_sealed_value_does_not_open_for_another_data_subject() {
        let mut value = SealedValue::parse(&sealed("1", 1)).unwrap();
        value.subject = DataSubject::from_text("customer-other");
        assert_eq!(value.open(&Key::of(7)), None, "the same key under another name");
    }

    /// Why there is a commitment: GCM's tag alone does not say which key it is of.
    #[test]
    fn another_commitment_is_refused_before_anything_is_decrypted() {
        let mut value = SealedValue::parse(&sealed("1", 1)).unwrap();
        let other = Derived::of(&Key::of(8), &value.rest[SALT]);
        value.rest[COMMITMENT].copy_from_slice(&*other.commitment);
        assert_eq!(value.open(&Key::of(7)), None);
        assert_eq!(value.open(&Key::of(8)), None);
    }

    #[test]
    fn a_destroyed_key_seals_nothing() {
        let (ambient, _) = Ambient::fixed(0, 1);
        let sealer = SubjectSealer::new(subject(), SubjectKey::Destroyed, ambient);
        assert_eq!(sealer.seal("1"), None);
    }
}

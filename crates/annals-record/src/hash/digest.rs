//! Thirty-two bytes, and the two ways to write them.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::sha256;

/// Text that is not a SHA-256 in the spelling asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not 64 characters of `0-9a-f`.
    #[error("not a hash: expected 64 lower-case hexadecimal digits")]
    Hex,
    /// Not 43 characters of base64url, or with bits that stand for nothing.
    #[error("not a hash: expected 43 characters of base64url without padding")]
    Base64Url,
}

/// A SHA-256. As text 64 lower-case hexadecimal digits, in headers and in JSON alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash32([u8; 32]);

impl Hash32 {
    /// Wraps 32 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 43 characters of base64url without padding. Source: RFC 4648, section 5.
    #[must_use]
    pub fn to_base64url(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Reads exactly what [`Hash32::to_base64url`] writes.
    ///
    /// # Errors
    ///
    /// [`HashError::Base64Url`] for another length, alphabet or padding, and for spare bits that
    /// are not zero: each hash has one spelling.
    pub fn from_base64url(text: &str) -> Result<Self, HashError> {
        Self::parse_base64url(text.as_bytes()).ok_or(HashError::Base64Url)
    }

    pub(crate) fn parse_base64url(text: &[u8]) -> Option<Self> {
        if text.len() != 43 {
            return None;
        }
        // The decoder wants room for whole groups of three bytes.
        let mut bytes = [0; 33];
        let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        bytes[..len].try_into().ok().map(Self)
    }

    pub(crate) fn write_base64url(self, buffer: &mut [u8; 43]) -> &[u8] {
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, buffer);
        written.expect("32 bytes are 43 characters");
        buffer
    }

    pub(crate) fn parse_hex(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        hex_into(text, &mut bytes)?;
        Some(Self(bytes))
    }

    pub(crate) fn write_hex(self, buffer: &mut [u8; 64]) -> &[u8] {
        write_hex(&self.0, buffer);
        buffer
    }
}

/// Fills `bytes` from exactly twice as many lower-case digits.
pub(crate) fn hex_into(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(())
}

/// Writes each byte as two lower-case digits; `text` is twice as long as `bytes`.
pub(crate) fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.as_chunks_mut::<2>().0) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

impl From<[u8; 32]> for Hash32 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Hash32> for [u8; 32] {
    fn from(hash: Hash32) -> Self {
        hash.0
    }
}

/// From the bytes of a database column; another length is an error.
impl TryFrom<&[u8]> for Hash32 {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self)
    }
}

impl AsRef<[u8]> for Hash32 {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        write_hex(&self.0, &mut text);
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash32({self})")
    }
}

impl FromStr for Hash32 {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        Self::parse_hex(text.as_bytes()).ok_or(HashError::Hex)
    }
}

impl Serialize for Hash32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

/// A hash that is written as base64url.
macro_rules! base64url_hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Hash32);

        impl $name {
            /// Wraps the hash.
            #[must_use]
            pub const fn new(hash: Hash32) -> Self {
                Self(hash)
            }

            /// The bare hash.
            #[must_use]
            pub const fn get(self) -> Hash32 {
                self.0
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                self.0.as_bytes()
            }
        }

        impl From<Hash32> for $name {
            fn from(hash: Hash32) -> Self {
                Self(hash)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0.to_base64url())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = HashError;

            fn from_str(text: &str) -> Result<Self, HashError> {
                Hash32::from_base64url(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::text::deserialize(deserializer)
            }
        }
    };
}

base64url_hash!(
    /// The SHA-256 of a client's idempotency key: the log never holds the key itself. As text 43
    /// characters of base64url without padding.
    KeyHash
);
base64url_hash!(
    /// What a command was: HMAC-SHA-256 over caller, command, precondition and canonical data,
    /// computed where the keys are. As text 43 characters of base64url without padding.
    Fingerprint
);

impl KeyHash {
    /// The hash of the key that a client sent, byte for byte.
    #[must_use]
    pub fn of(client_key: &str) -> Self {
        Self(sha256(client_key.as_bytes()))
    }
}

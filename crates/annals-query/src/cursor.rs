//! Cursors: where the last page ended, sealed so that nobody but this app can make one.
//!
//! A cursor is `base64url(values ‖ HMAC-SHA256(key, "annals/cursor/v1" ‖ 0x00 ‖ fingerprint ‖ values))` without
//! padding. The fingerprint stands for resource, filters, sort and what the caller may see, and is not in the
//! cursor: with another query the seal does not fit. The values are those of the last row's sort columns and key
//! as text, so they outlive a change of builds.
//!
//! Source: RFC 2104 (HMAC); keyset pagination after Winand, "SQL Performance Explained", 2012.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const DOMAIN: &[u8] = b"annals/cursor/v1\0";

/// Of the digests of rows, which are no cursors.
const LIVE_DOMAIN: &[u8] = b"annals/live/v1\0";

/// A tag's length in bytes.
const TAG: usize = 32;

/// The longest cursor that is looked at, in bytes: a key has 128 characters, a text column 2,000 bytes.
const MAX: usize = 16_384;

/// What a query's cursors are bound to: 32 bytes of SHA-256.
pub(crate) type Fingerprint = [u8; 32];

/// The key of all query nodes of an app. Does not print.
#[derive(Clone)]
pub struct CursorKey(hmac::Key);

/// Why a cursor key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CursorKeyError {
    /// The file cannot be read.
    #[error("http.cursor_key_file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Fewer than 32 bytes.
    #[error("a cursor key has at least 32 bytes, as from `openssl rand -base64 32`; this one has {0}")]
    Short(usize),
}

impl CursorKey {
    /// From any secret of at least 32 bytes; white space around it does not count.
    ///
    /// # Errors
    /// [`CursorKeyError::Short`].
    pub fn new(secret: &[u8]) -> Result<Self, CursorKeyError> {
        let secret = secret.trim_ascii();
        if secret.len() < 32 {
            return Err(CursorKeyError::Short(secret.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Reads `http.cursor_key_file`. Blocks: for the start of a program.
    ///
    /// # Errors
    /// [`CursorKeyError`].
    pub fn read(path: &Path) -> Result<Self, CursorKeyError> {
        let secret = std::fs::read(path).map_err(|source| CursorKeyError::Io {
            path: path.display().to_string(),
            source,
        })?;
        Self::new(&secret)
    }

    /// Seals the values of a row for a query.
    pub(crate) fn seal(&self, fingerprint: &Fingerprint, values: &[Option<String>]) -> String {
        let mut bytes = write(values);
        let tag = hmac::sign(&self.0, &message(fingerprint, &bytes));
        bytes.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The digest of pieces of text, each with its length before it: the first 16 bytes of their HMAC.
    pub(crate) fn digest<'a>(&self, pieces: impl IntoIterator<Item = &'a str>) -> u128 {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(LIVE_DOMAIN);
        for piece in pieces {
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            context.update(&length.to_be_bytes());
            context.update(piece.as_bytes());
        }
        let tag = context.sign();
        let first: [u8; 16] = std::array::from_fn(|at| tag.as_ref().get(at).copied().unwrap_or_default());
        u128::from_be_bytes(first)
    }

    /// Opens a cursor; `None` if it was not sealed with this key for this query.
    pub(crate) fn open(&self, fingerprint: &Fingerprint, cursor: &str) -> Option<Vec<Option<String>>> {
        if cursor.len() > MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (values, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        // In constant time.
        hmac::verify(&self.0, &message(fingerprint, values), tag).ok()?;
        read(values)
    }
}

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey")
    }
}

fn message(fingerprint: &Fingerprint, values: &[u8]) -> Vec<u8> {
    [DOMAIN, fingerprint, values].concat()
}

/// For each value a byte 0 (null), or 1, its length in four bytes, and its bytes.
fn write(values: &[Option<String>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        match value {
            None => bytes.push(0),
            Some(text) => {
                bytes.push(1);
                let length = u32::try_from(text.len()).expect("values of rows are far below 4 GiB");
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    bytes
}

fn read(mut bytes: &[u8]) -> Option<Vec<Option<String>>> {
    let mut values = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        match kind {
            0 => values.push(None),
            1 => {
                let (length, rest) = bytes.split_first_chunk::<4>()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                let (text, rest) = rest.split_at_checked(length)?;
                values.push(Some(String::from_utf8(text.to_vec()).ok()?));
                bytes = rest;
            }
            _ => return None,
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> CursorKey {
        CursorKey::new(&[byte; 32]).unwrap()
    }

    proptest! {
        #[test]
        fn opens_what_it_sealed_and_nothing_else(
            values in prop::collection::vec(prop::option::of(".{0,20}"), 0..4),
            flip in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let cursor = key(b'a').seal(&[1; 32], &values);
            prop_assert_eq!(key(b'a').open(&[1; 32], &cursor), Some(values));
            prop_assert_eq!(key(b'a').open(&[2; 32], &cursor), None);
            prop_assert_eq!(key(b'b').open(&[1; 32], &cursor), None);
            let mut bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
            let at = flip.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let changed = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(key(b'a').open(&[1; 32], &changed), None);
        }

        #[test]
        fn any_text_is_refused_without_a_panic(text in ".{0,200}") {
            prop_assert_eq!(key(b'a').open(&[1; 32], &text), None);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(values) = read(&bytes) {
                prop_assert_eq!(write(&values), bytes);
            }
        }
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(matches!(
            CursorKey::new(b"short\n"),
            Err(CursorKeyError::Short(5))
        ));
    }
}

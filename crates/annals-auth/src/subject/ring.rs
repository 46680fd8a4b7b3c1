//! The key-encryption keys, and the exact bytes of a wrapped key.
//!
//! `auth.subject_key_file` holds 32 random bytes for each key-encryption key: the first one wraps, all of them
//! unwrap. Usually there is one. To rotate: [`KeyRing::add`] puts a new one *behind* the old one; restart the
//! nodes (all can read it now); [`KeyRing::promote`] moves it to the front; restart again (all write it); rewrap;
//! [`KeyRing::retire`] removes all but the first. One process alone does so at once, with
//! [`SubjectKeys::use_ring`](super::SubjectKeys::use_ring) in place of restarts.
//!
//! A wrapped key is 69 bytes:
//!
//! | bytes | content |
//! |---|---|
//! | 0 | `0x01`, the format |
//! | 1..9 | which key-encryption key: the first 8 bytes of SHA-256(`annals/wrapping-key-id/v1` ‖ 0x00 ‖ key) |
//! | 9..21 | nonce, random |
//! | 21..69 | AES-256-GCM of the key, and its tag; associated data `annals/subject-key/v1` ‖ 0x00 ‖ data subject |
//!
//! Source: NIST SP 800-38D (GCM). Random nonces are safe up to 2^32 keys under one key-encryption key.

use std::path::Path;

use annals_record::hash::sha256;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::KeyError;
use crate::key_file::{self, KeyFileError};

/// The most key-encryption keys of one file.
pub const MAX_WRAPPING_KEYS: usize = 8;

const FORMAT: u8 = 1;
const ID: std::ops::Range<usize> = 1..9;
const NONCE: std::ops::Range<usize> = 9..21;
const WRAPPED_BYTES: usize = 69;
const ID_LABEL: &[u8] = b"annals/wrapping-key-id/v1\0";
const AAD_LABEL: &[u8] = b"annals/subject-key/v1\0";

/// The key-encryption keys of a deployment; the first one wraps.
pub struct KeyRing {
    keys: Vec<WrappingKey>,
}

struct WrappingKey {
    id: [u8; 8],
    key: LessSafeKey,
}

impl KeyRing {
    /// Reads the key-encryption keys in a file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        Self::from_bytes(path, &key_file::read(path)?)
    }

    /// The same; makes the file with one key if it is not there (system's generator, mode 0600). For `dev`:
    /// elsewhere a file that is missing must not become a new key beside a full table.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open_or_create(path: &Path) -> Result<Self, KeyFileError> {
        let make = || Zeroizing::new(key_file::random::<32>().to_vec());
        Self::from_bytes(path, &key_file::read_or_create(path, make)?)
    }

    /// Adds a new key to the end of the file: it can be read, and is not written yet.
    ///
    /// # Errors
    /// [`KeyFileError`], also if the file holds [`MAX_WRAPPING_KEYS`] already.
    pub fn add(path: &Path) -> Result<Self, KeyFileError> {
        Self::change(path, |keys| keys.extend_from_slice(&key_file::random::<32>()))
    }

    /// Moves the file's last key to its front: it wraps from now on.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn promote(path: &Path) -> Result<Self, KeyFileError> {
        Self::change(path, |keys| keys.rotate_right(32))
    }

    /// Removes all keys but the first from the file. What they wrap cannot be read any more: rewrap first.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn retire(path: &Path) -> Result<Self, KeyFileError> {
        Self::change(path, |keys| keys.truncate(32))
    }

    fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<Self, KeyFileError> {
        let mut bytes = key_file::read(path)?;
        Self::from_bytes(path, &bytes)?;
        change(&mut bytes);
        let changed = Self::from_bytes(path, &bytes)?;
        key_file::replace(path, &bytes, 0o600)?;
        Ok(changed)
    }

    fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, KeyFileError> {
        let (keys, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() || !(1..=MAX_WRAPPING_KEYS).contains(&keys.len()) {
            let expected = "32 random bytes (while rotating: up to eight times as many)";
            return Err(KeyFileError::content(path, expected));
        }
        Ok(Self::of(keys))
    }

    fn of(keys: &[[u8; 32]]) -> Self {
        Self {
            keys: keys.iter().map(WrappingKey::new).collect(),
        }
    }

    pub(super) fn is_current(&self, wrapped: &[u8]) -> bool {
        wrapped.get(ID) == Some(&self.keys[0].id)
    }

    pub(super) fn wrap(&self, subject: &str, key: &[u8; 32]) -> Vec<u8> {
        let wrapping = &self.keys[0];
        let nonce: [u8; 12] = key_file::random();
        let mut wrapped = Vec::with_capacity(WRAPPED_BYTES);
        wrapped.push(FORMAT);
        wrapped.extend_from_slice(&wrapping.id);
        wrapped.extend_from_slice(&nonce);
        let mut body = key.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        wrapping
            .key
            .seal_in_place_append_tag(nonce, aad(subject), &mut body)
            .expect("32 bytes are within what GCM seals");
        wrapped.extend_from_slice(&body);
        wrapped
    }

    pub(super) fn unwrap(&self, subject: &str, wrapped: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        if wrapped.len() != WRAPPED_BYTES || wrapped[0] != FORMAT {
            return Err(KeyError::Damaged);
        }
        let wrapping = self
            .keys
            .iter()
            .find(|key| key.id == wrapped[ID])
            .ok_or(KeyError::UnknownWrappingKey)?;
        let nonce = Nonce::try_assume_unique_for_key(&wrapped[NONCE]).map_err(|_| KeyError::Damaged)?;
        let mut body = Zeroizing::new(wrapped[NONCE.end..].to_vec());
        let plain = wrapping
            .key
            .open_in_place(nonce, aad(subject), &mut body)
            .map_err(|_| KeyError::Damaged)?;
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(plain);
        Ok(key)
    }
}

impl WrappingKey {
    fn new(bytes: &[u8; 32]) -> Self {
        let labelled = Zeroizing::new([ID_LABEL, bytes.as_slice()].concat());
        let mut id = [0; 8];
        id.copy_from_slice(&sha256(&labelled).as_bytes()[..8]);
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("32 bytes are an AES-256 key");
        Self {
            id,
            key: LessSafeKey::new(key),
        }
    }
}

fn aad(subject: &str) -> Aad<Vec<u8>> {
    Aad::from([AAD_LABEL, subject.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_key_opens_for_its_data_subject_only_and_no_byte_can_be_changed() {
        let ring = KeyRing::of(&[[1; 32]]);
        let wrapped = ring.wrap("customer-1", &[7; 32]);
        assert_eq!(wrapped.len(), WRAPPED_BYTES);
        assert_eq!(*ring.unwrap("customer-1", &wrapped).unwrap(), [7; 32]);
        assert!(matches!(
            ring.unwrap("customer-2", &wrapped),
            Err(KeyError::Damaged)
        ));
        for place in 0..wrapped.len() {
            let mut changed = wrapped.clone();
            changed[place] ^= 1;
            assert!(ring.unwrap("customer-1", &changed).is_err(), "byte {place}");
        }
        assert!(ring.unwrap("customer-1", &wrapped[..68]).is_err());
    }

    #[test]
    fn a_ring_unwraps_with_every_key_and_wraps_with_the_first() {
        let old = KeyRing::of(&[[1; 32]]);
        let both = KeyRing::of(&[[2; 32], [1; 32]]);
        let wrapped = old.wrap("", &[7; 32]);
        assert!(!both.is_current(&wrapped));
        let rewrapped = both.wrap("", &both.unwrap("", &wrapped).unwrap());
        assert!(both.is_current(&rewrapped));
        assert!(matches!(
            old.unwrap("", &rewrapped),
            Err(KeyError::UnknownWrappingKey)
        ));
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        for length in [0, 31, 33, 32 * 9] {
            std::fs::write(&path, vec![1; length]).unwrap();
            assert!(KeyRing::open(&path).is_err(), "{length} bytes");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(KeyRing::open(&path).is_err());
        let made = KeyRing::open_or_create(&path).unwrap();
        let again = KeyRing::open_or_create(&path).unwrap();
        let wrapped = made.wrap("x", &[3; 32]);
        assert_eq!(*again.unwrap("x", &wrapped).unwrap(), [3; 32]);
    }

    #[test]
    fn rotating_never_leaves_a_moment_in_which_a_key_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        let old = KeyRing::open_or_create(&path).unwrap();
        let added = KeyRing::add(&path).unwrap();
        let promoted = KeyRing::promote(&path).unwrap();
        let retired = KeyRing::retire(&path).unwrap();
        // Neighbours in time run side by side.
        for (one, next) in [(&old, &added), (&added, &promoted)] {
            assert!(next.unwrap("x", &one.wrap("x", &[3; 32])).is_ok());
            assert!(one.unwrap("x", &next.wrap("x", &[3; 32])).is_ok());
        }
        assert!(promoted.is_current(&retired.wrap("x", &[3; 32])));
        assert!(retired.unwrap("x", &old.wrap("x", &[3; 32])).is_err());
        for _ in 1..MAX_WRAPPING_KEYS {
            KeyRing::add(&path).unwrap();
        }
        assert!(KeyRing::add(&path).is_err(), "the ring is full");
        assert_eq!(KeyRing::open(&path).unwrap().keys.len(), MAX_WRAPPING_KEYS);
    }
}

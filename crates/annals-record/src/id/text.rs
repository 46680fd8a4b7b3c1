//! Names that people choose, and the stream id made of two of them.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::IdError;

/// What every textual id can do; `$text` gives the field that holds the text.
macro_rules! textual {
    ($name:ident, $what:literal, $rule:ident) => {
        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.text)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.text
            }
        }

        // Sound because equality, order and hash are all those of the text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.text
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.text == other.text
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.text.cmp(&other.text)
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.text.hash(state);
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::check(text).ok_or_else(|| IdError::new($what, $rule, text))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = IdError;

            fn try_from(text: &str) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::text::deserialize(deserializer)
            }
        }
    };
}

const APP_NAME: &str = "1 to 63 of a-z, 0-9, _ and -, beginning with a letter";
const CATEGORY: &str = "1 to 64 of a-z, 0-9 and _, beginning with a letter";
const KEY: &str = "1 to 128 of A-Z, a-z, 0-9, . _ ~ and -";
const STREAM_ID: &str = "a category, a hyphen and a key, as in order-0192f1c0";

/// The name of an application: `[a-z][a-z0-9_-]{0,62}`. Its log, and what its hashes begin with,
/// are named after it.
#[derive(Clone)]
pub struct AppName {
    text: Arc<str>,
}

/// The kind of an aggregate, `order`: `[a-z][a-z0-9_]{0,63}`. It holds no hyphen, so that a stream
/// id splits in one way only.
#[derive(Clone)]
pub struct Category {
    text: Arc<str>,
}

/// Which aggregate of its category: 1 to 128 characters that need no escape in a URL path
/// (`[A-Za-z0-9._~-]`, the unreserved ones).
///
/// Source: RFC 3986, section 2.3.
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
}

/// The id of one stream, `{category}-{key}`; it is the key of the stream's records.
///
/// It splits at the first hyphen: `order-a-b` is key `a-b` of category `order`. At most 193 bytes,
/// all ASCII. Cloning copies a pointer; equality, order and hash are those of the text.
///
/// ```
/// use annals_record::StreamId;
/// let id: StreamId = "order-a-b".parse()?;
/// assert_eq!((id.category(), id.key()), ("order", "a-b"));
/// # Ok::<(), annals_record::IdError>(())
/// ```
#[derive(Clone)]
pub struct StreamId {
    text: Arc<str>,
    /// Where the hyphen is: a category has at most 64 bytes.
    hyphen: u8,
}

textual!(AppName, "an app name", APP_NAME);
textual!(Category, "a category", CATEGORY);
textual!(Key, "a stream key", KEY);
textual!(StreamId, "a stream id", STREAM_ID);

impl AppName {
    fn check(text: &str) -> Option<Self> {
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        let bytes = text.as_bytes();
        let valid = bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.len() <= 63
            && bytes.iter().all(allowed);
        valid.then(|| Self { text: text.into() })
    }
}

impl Category {
    /// The longest category, in bytes.
    pub const MAX_BYTES: usize = 64;

    fn is_valid(bytes: &[u8]) -> bool {
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
        bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.len() <= Self::MAX_BYTES
            && bytes.iter().all(allowed)
    }

    fn check(text: &str) -> Option<Self> {
        Self::is_valid(text.as_bytes()).then(|| Self { text: text.into() })
    }
}

impl Key {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 128;

    fn is_valid(bytes: &[u8]) -> bool {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-');
        (1..=Self::MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(allowed)
    }

    fn check(text: &str) -> Option<Self> {
        Self::is_valid(text.as_bytes()).then(|| Self { text: text.into() })
    }
}

impl StreamId {
    /// The longest stream id, in bytes.
    pub const MAX_BYTES: usize = Category::MAX_BYTES + 1 + Key::MAX_BYTES;

    /// The stream of `key` in `category`.
    #[must_use]
    pub fn new(category: &Category, key: &Key) -> Self {
        let text = format!("{category}-{key}");
        Self::check(&text).expect("a category, a hyphen and a key are a stream id")
    }

    /// The category: what stands before the first hyphen.
    #[must_use]
    pub fn category(&self) -> &str {
        &self.text[..usize::from(self.hyphen)]
    }

    /// The key: what stands after the first hyphen.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.text[usize::from(self.hyphen) + 1..]
    }

    fn check(text: &str) -> Option<Self> {
        let (category, key) = text.split_once('-')?;
        let valid = Category::is_valid(category.as_bytes()) && Key::is_valid(key.as_bytes());
        let hyphen = u8::try_from(category.len()).ok()?;
        valid.then(|| Self {
            text: text.into(),
            hyphen,
        })
    }
}

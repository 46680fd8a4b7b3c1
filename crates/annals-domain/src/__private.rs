//! What the derive macros name in the code that they write. Not an interface: it changes without notice.

pub use annals_record;
pub use schemars;
pub use serde;
pub use serde_json;
pub use uuid;

use std::fmt;
use std::marker::PhantomData;

use annals_record::Key;
use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserializer;
use serde::de::{DeserializeOwned, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{AggregateKey, InvalidKey, ReadError};

/// The JSON Schema (2020-12) of `T` with everything inside, so that it can stand alone or within another.
pub fn schema_of<T: JsonSchema>() -> Schema {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

/// Reads the data of one schema of an event.
pub fn read_event<T: DeserializeOwned>(
    name: &'static str,
    schema: u32,
    data: &RawValue,
) -> Result<T, ReadError> {
    serde_json::from_str(data.get()).map_err(|source| ReadError::Data {
        name: name.to_owned(),
        schema,
        source,
    })
}

/// What makes an older shape of an event into the newest: any `From`.
#[diagnostic::on_unimplemented(
    message = "records with the older shape `{Older}` could no longer be read",
    label = "write `impl From<{Older}> for {Self}`"
)]
pub trait Upcast<Older>: Sized {
    /// The newest shape.
    fn upcast(older: Older) -> Self;
}

#[diagnostic::do_not_recommend]
impl<Older, T: From<Older>> Upcast<Older> for T {
    fn upcast(older: Older) -> Self {
        Self::from(older)
    }
}

/// For a type that the enum does not have.
pub fn unknown_event(name: &str) -> ReadError {
    ReadError::Unknown {
        name: name.to_owned(),
    }
}

/// For a schema that the type does not have.
pub fn unknown_schema(name: &'static str, schema: u32, newest: u32) -> ReadError {
    ReadError::UnknownSchema {
        name: name.to_owned(),
        schema,
        newest,
    }
}

/// Reads the hyphenated form of a UUID in either case; the parser of `uuid` takes other spellings too.
///
/// # Errors
/// [`InvalidKey`] for anything else.
pub fn read_uuid(text: &str) -> Result<Uuid, InvalidKey> {
    let hyphenated = text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let uuid = hyphenated.then(|| Uuid::try_parse(text).ok()).flatten();
    uuid.ok_or(InvalidKey {
        expected: "a UUID with hyphens",
    })
}

/// The key of a UUID: lower case, with hyphens.
pub fn uuid_to_key(uuid: Uuid) -> Key {
    Key::try_from(uuid.to_string()).expect("digits and hyphens are of the grammar of keys")
}

/// The JSON Schema of a UUID as text.
pub fn uuid_schema() -> Schema {
    json_schema!({ "type": "string", "format": "uuid" })
}

/// Reads a key of at most `max` characters.
///
/// # Errors
/// [`InvalidKey`] with `expected`.
pub fn read_text_key(text: &str, max: usize, expected: &'static str) -> Result<Key, InvalidKey> {
    let key = Key::try_from(text).ok();
    key.filter(|key| key.as_str().len() <= max)
        .ok_or(InvalidKey { expected })
}

/// The JSON Schema of a text key.
pub fn text_key_schema(max: usize) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": max,
        "pattern": "^[A-Za-z0-9._~-]+$",
    })
}

/// Reads a key from a JSON string.
///
/// # Errors
/// What is expected; never what was found.
pub fn deserialize_key<'de, K: AggregateKey, D: Deserializer<'de>>(deserializer: D) -> Result<K, D::Error> {
    struct Text<K>(PhantomData<K>);
    impl<K: AggregateKey> Visitor<'_> for Text<K> {
        type Value = K;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the text of a key")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<K, E> {
            K::parse(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(PhantomData))
}

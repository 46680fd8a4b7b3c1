//! Personal data: a value that rules cannot look into, sealed per data subject before it reaches a record.
//!
//! A [`Personal<T>`] is *plain* only between the edge's parser and its sealer, *sealed* everywhere else, and
//! *erased* once its data subject's key is gone. How it reads and writes depends on where that happens, so the
//! edge opens a scope for the two moments that differ; everywhere else the safe form is the only one:
//!
//! | where | reads | writes |
//! |---|---|---|
//! | [`from_client`] | the plain `T`, checked | – |
//! | [`in_the_clear`] | – | the plain value (the fingerprint's input) |
//! | [`sealing`] | – | what the sealer makes of it (the record) |
//! | anywhere else | sealed or erased | sealed or erased; a plain value is an error |
//!
//! *Invariant:* without a scope no plain value can be written, so none can reach a record by mistake.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The member whose presence marks a JSON object as a sealed value: `{"personal": "<text>"}`.
pub const SEALED_MEMBER: &str = "personal";
/// The keyword that marks a personal field in a JSON Schema.
pub const SCHEMA_KEYWORD: &str = "x-personal";

/// A personal value of type `T`. It has no accessor on purpose.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Personal<T> {
    repr: Repr,
    value: PhantomData<fn() -> T>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    /// The value as JSON text.
    Plain(Box<str>),
    Sealed(Box<str>),
    Erased,
}

impl<T> Personal<T> {
    /// A value whose key is gone: `{"erased": true}`.
    pub fn erased() -> Self {
        Self {
            repr: Repr::Erased,
            value: PhantomData,
        }
    }
    /// A value as the sealer wrote it.
    pub fn sealed(text: impl Into<Box<str>>) -> Self {
        Self {
            repr: Repr::Sealed(text.into()),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.repr {
            Repr::Plain(_) => "Personal(plain)",
            Repr::Sealed(_) => "Personal(sealed)",
            Repr::Erased => "Personal(erased)",
        })
    }
}

/// Turns a plain value (JSON text) into the text of a sealed one.
pub trait Sealer {
    /// `None` if the data subject's key has been destroyed: the field becomes `{"erased": true}`.
    fn seal(&self, plain: &str) -> Option<String>;
}

#[derive(Clone)]
enum Scope {
    Stored,
    Client,
    Clear,
    Sealing(Rc<dyn Sealer>),
}

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::Stored) };
}

/// Puts the former scope back, also when the closure panics.
struct Restore(Option<Scope>);

impl Drop for Restore {
    fn drop(&mut self) {
        if let Some(former) = self.0.take() {
            SCOPE.with(|scope| *scope.borrow_mut() = former);
        }
    }
}

fn within<R>(scope: Scope, run: impl FnOnce() -> R) -> R {
    let _restore = Restore(Some(SCOPE.with(|current| current.replace(scope))));
    run()
}

fn scope() -> Scope {
    SCOPE.with(|scope| scope.borrow().clone())
}

/// Runs `parse`, in which personal fields are read as clients send them: plain, checked against `T`.
pub fn from_client<R>(parse: impl FnOnce() -> R) -> R {
    within(Scope::Client, parse)
}

/// Runs `write`, in which plain personal values may be written: for a fingerprint's input and nothing else.
pub fn in_the_clear<R>(write: impl FnOnce() -> R) -> R {
    within(Scope::Clear, write)
}

/// Runs `write`, in which plain personal values are written as `sealer` seals them.
pub fn sealing<R>(sealer: Rc<dyn Sealer>, write: impl FnOnce() -> R) -> R {
    within(Scope::Sealing(sealer), write)
}

#[derive(Serialize, Deserialize)]
struct ErasedForm {
    erased: bool,
}

impl<T> Serialize for Personal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sealed = |serializer: S, text: &str| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(SEALED_MEMBER, text)?;
            map.end()
        };
        match (&self.repr, scope()) {
            (Repr::Erased, _) => ErasedForm { erased: true }.serialize(serializer),
            (Repr::Sealed(text), _) => sealed(serializer, text),
            (Repr::Plain(json), Scope::Clear) => {
                let value: serde_json::Value = serde_json::from_str(json).map_err(S::Error::custom)?;
                value.serialize(serializer)
            }
            (Repr::Plain(json), Scope::Sealing(sealer)) => match sealer.seal(json) {
                Some(text) => sealed(serializer, &text),
                None => ErasedForm { erased: true }.serialize(serializer),
            },
            (Repr::Plain(_), Scope::Stored | Scope::Client) => Err(S::Error::custom(
                "a personal value that is not sealed cannot be written",
            )),
        }
    }
}

impl<'de, T: DeserializeOwned + Serialize> Deserialize<'de> for Personal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let repr = match scope() {
            Scope::Client => {
                let value = T::deserialize(deserializer)?;
                Repr::Plain(serde_json::to_string(&value).map_err(D::Error::custom)?.into())
            }
            Scope::Stored | Scope::Clear | Scope::Sealing(_) => match Stored::deserialize(deserializer)? {
                Stored {
                    personal: Some(text),
                    erased: None,
                } => Repr::Sealed(text),
                Stored {
                    personal: None,
                    erased: Some(true),
                } => Repr::Erased,
                _ => {
                    return Err(D::Error::custom("a sealed or erased personal value is expected"));
                }
            },
        };
        Ok(Self {
            repr,
            value: PhantomData,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    personal: Option<Box<str>>,
    erased: Option<bool>,
}

impl<T: JsonSchema> JsonSchema for Personal<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Personal{}", T::schema_name()).into()
    }
    fn inline_schema() -> bool {
        true
    }
    /// The schema of what a client sends, marked with [`SCHEMA_KEYWORD`].
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        schema.insert(SCHEMA_KEYWORD.to_owned(), true.into());
        schema
    }
}

/// Whether a schema has a personal field anywhere.
pub fn occurs_in(schema: &Schema) -> bool {
    fn walk(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(map) => map.contains_key(SCHEMA_KEYWORD) || map.values().any(walk),
            serde_json::Value::Array(list) => list.iter().any(walk),
            _ => false,
        }
    }
    walk(schema.as_value())
}

/// Makes a schema of what clients send into one of what events hold: wherever a personal field has its plain
/// form, the sealed and the erased one fit too.
pub fn as_stored(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(map) if map.contains_key(SCHEMA_KEYWORD) => {
            let mut plain = std::mem::take(map);
            plain.remove(SCHEMA_KEYWORD);
            let form = |member: &str, value: serde_json::Value| {
                serde_json::json!({
                    "type": "object",
                    "required": [member],
                    "properties": { member: value },
                    "additionalProperties": false,
                })
            };
            let sealed = form(SEALED_MEMBER, serde_json::json!({ "type": "string" }));
            let erased = form("erased", serde_json::json!({ "const": true }));
            *schema = serde_json::json!({ SCHEMA_KEYWORD: true, "anyOf": [plain, sealed, erased] });
        }
        serde_json::Value::Object(map) => map.values_mut().for_each(as_stored),
        serde_json::Value::Array(list) => list.iter_mut().for_each(as_stored),
        _ => {}
    }
}

/// Goes through stored JSON and replaces every sealed value by what `open` makes of its text: the plain value,
/// or null where it may not or cannot be read. Erased values become null. `true` if anything was replaced.
pub fn replace_sealed(
    value: &mut serde_json::Value,
    open: &mut dyn FnMut(&str) -> Option<serde_json::Value>,
) -> bool {
    match value {
        serde_json::Value::Object(map) if map.len() == 1 => {
            if let Some(serde_json::Value::String(text)) = map.get(SEALED_MEMBER) {
                *value = open(text).unwrap_or(serde_json::Value::Null);
                return true;
            }
            if map.get("erased") == Some(&serde_json::Value::Bool(true)) {
                *value = serde_json::Value::Null;
                return true;
            }
            map.values_mut()
                .fold(false, |any, member| replace_sealed(member, open) | any)
        }
        serde_json::Value::Object(map) => map
            .values_mut()
            .fold(false, |any, member| replace_sealed(member, open) | any),
        serde_json::Value::Array(list) => list
            .iter_mut()
            .fold(false, |any, item| replace_sealed(item, open) | any),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Upper;
    impl Sealer for Upper {
        fn seal(&self, plain: &str) -> Option<String> {
            (plain != "\"gone\"").then(|| plain.to_uppercase())
        }
    }

    fn plain(text: &str) -> Personal<String> {
        from_client(|| serde_json::from_value(text.into())).expect("a client may send it")
    }

    #[test]
    fn a_plain_value_is_written_in_its_scopes_only() {
        let name = plain("ada");
        assert!(serde_json::to_string(&name).is_err());
        assert_eq!(in_the_clear(|| serde_json::to_string(&name)).unwrap(), "\"ada\"");
        assert_eq!(
            sealing(Rc::new(Upper), || serde_json::to_string(&name)).unwrap(),
            r#"{"personal":"\"ADA\""}"#
        );
        assert!(serde_json::to_string(&name).is_err(), "the scope ended");
        assert_eq!(format!("{name:?}"), "Personal(plain)");
    }

    #[test]
    fn a_client_cannot_send_a_sealed_value_and_a_record_cannot_hold_a_plain_one() {
        let sealed = r#"{"personal":"x"}"#;
        assert!(from_client(|| serde_json::from_str::<Personal<String>>(sealed)).is_err());
        assert_eq!(
            serde_json::from_str::<Personal<String>>(sealed).unwrap(),
            Personal::sealed("x")
        );
        assert!(serde_json::from_str::<Personal<String>>("\"ada\"").is_err());
        assert!(serde_json::from_str::<Personal<String>>(r#"{"erased":false}"#).is_err());
    }

    #[test]
    fn a_destroyed_key_leaves_an_erased_field() {
        let text = sealing(Rc::new(Upper), || serde_json::to_string(&plain("gone"))).unwrap();
        assert_eq!(text, r#"{"erased":true}"#);
        assert_eq!(
            serde_json::from_str::<Personal<String>>(&text).unwrap(),
            Personal::erased()
        );
    }

    #[test]
    fn the_scope_is_left_when_the_closure_panics() {
        let name = plain("ada");
        let result = std::panic::catch_unwind(|| in_the_clear(|| panic!("inside")));
        assert!(result.is_err());
        assert!(serde_json::to_string(&name).is_err());
    }

    #[test]
    fn stored_values_are_opened_or_nulled_wherever_they_are() {
        let mut value = serde_json::json!({"a": {"personal": "x"}, "b": [{"erased": true}, 1], "c": "x"});
        assert!(replace_sealed(&mut value, &mut |text| Some(
            format!("<{text}>").into()
        )));
        assert_eq!(value, serde_json::json!({"a": "<x>", "b": [null, 1], "c": "x"}));
        assert!(!replace_sealed(&mut value, &mut |_| None));
    }
}

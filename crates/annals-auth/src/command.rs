//! A checked command becomes what a record holds: its data, personal fields sealed, and its fingerprint.
//!
//! ```text
//! fingerprint = HMAC-SHA-256(key, sub ‖ 0x00 ‖ command ‖ 0x00 ‖ precondition ‖ 0x00 ‖ RFC 8785 form of data)
//! ```
//!
//! | the command | data in the record | form in the fingerprint | key of the fingerprint |
//! |---|---|---|---|
//! | has no personal field in its schema | as they are | as they are | the app's |
//! | has one | sealed | plain | the data subject's |
//! | has one, and the key is destroyed | `{"erased": true}` | personal fields left out | the app's |
//!
//! Plain, so that a repeat has the same fingerprint though each sealing differs; keyed by the data subject's key,
//! so that after an erasure nobody can try names against it.

use std::rc::Rc;
use std::sync::Arc;

use annals_domain::catalog::{AggregateType, AnyCommand};
use annals_domain::personal::{self, Sealer};
use annals_domain::{DataSubject, Precondition, ReadError};
use annals_record::{Hash32, Key as StreamKey};
use aws_lc_rs::hmac;
use bytes::Bytes;
use serde_json::Value;

use crate::seal::SubjectSealer;
use crate::subject::{Key, KeyError, SubjectKey, SubjectKeys};

/// A command as the engine takes it: no personal value in the clear is left.
#[derive(Debug)]
pub struct Sealed {
    /// The command, its personal fields sealed or erased.
    pub command: AnyCommand,
    /// The RFC 8785 form of its data, as the record will hold it.
    pub data: Bytes,
    /// See the head of this module.
    pub fingerprint: Hash32,
}

/// Why a command cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The data subject's key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The command cannot be written in RFC 8785 form.
    #[error("the command cannot be written: {0}")]
    Write(#[from] serde_json::Error),
    /// What was written does not read again: a fault of the command's type.
    #[error("the sealed command does not read again: {0}")]
    Read(#[from] ReadError),
}

/// What came of sealing without waiting.
#[derive(Debug)]
pub enum Attempt {
    /// It is done, or cannot be done.
    Sealed(Result<Sealed, SealError>),
    /// It has personal fields, so that its data subject's key is needed: [`CommandSealer::seal`].
    NeedsKey(AnyCommand),
}

/// Seals commands. Holds the app's key, so that commands without personal fields touch nothing but memory.
#[derive(Clone)]
pub struct CommandSealer {
    keys: SubjectKeys,
    app: Arc<Key>,
}

impl CommandSealer {
    /// Reads the app's key, or makes it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn open(keys: SubjectKeys) -> Result<Self, KeyError> {
        let app = keys.app_key().await?;
        Ok(Self { keys, app })
    }

    /// Seals a command that `aggregate` has parsed, if no field of its schema is personal.
    #[must_use]
    pub fn seal_at_once(
        &self,
        aggregate: &AggregateType,
        command: AnyCommand,
        sub: &str,
        precondition: &Precondition,
    ) -> Attempt {
        let name = command.name();
        let registered = aggregate.command(name);
        if registered.is_some_and(|registered| registered.personal) {
            return Attempt::NeedsKey(command);
        }
        let said = Said {
            sub,
            command: name,
            precondition,
        };
        let sealed = command.canonical().map_err(SealError::from);
        Attempt::Sealed(sealed.map(|data| Sealed {
            fingerprint: said.fingerprint(&self.app, &data),
            command,
            data,
        }))
    }

    /// Seals a command that `aggregate` has parsed for the stream of `key`, sent by `sub`.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`SealError`]; nothing happened, except that a data subject may have a key now.
    pub async fn seal(
        &self,
        aggregate: &AggregateType,
        key: &StreamKey,
        command: AnyCommand,
        sub: &str,
        precondition: &Precondition,
    ) -> Result<Sealed, SealError> {
        let command = match self.seal_at_once(aggregate, command, sub, precondition) {
            Attempt::Sealed(sealed) => return sealed,
            Attempt::NeedsKey(command) => command,
        };
        let name = command.name();
        let said = Said {
            sub,
            command: name,
            precondition,
        };
        let subject = aggregate.data_subject(&command);
        let found = self.keys.get_or_create(&subject).await?;
        let fingerprint = match &found {
            SubjectKey::Live(subject_key) => {
                let plain = zeroize::Zeroizing::new(personal::in_the_clear(|| command.canonical())?.to_vec());
                said.fingerprint(subject_key, &plain)
            }
            SubjectKey::Destroyed => said.fingerprint(&self.app, &self.without_personal(&command)?),
        };
        let data = self.sealed(&command, subject, found)?;
        Ok(Sealed {
            command: aggregate.read_stored(key, name, &data)?,
            data,
            fingerprint,
        })
    }

    fn sealed(
        &self,
        command: &AnyCommand,
        subject: DataSubject,
        key: SubjectKey,
    ) -> Result<Bytes, serde_json::Error> {
        let sealer = SubjectSealer::new(subject, key, self.keys.ambient().clone());
        personal::sealing(Rc::new(sealer), || command.canonical())
    }

    /// The RFC 8785 form without the personal fields. They are found by a mark that no client can guess, so that
    /// another field that happens to look like an erased one stays.
    fn without_personal(&self, command: &AnyCommand) -> Result<Vec<u8>, serde_json::Error> {
        let mark = Hash32::from(self.keys.ambient().random::<32>()).to_base64url();
        let marked = personal::sealing(Rc::new(Mark(mark.clone())), || command.canonical())?;
        let mut value: Value = serde_json::from_slice(&marked)?;
        leave_out(&mut value, &mark);
        serde_json_canonicalizer::to_vec(&value)
    }
}

/// What a fingerprint holds beside the data.
struct Said<'a> {
    sub: &'a str,
    command: &'a str,
    precondition: &'a Precondition,
}

impl Said<'_> {
    fn fingerprint(&self, key: &Key, data: &[u8]) -> Hash32 {
        let mut mac = hmac::Context::with_key(key.hmac());
        for part in [self.sub, self.command, &self.precondition.canonical()] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.update(data);
        let mut hash = [0; 32];
        hash.copy_from_slice(mac.sign().as_ref());
        Hash32::new(hash)
    }
}

struct Mark(String);

impl Sealer for Mark {
    fn seal(&self, _plain: &str) -> Option<String> {
        Some(self.0.clone())
    }
}

fn leave_out(value: &mut Value, mark: &str) {
    let marked = |value: &Value| value.get(personal::SEALED_MEMBER).and_then(Value::as_str) == Some(mark);
    match value {
        Value::Object(map) => {
            map.retain(|_, member| !marked(member));
            map.values_mut().for_each(|member| leave_out(member, mark));
        }
        Value::Array(list) => {
            list.retain(|item| !marked(item));
            list.iter_mut().for_each(|item| leave_out(item, mark));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python: `hmac.new(bytes([7])*32, b"ada\0place\0=3\0{\"a\":1}", "sha256").hexdigest()`.
    #[test]
    fn the_fingerprint_is_the_one_that_the_design_describes() {
        let said = Said {
            sub: "ada",
            command: "place",
            precondition: &Precondition::Version(annals_record::Version::new(3)),
        };
        assert_eq!(
            said.fingerprint(&Key::of(7), br#"{"a":1}"#).to_string(),
            "09ac8081ba01062babd847f1b3cb4c0af3279fd955a852ac61d63ef84f550067"
        );
    }

    #[test]
    fn only_marked_values_are_left_out() {
        let mut value = serde_json::json!({
            "name": {"personal": "m"}, "erased": {"erased": true}, "other": {"personal": "x"},
            "list": [{"personal": "m"}, 1, {"deep": {"personal": "m"}}],
        });
        leave_out(&mut value, "m");
        assert_eq!(
            value,
            serde_json::json!({"erased": {"erased": true}, "other": {"personal": "x"}, "list": [1, {}]})
        );
    }
}

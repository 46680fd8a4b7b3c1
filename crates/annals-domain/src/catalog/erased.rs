//! An aggregate behind a vtable: commands and states travel as boxes that only their own aggregate opens.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

use annals_record::{Hash32, Key, Version};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use schemars::Schema;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{canonical, to_raw};
use crate::{
    Aggregate, AggregateKey, Command, Context, DataSubject, Event, EventType, InvalidKey, Owner, ReadError,
    Refusal, Rejection, Violation,
};

/// A parsed command of some aggregate, with its key.
pub struct AnyCommand {
    name: &'static str,
    inner: Box<dyn Any + Send + Sync>,
    write: fn(&(dyn Any + Send + Sync)) -> Result<Vec<u8>, serde_json::Error>,
}

struct TypedCommand<A: Aggregate> {
    key: A::Key,
    command: A::Command,
}

/// Makes a command's data something that any serializer takes.
struct Written<'a, C>(&'a C);

impl<C: Command> serde::Serialize for Written<'_, C> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

/// The same for an event.
struct WrittenEvent<'a, E>(&'a E);

impl<E: Event> serde::Serialize for WrittenEvent<'_, E> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

impl AnyCommand {
    /// The command's name.
    pub fn name(&self) -> &'static str {
        self.name
    }
    /// Its data in RFC 8785 form. What becomes of personal fields is said by the scope
    /// ([`in_the_clear`](crate::personal::in_the_clear), [`sealing`](crate::personal::sealing)).
    ///
    /// # Errors
    /// A personal value in the clear outside a scope.
    pub fn canonical(&self) -> Result<Bytes, serde_json::Error> {
        (self.write)(&*self.inner).map(Bytes::from)
    }
}

impl fmt::Debug for AnyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyCommand").field(&self.name).finish()
    }
}

/// An event as it goes into a record.
#[derive(Debug, Clone)]
pub struct EncodedEvent {
    /// `order.placed`.
    pub event_type: &'static str,
    /// The newest schema of its type.
    pub schema: u32,
    /// Its data.
    pub data: Box<RawValue>,
}

/// What `decide` answered: events (possibly none), or the rules' no.
pub type Decision = Result<Vec<EncodedEvent>, Refusal>;

/// The state of one stream.
pub struct AnyState(Box<dyn ErasedState>);

impl AnyState {
    /// Decides, and on success evolves at once, so that the stream's next command sees it.
    ///
    /// # Errors
    /// A serializer's error: an event or a rejection that cannot be written. The state is then unchanged.
    ///
    /// # Panics
    /// If `command` is of another aggregate.
    pub fn decide(
        &mut self,
        command: &AnyCommand,
        time: DateTime<Utc>,
        version: Version,
    ) -> Result<Decision, serde_json::Error> {
        self.0.decide(&*command.inner, time, version)
    }
    /// Takes in a stored event of any schema.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn evolve(&mut self, event_type: &str, schema: u32, data: &RawValue) -> Result<(), ReadError> {
        self.0.evolve(event_type, schema, data)
    }
    /// Whose stream it is, or would be.
    ///
    /// # Panics
    /// If `command` is of another aggregate.
    pub fn owner(&self, command: &AnyCommand) -> Option<Owner> {
        self.0.owner(&*command.inner)
    }
    /// The state as JSON: a snapshot, and what auditors see.
    ///
    /// # Errors
    /// What the serializer says.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        self.0.to_json()
    }
}

impl Clone for AnyState {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone())
    }
}

impl fmt::Debug for AnyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(super) trait Erased: Send + Sync {
    fn category(&self) -> &'static str;
    fn events(&self) -> &[EventType];
    fn parse_key(&self, text: &str) -> Result<Key, InvalidKey>;
    fn make_key(&self, uuid: Uuid) -> Option<Key>;
    fn key_schema(&self) -> Schema;
    fn state_schema(&self) -> Schema;
    fn read_command(&self, key: &Key, name: &str, data: &[u8]) -> Result<AnyCommand, ReadError>;
    fn check(&self, command: &AnyCommand) -> Vec<Violation>;
    fn initial(&self) -> AnyState;
    fn restore(&self, snapshot: &[u8]) -> Result<AnyState, serde_json::Error>;
    fn fingerprint(&self) -> Hash32;
    fn data_subject(&self, command: &AnyCommand) -> DataSubject;
    fn upcast(&self, event_type: &str, schema: u32, data: &RawValue) -> Result<Box<RawValue>, ReadError>;
}

trait ErasedState: Send + Sync + fmt::Debug {
    fn decide(
        &mut self,
        command: &(dyn Any + Send + Sync),
        time: DateTime<Utc>,
        version: Version,
    ) -> Result<Decision, serde_json::Error>;
    fn evolve(&mut self, event_type: &str, schema: u32, data: &RawValue) -> Result<(), ReadError>;
    fn owner(&self, command: &(dyn Any + Send + Sync)) -> Option<Owner>;
    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error>;
    fn boxed_clone(&self) -> Box<dyn ErasedState>;
}

pub(super) struct Typed<A> {
    events: Vec<EventType>,
    fingerprint: Hash32,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> Typed<A> {
    pub(super) fn new() -> Self {
        Self {
            events: A::Event::types(),
            fingerprint: fingerprint::<A>(),
            aggregate: PhantomData,
        }
    }
}

/// SHA-256 over the state's schema and its revision.
pub(crate) fn fingerprint<A: Aggregate>() -> Hash32 {
    let schema = schemars::schema_for!(A);
    let mut digest = Sha256::new();
    // Canonical, since the order of members is a feature that any crate of a program may switch on.
    digest.update(serde_json_canonicalizer::to_vec(&schema).expect("a schema is JSON"));
    digest.update(A::REVISION.to_be_bytes());
    Hash32::from(<[u8; 32]>::from(digest.finalize()))
}

fn typed<A: Aggregate>(command: &(dyn Any + Send + Sync)) -> &TypedCommand<A> {
    command
        .downcast_ref()
        .expect("a command meets only states of its own aggregate")
}

impl<A: Aggregate> Erased for Typed<A> {
    fn category(&self) -> &'static str {
        A::CATEGORY
    }
    fn events(&self) -> &[EventType] {
        &self.events
    }
    fn parse_key(&self, text: &str) -> Result<Key, InvalidKey> {
        A::Key::parse(text).map(|key| key.to_key())
    }
    fn make_key(&self, uuid: Uuid) -> Option<Key> {
        A::Key::made_from(uuid).map(|key| key.to_key())
    }
    fn key_schema(&self) -> Schema {
        A::Key::schema()
    }
    fn state_schema(&self) -> Schema {
        schemars::schema_for!(A)
    }
    fn read_command(&self, key: &Key, name: &str, data: &[u8]) -> Result<AnyCommand, ReadError> {
        let unknown = |name: &str| ReadError::Unknown {
            name: name.to_owned(),
        };
        let key = A::Key::parse(key.as_str()).map_err(|_| unknown(key.as_str()))?;
        let command = A::Command::read(name, data)
            .ok_or_else(|| unknown(name))?
            .map_err(|source| ReadError::Data {
                name: name.to_owned(),
                schema: 0,
                source,
            })?;
        Ok(AnyCommand {
            name: command.name(),
            inner: Box::new(TypedCommand::<A> { key, command }),
            write: |inner| canonical::to_vec(&Written(&typed::<A>(inner).command)),
        })
    }
    fn check(&self, command: &AnyCommand) -> Vec<Violation> {
        A::check(&typed::<A>(&*command.inner).command)
    }
    fn initial(&self) -> AnyState {
        AnyState(Box::new(A::default()))
    }
    fn restore(&self, snapshot: &[u8]) -> Result<AnyState, serde_json::Error> {
        Ok(AnyState(Box::new(serde_json::from_slice::<A>(snapshot)?)))
    }
    fn fingerprint(&self) -> Hash32 {
        self.fingerprint
    }
    fn data_subject(&self, command: &AnyCommand) -> DataSubject {
        let command = typed::<A>(&*command.inner);
        A::data_subject(&command.key, &command.command)
    }
    fn upcast(&self, event_type: &str, schema: u32, data: &RawValue) -> Result<Box<RawValue>, ReadError> {
        let event = A::Event::read(event_type, schema, data)?;
        to_raw(|s| event.write(s)).map_err(|source| ReadError::Data {
            name: event_type.to_owned(),
            schema,
            source,
        })
    }
}

impl<A: Aggregate> ErasedState for A {
    fn decide(
        &mut self,
        command: &(dyn Any + Send + Sync),
        time: DateTime<Utc>,
        version: Version,
    ) -> Result<Decision, serde_json::Error> {
        let TypedCommand { key, command } = typed::<A>(command);
        let events = match Aggregate::decide(self, command, &Context::new(key, time, version)) {
            Ok(events) => events,
            Err(rejection) => {
                let detail = to_raw(|s| rejection.write_detail(s))?;
                return Ok(Err(Refusal {
                    code: rejection.code().to_owned(),
                    detail,
                }));
            }
        };
        let encoded = events
            .iter()
            .map(|event| {
                // What was just written is not read again to see whether it is JSON.
                let data = to_raw_value(&WrittenEvent(event))?;
                Ok(EncodedEvent {
                    event_type: event.event_type(),
                    schema: event.schema(),
                    data,
                })
            })
            .collect::<Result<Vec<_>, serde_json::Error>>()?;
        events.iter().for_each(|event| Aggregate::evolve(self, event));
        Ok(Ok(encoded))
    }
    fn evolve(&mut self, event_type: &str, schema: u32, data: &RawValue) -> Result<(), ReadError> {
        Aggregate::evolve(self, &A::Event::read(event_type, schema, data)?);
        Ok(())
    }
    fn owner(&self, command: &(dyn Any + Send + Sync)) -> Option<Owner> {
        let TypedCommand { key, command } = typed::<A>(command);
        Aggregate::owner(self, key, command)
    }
    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
    fn boxed_clone(&self) -> Box<dyn ErasedState> {
        Box::new(self.clone())
    }
}

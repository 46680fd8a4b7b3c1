//! The decider: an aggregate's state, what it is asked, what it answers, and what happened to it.

use std::fmt;

use annals_record::{Key, Version};
use chrono::{DateTime, NaiveDate, Utc};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

/// A consistency boundary with rules: one stream of events, and the state that they add up to.
///
/// `Self::default()` means "there is no such thing yet". `decide` and `evolve` never panic, read no clock and
/// know nothing of storage; a kit test in every domain shows the first, the types see to the rest.
///
/// **Source:** Jérémie Chassaing, "Functional Event Sourcing Decider" (2021), for the shape.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    label = "write `impl Aggregate for {Self}`"
)]
pub trait Aggregate: State {
    /// The kind of stream, `order`; the first part of every stream id. Grammar `[a-z][a-z0-9_]*`.
    const CATEGORY: &'static str;
    /// The plural under which HTTP knows it, `orders`.
    const RESOURCE: &'static str;
    /// Raised whenever `evolve` changes what it makes of the same events, so that older snapshots are discarded.
    const REVISION: u32;
    /// The commands that a client may send without a key; the server then makes it ([`AggregateKey::made_from`]).
    const KEYLESS: &'static [&'static str] = &[];
    /// What identifies one instance.
    type Key: AggregateKey;
    /// What it can be asked.
    type Command: Command;
    /// What can have happened to it.
    type Event: Event;
    /// How its rules say no.
    type Rejection: Rejection;

    /// Answers a command from the present state: the events that follow, or why the rules refuse.
    ///
    /// No events means "nothing changes", which is an answer too.
    ///
    /// # Errors
    /// The rejection of the first rule that says no.
    fn decide(
        &self,
        command: &Self::Command,
        ctx: &Context<'_, Self>,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Takes in one event that has happened. Cannot fail: what happened, happened.
    fn evolve(&mut self, event: &Self::Event);

    /// Whose instance this is, or would be: the caller bound to own rows must be this one.
    /// `None` means nobody's, and such a caller is refused.
    fn owner(&self, key: &Self::Key, command: &Self::Command) -> Option<Owner>;

    /// Whose personal data the command carries; needs no state. The default: the instance's own key.
    fn data_subject(key: &Self::Key, command: &Self::Command) -> DataSubject {
        let _ = command;
        DataSubject::new(Self::CATEGORY, &key.to_key())
    }

    /// What is wrong with a command that one look at its body shows and no schema can say: fields that
    /// contradict each other, a sum that is too large. Every violation, none if it is fine.
    fn check(command: &Self::Command) -> Vec<Violation> {
        let _ = command;
        Vec::new()
    }
}

/// A state that can be kept as a snapshot. Nothing to write: derive what it asks for.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an aggregate's or a process's state yet",
    label = "derive `Default, Clone, Debug, Serialize, Deserialize, JsonSchema` on it"
)]
pub trait State:
    Default + Clone + fmt::Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
}
impl<T> State for T where
    T: Default + Clone + fmt::Debug + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static
{
}

/// What `decide` may know beside state and command.
#[derive(Debug)]
pub struct Context<'a, A: Aggregate> {
    key: &'a A::Key,
    time: DateTime<Utc>,
    version: Version,
}

impl<'a, A: Aggregate> Context<'a, A> {
    /// For the engine and the kit.
    pub fn new(key: &'a A::Key, time: DateTime<Utc>, version: Version) -> Self {
        Self { key, time, version }
    }

    /// The key of the instance that is asked.
    pub fn key(&self) -> &'a A::Key {
        self.key
    }

    /// The time of the record that this decision becomes (milliseconds); never falls within a shard (L7).
    pub fn time(&self) -> DateTime<Utc> {
        self.time
    }

    /// The day of [`Self::time`] in UTC.
    pub fn today(&self) -> NaiveDate {
        self.time.date_naive()
    }

    /// How many events the stream has.
    pub fn version(&self) -> Version {
        self.version
    }
}

/// Refuses with `rejection` unless `holds`.
///
/// # Errors
/// `rejection`, if `holds` is false.
pub fn ensure<R>(holds: bool, rejection: R) -> Result<(), R> {
    if holds { Ok(()) } else { Err(rejection) }
}

/// The type of an aggregate's key: parses from the part of a stream id behind the first `-`, and writes it.
pub trait AggregateKey: Clone + fmt::Debug + Send + Sync + 'static {
    /// Reads a key. It is already of the grammar of [`Key`]; this says whether it is of *this* type, and brings
    /// it into its one form (a UUID in lower case).
    ///
    /// # Errors
    /// [`InvalidKey`] with what is expected. At the edge that is a 404.
    fn parse(text: &str) -> Result<Self, InvalidKey>;
    /// The one form of this key.
    fn to_key(&self) -> Key;
    /// The key that the server makes where a client leaves that to it; `None` if this type cannot be made so.
    fn made_from(uuid: Uuid) -> Option<Self> {
        let _ = uuid;
        None
    }
    /// The JSON Schema of its text.
    fn schema() -> Schema;
}

/// A text that is not a key of an aggregate's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected} is expected as the key")]
pub struct InvalidKey {
    /// What would have been right, "a UUID".
    pub expected: &'static str,
}

/// Whose stream it is: the value that a caller's owner claim must have (`auth.owner_claim`, default `/sub`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(Box<str>);

impl Owner {
    /// An owner by the text of its claim.
    pub fn new(claim: impl Into<Box<str>>) -> Self {
        Self(claim.into())
    }
    /// The text of the claim.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whom personal data are about: the name of a key in `subject_key`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataSubject(Box<str>);

impl DataSubject {
    /// The data subject behind an instance: its stream id.
    pub fn new(category: &str, key: &Key) -> Self {
        Self(format!("{category}-{key}").into())
    }
    /// A data subject as it is written down in a sealed value.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }
    /// Its name in `subject_key`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DataSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing wrong with a body: where, as a JSON Pointer (RFC 6901), and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// `/lines/1/unit_price`; empty for the whole body.
    pub pointer: String,
    /// What is wrong and what would be right, in words.
    pub message: String,
}

impl Violation {
    /// A violation at `pointer`.
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

/// What an aggregate can be asked: an enum, one struct (or nothing) a variant. Derive it.
///
/// A variant's name in kebab-case is the command's name in the path: `ChangeContact` is `change-contact`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of commands",
    label = "add `#[derive(annals::Command)]`"
)]
pub trait Command: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// Every command, in the order of the enum.
    fn types() -> Vec<CommandType>;
    /// The command's name.
    fn name(&self) -> &'static str;
    /// Reads the data of the command `name`; `None` if there is no such command.
    fn read(name: &str, data: &[u8]) -> Option<Result<Self, serde_json::Error>>;
    /// Writes the data of this command with a serializer of the caller's choice.
    ///
    /// # Errors
    /// What the serializer says; a personal value in the clear outside [`personal::in_the_clear`](crate::personal::in_the_clear).
    fn write<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// One command, for schemas and documentation.
#[derive(Clone)]
pub struct CommandType {
    /// Its name in the path.
    pub name: &'static str,
    /// The first paragraph of its documentation.
    pub doc: &'static str,
    /// The JSON Schema (2020-12) of its data.
    pub schema: fn() -> Schema,
}

/// What can have happened to an aggregate: an enum, one struct (or nothing) a variant. Derive it.
///
/// `#[event(category = "order")]` on the enum; a variant's type is the category, a dot and its name in
/// snake_case: `order.placed`. `#[event(schema = 2, was(PlacedV1))]` keeps schema 1 readable through
/// `From<PlacedV1> for Placed`; `was` lists every older shape from schema 1 on. `#[event(erasure)]` marks the
/// record of an erasure.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of events",
    label = "add `#[derive(annals::Event)]`"
)]
pub trait Event: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// Every event, in the order of the enum.
    fn types() -> Vec<EventType>;
    /// `order.placed`.
    fn event_type(&self) -> &'static str;
    /// The newest schema of this type, which is what gets written.
    fn schema(&self) -> u32;
    /// Writes the data of this event.
    ///
    /// # Errors
    /// What the serializer says; a personal value in the clear.
    fn write<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    /// Reads an event of any schema ever written, brought up to the newest.
    ///
    /// # Errors
    /// [`ReadError`], if type or schema are unknown or the data do not fit.
    fn read(event_type: &str, schema: u32, data: &RawValue) -> Result<Self, ReadError>;
}

/// One type of event with every schema it ever had.
#[derive(Clone)]
pub struct EventType {
    /// `order.placed`.
    pub name: &'static str,
    /// The first paragraph of its documentation.
    pub doc: &'static str,
    /// From schema 1 to the newest, without a gap.
    pub versions: Vec<EventVersion>,
    /// Whether it is the record of an erasure.
    pub erasure: bool,
}

/// One schema of an event.
#[derive(Clone)]
pub struct EventVersion {
    /// From 1.
    pub number: u32,
    /// The JSON Schema (2020-12) of its data.
    pub schema: fn() -> Schema,
}

/// How an aggregate's rules say no: an enum; a variant's name in snake_case is the code, its fields are the
/// detail. Derive it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of rejections",
    label = "add `#[derive(annals::Rejection)]`"
)]
pub trait Rejection: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// Every code that there is.
    const CODES: &'static [&'static str];
    /// `out_of_stock`.
    fn code(&self) -> &'static str;
    /// The fields as an object; `{}` if there are none.
    ///
    /// # Errors
    /// What the serializer says.
    fn write_detail<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// Something in a record that this program cannot read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No aggregate of this program has such an event or command.
    #[error("`{name}` is not known to this program")]
    Unknown {
        /// The type's name as it stands in the record.
        name: String,
    },
    /// Known, but written by a newer release.
    #[error("`{name}` schema {schema} is not known to this program, which reads schemas 1 to {newest}")]
    UnknownSchema {
        /// The event's type.
        name: String,
        /// The schema that the record names.
        schema: u32,
        /// The newest one that this program reads.
        newest: u32,
    },
    /// The data do not fit their schema.
    #[error("`{name}` schema {schema} does not read: {source}")]
    Data {
        /// The event's or command's name.
        name: String,
        /// Its schema; 0 for commands.
        schema: u32,
        /// What the parser says.
        source: serde_json::Error,
    },
}

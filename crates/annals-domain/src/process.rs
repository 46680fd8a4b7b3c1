//! Process managers: long-running logic across streams, pure like aggregates.

use std::fmt;
use std::time::Duration;

use annals_record::{Key, StreamId, Version};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::catalog::to_raw;
use crate::{Aggregate, AggregateKey, Command, Effect, Event, ReadError, Refusal, State};

/// Long-running logic across streams: reacts to records and timers with commands, timers and effects.
///
/// The state is one instance's. What it reads is only what it names in `Input`; what it learns of its own
/// commands comes from the log, never from the call.
pub trait Process: State {
    /// Its name: in keys, in the actor `process:{name}`, in tables.
    const NAME: &'static str;
    /// What tells instances apart.
    type Id: ProcessId;
    /// What it reacts to.
    type Input: Input;
    /// Its settings, read once at start.
    type Settings: Send + Sync + 'static;

    /// Which instance an input is for; `None` if it concerns none.
    fn instance(input: &Self::Input) -> Option<Self::Id>;

    /// Takes in one input and says what to do. Never panics.
    fn react(&mut self, input: &Self::Input, ctx: &ProcessContext<'_, Self>) -> Actions;

    /// Where the instance stands, a word for operators: `waiting for payment`.
    fn step(&self) -> &'static str;
}

/// What `react` may know beside state and input.
#[derive(Debug)]
pub struct ProcessContext<'a, P: Process> {
    /// The instance that reacts.
    pub id: &'a P::Id,
    /// The time of the record that is reacted to; for a timer, when it was due.
    pub time: DateTime<Utc>,
    /// The process's settings.
    pub settings: &'a P::Settings,
}

/// The id of an instance, as text in tables and keys.
pub trait ProcessId: Clone + fmt::Debug + Send + Sync + 'static {
    /// Reads what [`Self::to_text`] wrote.
    fn from_text(text: &str) -> Option<Self>;
    /// At most 128 characters of the grammar of keys.
    fn to_text(&self) -> String;
}

impl<K: AggregateKey> ProcessId for K {
    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
    fn to_text(&self) -> String {
        self.to_key().to_string()
    }
}

/// What a process reacts to: an enum with one variant an aggregate (`Outcome<A>`), and one a timer
/// (`#[input(timer)]`, holding the id). Derive it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not what a process reacts to",
    label = "add `#[derive(annals::Input)]`"
)]
pub trait Input: fmt::Debug + Sized + Send + 'static {
    /// The categories whose records are read.
    const CATEGORIES: &'static [&'static str];
    /// Makes the input of a record; `None` if its category is not among them.
    ///
    /// # Errors
    /// [`ReadError`], if the record's command or events do not read.
    fn from_record(record: &RecordView<'_>) -> Result<Option<Self>, ReadError>;
    /// Makes the input of a timer; `None` if there is no such timer.
    fn from_timer(name: &str, instance: &str) -> Option<Self>;
}

/// The name of a timer variant in snake_case: `timed_out`.
pub type TimerName = &'static str;

/// An accepted commit or refusal, as processes look at it. Data are as stored.
#[derive(Debug, Clone)]
pub struct RecordView<'a> {
    /// The stream.
    pub stream: &'a StreamId,
    /// The command's name.
    pub command: &'a str,
    /// The command's data.
    pub data: &'a RawValue,
    /// Version of the first event; with no events the next one.
    pub version: Version,
    /// Type, schema and data of each event, or the refusal.
    pub result: Result<Vec<(&'a str, u32, &'a RawValue)>, Refusal>,
    /// Whether it answers a command that this process sent.
    pub own: bool,
}

/// What became of one command to one instance of `A`.
#[derive(Debug, Clone)]
pub struct Outcome<A: Aggregate> {
    /// The instance.
    pub key: A::Key,
    /// What was asked.
    pub command: A::Command,
    /// What happened, or why not. Refusals, and commits without events, are seen only of own commands.
    pub result: Result<Vec<A::Event>, Refusal>,
    /// Whether it answers a command that this process sent.
    pub own: bool,
}

impl<A: Aggregate> Outcome<A> {
    /// The category of the records that it is read from.
    pub const CATEGORY: &'static str = A::CATEGORY;

    /// Reads a record of `A`'s category.
    ///
    /// # Errors
    /// [`ReadError`], if key, command or an event do not read.
    pub fn read(record: &RecordView<'_>) -> Result<Self, ReadError> {
        let unknown = |name: &str| ReadError::Unknown {
            name: name.to_owned(),
        };
        let key = A::Key::parse(record.stream.key()).map_err(|_| unknown(record.stream.as_str()))?;
        let command = A::Command::read(record.command, record.data.get().as_bytes())
            .ok_or_else(|| unknown(record.command))?
            .map_err(|source| ReadError::Data {
                name: record.command.to_owned(),
                schema: 0,
                source,
            })?;
        let result = match &record.result {
            Ok(events) => Ok(events
                .iter()
                .map(|(event_type, schema, data)| A::Event::read(event_type, *schema, data))
                .collect::<Result<_, _>>()?),
            Err(refusal) => Err(refusal.clone()),
        };
        Ok(Self {
            key,
            command,
            result,
            own: record.own,
        })
    }
}

/// A command that a process sends, or an effect's answer.
///
/// Two are equal if their data are the same text; they are always written in one order.
#[derive(Debug, Clone)]
pub struct SendCommand {
    /// The resource it goes to, `products`.
    pub resource: &'static str,
    /// Its category, `product`.
    pub category: &'static str,
    /// The instance.
    pub key: Key,
    /// The command's name.
    pub command: &'static str,
    /// Its data, as stored.
    pub data: Box<RawValue>,
}

impl SendCommand {
    /// A command to one instance of `A`.
    ///
    /// # Panics
    /// If the command holds a personal value in the clear, which no process can get hold of.
    pub fn to<A: Aggregate>(key: &A::Key, command: &A::Command) -> Self {
        Self {
            resource: A::RESOURCE,
            category: A::CATEGORY,
            key: key.to_key(),
            command: command.name(),
            data: to_raw(|s| command.write(s)).expect("a process holds no plain personal value"),
        }
    }
}

impl PartialEq for SendCommand {
    fn eq(&self, other: &Self) -> bool {
        let parts = |c: &Self| (c.resource, c.category, c.command);
        parts(self) == parts(other) && self.key == other.key && self.data.get() == other.data.get()
    }
}

/// One thing that a process wants done.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send a command. Commands of one instance to one stream go in order, each after the answer to the last.
    Send(SendCommand),
    /// Wake the instance: the timer `name` fires `after` the time of this input. The same name moves it.
    Wake {
        /// Which timer.
        timer: TimerName,
        /// How long after the input's time.
        after: Duration,
    },
    /// Take a timer back.
    WithdrawTimer(TimerName),
    /// Ask the outside world.
    Perform {
        /// [`Effect::NAME`].
        effect: &'static str,
        /// Its payload as JSON.
        payload: Box<RawValue>,
    },
    /// Take back every effect of this name that has not been sent.
    WithdrawEffect(&'static str),
    /// List the instance as stuck: an operator has to look.
    Stuck(String),
}

impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Send(a), Self::Send(b)) => a == b,
            (Self::Wake { timer, after }, Self::Wake { timer: t, after: a }) => timer == t && after == a,
            (Self::WithdrawTimer(a), Self::WithdrawTimer(b)) => a == b,
            (
                Self::Perform { effect, payload },
                Self::Perform {
                    effect: e,
                    payload: p,
                },
            ) => effect == e && payload.get() == p.get(),
            (Self::WithdrawEffect(a), Self::WithdrawEffect(b)) => a == b,
            (Self::Stuck(a), Self::Stuck(b)) => a == b,
            _ => false,
        }
    }
}

/// What a process wants done, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Actions(Vec<Action>);

impl Actions {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }
    /// And send a command to one instance of `A`.
    #[must_use]
    pub fn send<A: Aggregate>(self, key: &A::Key, command: A::Command) -> Self {
        self.and(Action::Send(SendCommand::to::<A>(key, &command)))
    }
    /// And wake this instance `after` the input's time.
    #[must_use]
    pub fn wake(self, timer: TimerName, after: Duration) -> Self {
        self.and(Action::Wake { timer, after })
    }
    /// And withdraw a timer.
    #[must_use]
    pub fn withdraw_timer(self, timer: TimerName) -> Self {
        self.and(Action::WithdrawTimer(timer))
    }
    /// And perform an effect.
    ///
    /// # Panics
    /// If the payload cannot be written as JSON.
    #[must_use]
    pub fn perform<E: Effect>(self, payload: &E::Payload) -> Self {
        let payload = to_raw(|s| payload.serialize(s)).expect("a payload is plain data");
        self.and(Action::Perform {
            effect: E::NAME,
            payload,
        })
    }
    /// And withdraw what has not been sent of an effect.
    #[must_use]
    pub fn withdraw_effect<E: Effect>(self) -> Self {
        self.and(Action::WithdrawEffect(E::NAME))
    }
    /// And list the instance as stuck.
    #[must_use]
    pub fn stuck(self, why: impl Into<String>) -> Self {
        self.and(Action::Stuck(why.into()))
    }
    /// And one more action.
    #[must_use]
    pub fn and(mut self, action: Action) -> Self {
        self.0.push(action);
        self
    }
    /// The actions, in order.
    pub fn into_vec(self) -> Vec<Action> {
        self.0
    }
    /// The actions, in order.
    pub fn as_slice(&self) -> &[Action] {
        &self.0
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        Self(actions.into_iter().collect())
    }
}

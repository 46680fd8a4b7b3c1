//! The domain of the simulation: a counter so small that most of its answers depend on its state.
//!
//! It is there twice: as an [`Aggregate`], which the engine drives, and as [`decide`], a plain function that the
//! oracle replays the accepted history through.

use std::sync::{Arc, OnceLock};

use annals_domain::{
    Aggregate, AggregateKey, Caller, Catalog, Command, CommandRequest, Context, Event, Owner, Permission,
    Precondition, Rejection, text_key,
};
use annals_record::{AppName, Fingerprint, KeyHash, StreamId, Version, hash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The counter never goes above it.
pub(crate) const CAP: i64 = 3;

text_key!(
    /// A counter's name.
    pub(crate) struct CounterKey(max = 64);
);

/// An amount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Amount {
    /// How many.
    pub(crate) by: i64,
}

/// What a counter can be asked.
#[derive(Clone, Debug, Command)]
pub(crate) enum CounterCommand {
    /// Adds, one event for each.
    Add(Amount),
    /// Takes away, with one event.
    Take(Amount),
    /// Brings the counter there; no event if it is there.
    Set(Amount),
}

/// Part of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Changed {
    by: i64,
}

/// What happens to a counter.
#[derive(Clone, Debug, Event)]
#[event(category = "counter")]
pub(crate) enum CounterEvent {
    /// One more.
    Added(Changed),
    /// So many less.
    Taken(Changed),
}

/// Why not.
#[derive(Clone, Debug, Rejection)]
pub(crate) enum CounterRejection {
    /// There is room for so many only.
    Full {
        /// How many.
        room: i64,
    },
    /// There are so many only.
    Short {
        /// How many.
        have: i64,
    },
}

/// The counter.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Counter {
    sum: i64,
}

impl Aggregate for Counter {
    const CATEGORY: &'static str = "counter";
    const RESOURCE: &'static str = "counters";
    const REVISION: u32 = 1;
    type Key = CounterKey;
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Rejection = CounterRejection;

    fn decide(
        &self,
        command: &CounterCommand,
        _: &Context<'_, Self>,
    ) -> Result<Vec<CounterEvent>, CounterRejection> {
        let added = |by: i64| (0..by).map(|_| CounterEvent::Added(Changed { by: 1 })).collect();
        let taken = |by: i64| vec![CounterEvent::Taken(Changed { by })];
        match command {
            CounterCommand::Add(Amount { by }) if self.sum + by > CAP => {
                Err(CounterRejection::Full { room: CAP - self.sum })
            }
            CounterCommand::Add(Amount { by }) => Ok(added(*by)),
            CounterCommand::Take(Amount { by }) if *by > self.sum => {
                Err(CounterRejection::Short { have: self.sum })
            }
            CounterCommand::Take(Amount { by }) => Ok(taken(*by)),
            CounterCommand::Set(Amount { by }) if *by == self.sum => Ok(vec![]),
            CounterCommand::Set(Amount { by }) if *by > self.sum => Ok(added(by - self.sum)),
            CounterCommand::Set(Amount { by }) => Ok(taken(self.sum - by)),
        }
    }

    fn evolve(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Added(changed) => self.sum += changed.by,
            CounterEvent::Taken(changed) => self.sum -= changed.by,
        }
    }

    fn owner(&self, key: &CounterKey, _: &CounterCommand) -> Option<Owner> {
        Some(Owner::new(key.to_key().as_str()))
    }
}

/// The catalog with the counter in it, made once.
pub(crate) fn catalog() -> Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    let make = || {
        let app = AppName::try_from("simulation").expect("it is of the grammar");
        Catalog::builder(app)
            .aggregate::<Counter>()
            .build()
            .expect("the counter is well-formed")
    };
    CATALOG.get_or_init(make).clone()
}

/// What a counter is asked, in the oracle's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add(i64),
    Take(i64),
    Set(i64),
}

/// What must be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Committed(Vec<&'static str>),
    Rejected { code: &'static str, detail: String },
    Mismatch { current: u64 },
}

/// The counter as a function: what a command is told at this sum and version, and the sum behind it.
pub(crate) fn decide(sum: i64, version: u64, verb: Verb, precondition: Precondition) -> (Told, i64) {
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Version(expected) => expected.get() == version,
        Precondition::Exists => version > 0,
        Precondition::Absent => version == 0,
    };
    if !holds {
        return (Told::Mismatch { current: version }, sum);
    }
    let after = match verb {
        Verb::Add(by) => sum + by,
        Verb::Take(by) => sum - by,
        Verb::Set(to) => to,
    };
    if after > CAP {
        let detail = format!("{{\"room\":{}}}", CAP - sum);
        return (Told::Rejected { code: "full", detail }, sum);
    }
    if after < 0 {
        let detail = format!("{{\"have\":{sum}}}");
        return (
            Told::Rejected {
                code: "short",
                detail,
            },
            sum,
        );
    }
    let events = match usize::try_from(after - sum) {
        Ok(more) => vec!["counter.added"; more],
        Err(_) => vec!["counter.taken"],
    };
    (Told::Committed(events), after)
}

/// One command as the edge would hand it to the engine. `attempt` travels as its correlation.
pub(crate) fn request(
    catalog: &Catalog,
    stream: &StreamId,
    verb: Verb,
    precondition: Precondition,
    key: u32,
    attempt: usize,
    foreign: bool,
) -> CommandRequest {
    let aggregate = catalog.category("counter").expect("it is registered");
    let (name, by) = match verb {
        Verb::Add(by) => ("add", by),
        Verb::Take(by) => ("take", by),
        Verb::Set(by) => ("set", by),
    };
    let parsed = aggregate
        .parse_key(stream.key())
        .expect("the simulation's keys are well-formed");
    let command = aggregate
        .parse(&parsed, name, format!("{{\"by\":{by}}}").as_bytes())
        .expect("the simulation's commands are well-formed");
    let data = command.canonical().expect("nothing in it is personal");
    let caller = if foreign { "eve" } else { stream.key() };
    let print = [caller.as_bytes(), name.as_bytes(), &data].concat();
    let print = [print, precondition.canonical().into_bytes()].concat();
    CommandRequest {
        stream: stream.clone(),
        command,
        data: serde_json::from_slice(&data).expect("it was just written"),
        fingerprint: Fingerprint::new(hash::sha256(&print)),
        idempotency_key: key_hash(key),
        precondition,
        caller: Caller {
            sub: caller.into(),
            roles: Arc::from([]),
            owner: Some(caller.into()),
        },
        permission: Permission::IfOwner,
        correlation: attempt.to_string(),
        causation: None,
        traceparent: None,
        metadata: None,
    }
}

pub(crate) fn key_hash(key: u32) -> KeyHash {
    KeyHash::of(&key.to_string())
}

/// A precondition on a version.
pub(crate) fn at_version(version: u64) -> Precondition {
    Precondition::Version(Version::new(version))
}

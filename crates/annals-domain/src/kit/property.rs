//! Generated sequences of commands against one aggregate, erased as in production.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use annals_record::{AppName, Key, Version};
use chrono::TimeDelta;

use super::{Dice, default_key, time};
use crate::catalog::{AggregateType, AnyState, Decision, EncodedEvent, to_raw};
use crate::{Aggregate, AggregateKey, Catalog, Command};

/// How often what came of the commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events by type.
    pub events: BTreeMap<String, u64>,
    /// Rejections by code.
    pub rejections: BTreeMap<String, u64>,
    /// Commands that changed nothing.
    pub unchanged: u64,
}

/// Sends `steps` generated commands each to one new instance a seed, through the [`Catalog`], and shows that nothing
/// panics, that commands and events survive their JSON form, that the stored events alone lead to the same state,
/// that a refusal changes nothing, and that a snapshot can be taken up anywhere.
///
/// Time goes on by up to a day between commands. The tally says what came of it all: assert on it that the
/// generator reaches every event and every rejection.
///
/// # Panics
/// If one of these does not hold, after naming seed and step; or if no command of any seed was accepted.
pub fn never_panics<A: Aggregate>(
    seeds: Range<u64>,
    steps: u32,
    mut generate: impl FnMut(&mut Dice) -> A::Command,
) -> Tally {
    let app = AppName::try_from("kit").expect("it is of the grammar");
    let catalog = Catalog::builder(app).aggregate::<A>().build();
    let catalog = catalog.unwrap_or_else(|error| panic!("{error}"));
    let aggregate = catalog.category(A::CATEGORY).expect("it was just registered");
    let Some(key) = default_key::<A>() else {
        panic!("no key of this type can be made up")
    };
    let mut tally = Tally::default();
    for seed in seeds {
        let mut dice = Dice::new(seed);
        let mut instance = Instance::new(aggregate, key.to_key());
        for step in 0..steps {
            let mut place = Place {
                seed,
                step,
                command: String::new(),
            };
            let command = generate(&mut dice);
            place.command = format!("{command:?}");
            instance.take::<A>(&command, &mut dice, &mut tally);
        }
    }
    assert!(
        !tally.events.is_empty(),
        "the rules accepted nothing, so nothing was shown: {tally:?}"
    );
    tally
}

/// Says where a panic happened, on its way out.
struct Place {
    seed: u64,
    step: u32,
    command: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, step {}: {}", self.seed, self.step, self.command)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{self}");
        }
    }
}

struct Instance<'a> {
    aggregate: &'a AggregateType,
    key: Key,
    now: chrono::DateTime<chrono::Utc>,
    version: Version,
    /// Evolves as it decides, as an engine's does.
    live: AnyState,
    /// Evolves from stored events alone.
    replayed: AnyState,
}

impl<'a> Instance<'a> {
    fn new(aggregate: &'a AggregateType, key: Key) -> Self {
        Self {
            aggregate,
            key,
            now: time(),
            version: Version::new(0),
            live: aggregate.initial(),
            replayed: aggregate.initial(),
        }
    }

    fn take<A: Aggregate>(&mut self, command: &A::Command, dice: &mut Dice, tally: &mut Tally) {
        self.now += TimeDelta::seconds(dice.number(0..=86_400));
        let data =
            to_raw(|s| command.write(s)).unwrap_or_else(|error| panic!("it cannot be written: {error}"));
        let stored = self
            .aggregate
            .read_stored(&self.key, command.name(), data.get().as_bytes());
        let stored = stored.unwrap_or_else(|error| panic!("it cannot be read back: {error}"));
        let before = json(&self.live);
        let decision = self.live.decide(&stored, self.now, self.version);
        match decision.unwrap_or_else(|error| panic!("its answer cannot be written: {error}")) {
            Decision::Err(refusal) => {
                assert_eq!(json(&self.live), before, "a refusal changed the state");
                *tally.rejections.entry(refusal.code).or_default() += 1;
            }
            Decision::Ok(events) if events.is_empty() => {
                assert_eq!(json(&self.live), before, "no event changed the state");
                tally.unchanged += 1;
            }
            Decision::Ok(events) => self.replay(&events, tally),
        }
    }

    fn replay(&mut self, events: &[EncodedEvent], tally: &mut Tally) {
        for event in events {
            let read = self.replayed.evolve(event.event_type, event.schema, &event.data);
            read.unwrap_or_else(|error| panic!("{} cannot be read back: {error}", event.event_type));
            self.version = self.version.next();
            *tally.events.entry(event.event_type.to_owned()).or_default() += 1;
        }
        let live = json(&self.live);
        assert_eq!(
            json(&self.replayed),
            live,
            "the stored events lead to another state"
        );
        let restored = self.aggregate.restore(live.as_bytes());
        self.live = restored.unwrap_or_else(|error| panic!("its snapshot cannot be read: {error}"));
        assert_eq!(json(&self.live), live, "a snapshot is another state");
    }
}

fn json(state: &AnyState) -> String {
    let bytes = state
        .to_json()
        .unwrap_or_else(|error| panic!("the state cannot be written: {error}"));
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

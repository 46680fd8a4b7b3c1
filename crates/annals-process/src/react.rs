//! Reacting to a batch, without I/O: inputs and what is stored go in, what is to be stored comes out.
//!
//! *Invariant:* commands of one instance to one stream go one after the other; the next is released by the record
//! of the one before. Keys follow from what is reacted to, so that reacting again gives the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use annals_domain::{Action, SendCommand};
use annals_record::{KeyHash, Offset, RecordId, Shard};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::erased::{AnyInput, ErasedProcess};

/// One thing to react to.
pub(crate) struct Stimulus {
    /// The instance.
    pub(crate) instance: String,
    /// `None`: a timer that this program does not know.
    pub(crate) input: Option<AnyInput>,
    pub(crate) time: DateTime<Utc>,
    /// Record or timer, as keys and causation name it.
    pub(crate) cause: Cause,
    /// Where the record stands; `None` for a timer.
    pub(crate) place: Option<Place>,
    /// Why the record does not read.
    pub(crate) unreadable: Option<String>,
    /// Where it has waited, if its instance was parked.
    pub(crate) waited: Option<Waited>,
}

/// Where a record stands, and whether it answers a command of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: Shard,
    pub(crate) offset: Offset,
    pub(crate) own: bool,
}

/// A row of what waits for a parked instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waited {
    pub(crate) instance: String,
    pub(crate) n: i64,
}

#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// The id of a record.
    Record(String),
    /// A timer: its name, due time in ms, and its number, which the instance gives to one timer only.
    Timer { name: String, due_ms: i64, n: i64 },
    /// A record that waited and concerns nobody.
    Nothing,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(id) => write!(f, "record {id}"),
            Self::Timer { name, .. } => write!(f, "timer `{name}`"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// The record that a command with this key follows from; a timer is none. The answer to an effect follows from what
/// the effect follows from. Neither names nor ids hold a colon, and a timer's name is no number.
pub(crate) fn causation(key: &str) -> Option<&str> {
    let mut parts = key.split(':').skip(1);
    let record = parts.next()?;
    let numbered = parts.next()?.parse::<u64>().is_ok();
    (numbered && record.parse::<RecordId>().is_ok()).then_some(record)
}

impl Cause {
    fn key(&self, process: &str, instance: &str, n: usize) -> String {
        match self {
            Self::Record(id) => format!("{process}:{id}:{n}"),
            Self::Timer {
                name,
                due_ms,
                n: count,
            } => format!("{process}:{instance}:{name}:{due_ms}:{count}:{n}"),
            Self::Nothing => format!("{process}:{instance}:nothing:{n}"),
        }
    }
}

/// What is stored of one instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Instance {
    pub(crate) state: Option<Vec<u8>>,
    pub(crate) step: String,
    pub(crate) stuck: Option<String>,
    /// It could not react: what comes for it waits.
    pub(crate) parked: bool,
    /// It was parked just now: what waited for it goes on waiting.
    pub(crate) parked_now: bool,
    /// The highest number of its outbox rows.
    pub(crate) last_seq: i64,
    /// Streams to which a command of it is open (sent or waiting).
    pub(crate) busy: BTreeSet<String>,
    /// How many timers it ever set. Rows come and go, so this is counted here: a number never comes twice, and with
    /// it no key, even if a timer is set again for the very millisecond at which it fired.
    pub(crate) timers_set: i64,
    /// The timers that are set, and the number of each.
    pub(crate) timers: BTreeMap<String, i64>,
}

impl Instance {
    /// A timer that was reacted to is set no more.
    fn fired(&mut self, stimulus: &Stimulus, timers: &mut BTreeMap<(String, String), Option<NewTimer>>) {
        if let Cause::Timer { name, .. } = &stimulus.cause {
            self.timers.remove(name);
            timers.insert((stimulus.instance.clone(), name.clone()), None);
        }
    }
}

/// A row for the outbox.
#[derive(Debug, Clone)]
pub(crate) struct NewRow {
    pub(crate) instance: String,
    pub(crate) seq: i64,
    pub(crate) what: What,
    pub(crate) key: String,
    /// Whether it goes out at once; else it waits for the one before.
    pub(crate) now: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Command(SendCommand),
    Effect {
        name: &'static str,
        payload: Box<RawValue>,
    },
}

impl NewRow {
    pub(crate) fn key_hash(&self) -> KeyHash {
        KeyHash::of(&self.key)
    }

    pub(crate) fn stream(&self) -> Option<String> {
        match &self.what {
            What::Command(command) => Some(format!("{}-{}", command.category, command.key)),
            What::Effect { .. } => None,
        }
    }
}

/// A timer as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTimer {
    pub(crate) instance: String,
    pub(crate) name: String,
    pub(crate) due: DateTime<Utc>,
    pub(crate) n: i64,
}

/// What a batch leads to.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) instances: BTreeMap<String, Instance>,
    pub(crate) rows: Vec<NewRow>,
    /// The last word on each timer: set, or withdrawn.
    pub(crate) timers: BTreeMap<(String, String), Option<NewTimer>>,
    /// Effects withdrawn: instance, name, and the rows below this number only (later ones were asked for after).
    pub(crate) withdrawn: Vec<(String, &'static str, i64)>,
    /// What waits for parked instances from now on, in order.
    pub(crate) held: Vec<(String, Place)>,
    /// What waits no more.
    pub(crate) released: Vec<Waited>,
}

/// Reacts to stimuli in their order, over the instances as they are stored. An instance that cannot react is parked,
/// and what comes for it waits; all others go on.
pub(crate) fn react(
    process: &dyn ErasedProcess,
    instances: BTreeMap<String, Instance>,
    stimuli: Vec<Stimulus>,
) -> Changes {
    let mut changes = Changes {
        instances,
        ..Changes::default()
    };
    for stimulus in stimuli {
        let instance = changes.instances.entry(stimulus.instance.clone()).or_default();
        // What has waited for this very instance comes first of all; and it waits on if the instance is parked again.
        let waited = stimulus.waited.as_ref();
        let has_waited = waited.is_some_and(|waited| waited.instance == stimulus.instance);
        if instance.parked_now && has_waited {
            continue;
        }
        if instance.parked && !has_waited {
            changes.hold(&stimulus);
            continue;
        }
        if matches!(stimulus.cause, Cause::Nothing) {
            changes.released.extend(stimulus.waited.clone());
            continue;
        }
        if let Some(why) = &stimulus.unreadable {
            changes.park(&stimulus, why.clone());
            continue;
        }
        if let Cause::Timer { name, n, .. } = &stimulus.cause {
            // Withdrawn or set anew since it was looked up: by an input before it, or by another runner.
            if instance.timers.get(name) != Some(n) {
                continue;
            }
        }
        let Some(input) = &stimulus.input else {
            instance.fired(&stimulus, &mut changes.timers);
            instance.stuck = Some(format!(
                "{} fell due, which this program does not know",
                stimulus.cause
            ));
            continue;
        };
        let state = instance.state.as_deref();
        let reaction = process.react(&stimulus.instance, state, input, stimulus.time);
        let reaction = match reaction {
            Ok(reaction) => reaction,
            Err(error) => {
                changes.park(&stimulus, error.to_string());
                continue;
            }
        };
        instance.fired(&stimulus, &mut changes.timers);
        changes.released.extend(stimulus.waited.clone());
        instance.state = Some(reaction.state);
        reaction.step.clone_into(&mut instance.step);
        for (n, action) in reaction.actions.into_vec().into_iter().enumerate() {
            changes.act(process.name(), &stimulus, n, action);
        }
    }
    changes
}

/// The state of an instance that was parked before it began; no JSON, so it is never one's own.
pub(crate) const NO_STATE: &[u8] = b"";

impl Changes {
    /// Its instance cannot react to it.
    fn park(&mut self, stimulus: &Stimulus, why: String) {
        let instance = self.instances.entry(stimulus.instance.clone()).or_default();
        if instance.state.is_none() {
            instance.state = Some(NO_STATE.to_vec());
            "unreadable".clone_into(&mut instance.step);
        }
        instance.stuck = Some(why);
        instance.parked = true;
        instance.parked_now = true;
        let waited = stimulus.waited.as_ref();
        if waited.is_none_or(|waited| waited.instance != stimulus.instance) {
            self.hold(stimulus);
        }
    }

    /// It waits until its instance is resumed. A timer waits where it is.
    fn hold(&mut self, stimulus: &Stimulus) {
        if let Some(place) = stimulus.place {
            self.held.push((stimulus.instance.clone(), place));
        }
        self.released.extend(stimulus.waited.clone());
    }

    fn act(&mut self, process: &str, stimulus: &Stimulus, n: usize, action: Action) {
        let name = &stimulus.instance;
        let Some(instance) = self.instances.get_mut(name) else {
            return;
        };
        match action {
            Action::Send(command) => {
                let stream = format!("{}-{}", command.category, command.key);
                let now = instance.busy.insert(stream);
                self.push(process, stimulus, n, What::Command(command), now);
            }
            Action::Perform { effect, payload } => {
                self.push(
                    process,
                    stimulus,
                    n,
                    What::Effect {
                        name: effect,
                        payload,
                    },
                    true,
                );
            }
            Action::Wake { timer, after } => {
                instance.timers_set += 1;
                instance.timers.insert(timer.to_owned(), instance.timers_set);
                let due = stimulus.time + after;
                let new = NewTimer {
                    instance: name.clone(),
                    name: timer.to_owned(),
                    due,
                    n: instance.timers_set,
                };
                self.timers.insert((name.clone(), timer.to_owned()), Some(new));
            }
            Action::WithdrawTimer(timer) => {
                instance.timers.remove(timer);
                self.timers.insert((name.clone(), timer.to_owned()), None);
            }
            Action::WithdrawEffect(effect) => {
                let below = instance.last_seq + 1;
                self.rows.retain(|row| {
                    let same = matches!(&row.what, What::Effect { name, .. } if *name == effect);
                    !(row.instance == *name && same)
                });
                self.withdrawn.push((name.clone(), effect, below));
            }
            Action::Stuck(why) => instance.stuck = Some(why),
        }
    }

    fn push(&mut self, process: &str, stimulus: &Stimulus, n: usize, what: What, now: bool) {
        let key = stimulus.cause.key(process, &stimulus.instance, n);
        self.push_row(&stimulus.instance, what, key, now);
    }

    fn push_row(&mut self, name: &str, what: What, key: String, now: bool) {
        let Some(instance) = self.instances.get_mut(name) else {
            return;
        };
        instance.last_seq += 1;
        self.rows.push(NewRow {
            instance: name.to_owned(),
            seq: instance.last_seq,
            what,
            key,
            now,
        });
    }

    /// An effect's answer goes out as a command of its instance.
    pub(crate) fn answer(&mut self, name: &str, command: SendCommand, effect_key: &str) {
        let Some(instance) = self.instances.get_mut(name) else {
            return;
        };
        let now = instance
            .busy
            .insert(format!("{}-{}", command.category, command.key));
        self.push_row(name, What::Command(command), format!("{effect_key}:answer"), now);
    }
}

#[cfg(test)]
mod tests;

//! Reacting is a function: what it gives for made-up inputs, and what holds for any.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_domain::{Action, Actions, ReadError, RecordView, SendCommand};
use annals_record::{Key, Offset, RecordId, Shard};
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::{Cause, Changes, Instance, NewTimer, Place, Stimulus, Waited, What, causation, react};
use crate::erased::{AnyInput, ErasedProcess, ReactError, Reaction};

/// Does what its input says; its state counts the inputs.
struct Parrot;

impl ErasedProcess for Parrot {
    fn name(&self) -> &'static str {
        "parrot"
    }
    fn categories(&self) -> &'static [&'static str] {
        &[]
    }
    fn of_record(&self, _: &RecordView<'_>) -> Result<Option<(String, AnyInput)>, ReadError> {
        Ok(None)
    }
    fn of_timer(&self, _: &str, _: &str) -> Option<AnyInput> {
        None
    }
    fn react(
        &self,
        instance: &str,
        state: Option<&[u8]>,
        input: &AnyInput,
        _: DateTime<Utc>,
    ) -> Result<Reaction, ReactError> {
        if instance == "broken" {
            return Err(ReactError::Id(instance.to_owned()));
        }
        let count = state.map_or(0, |state| state[0]);
        let actions: &Vec<Action> = input.downcast_ref().unwrap();
        Ok(Reaction {
            state: vec![count.wrapping_add(1)],
            step: "parroting",
            actions: actions.iter().cloned().collect::<Actions>(),
        })
    }
}

fn raw() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap()
}

fn send(stream: &str) -> Action {
    Action::Send(SendCommand {
        resource: "accounts",
        category: "account",
        key: Key::try_from(stream).unwrap(),
        command: "take",
        data: raw(),
    })
}

const EFFECTS: [&str; 2] = ["ask", "tell"];
const TIMERS: [&str; 2] = ["soon", "late"];

fn perform(effect: &'static str) -> Action {
    Action::Perform {
        effect,
        payload: raw(),
    }
}

fn wake(timer: &'static str, ms: u64) -> Action {
    Action::Wake {
        timer,
        after: Duration::from_millis(ms),
    }
}

fn time() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_790_000_000_000).unwrap()
}

fn record(n: u64) -> String {
    RecordId::from_parts(1_790_000_000_000 + n, [7; 10]).to_string()
}

fn on_record(n: u64, instance: &str, actions: Vec<Action>) -> Stimulus {
    Stimulus {
        instance: instance.to_owned(),
        input: Some(Box::new(actions)),
        time: time() + TimeDelta::milliseconds(i64::try_from(n).unwrap()),
        cause: Cause::Record(record(n)),
        place: Some(Place {
            shard: Shard::new(0),
            offset: Offset::new(n),
            own: false,
        }),
        unreadable: None,
        waited: None,
    }
}

fn on_timer(instance: &str, name: &str, n: i64, actions: Vec<Action>) -> Stimulus {
    let cause = Cause::Timer {
        name: name.to_owned(),
        due_ms: time().timestamp_millis(),
        n,
    };
    Stimulus {
        instance: instance.to_owned(),
        input: Some(Box::new(actions)),
        time: time(),
        cause,
        place: None,
        unreadable: None,
        waited: None,
    }
}

fn reacted(instances: BTreeMap<String, Instance>, stimuli: Vec<Stimulus>) -> Changes {
    react(&Parrot, instances, stimuli)
}

fn keys(changes: &Changes) -> Vec<(&str, i64, bool)> {
    changes
        .rows
        .iter()
        .map(|row| (row.key.as_str(), row.seq, row.now))
        .collect()
}

fn with(instance: Instance) -> BTreeMap<String, Instance> {
    [("i".to_owned(), instance)].into()
}

#[test]
fn only_the_first_open_command_to_a_stream_goes_out_at_once() {
    let stored = Instance {
        last_seq: 4,
        busy: ["account-busy".to_owned()].into(),
        ..Instance::default()
    };
    let wanted = vec![send("a"), send("busy"), send("b"), send("a")];
    let changes = reacted(
        with(stored),
        vec![on_record(1, "i", wanted), on_record(2, "i", vec![send("b")])],
    );
    let of = |n, k| format!("parrot:{}:{k}", record(n));
    let (a, busy, b, again, later) = (of(1, 0), of(1, 1), of(1, 2), of(1, 3), of(2, 0));
    let expected = [
        (&a, 5, true),
        (&busy, 6, false),
        (&b, 7, true),
        (&again, 8, false),
        (&later, 9, false),
    ];
    assert_eq!(
        keys(&changes),
        expected.map(|(key, seq, now)| (key.as_str(), seq, now))
    );
    assert_eq!(changes.instances["i"].last_seq, 9);
    assert_eq!(changes.instances["i"].state, Some(vec![2]));
}

#[test]
fn instances_do_not_wait_for_each_other() {
    let stimuli = vec![
        on_record(1, "i", vec![send("a")]),
        on_record(2, "k", vec![send("a")]),
    ];
    let changes = reacted(BTreeMap::new(), stimuli);
    assert!(changes.rows.iter().all(|row| row.now && row.seq == 1));
}

#[test]
fn the_last_word_on_a_timer_counts() {
    let set_and_withdrawn = vec![wake("soon", 5), wake("late", 5), Action::WithdrawTimer("soon")];
    let changes = reacted(
        BTreeMap::new(),
        vec![
            on_record(1, "i", set_and_withdrawn),
            on_record(2, "i", vec![wake("late", 70)]),
        ],
    );
    let late = NewTimer {
        instance: "i".to_owned(),
        name: "late".to_owned(),
        due: time() + TimeDelta::milliseconds(72),
        n: 3,
    };
    let of = |timer: &str| ("i".to_owned(), timer.to_owned());
    assert_eq!(
        changes.timers,
        [(of("late"), Some(late)), (of("soon"), None)].into()
    );
}

#[test]
fn a_timer_that_fired_is_gone_unless_its_input_sets_it_again_and_then_its_keys_are_new() {
    let stored = Instance {
        timers: [("soon".to_owned(), 4)].into(),
        timers_set: 6,
        ..Instance::default()
    };
    let changes = reacted(
        with(stored.clone()),
        vec![on_timer("i", "soon", 4, vec![send("a")])],
    );
    assert_eq!(
        changes.timers,
        [(("i".to_owned(), "soon".to_owned()), None)].into()
    );
    assert_eq!(changes.rows[0].key, "parrot:i:soon:1790000000000:4:0");

    let again = vec![wake("soon", 0), send("a")];
    let changes = reacted(with(stored), vec![on_timer("i", "soon", 4, again)]);
    let timer = changes.timers[&("i".to_owned(), "soon".to_owned())]
        .clone()
        .unwrap();
    assert_eq!(
        (timer.n, timer.due),
        (7, time()),
        "the same millisecond, another number"
    );
    assert_eq!(changes.instances["i"].timers_set, 7);
}

#[test]
fn a_timer_that_was_withdrawn_or_moved_meanwhile_does_not_fire() {
    let stored = Instance {
        timers: [("soon".to_owned(), 1), ("late".to_owned(), 2)].into(),
        timers_set: 2,
        ..Instance::default()
    };
    // Both are due; the first withdraws the second.
    let stimuli = vec![
        on_timer("i", "soon", 1, vec![Action::WithdrawTimer("late")]),
        on_timer("i", "late", 2, vec![send("a")]),
    ];
    let changes = reacted(with(stored.clone()), stimuli);
    assert!(changes.rows.is_empty());
    assert!(changes.timers.values().all(Option::is_none));
    // The first moves the second.
    let stimuli = vec![
        on_timer("i", "soon", 1, vec![wake("late", 9)]),
        on_timer("i", "late", 2, vec![send("a")]),
    ];
    let changes = reacted(with(stored.clone()), stimuli);
    assert!(changes.rows.is_empty());
    assert!(
        changes.timers[&("i".to_owned(), "late".to_owned())].is_some(),
        "it still stands"
    );
    // Another runner fired it already, or set it anew.
    let changes = reacted(with(stored), vec![on_timer("i", "soon", 7, vec![send("a")])]);
    assert!(changes.rows.is_empty() && changes.timers.is_empty());
}

#[test]
fn a_timer_without_an_input_lists_the_instance_and_is_gone() {
    let stored = Instance {
        timers: [("old".to_owned(), 1)].into(),
        state: Some(vec![3]),
        ..Instance::default()
    };
    let stimulus = Stimulus {
        input: None,
        ..on_timer("i", "old", 1, vec![])
    };
    let changes = reacted(with(stored), vec![stimulus]);
    assert!(changes.instances["i"].stuck.as_deref().unwrap().contains("`old`"));
    assert_eq!(changes.instances["i"].state, Some(vec![3]), "it did not react");
    assert_eq!(
        changes.timers,
        [(("i".to_owned(), "old".to_owned()), None)].into()
    );
}

#[test]
fn withdrawing_an_effect_takes_back_what_was_asked_before_and_not_after() {
    let wanted = vec![
        perform("ask"),
        perform("tell"),
        Action::WithdrawEffect("ask"),
        perform("ask"),
    ];
    let stored = Instance {
        last_seq: 2,
        ..Instance::default()
    };
    let stimuli = vec![on_record(1, "k", vec![perform("ask")]), on_record(2, "i", wanted)];
    let changes = reacted(with(stored), stimuli);
    let left: Vec<_> = changes
        .rows
        .iter()
        .map(|row| (row.instance.as_str(), row.seq))
        .collect();
    assert_eq!(left, [("k", 1), ("i", 4), ("i", 5)]);
    assert_eq!(
        changes.withdrawn,
        [("i".to_owned(), "ask", 5)],
        "stored rows below 5 too"
    );
}

#[test]
fn an_answer_waits_for_the_open_command_of_its_stream_and_follows_from_the_effects_cause() {
    let mut changes = reacted(
        with(Instance::default()),
        vec![on_record(1, "i", vec![send("a")])],
    );
    let key = format!("parrot:{}:1", record(1));
    let Action::Send(command) = send("a") else {
        panic!("it is a command")
    };
    changes.answer("i", command.clone(), &key);
    changes.answer("nobody", command, &key);
    assert_eq!(changes.rows.len(), 2);
    let answer = &changes.rows[1];
    assert_eq!(
        (answer.seq, answer.now, answer.key.as_str()),
        (2, false, format!("{key}:answer").as_str())
    );
    assert_eq!(causation(&answer.key), Some(record(1).as_str()));
}

#[test]
fn only_a_record_is_a_causation() {
    let id = record(1);
    assert_eq!(causation(&format!("p:{id}:0")), Some(id.as_str()));
    assert_eq!(
        causation(&format!("p:{id}:timed_out:1790000000000:1:0")),
        None,
        "an instance's id"
    );
    assert_eq!(
        causation(&format!("p:{id}:timed_out:1790000000000:1:0:answer")),
        None
    );
    assert_eq!(causation("p:j1:0"), None);
    assert_eq!(causation("p"), None);
}

fn held(changes: &Changes) -> Vec<(&str, u64)> {
    let held = changes.held.iter();
    held.map(|(instance, place)| (instance.as_str(), place.offset.get()))
        .collect()
}

fn waited(n: i64, stimulus: Stimulus) -> Stimulus {
    let instance = stimulus.instance.clone();
    Stimulus {
        waited: Some(Waited { instance, n }),
        ..stimulus
    }
}

#[test]
fn an_instance_that_cannot_react_is_parked_and_what_comes_for_it_waits_in_order() {
    let stimuli = vec![
        on_record(1, "i", vec![send("a")]),
        on_record(2, "broken", vec![]),
        on_record(3, "broken", vec![]),
        on_record(4, "i", vec![]),
    ];
    let changes = reacted(BTreeMap::new(), stimuli);
    assert_eq!(changes.instances["i"].state, Some(vec![2]), "all others go on");
    let broken = &changes.instances["broken"];
    assert!(broken.parked && broken.stuck.is_some());
    assert_eq!(held(&changes), [("broken", 2), ("broken", 3)]);
}

#[test]
fn a_record_that_does_not_read_waits_under_a_name_of_its_own() {
    let unreadable = Stimulus {
        input: None,
        unreadable: Some("no such field".to_owned()),
        ..on_record(1, "record:0:1", vec![])
    };
    let changes = reacted(BTreeMap::new(), vec![unreadable, on_record(2, "i", vec![])]);
    assert_eq!(held(&changes), [("record:0:1", 1)]);
    assert_eq!(
        changes.instances["record:0:1"].stuck.as_deref(),
        Some("no such field")
    );
    assert_eq!(changes.instances["i"].state, Some(vec![1]));
}

#[test]
fn what_has_waited_comes_first_and_waits_on_while_it_cannot_be_reacted_to() {
    let parked = |state: Option<Vec<u8>>| Instance {
        state,
        parked: true,
        ..Instance::default()
    };
    let stimuli = vec![waited(7, on_record(1, "i", vec![])), on_record(2, "i", vec![])];
    let changes = reacted(with(parked(Some(vec![1]))), stimuli);
    assert_eq!(
        changes.instances["i"].state,
        Some(vec![2]),
        "what waited, not what is new"
    );
    assert_eq!(held(&changes), [("i", 2)]);
    let released: Vec<i64> = changes.released.iter().map(|row| row.n).collect();
    assert_eq!(released, [7]);

    let stored = BTreeMap::from([("broken".to_owned(), parked(None))]);
    let stimuli = vec![
        waited(1, on_record(1, "broken", vec![])),
        waited(2, on_record(2, "broken", vec![])),
    ];
    let changes = reacted(stored, stimuli);
    assert!(changes.instances["broken"].stuck.is_some());
    let moved = (changes.held.len(), changes.released.len());
    assert_eq!(moved, (0, 0), "both rows stay where they are");
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => "[abc]".prop_map(|stream| send(&stream)),
        2 => (0..2usize).prop_map(|n| perform(EFFECTS[n])),
        1 => (0..2usize).prop_map(|n| Action::WithdrawEffect(EFFECTS[n])),
        2 => (0..2usize, 0..9u64).prop_map(|(n, ms)| wake(TIMERS[n], ms)),
        1 => (0..2usize).prop_map(|n| Action::WithdrawTimer(TIMERS[n])),
    ]
}

type Plan = Vec<(bool, Vec<Action>)>;

fn any_plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec((any::<bool>(), prop::collection::vec(any_action(), 0..6)), 0..12)
}

fn stimuli(plan: &Plan) -> Vec<Stimulus> {
    let of = |(n, (first, actions)): (u64, &(bool, Vec<Action>))| {
        on_record(n, if *first { "i" } else { "k" }, actions.clone())
    };
    (0..).zip(plan).map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reacting_again_gives_the_same(plan in any_plan()) {
        let (one, other) = (reacted(BTreeMap::new(), stimuli(&plan)), reacted(BTreeMap::new(), stimuli(&plan)));
        prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }

    #[test]
    fn keys_and_numbers_are_unique_and_one_command_a_stream_is_out(plan in any_plan(), busy in "[abc]") {
        let stored = Instance { last_seq: 9, busy: [format!("account-{busy}")].into(), ..Instance::default() };
        let changes = reacted(with(stored), stimuli(&plan));
        let keys: BTreeSet<_> = changes.rows.iter().map(|row| &row.key).collect();
        prop_assert_eq!(keys.len(), changes.rows.len());
        let mut last = BTreeMap::from([("i", 9), ("k", 0)]);
        let mut out = BTreeSet::from([("i", format!("account-{busy}"))]);
        for row in &changes.rows {
            let before = last.insert(&row.instance, row.seq).unwrap();
            prop_assert!(row.seq > before, "numbers grow");
            match &row.what {
                What::Command(_) => {
                    let first = out.insert((&row.instance, row.stream().unwrap()));
                    prop_assert_eq!(row.now, first);
                }
                What::Effect { .. } => prop_assert!(row.now),
            }
        }
        for (name, last) in last {
            prop_assert!(changes.instances.get(name).is_none_or(|instance| instance.last_seq >= last));
        }
    }

    #[test]
    fn split_into_two_batches_it_comes_to_the_same(plan in any_plan(), cut in 0..12usize) {
        let whole = reacted(BTreeMap::new(), stimuli(&plan));
        let mut first = stimuli(&plan);
        let second = first.split_off(cut.min(first.len()));
        let first = reacted(BTreeMap::new(), first);
        let second = reacted(first.instances.clone(), second);
        // What is stored after both: rows without those withdrawn, timers by the last word on each.
        let kept = |row: &super::NewRow| {
            !second.withdrawn.iter().any(|(instance, effect, below)| {
                let same = matches!(&row.what, What::Effect { name, .. } if name == effect);
                same && row.instance == *instance && row.seq < *below
            })
        };
        let rows: Vec<_> = first.rows.iter().filter(|row| kept(row)).chain(&second.rows).collect();
        prop_assert_eq!(format!("{rows:?}"), format!("{:?}", whole.rows.iter().collect::<Vec<_>>()));
        let mut timers = first.timers.clone();
        timers.extend(second.timers.clone());
        prop_assert_eq!(timers, whole.timers);
        prop_assert_eq!(format!("{:?}", second.instances), format!("{:?}", whole.instances));
    }
}

//! The kit, used as a domain uses it, and made to fail where it should.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use annals_domain::kit::{
    Dice, Update, check_histories, committed, given, given_process, never_panics, own, personal, refused,
    schema_agrees,
};
use annals_domain::{
    Action, Actions, Aggregate, AggregateKey, Bounded, Context, Empty, Outcome, Owner, Process,
    ProcessContext, Text,
};
use chrono::DateTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::shop::{CalledOff, Cancel, Command, Event, Order, OrderId, Place, Placed, Rejection, Sku, Status};

fn id(n: u128) -> OrderId {
    OrderId::new(Uuid::from_u128(n))
}

fn place() -> Place {
    Place {
        sku: Sku::parse("a").unwrap(),
        quantity: Bounded::new(3).unwrap(),
        customer: id(1),
        note: Some(personal("note")),
        tags: Vec::new(),
    }
}

fn placed() -> Event {
    Event::Placed(Placed {
        sku: Sku::parse("a").unwrap(),
        quantity: 3,
        customer: Some(id(1)),
        note: Some(personal("note")),
    })
}

fn called_off() -> Event {
    Event::CalledOff(CalledOff {
        reason: Text::new("late").unwrap(),
    })
}

fn cancel() -> Command {
    Command::Cancel(Cancel {
        reason: Text::new("late").unwrap(),
    })
}

/// The message with which `run` panics.
fn panics<R>(run: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run))
        .map(drop)
        .expect_err("it should have panicked");
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap()
}

#[test]
fn a_story_is_told_step_by_step() {
    given::<Order>([])
        .when(Command::Place(place()))
        .then([placed()])
        .when(Command::Confirm)
        .then([Event::Confirmed])
        .when(Command::Confirm)
        .then_nothing()
        .when(cancel())
        .then_rejected(Rejection::WrongStatus {
            status: Status::Confirmed,
            r#type: 7,
        });
    let given = given::<Order>([placed(), called_off()]);
    assert_eq!(given.state().status, Some(Status::CalledOff));
    let late = DateTime::from_timestamp(2_000_000_000, 0).unwrap();
    given
        .key(id(9))
        .at(late)
        .when(cancel())
        .then_rejected(Rejection::Late);
    assert!(given_placed().when(cancel()).answer().is_ok());
}

fn given_placed() -> annals_domain::kit::Given<Order> {
    given([placed()])
}

#[test]
fn a_wrong_expectation_says_what_came_instead() {
    let rejected = Rejection::AlreadyPlaced;
    assert!(panics(|| given_placed().when(cancel()).then([placed()])).contains("other events follow"));
    assert!(panics(|| given_placed().when(cancel()).then_nothing()).contains("something changes"));
    assert!(panics(|| given_placed().when(cancel()).then_rejected(rejected.clone())).contains("rules allow"));
    let unknown = || given::<Order>([]).when(cancel());
    assert!(panics(|| unknown().then([])).contains("refuse with UnknownOrder"));
    assert!(panics(|| unknown().then_nothing()).contains("refuse with UnknownOrder"));
    assert!(panics(|| unknown().then_rejected(rejected)).contains("another rejection"));
}

/// An order whose events lose a field on the way, and which counts the wrong way.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
struct Lossy {
    count: i64,
    #[serde(skip)]
    #[schemars(skip)]
    forgotten: i64,
}

#[derive(Debug, Clone, annals_domain::Command)]
enum Count {
    Add(Add),
    Panic,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Add {
    forget: bool,
}

#[derive(Debug, Clone, PartialEq, annals_domain::Event)]
#[event(category = "lossy")]
enum Counted {
    Added(Added),
    Broken(Broken),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Added {
    #[serde(skip_deserializing)]
    by: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Broken {
    #[serde(skip_serializing)]
    by: i64,
}

#[derive(Debug, Clone, PartialEq, annals_domain::Rejection)]
enum Never {
    Never,
}

impl Aggregate for Lossy {
    const CATEGORY: &'static str = "lossy";
    const RESOURCE: &'static str = "lossies";
    const REVISION: u32 = 1;
    type Key = Sku;
    type Command = Count;
    type Event = Counted;
    type Rejection = Never;
    fn decide(&self, command: &Count, _: &Context<'_, Self>) -> Result<Vec<Counted>, Never> {
        match command {
            Count::Add(Add { forget }) => Ok(vec![Counted::Added(Added {
                by: i64::from(*forget),
            })]),
            Count::Panic if self.forgotten > 0 => Err(Never::Never),
            Count::Panic => panic!("as asked"),
        }
    }
    fn evolve(&mut self, event: &Counted) {
        match event {
            Counted::Added(Added { by }) | Counted::Broken(Broken { by }) => self.count += by,
        }
    }
    fn owner(&self, _: &Sku, _: &Count) -> Option<Owner> {
        None
    }
}

#[test]
fn what_does_not_survive_its_json_form_is_caught() {
    let added = panics(|| given::<Lossy>([Counted::Added(Added { by: 1 })]));
    assert!(
        added.contains("lossy.added changes when it is written and read back"),
        "{added}"
    );
    let broken = panics(|| given::<Lossy>([Counted::Broken(Broken { by: 1 })]));
    assert!(broken.contains("cannot be read back"), "{broken}");
    let other = panics(|| never_panics::<Lossy>(0..1, 3, |_| Count::Add(Add { forget: true })));
    assert!(
        other.contains("the stored events lead to another state"),
        "{other}"
    );
}

#[test]
fn a_panic_in_the_rules_is_not_swallowed() {
    assert_eq!(
        panics(|| never_panics::<Lossy>(0..1, 1, |_| Count::Panic)),
        "as asked"
    );
}

fn any_command(dice: &mut Dice) -> Command {
    match dice.number(0..=3) {
        0 => Command::Place(Place {
            quantity: Bounded::new(dice.number(1..=1000)).unwrap(),
            ..place()
        }),
        1 => Command::Confirm,
        2 => cancel(),
        _ => Command::Confirm,
    }
}

#[test]
fn generated_commands_reach_every_event_and_most_rejections() {
    let tally = never_panics::<Order>(0..20, 12, any_command);
    let events: Vec<_> = tally.events.keys().map(String::as_str).collect();
    assert_eq!(events, ["order.called_off", "order.confirmed", "order.placed"]);
    let rejections: Vec<_> = tally.rejections.keys().map(String::as_str).collect();
    assert_eq!(rejections, ["already_placed", "unknown_order", "wrong_status"]);
    assert!(tally.unchanged > 0);
    assert_eq!(
        never_panics::<Order>(0..20, 12, any_command),
        tally,
        "a seed repeats exactly"
    );
    let nothing = panics(|| never_panics::<Order>(0..2, 2, |_| Command::Confirm));
    assert!(nothing.contains("the rules accepted nothing"), "{nothing}");
}

#[test]
fn a_schema_that_disagrees_with_its_parser_is_caught() {
    /// Its schema knows nothing of the parser's rule.
    #[derive(Debug, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Lax {
        #[serde(deserialize_with = "even")]
        n: i64,
    }
    fn even<'de, D: serde::Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
        let n = i64::deserialize(d)?;
        if n % 2 == 0 {
            Ok(n)
        } else {
            Err(serde::de::Error::custom("odd"))
        }
    }
    let lax = panics(|| schema_agrees::<Lax>([json!({"n": 2}), json!({}), json!({"n": 1})]));
    assert!(lax.contains("accepts {\"n\":1}, which does not parse"), "{lax}");
    let all = panics(|| schema_agrees::<Empty>([json!({})]));
    assert!(all.contains("1 candidates are accepted and 0 refused"), "{all}");
    schema_agrees::<Place>([
        json!({"sku": "a", "quantity": 1, "customer": id(1), "note": "n"}),
        json!({"sku": "a", "quantity": 1, "customer": id(1), "note": null}),
        json!({"sku": "a", "quantity": 1, "customer": id(1), "note": {"personal": "x"}}),
        json!({"sku": "a", "quantity": 1, "customer": id(1), "tags": null}),
        json!({"sku": "a", "quantity": 1}),
    ]);
}

/// The shop's order with a rule more, under a raised revision.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Revised(Order);

/// The same, and the revision was forgotten.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Forgotten(Order);

macro_rules! revise {
    ($name:ident, $revision:literal) => {
        impl Aggregate for $name {
            const CATEGORY: &'static str = "order";
            const RESOURCE: &'static str = "orders";
            const REVISION: u32 = $revision;
            type Key = OrderId;
            type Command = Command;
            type Event = Event;
            type Rejection = Rejection;
            fn decide(&self, _: &Command, _: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> {
                Ok(Vec::new())
            }
            fn evolve(&mut self, event: &Event) {
                self.0.evolve(event);
                self.0.quantity += 1;
            }
            fn owner(&self, _: &OrderId, _: &Command) -> Option<Owner> {
                None
            }
        }
    };
}
revise!(Revised, 2);
revise!(Forgotten, 1);

fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let _ = std::fs::remove_file(folder.join("old.state.json"));
    let events = json!([
        {"type": "order.placed", "schema": 1, "data": {"sku": "a"}},
        {"type": "order.confirmed", "schema": 1, "data": {}},
    ]);
    std::fs::write(folder.join("old.json"), events.to_string()).unwrap();
    folder
}

#[test]
fn a_history_holds_the_state_to_its_revision() {
    let folder = folder("histories");
    let new = panics(|| check_histories::<Order>(&folder, Update::Check));
    assert!(new.contains("run once with `Update::Write`"), "{new}");
    check_histories::<Order>(&folder, Update::Write);
    check_histories::<Order>(&folder, Update::Check);
    let text = std::fs::read_to_string(folder.join("old.state.json")).unwrap();
    assert!(text.contains(r#""status": "confirmed""#), "{text}");

    let changed = panics(|| check_histories::<Revised>(&folder, Update::Check));
    assert!(changed.contains("recorded for revision 1"), "{changed}");
    check_histories::<Revised>(&folder, Update::Write);
    check_histories::<Revised>(&folder, Update::Check);
}

#[test]
fn a_state_that_moved_under_the_same_revision_is_refused() {
    let folder = folder("moved");
    check_histories::<Forgotten>(&folder, Update::Write);
    let path = folder.join("old.state.json");
    let moved = std::fs::read_to_string(&path)
        .unwrap()
        .replace(r#""quantity": 3"#, r#""quantity": 1"#);
    std::fs::write(&path, moved).unwrap();
    for update in [Update::Check, Update::Write] {
        let message = panics(|| check_histories::<Forgotten>(&folder, update));
        assert!(
            message.contains("raise `") && message.contains("::REVISION` above 1"),
            "{message}"
        );
    }
    std::fs::write(
        folder.join("old.json"),
        r#"[{"type":"order.lost","schema":1,"data":{}}]"#,
    )
    .unwrap();
    let lost = panics(|| check_histories::<Forgotten>(&folder, Update::Check));
    assert!(lost.contains("`order.lost` is not known"), "{lost}");
}

#[derive(Debug, annals_domain::Input)]
enum Input {
    Order(Outcome<Order>),
    #[input(timer)]
    TimedOut(OrderId),
}

/// Confirms what is placed, and calls off what nobody confirms.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
struct Confirmer {
    refused: u32,
}

impl Process for Confirmer {
    const NAME: &'static str = "confirmer";
    type Id = OrderId;
    type Input = Input;
    type Settings = std::time::Duration;

    fn instance(input: &Input) -> Option<OrderId> {
        match input {
            Input::Order(outcome) => (outcome.key != id(0)).then_some(outcome.key),
            Input::TimedOut(id) => Some(*id),
        }
    }

    fn react(&mut self, input: &Input, ctx: &ProcessContext<'_, Self>) -> Actions {
        match input {
            Input::TimedOut(id) => Actions::none().send::<Order>(id, cancel()),
            Input::Order(outcome) => match &outcome.result {
                Err(_) => {
                    self.refused += 1;
                    Actions::none().stuck("refused")
                }
                Ok(events) if events.contains(&Event::Confirmed) && outcome.own => Actions::none(),
                Ok(_) => Actions::none()
                    .send::<Order>(&outcome.key, Command::Confirm)
                    .wake(Input::TIMED_OUT, *ctx.settings),
            },
        }
    }

    fn step(&self) -> &'static str {
        if self.refused > 0 { "refused" } else { "waiting" }
    }
}

const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(9);

fn confirm() -> Actions {
    Actions::none()
        .send::<Order>(&id(7), Command::Confirm)
        .wake(Input::TIMED_OUT, TIMEOUT)
}

#[test]
fn a_process_is_told_step_by_step() {
    let confirmed = || own(committed::<Order>(id(7), Command::Confirm, [Event::Confirmed]));
    given_process::<Confirmer>(TIMEOUT)
        .when(Input::Order(committed(
            id(7),
            Command::Place(place()),
            [placed()],
        )))
        .and_step("waiting")
        .then(confirm())
        .when(Input::Order(confirmed()))
        .then_nothing()
        .when(Input::TimedOut(id(7)))
        .then_actions(|actions| {
            assert!(matches!(actions, [Action::Send(send)] if send.command == "call-off"))
        });
    let stuck = given_process::<Confirmer>(TIMEOUT)
        .after([Input::Order(confirmed())])
        .when(Input::Order(refused(id(7), Command::Confirm, Rejection::Late)))
        .and_step("refused")
        .then(Actions::none().stuck("refused"));
    assert_eq!(stuck.state().refused, 1);
}

#[test]
fn a_process_is_held_to_its_instance_and_actions() {
    let placed = |id| Input::Order(committed(id, Command::Place(place()), [placed()]));
    let none = panics(|| given_process::<Confirmer>(TIMEOUT).when(placed(id(0))));
    assert!(none.contains("concerns no instance of confirmer"), "{none}");
    let two = panics(|| {
        given_process::<Confirmer>(TIMEOUT)
            .after([placed(id(7))])
            .when(placed(id(8)))
    });
    assert!(two.contains("the ones before were for"), "{two}");
    let other = panics(|| {
        let later = TIMEOUT * 2;

        given_process::<Confirmer>(later)
            .when(placed(id(7)))
            .then(confirm())
    });
    assert!(other.contains("confirmer does something else"), "{other}");
    let step = panics(|| {
        given_process::<Confirmer>(TIMEOUT)
            .when(placed(id(7)))
            .and_step("refused")
    });
    assert!(step.contains("is at step `waiting`"), "{step}");
}

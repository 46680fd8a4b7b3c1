//! Testing a domain: given/when/then that cannot be misordered, and properties that every domain should have.
//!
//! ```ignore
//! given::<Order>([placed(), cancelled()])
//!     .when(ship())
//!     .then_rejected(Rejection::WrongStatus { status: Status::Cancelled });
//!
//! given_process::<Checkout>(settings())
//!     .when(Input::Order(committed::<Order>(order, place(), [placed()])))
//!     .then(Actions::none().send::<Customer>(&customer, admit()).wake(Input::TIMED_OUT, TIMEOUT));
//! ```
//!
//! | to show that | call |
//! |---|---|
//! | the rules answer as they should | [`given`] |
//! | a process does as it should | [`given_process`] |
//! | a type parses exactly what its schema accepts | [`schema_agrees`] |
//! | `evolve` did not change without a new `REVISION` | [`check_histories`] |
//! | no sequence of commands panics or leaves the codec | [`never_panics`] |
//!
//! Whatever goes through the kit also goes through its JSON form and back, as it does in production, so these
//! tests catch a field that is written and not read. Everything here panics with a message where production
//! code would answer, and only [`check_histories`] touches files.

// Tests fail by panicking; this module is their vocabulary.
#![allow(clippy::panic)]

mod aggregate;
mod dice;
mod history;
mod process;
mod property;
mod schema;

use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::catalog::to_raw;
use crate::{Aggregate, AggregateKey, Command, Event, Personal, State};

pub use aggregate::{Given, When, given};
pub use dice::Dice;
pub use history::{Update, check_histories};
pub use process::{GivenProcess, Reacted, committed, given_process, own, refused};
pub use property::{Tally, never_panics};
pub use schema::schema_agrees;

/// The time at which everything happens unless a test says otherwise: 2026-01-02T03:04:05Z.
pub fn time() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_767_323_045_000).expect("a time within chrono's range")
}

/// A personal value as rules and records have it: sealed, here around a text that only tells values apart.
pub fn personal<T>(text: &str) -> Personal<T> {
    Personal::sealed(text)
}

/// The key where a test gives none: made from a fixed UUID, else the text `test`.
fn default_key<A: Aggregate>() -> Option<A::Key> {
    const UUID: uuid::Uuid = uuid::Uuid::from_u128(0x019b_7c1d_9b88_7000_8000_0000_0000_0001);
    A::Key::made_from(UUID).or_else(|| A::Key::parse("test").ok())
}

/// An event as it comes back from the log.
///
/// # Panics
/// If it does not come back, or as something else.
fn through_record<E: Event>(event: &E) -> E {
    let name = event.event_type();
    let written =
        to_raw(|s| event.write(s)).unwrap_or_else(|error| panic!("{name} cannot be written: {error}"));
    let read = E::read(name, event.schema(), &written)
        .unwrap_or_else(|error| panic!("an event cannot be read back from {written}: {error}"));
    let again = to_raw(|s| read.write(s)).unwrap_or_else(|error| panic!("{name} cannot be written: {error}"));
    assert_same(name, &written, &again);
    read
}

/// A command as it comes back from the log.
///
/// # Panics
/// If it does not come back, or as something else.
fn through_command<C: Command>(command: &C) -> C {
    let name = command.name();
    let write = |command: &C| {
        to_raw(|s| command.write(s))
            .unwrap_or_else(|error| panic!("command {name} cannot be written: {error}"))
    };
    let written = write(command);
    let read = C::read(name, written.get().as_bytes())
        .unwrap_or_else(|| panic!("command {name} is written and not read"))
        .unwrap_or_else(|error| panic!("command {name} cannot be read back from {written}: {error}"));
    assert_same(name, &written, &write(&read));
    read
}

/// A state as it comes back from a snapshot.
///
/// # Panics
/// If it does not come back, or as something else.
fn through_snapshot<S: State>(state: &S) -> S {
    let write = |state: &S| {
        serde_json::to_value(state).unwrap_or_else(|error| panic!("{state:?} cannot be a snapshot: {error}"))
    };
    let written = write(state);
    let read = serde_json::from_value(written.clone())
        .unwrap_or_else(|error| panic!("a state cannot be read back from {written}: {error}"));
    assert_same("a state", &written, &write(&read));
    read
}

fn assert_same(what: &str, written: &impl fmt::Display, read: &impl fmt::Display) {
    let (written, read) = (written.to_string(), read.to_string());
    assert!(
        written == read,
        "{what} changes when it is written and read back:\n  written {written}\n  read    {read}"
    );
}

/// JSON for people to compare.
fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

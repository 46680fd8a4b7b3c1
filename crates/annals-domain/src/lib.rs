//! What a domain developer writes, and nothing else: aggregates, processes, effects, personal data, the kit.
//!
//! Everything here is pure. No I/O, no clock, no randomness, nothing async that runs: an [`Aggregate`] decides
//! and evolves, a [`Process`] reacts, and the crates above carry what they answer.
//!
//! *Invariant:* types are erased in one place only, the [`Catalog`]. Above it a command, an event or a state is
//! known by its name; below it by its Rust type.

// The derive macros name this crate as `annals_domain`, also when it uses them itself.
extern crate self as annals_domain;

mod aggregate;
mod ambient;
mod answer;
pub mod catalog;
mod constrained;
mod effect;
mod forgotten;
mod keys;
pub mod kit;
pub mod personal;
mod process;
mod request;
mod retry;

pub use aggregate::{
    Aggregate, AggregateKey, Context, DataSubject, InvalidKey, Owner, State, Violation, ensure,
};
pub use aggregate::{Command, CommandType, Event, EventType, EventVersion, ReadError, Rejection};
pub use ambient::{Ambient, AmbientSource, Fixed};
pub use annals_derive::{Command, Event, Input, Rejection};
pub use answer::{Refusal, VERSION_MISMATCH};
pub use catalog::Catalog;
pub use constrained::{Bounded, Empty, OutOfBounds, Text};
pub use effect::{Effect, EffectError, EffectFuture};
pub use personal::Personal;
pub use process::{
    Action, Actions, Input, Outcome, Process, ProcessContext, ProcessId, RecordView, SendCommand, TimerName,
};
pub use request::{Caller, CommandRequest, Permission, Precondition};
pub use retry::{Backoff, Retry};

#[doc(hidden)]
pub mod __private;

//! The runner on a real Postgres, with the real engine over a log in memory: commands, faults, time, effects.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub
)]

#[path = "process/below.rs"]
mod below;
#[path = "process/domain.rs"]
mod domain;
#[path = "process/world.rs"]
mod world;

#[path = "process/commands.rs"]
mod commands;
#[path = "process/effects.rs"]
mod effects;
#[path = "process/faults.rs"]
mod faults;
#[path = "process/parked.rs"]
mod parked;
#[path = "process/passed.rs"]
mod passed;
#[path = "process/time.rs"]
mod time;

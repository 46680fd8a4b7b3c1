//! The shard engine: load, decide, append, answer.
//!
//! Read in this order: [`answer`] (what a sender learns), `shard` (one shard's part: the way of a command),
//! [`engine`] (many shards, cold loads, the cache), `admission` (how many commands are let in), `shell` (the tasks that carry out what the engine wants),
//! `ownership` (which shards are this node's to claim) and `standing` (whether it offers to take any).
//!
//! *Invariant:* nothing here reads a read model or knows HTTP.

mod admission;
pub mod answer;
mod budget;
pub mod engine;
mod keys;
mod metrics;
mod ownership;
mod routing;
mod settings;
mod shard;
mod shell;
mod slot;
mod standing;

pub use answer::{Answer, EventRef, Outcome, SendError};
pub use ownership::{ClockProbe, Ownership};
pub use routing::Place;
pub use settings::EngineSettings;
pub use shell::{Commands, Parts, start};
pub use standing::Standing;

//! The shard engine: load, decide, append, answer.

mod answer;

pub use answer::{Answer, EventRef, Outcome, SendError};

//! Process managers, timers, the outbox and effects.
//!
//! A process reads the log like every other reader, and one transaction a batch keeps everything that follows from
//! it: the instances' states, the commands and effects to send, the timers, the checkpoints. What is sent goes
//! through the outbox, and what came of it is read from the log, never from the answer to the call.
//!
//! Read in this order: [`erased`] (a process and its effects behind a vtable), `outbox` (the rows, and the rules of
//! when one is sent), `react` (a batch without I/O),
//! `runner` (the loop that reads, reacts and keeps), `sender` (commands and effects on their way).
//!
//! *Invariant:* no other crate names the tables `process_instance`, `process_outbox` and `timer`.
//! *Invariant:* commands go through [`CommandSender`], which is the same way that everybody's commands take.

mod admin;
mod carry;
mod effects;
pub mod erased;
mod metrics;
mod outbox;
mod react;
mod runner;
mod sender;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;

pub use admin::{Admin, InstanceDetail, InstanceStatus, ProcessStatus};
pub use carry::{Carried, CarryError, carry};
pub use effects::{EffectSettings, Effects};
pub use erased::{AnyEffect, AnyProcess};
pub use runner::{ProcessRunner, RunnerError};

/// A command on its way out of a process.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The process that sends it; the actor is `process:{name}`.
    pub process: String,
    /// The resource, `products`.
    pub resource: String,
    /// The instance's key.
    pub key: String,
    /// The command's name.
    pub command: String,
    /// Its data.
    pub data: Box<RawValue>,
    /// Its idempotency key.
    pub idempotency_key: String,
    /// The record that it follows from.
    pub causation: Option<String>,
    /// How long the engine may take.
    pub deadline: Duration,
}

/// What is known after a command was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// It is on the record, or will be found not to be: the log tells.
    OnRecord,
    /// Nothing happened; later it may (429, 503).
    Later {
        /// When to try again, if the answer said so.
        after: Option<Duration>,
    },
    /// It may have happened (504, a lost connection).
    Unknown,
    /// It never will: an answer that is no record (403, 404, 413, 422).
    Never {
        /// The answer's code and detail.
        why: String,
    },
}

/// The way of a process's commands: the internal listener, with the role `system`.
#[async_trait]
pub trait CommandSender: Send + Sync + 'static {
    /// Sends one command.
    async fn send(&self, command: Outgoing) -> Sent;
}

/// Limits of the processes of a node.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// Records in one transaction, about.
    pub batch: usize,
    /// The longest wait between two attempts, seconds.
    pub retry_max_s: u32,
    /// How long a command may take before it is looked for in the log and sent again.
    pub deadline: Duration,
    /// Commands on their way at once, a process.
    pub sends: usize,
    /// Effects on their way at once, a process.
    pub performs: usize,
    /// A shard whose last read had nothing for the process is read again after so long; the first record after a silence
    /// is read at once.
    pub gather: Duration,
    /// Checkpoints behind records that do not concern the process are stored after so long, or with the next that do.
    pub passed_every: Duration,
    /// The same after so many records.
    pub passed_records: u64,
    /// How often due timers and late commands are looked for.
    pub tick: Duration,
    /// A reader that has halted is tried again after so long.
    pub reopen: Duration,
    /// How long rows of the outbox that are over are kept, for people to look at.
    pub keep_done: Duration,
}

impl ProcessSettings {
    /// A command is looked for in the log only after the engine's own deadline has surely passed.
    fn send_deadline(&self) -> Duration {
        2 * self.deadline
    }
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            batch: 500,
            retry_max_s: 60,
            deadline: Duration::from_secs(5),
            sends: 64,
            performs: 64,
            gather: Duration::from_millis(25),
            passed_every: Duration::from_secs(1),
            passed_records: 10_000,
            tick: Duration::from_millis(250),
            reopen: Duration::from_secs(30),
            keep_done: Duration::from_secs(7 * 86_400),
        }
    }
}

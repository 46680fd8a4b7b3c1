//! The envelope in which a checked command travels from the edge to its shard's engine.

use std::sync::Arc;

use annals_record::{Fingerprint, KeyHash, StreamId, Traceparent, Version};
use serde_json::value::RawValue;

use crate::catalog::AnyCommand;

/// Who asks, as far as the engine and the record care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The pseudonymous id: the token's `sub`, or `process:{name}`.
    pub sub: Arc<str>,
    /// The caller's roles, sorted.
    pub roles: Arc<[Arc<str>]>,
    /// The owner claim, if the token has one.
    pub owner: Option<Arc<str>>,
}

impl Caller {
    /// The role of process managers, which no client's token can hold.
    pub const SYSTEM: &'static str = "system";

    /// Whether this is a process manager: such a caller has no refusal budget.
    pub fn is_system(&self) -> bool {
        self.roles.iter().any(|role| &**role == Self::SYSTEM)
    }
}

/// What the policy said about this caller's roles and this command, before any state was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Yes, on any stream.
    Allow,
    /// Yes, where [`Aggregate::owner`](crate::Aggregate::owner) is the caller.
    IfOwner,
}

/// What must be true of the stream for the command to be decided at all (`If-Match`, `If-None-Match`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing is asked.
    #[default]
    None,
    /// `If-Match: "3"`.
    Version(Version),
    /// `If-Match: *`: the stream has begun.
    Exists,
    /// `If-None-Match: *`: it has not.
    Absent,
}

impl Precondition {
    /// Its form in the fingerprint's input: empty, `=3`, `=*`, `*`.
    pub fn canonical(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Version(version) => format!("={version}"),
            Self::Exists => "=*".to_owned(),
            Self::Absent => "*".to_owned(),
        }
    }

    /// Whether it holds for a stream at `version`.
    pub fn holds(&self, version: Version) -> bool {
        match self {
            Self::None => true,
            Self::Version(expected) => *expected == version,
            Self::Exists => version.get() > 0,
            Self::Absent => version.get() == 0,
        }
    }
}

/// One checked command on its way to the engine. Personal fields are sealed already.
#[derive(Debug)]
pub struct CommandRequest {
    /// The stream that is asked.
    pub stream: StreamId,
    /// The command, typed inside.
    pub command: AnyCommand,
    /// The RFC 8785 form of its data, as the record will hold it.
    pub data: Box<RawValue>,
    /// HMAC-SHA-256 over caller, command, precondition and plain data (3-log.md).
    pub fingerprint: Fingerprint,
    /// SHA-256 of the client's idempotency key.
    pub idempotency_key: KeyHash,
    /// `If-Match` and its kin.
    pub precondition: Precondition,
    /// Who asks.
    pub caller: Caller,
    /// What the policy says of the caller's roles.
    pub permission: Permission,
    /// Carried into the record and out again.
    pub correlation: String,
    /// What this command follows from: a record's position, for process managers.
    pub causation: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<Traceparent>,
    /// The client's own metadata, an object.
    pub metadata: Option<Box<RawValue>>,
}

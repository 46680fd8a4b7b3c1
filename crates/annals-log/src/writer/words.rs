//! What goes into a writer and what comes out of it.

use std::sync::Arc;

use annals_record::fold::{Ghost, Halt, Head};
use annals_record::record::{Record, Traceparent};
use annals_record::{Hash32, KeyHash, Offset, RecordId, StreamId, Version};
use bytes::Bytes;

use crate::{Appended, Hashed, Placed};

/// Limits of one shard's writer.
#[derive(Debug, Clone, Copy)]
pub struct WriterSettings {
    /// How many appends may be under way at once.
    pub appends_in_flight: usize,
    /// At most this many records an append.
    pub append_records: usize,
    /// No further record in an append that has this many bytes.
    pub append_bytes: usize,
    /// After this time without an append the next one goes alone (Kafka forgets idle producers), ms.
    pub idle_ms: i64,
    /// Whether accepted records are kept until the journal has them (Kafka), or are in it at once (Postgres).
    pub keep_tail: bool,
}

impl WriterSettings {
    /// For the Postgres log, where appends that chain on each other share the next statement: what is decided while one
    /// is under way is already there when it ends.
    pub const POSTGRES: Self = Self {
        appends_in_flight: 8,
        append_records: 1_000,
        append_bytes: 4 << 20,
        idle_ms: 600_000,
        keep_tail: false,
    };
    /// For the Kafka log, where each append is a request of its own: a shard's next one gathers while one is under way.
    pub const KAFKA: Self = Self {
        appends_in_flight: 1,
        keep_tail: true,
        ..Self::POSTGRES
    };
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self::POSTGRES
    }
}

/// A decided command, before it is chained.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The record's id.
    pub id: RecordId,
    /// The stream.
    pub stream: StreamId,
    /// Whether the rules said no.
    pub refusal: bool,
    /// The decision's time: [`ShardWriter::next_time`](super::ShardWriter::next_time).
    pub time_ms: i64,
    /// Version of the first event; with no events the next one.
    pub version: Version,
    /// How many events.
    pub count: u32,
    /// The hash of the client's key.
    pub idempotency_key: KeyHash,
    /// W3C trace context.
    pub traceparent: Option<Traceparent>,
    /// The record's value.
    pub value: Bytes,
}

/// What a writer has got from the log: see [`ShardWriter::awaits`](super::ShardWriter::awaits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Up to where it has folded.
    pub folded: Offset,
    /// How often the log has answered.
    pub answers: u64,
}

/// Which append an answer belongs to; unique within a writer.
pub type AppendId = u64;

/// What happens to a writer.
#[derive(Debug)]
pub enum Input {
    /// The lease is ours: become owner.
    Claim {
        /// The id of the claim's record.
        id: RecordId,
        /// The clock.
        time_ms: i64,
        /// The claim's value ([`ClaimValue`](annals_record::value::ClaimValue)).
        value: Bytes,
    },
    /// A claim under way takes too long: give it up. (Whether it lands is no matter: it is found by its id.)
    GiveUpClaim,
    /// The answer to [`Output::End`].
    End(Offset),
    /// The answer to [`Output::Read`]; empty if there was nothing within the log's wait.
    Read(Vec<Arc<Placed>>),
    /// The log ends below what this writer has folded, and kept doing so: it was cut off or replaced.
    Truncated(Offset),
    /// The log's records below this are gone, which no setting of a log allows.
    Deleted(Offset),
    /// The answer to [`Output::Append`].
    Appended {
        /// Which one.
        append: AppendId,
        /// What became of it.
        result: Appended,
    },
}

/// What a writer wants done, or says.
#[derive(Debug)]
pub enum Output {
    /// Ask the log for its end, then [`Input::End`]. Retried by the shell until there is an answer.
    End,
    /// Read from here, then [`Input::Read`]. Retried by the shell until there is an answer.
    Read(Offset),
    /// Append, then [`Input::Appended`].
    Append {
        /// For the answer.
        append: AppendId,
        /// The head that the first record is chained to.
        at: Head,
        /// The records, in order.
        records: Vec<Hashed>,
    },
    /// The claim was accepted: drafts may be submitted.
    Owner,
    /// The fold accepted a record that was submitted here.
    Accepted {
        /// The record.
        record: Arc<Record>,
        /// Where it stands, for ever.
        offset: Offset,
    },
    /// A record that was submitted here can never count any more: it may be decided anew.
    NeverHappened(Arc<Record>),
    /// The fold accepted a commit or refusal that was not submitted here: its stream must be dropped.
    OtherAccepted {
        /// Where it stands.
        offset: Offset,
        /// The record.
        record: Arc<Record>,
    },
    /// No longer owner, outcomes are open: ask the lease; if it is still ours, claim again.
    Stopped(StopReason),
    /// No longer owner, or never was: another claim counts. Every pending record is settled.
    Lost(Arc<Record>),
    /// The shard was ended by a close record.
    Closed,
    /// The fold passed a ghost; foreign and unchained ones are alarms.
    Ghost {
        /// Where.
        offset: Offset,
        /// Why it does not count.
        why: Ghost,
    },
    /// Never again: somebody has to look.
    Halted(HaltReason),
}

/// Why a writer stopped being owner without another's claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// The outcome of an append is unknown.
    #[error("the outcome of an append is unknown: {0}")]
    Unknown(String),
    /// An append was not written, and those chained to it cannot count.
    #[error("an append was not written: {0}")]
    NotWritten(String),
    /// The log's head is not the expected one.
    #[error("the log's head has moved")]
    HeadMoved,
    /// An own record is in the log but does not count.
    #[error("an own record became a ghost at offset {0}")]
    OwnGhost(Offset),
    /// Every append was answered, yet a record is not where it was said to be.
    #[error("a record that landed is not there")]
    Missing,
    /// Somebody else's record counts in this writer's epoch.
    #[error("a record of another writer counts in this epoch, at offset {0}")]
    Intruder(Offset),
    /// The claim took too long or could not be written.
    #[error("the claim could not be made: {0}")]
    ClaimFailed(String),
}

/// Why a shard halted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// The fold says so.
    #[error("at offset {offset}: {halt}")]
    Fold {
        /// Where.
        offset: Offset,
        /// Why.
        halt: Halt,
    },
    /// The record before the checkpoint is another one than it was.
    #[error(
        "the record at offset {offset} has hash {found}, and had {expected} when it was folded: the log was replaced"
    )]
    Replaced {
        /// Where.
        offset: Offset,
        /// The hash that the checkpoint remembers.
        expected: Hash32,
        /// The hash that is there now.
        found: Hash32,
    },
    /// Its first records are gone: retention, or somebody's hand.
    #[error("the log begins at offset {begin}: what was before was deleted")]
    Deleted {
        /// The first offset that is still there.
        begin: Offset,
    },
    /// The log ends below the checkpoint.
    #[error("the log ends at offset {end}, below {folded}, which was folded: it was cut off")]
    Truncated {
        /// Its end.
        end: Offset,
        /// How far it was folded.
        folded: Offset,
    },
}

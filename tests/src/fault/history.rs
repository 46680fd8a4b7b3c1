//! What clients did and were told, and what the log holds: all that a checker looks at.

use std::time::Duration;

/// When something happened: since the run began.
pub type At = Duration;

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Goods come in: always right for a product that is registered.
    Receive(i64),
    /// The stock is corrected downwards: refused if less than that is there.
    Remove(i64),
}

/// What a command was told for good: an answer that is a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The record's id.
    pub record: String,
    /// Its shard.
    pub shard: u32,
    /// Its offset.
    pub offset: u64,
    /// What it says.
    pub what: Verdict,
}

/// What came of a command, as its answer or its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// One event; the stream's version with it.
    Committed {
        /// That version.
        version: u64,
    },
    /// The rules said no.
    Rejected {
        /// Which rule.
        code: String,
    },
    /// The stream was not at the version asked for.
    Mismatch {
        /// The version it was at.
        current: u64,
    },
}

/// One command of a client, from its first attempt to its answer.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The stream.
    pub stream: String,
    /// The client's idempotency key.
    pub key: String,
    /// What it asks.
    pub ask: Ask,
    /// Only at this version.
    pub if_version: Option<u64>,
    /// When its first attempt began.
    pub began: At,
    /// When its answer came.
    pub ended: At,
    /// How many attempts were sent and not answered for good: nobody knew what had become of them.
    pub unknown: u32,
    /// Its answer; `None`: there was none by the end of the run.
    pub told: Option<Told>,
    /// An answer that was given for the same key and is another one.
    pub other: Option<Told>,
    /// The only answer was 503, which says that nothing happened, and the client took it at its word.
    pub nothing: bool,
}

/// One record of the log that counts.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its shard.
    pub shard: u32,
    /// Its offset.
    pub offset: u64,
    /// Its id.
    pub record: String,
    /// The time of the decision, ms since 1970.
    pub time_ms: i64,
    /// Its stream.
    pub stream: String,
    /// The hash of the idempotency key.
    pub key: String,
    /// The version of the first event, or the next one.
    pub version: u64,
    /// How many events it has.
    pub events: u64,
    /// The command's name.
    pub command: String,
    /// How much it adds to the stock, or takes from it.
    pub delta: i64,
    /// The code of its refusal, if it is one.
    pub refusal: Option<String>,
    /// The version that a refusal for a failed precondition tells.
    pub current: Option<u64>,
}

impl Kept {
    /// What its sender is to be told.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (&self.refusal, self.current) {
            (None, _) => Verdict::Committed {
                version: (self.version + self.events).saturating_sub(1),
            },
            (Some(_), Some(current)) => Verdict::Mismatch { current },
            (Some(code), None) => Verdict::Rejected { code: code.clone() },
        }
    }
}

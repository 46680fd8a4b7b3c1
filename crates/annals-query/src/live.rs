//! Live changes: what follows a list or a row, and how somebody who was away goes on without loss or repeat.
//!
//! A subscriber holds rows by key. `snapshot` replaces all of them, `change` puts one, `remove` takes one away. The
//! id of each event is the positions of the snapshot of the database that it came from, and a keyed digest of **all
//! rows that whoever has seen this event holds**:
//!
//! ```text
//! 0:1041,1:77;q83vEjRWeJCrze8SNFZ4kA
//! ```
//!
//! So a node that never met the subscriber can tell whether it is up to date: it reads the rows, and compares.
//!
//! | whoever comes back with an id | gets |
//! |---|---|
//! | of rows that are as they were | nothing, then what changes; also after a restart, on another node, on another build |
//! | whose digest this node remembers | one event for each row that is different now, also in the middle of a batch |
//! | of a single row | one event, or none: a digest of one row says enough |
//! | of anything else | a new `snapshot`: never a guess |
//!
//! Nobody is taken back in time: an answer is at least as fresh as the id's positions.
//!
//! **Feeds.** All who ask the same with the same rights share a feed: which rows there were (keys and digests), and
//! the latest changes. One task reads the rows of each feed again when a checkpoint of its projections has moved, and
//! compares: no event is trusted to say which rows it touched, so a resumed stream, a new build, an erasure or a
//! change of owner shows like everything else. What is in between two readings is skipped: the last state counts.
//!
//! **Bounds.** [`LiveLimits`]: subscribers, subscribers of one caller, rows of a feed, bytes of remembered changes. A
//! subscriber takes what it can; one whose place in the changes is forgotten is told so ([`End::TooSlow`]).

mod event;
mod feed;
mod hub;

pub use event::{Event, LiveId, LiveIdError, Kind};
pub use hub::{End, Next, Subscription};


pub(crate) use feed::Row;
pub(crate) use hub::{Hub, Listing, Shared};

/// Bounds of live changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveLimits {
    /// `query.live_connections`: subscribers of a node.
    pub connections: usize,
    /// `query.live_per_caller`: of these, how many may be one caller's.
    pub per_caller: usize,
    /// `query.live_rows`: rows that one subscriber may follow.
    pub rows: u32,
    /// `query.live_bytes`: changes remembered by all feeds together, beside the newest ones of each feed.
    pub bytes: u64,
}

impl Default for LiveLimits {
    /// 1,024 subscribers, 32 of one caller, 1,000 rows each, 64 MiB.
    fn default() -> Self {
        Self {
            connections: 1_024,
            per_caller: 32,
            rows: 1_000,
            bytes: 64 << 20,
        }
    }
}

impl LiveLimits {
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        match self {
            Self { connections: 0, .. } => Err("query.live_connections must be at least 1"),
            Self { per_caller: 0, .. } => Err("query.live_per_caller must be at least 1"),
            Self { rows: 0, .. } => Err("query.live_rows must be at least 1"),
            Self { rows, .. } if *rows > 100_000 => Err("query.live_rows must be at most 100000"),
            _ => Ok(()),
        }
    }
}

//! Resources over read models: filters, cursors, waiting for freshness.
//!
//! Knows nothing of HTTP: the edge hands in decoded parameters and what the caller may see, and gets JSON with its
//! positions, or a typed reason. In reading order:
//!
//! - [`resource`]: what may be asked of a table, resolved against the live build;
//! - [`access`]: which rows and private columns a caller sees;
//! - [`request`]: parameters, read strictly; [`value`]: the types of columns;
//! - [`cursor`]: where a page ended, sealed;
//! - `sql`: the one statement; `lanes`: the connections that it runs on;
//! - [`freshness`]: how far the live projections are, in memory;
//! - `cache`: answers of the current checkpoints;
//! - [`live`]: what changes, for those who follow it;
//! - [`queries`]: all of it together; [`answer`], [`error`], [`metrics`];
//! - [`check`]: whether every offered filter and sort has an index.
//!
//! *Invariant:* nothing here writes. Rows, checkpoints and the live build come from one snapshot.

pub mod access;
pub mod answer;
mod cache;
pub mod check;
pub mod cursor;
pub mod error;
pub mod freshness;
mod lanes;
pub mod live;
pub mod metrics;
pub mod queries;
pub mod request;
pub mod resource;
mod sql;
pub mod value;

pub use access::{Access, Private, Rows, Scope};
pub use answer::{ListAnswer, Meta, Positions, RowAnswer};
pub use cache::CacheStats;
pub use cursor::{CursorKey, CursorKeyError};
pub use error::QueryError;
pub use freshness::{CHANNEL, Freshness, LogIdentity};
pub use live::{Event, LiveId, LiveLimits, Subscription};
pub use queries::{Limits, Queries};
pub use request::{Prepared, Request};
pub use resource::{Column, Definition, Expansion, LoadError, Resource, Resources};

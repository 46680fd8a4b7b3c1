//! The JSON that records carry, written field by field in one order and never re-serialised.
//!
//! ```json
//! { "stream": "order-0192f…", "command": { "name": "place", "fingerprint": "…",
//!     "actor": {"sub": "…", "roles": ["…"]}, "data": { } },
//!   "events": [ { "id": "…", "type": "order.placed", "schema": 1, "data": { } } ],
//!   "metadata": { }, "correlation": "…", "causation": "…" }
//! ```
//!
//! A refusal has `"refusal": {"code": "out_of_stock", "detail": {…}}` in place of `events`. All
//! fields are always there: `metadata` is `{}` when there is none, `causation` is `null`. No spaces
//! are written outside the pieces that come as JSON. A claim and a close carry a [`ClaimValue`].
//!
//! [`EntryValue`] writes, [`EntryView`] reads; both take nested JSON as it is. Source: the log's
//! design, "Record".

mod read;
mod write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use read::{ActorView, CommandView, EntryView, EventView, OutcomeView, RefusalView, ValueError};
pub use write::{ActorValue, CommandValue, EntryValue, EventValue, OutcomeValue, RefusalValue};

use crate::id::{AppName, Generation, Shard, ShardCount};

/// The value of a claim or a close: whose log this is, and who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimValue {
    /// The application.
    pub app: AppName,
    /// The shard that is claimed or closed.
    pub shard: Shard,
    /// How many shards the log has.
    pub shards: ShardCount,
    /// Which copy of the log.
    pub generation: Generation,
    /// The name of the node that wrote it.
    pub node: String,
    /// Where other nodes reach that node.
    pub url: String,
}

impl ClaimValue {
    /// The value as it is stored.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        to_bytes(self)
    }

    /// Reads a stored value; unknown fields are passed over.
    ///
    /// # Errors
    ///
    /// [`ValueError`] if it is not the JSON of a claim.
    pub fn parse(value: &[u8]) -> Result<Self, ValueError> {
        serde_json::from_slice(value).map_err(ValueError::from)
    }
}

fn to_bytes(value: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(value);
    json.expect("field names are strings, and memory can be written")
        .into()
}

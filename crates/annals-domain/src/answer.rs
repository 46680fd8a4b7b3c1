//! A rule's no, as it stands in a record.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The code of the refusal that a failed precondition becomes; no rejection of a domain may use it.
pub const VERSION_MISMATCH: &str = "version-mismatch";

/// What a refusal record says: a code and its detail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// `out_of_stock`; [`VERSION_MISMATCH`] for a failed precondition.
    pub code: String,
    /// An object; `{}` if there is nothing to add.
    pub detail: Box<RawValue>,
}

//! What the layers below say went wrong, as problems.

use annals_auth::{SealError, TokenError};
use annals_command::SendError;
use annals_domain::Violation;

use super::{Code, Problem};
use crate::scan::ScanError;

impl From<ScanError> for Problem {
    fn from(error: ScanError) -> Self {
        Self::because(Code::Malformed, format!("{error}.")).with("offset", error.offset)
    }
}

impl From<Vec<Violation>> for Problem {
    fn from(violations: Vec<Violation>) -> Self {
        let errors: Vec<_> = violations
            .into_iter()
            .map(|violation| serde_json::json!({"pointer": violation.pointer, "message": violation.message}))
            .collect();
        Self::new(Code::Invalid).with("errors", errors)
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        if error.is_unavailable() {
            return Self::because(
                Code::Overloaded,
                "The token cannot be checked: its issuer's keys cannot be had right now.",
            );
        }
        Self::unauthenticated(Some(&error.to_string()))
    }
}

impl From<&SendError> for Problem {
    /// [`SendError::NotOwner`] is a shard without an owner: who can forward has done so before.
    fn from(error: &SendError) -> Self {
        match error {
            SendError::NotOwner { .. } | SendError::ShardUnavailable => Self::new(Code::ShardUnavailable),
            SendError::ShardHalted => Self::new(Code::ShardHalted),
            SendError::Overloaded => Self::new(Code::Overloaded),
            SendError::LogUnavailable => Self::new(Code::LogUnavailable),
            SendError::OutcomeUnknown => Self::new(Code::OutcomeUnknown),
            SendError::Forbidden => Self::because(Code::Forbidden, "The stream is not the caller's own."),
            SendError::KeyReused => Self::new(Code::IdempotencyKeyReused),
            SendError::RefusalBudget {
                retry_after,
                burst,
                per_minute,
            } => Self::refusal_budget(*retry_after, *burst, *per_minute),
            SendError::TooLarge { limit, .. } => Self::because(
                Code::TooLarge,
                format!("The command's record would be larger than {limit} bytes."),
            )
            .with("limit", *limit),
            SendError::Internal => Self::new(Code::Internal),
        }
    }
}

impl From<&SealError> for Problem {
    fn from(error: &SealError) -> Self {
        match error {
            SealError::Key(key) if key.is_unavailable() => Self::new(Code::LogUnavailable),
            SealError::Key(_) | SealError::Write(_) | SealError::Read(_) => Self::new(Code::Internal),
        }
    }
}

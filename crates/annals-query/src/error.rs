//! Why a query has no answer: the caller's doing, the read model's state, or a failure.

use annals_record::Position;
use annals_store::ErrorClass;

/// Why a query has no answer. Queries change nothing, so each of them may be sent again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No projection serves a resource of this name.
    #[error("there is no resource `{0}`")]
    UnknownResource(String),
    /// A parameter that this resource does not have.
    #[error("unknown parameter `{name}`{}", nearest.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    UnknownParameter {
        /// As it was sent.
        name: String,
        /// The most similar one that there is.
        nearest: Option<String>,
    },
    /// A parameter with a value that it cannot have.
    #[error("parameter `{name}` must be {expected}")]
    InvalidParameter {
        /// As it was sent.
        name: String,
        /// What would be right.
        expected: String,
    },
    /// The cursor was changed, or belongs to another query or another caller.
    #[error("the cursor does not belong to this query: begin again without it")]
    InvalidCursor,
    /// The position is of another generation of the log, or of a shard that it does not have.
    #[error("there is no position {0} in this log")]
    UnknownPosition(Position),
    /// No such row, or not one that this caller may see.
    #[error("there is no such row")]
    NotFound,
    /// The read model did not get as far as it was asked to within the time; later it will.
    #[error("the read model is {distance} records short of {position}")]
    Behind {
        /// What was asked for.
        position: Position,
        /// The last position folded of that shard; `None`: none yet.
        at: Option<Position>,
        /// How many records are missing, at least 1.
        distance: u64,
    },
    /// As many live changes are followed as this node can serve; later it may.
    #[error("as many live changes are followed as this node can serve")]
    TooManySubscribers,
    /// This caller follows as many live changes as one may.
    #[error("a caller may follow {limit} live changes at a time")]
    TooManyOfCaller {
        /// `query.live_per_caller`.
        limit: usize,
    },
    /// No build of the projection is live yet.
    #[error("projection `{projection}` is not built yet")]
    NotBuilt {
        /// Its name.
        projection: String,
    },
    /// The statement took longer than the query role's statement time-out.
    #[error("the query took too long")]
    Timeout,
    /// Postgres cannot be reached, or had no connection to give; later it may.
    #[error("the read models cannot be reached: {0}")]
    Unavailable(#[source] annals_store::Error),
    /// All else: a defect.
    #[error("the query failed: {0}")]
    Internal(#[source] annals_store::Error),
}

impl QueryError {
    pub(crate) fn invalid(name: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::InvalidParameter {
            name: name.into(),
            expected: expected.into(),
        }
    }
}

impl From<sqlx::Error> for QueryError {
    fn from(error: sqlx::Error) -> Self {
        let error = annals_store::Error::from(error);
        match error.class() {
            ErrorClass::Timeout => Self::Timeout,
            ErrorClass::Transient => Self::Unavailable(error),
            _ => Self::Internal(error),
        }
    }
}

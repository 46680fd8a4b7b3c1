//! Why a batch was not applied, by what is to be done about it.

use std::fmt;

use annals_log::CheckpointError;
use annals_store::{Error, ErrorClass};

use super::OpenError;
use crate::manifest::BuildId;

/// Why a batch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another projector moved the checkpoint: this one must stop and give up its leases.
    #[error(transparent)]
    Zombie(CheckpointError),
    /// An event cannot be applied, now or later, until something is mended. (Never leaves
    /// [`super::Projector::apply`], which parks.)
    #[error("{0}")]
    Poison(Trouble),
    /// Postgres is away, in conflict or slow: the same batch may succeed later. Whether it was committed, the
    /// checkpoints say.
    #[error("{0}")]
    Technical(Trouble),
    /// The build was dropped: there is nothing to apply to.
    #[error("build {0} was dropped")]
    Gone(BuildId),
    /// Neither: a privilege, a setting, an operator's matter. Tried again with backoff, and shown.
    #[error("{0}")]
    Setup(Trouble),
    /// Personal data cannot be decrypted for now.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What Postgres said, and where.
#[derive(Debug)]
pub struct Trouble {
    /// The file or table; empty outside of them.
    pub place: String,
    /// What it was.
    pub error: Box<Error>,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{}", self.error)?;
        match self.error.sqlstate() {
            Some(code) => write!(f, " (SQLSTATE {code})"),
            None => Ok(()),
        }
    }
}

impl ApplyError {
    pub(crate) fn of(error: sqlx::Error) -> Self {
        Self::in_statement("", error)
    }

    pub(crate) fn in_statement(place: &str, error: sqlx::Error) -> Self {
        let trouble = Trouble {
            place: place.to_owned(),
            error: Box::new(error.into()),
        };
        if is_poison(&trouble.error) {
            Self::Poison(trouble)
        } else if trouble.error.is_transient() {
            Self::Technical(trouble)
        } else {
            Self::Setup(trouble)
        }
    }
}

impl From<CheckpointError> for ApplyError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Database(error) => Self::of(error),
            zombie => Self::Zombie(zombie),
        }
    }
}

/// Whether the cause is the event (or its statement) and not the machinery: data, constraints, missing objects;
/// also cardinality (21), program limits (54), wrong SQL or types (42) and what a trigger raises (P0).
///
/// Source: PostgreSQL manual, appendix A.
pub(crate) fn is_poison(error: &Error) -> bool {
    match error.class() {
        ErrorClass::Data | ErrorClass::Constraint { .. } | ErrorClass::MissingObject => true,
        ErrorClass::Other => error.sqlstate().is_some_and(|code| {
            let class = code.get(..2).unwrap_or_default();
            ["21", "42", "44", "54", "P0"].contains(&class)
        }),
        _ => false,
    }
}

//! What a failure of Postgres means: may it be tried again, and may it have happened all the same.
//!
//! Told apart by SQLSTATE, never by text.
//! Source: PostgreSQL manual, appendix A, "PostgreSQL Error Codes".

use std::io::ErrorKind;

/// What kind of failure it was, as far as a caller would act differently.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The server or the way to it, not the statement: connection, deadlock, serialization, shutdown,
    /// out of connections. The same statement may succeed later.
    Transient,
    /// A statement or lock time-out (57014, 55P03). It may succeed later, or be too large for ever.
    Timeout,
    /// A constraint refused the row (class 23).
    Constraint {
        /// The constraint's or unique index's name; empty if the server named none.
        name: String,
    },
    /// A table, column, schema, function, role or database is not there (42P01, 42703, 3F000, 3D000 …).
    MissingObject,
    /// A value does not fit (class 22), or what came back could not be decoded.
    Data,
    /// The database role may not do this (42501, class 28).
    Privilege,
    /// All else: wrong SQL, wrong settings.
    Other,
}

/// Whether a statement that failed may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// Nothing was changed.
    No,
    /// It may have been done, or not: the answer was lost.
    Unknown,
}

/// A failure of Postgres, classified. The message is the driver's.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct Error {
    class: ErrorClass,
    happened: Happened,
    #[source]
    source: sqlx::Error,
}

impl Error {
    /// What kind of failure it was.
    #[must_use]
    pub fn class(&self) -> &ErrorClass {
        &self.class
    }

    /// Whether the statement (or the commit) may have taken effect.
    #[must_use]
    pub fn happened(&self) -> Happened {
        self.happened
    }

    /// Whether the same statement may succeed later (transient or timed out).
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.class, ErrorClass::Transient | ErrorClass::Timeout)
    }

    /// The name of the constraint that refused the row, if one did.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        match &self.class {
            ErrorClass::Constraint { name } => Some(name),
            _ => None,
        }
    }

    /// The five characters of SQLSTATE, if the server answered.
    #[must_use]
    pub fn sqlstate(&self) -> Option<String> {
        sqlstate(&self.source)
    }

    /// The driver's error.
    #[must_use]
    pub fn into_source(self) -> sqlx::Error {
        self.source
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self {
            class: class(&source),
            happened: happened(&source),
            source,
        }
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// Classifies a driver's error.
#[must_use]
pub fn class(error: &sqlx::Error) -> ErrorClass {
    match error {
        sqlx::Error::Database(answer) => {
            let code = answer.code().unwrap_or_default();
            class_of_sqlstate(&code, answer.constraint())
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => ErrorClass::Transient,
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::RowNotFound => ErrorClass::Data,
        sqlx::Error::TypeNotFound { .. } => ErrorClass::MissingObject,
        _ => ErrorClass::Other,
    }
}

/// Classifies an SQLSTATE; `constraint` is what the server named beside it.
#[must_use]
pub fn class_of_sqlstate(code: &str, constraint: Option<&str>) -> ErrorClass {
    match code {
        "57014" | "55P03" | "25P03" | "25P04" => ErrorClass::Timeout,
        // 55006: an object is in use. 25006: the server is a standby, as during a failover (or the
        // pool is read-only, which no retry helps; retries have a bound).
        "57P01" | "57P02" | "57P03" | "57P05" | "55006" | "25006" => ErrorClass::Transient,
        "42P01" | "42703" | "42704" | "42883" | "3D000" | "3F000" => ErrorClass::MissingObject,
        "42501" => ErrorClass::Privilege,
        _ => match code.get(..2).unwrap_or_default() {
            // connection; rollback (serialization, deadlock); resources; operator; system (I/O)
            "08" | "40" | "53" | "57" | "58" => ErrorClass::Transient,
            "23" => ErrorClass::Constraint {
                name: constraint.unwrap_or_default().to_owned(),
            },
            "22" => ErrorClass::Data,
            "28" => ErrorClass::Privilege,
            _ => ErrorClass::Other,
        },
    }
}

/// Whether the statement, or the commit, that failed with this may have taken effect.
///
/// An answer with an SQLSTATE means that the server rolled back, except where the server itself was
/// going down or says that it does not know. A lost connection says nothing, unless it was never made.
/// A row that came back but could not be decoded comes from a statement that ran.
#[must_use]
pub fn happened(error: &sqlx::Error) -> Happened {
    match error {
        sqlx::Error::Database(answer) => match &*answer.code().unwrap_or_default() {
            "40003" | "57P01" | "57P02" | "57P05" | "25P03" | "25P04" => Happened::Unknown,
            "08001" | "08004" => Happened::No,
            code if code.starts_with("08") => Happened::Unknown,
            _ => Happened::No,
        },
        sqlx::Error::Io(cause) => match cause.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound | ErrorKind::AddrNotAvailable => Happened::No,
            _ => Happened::Unknown,
        },
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Configuration(_)
        | sqlx::Error::InvalidArgument(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::BeginFailed => Happened::No,
        _ => Happened::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_classes_apart_by_sqlstate() {
        let cases = [
            ("40P01", ErrorClass::Transient),
            ("40001", ErrorClass::Transient),
            ("57P01", ErrorClass::Transient),
            ("57P03", ErrorClass::Transient),
            ("53300", ErrorClass::Transient),
            ("08006", ErrorClass::Transient),
            ("57014", ErrorClass::Timeout),
            ("55P03", ErrorClass::Timeout),
            ("42P01", ErrorClass::MissingObject),
            ("3F000", ErrorClass::MissingObject),
            ("22P02", ErrorClass::Data),
            ("22021", ErrorClass::Data),
            ("42501", ErrorClass::Privilege),
            ("28P01", ErrorClass::Privilege),
            ("42601", ErrorClass::Other),
            ("", ErrorClass::Other),
        ];
        for (code, class) in cases {
            assert_eq!(class_of_sqlstate(code, None), class, "{code}");
        }
        assert_eq!(
            class_of_sqlstate("23505", Some("journal_pkey")),
            ErrorClass::Constraint {
                name: "journal_pkey".to_owned()
            }
        );
    }

    #[test]
    fn a_connection_that_was_never_made_did_nothing() {
        let refused = sqlx::Error::Io(ErrorKind::ConnectionRefused.into());
        assert_eq!(happened(&refused), Happened::No);
        let lost = sqlx::Error::Io(ErrorKind::UnexpectedEof.into());
        assert_eq!(happened(&lost), Happened::Unknown);
        assert_eq!(class(&lost), ErrorClass::Transient);
        assert_eq!(happened(&sqlx::Error::PoolTimedOut), Happened::No);
    }
}

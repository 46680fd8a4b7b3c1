//! Why there is no answer: what was tried, what happened, and whether it may have been done.

/// There is no answer. (A problem document is an answer: [`crate::Response::problem`].)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not one.
    #[error("`{url}` is no address of a server ({cause}); it looks like http://127.0.0.1:8080")]
    Url {
        /// What was given.
        url: String,
        /// Why not.
        cause: String,
    },
    /// The HTTP client cannot be made: the machine's certificates, or a fault here.
    #[error("the HTTP client cannot be made")]
    Setup(#[source] reqwest::Error),
    /// There is no token.
    #[error("no token: {0}")]
    Token(String),
    /// A header's value, or something in the path, has characters that HTTP does not allow.
    #[error("{what} cannot be sent: it has characters that HTTP does not allow there")]
    Unsendable {
        /// Which.
        what: &'static str,
    },
    /// No connection: nothing was done.
    #[error("{url} cannot be reached (tried {attempts} times); nothing was done")]
    NotSent {
        /// Where.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        cause: reqwest::Error,
    },
    /// The connection broke, or the time was over, before the answer was there: it may have been done. A command may
    /// be sent again with the same idempotency key.
    #[error("{url} gave no answer (tried {attempts} times); it may have been done")]
    Unknown {
        /// Where.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        #[source]
        cause: reqwest::Error,
    },
    /// An answer that this client does not understand: another program, or another release.
    #[error("{url} gave an answer that is not of this protocol: {what}")]
    Malformed {
        /// Where.
        url: String,
        /// What is wrong.
        what: String,
    },
}

impl Error {
    /// Whether it is certain that nothing was done.
    #[must_use]
    pub fn is_not_sent(&self) -> bool {
        match self {
            Self::Url { .. }
            | Self::Setup(_)
            | Self::Token(_)
            | Self::Unsendable { .. }
            | Self::NotSent { .. } => true,
            Self::Unknown { .. } | Self::Malformed { .. } => false,
        }
    }
}

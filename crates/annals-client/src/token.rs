//! Where a client's bearer token comes from.

use std::fmt;
use std::sync::Arc;

/// A bearer token. Does not print.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// Takes a token as it is; whitespace around it is none of it.
    pub fn new(token: impl AsRef<str>) -> Self {
        Self(token.as_ref().trim().into())
    }

    /// The text, for sending it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(*)")
    }
}

/// Gives the token for each request; asked before each, so that a source can renew it in time.
pub trait TokenSource: Send + Sync + fmt::Debug {
    /// The token to send now; `None`: send none.
    ///
    /// # Errors
    /// Why there is none, in words that a person can act on.
    fn token(&self) -> Result<Option<Token>, String>;
}

/// Always the same token.
#[derive(Debug, Clone)]
pub struct Fixed(pub Token);

impl TokenSource for Fixed {
    fn token(&self) -> Result<Option<Token>, String> {
        Ok(Some(self.0.clone()))
    }
}

/// No token: for what is open.
#[derive(Debug, Clone, Copy)]
pub struct NoToken;

impl TokenSource for NoToken {
    fn token(&self) -> Result<Option<Token>, String> {
        Ok(None)
    }
}

//! Coalesced notifications between nodes, by `NOTIFY` on a connection of their own.
//!
//! A notification is a hint that saves waiting, never the only way to learn something: it can be lost,
//! so whoever listens polls as well. `NOTIFY` inside a transaction that matters is forbidden: Postgres
//! serialises all commits that notify (measured: ten times fewer). Hence a [`Notifier`] is told after the
//! commit, its task sends many keys in one statement, and a [`Listener`] says when it may have missed some.
//!
//! On the wire a notification is `key` or `key=value`; the key `*` means "read everything again".

mod listener;
mod sender;

pub use listener::{Heard, Listener};
pub use sender::{Limits, Notifier, Sending};

/// The longest payload, in bytes. Source: PostgreSQL manual, NOTIFY: "shorter than 8000 bytes".
pub const MAX_PAYLOAD: usize = 7_999;

/// The longest name of a channel, in bytes: longer identifiers are refused by Postgres.
pub const MAX_CHANNEL: usize = 63;

/// The key that stands for all keys of a channel.
const ALL: &str = "*";

/// A notification: something about `key` has changed, and `value` says what it is now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The channel, at most [`MAX_CHANNEL`] bytes.
    pub channel: String,
    /// What has changed; without `=`.
    pub key: String,
    /// What it is now; may be empty. A later value replaces an earlier one that was not sent yet.
    pub value: String,
}

/// A notice that cannot be sent. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// The channel's name is empty or too long.
    #[error("the name of a channel has 1 to {MAX_CHANNEL} bytes, this one {0}")]
    Channel(usize),
    /// The key is empty, is `*`, or holds `=` or NUL; or the value holds NUL.
    #[error("a key is not empty, is not `*`, and holds neither `=` nor NUL")]
    Key,
    /// Key and value are too long together.
    #[error("key and value have at most {MAX_PAYLOAD} bytes together, these {0}")]
    TooLong(usize),
}

impl Notice {
    /// A notice that can be sent.
    ///
    /// # Errors
    ///
    /// If Postgres or the form on the wire could not carry it.
    pub fn new(channel: &str, key: &str, value: &str) -> Result<Self, NotifyError> {
        if channel.is_empty() || channel.len() > MAX_CHANNEL || channel.contains('\0') {
            return Err(NotifyError::Channel(channel.len()));
        }
        if key.is_empty() || key == ALL || key.contains(['=', '\0']) || value.contains('\0') {
            return Err(NotifyError::Key);
        }
        let length = key.len() + 1 + value.len();
        if length > MAX_PAYLOAD {
            return Err(NotifyError::TooLong(length));
        }
        Ok(Self {
            channel: channel.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }

    /// From the wire; `None` means "read everything again".
    fn parse(channel: &str, payload: &str) -> Option<Self> {
        if payload == ALL {
            return None;
        }
        let (key, value) = payload.split_once('=').unwrap_or((payload, ""));
        Some(Self {
            channel: channel.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

fn payload(key: &str, value: &str) -> String {
    if value.is_empty() {
        key.to_owned()
    } else {
        format!("{key}={value}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn goes_over_the_wire_and_back() {
        for (key, value) in [("7", ""), ("orders/3", "5:1=x"), ("k", "ü")] {
            let notice = Notice::new("c", key, value).unwrap();
            assert_eq!(Notice::parse("c", &payload(key, value)), Some(notice));
        }
        assert_eq!(Notice::parse("c", ALL), None);
    }

    #[test]
    fn refuses_what_postgres_would_refuse() {
        let long = "x".repeat(MAX_PAYLOAD);
        assert_eq!(Notice::new("", "k", ""), Err(NotifyError::Channel(0)));
        assert_eq!(
            Notice::new(&"c".repeat(64), "k", ""),
            Err(NotifyError::Channel(64))
        );
        assert_eq!(Notice::new("c", "", ""), Err(NotifyError::Key));
        assert_eq!(Notice::new("c", "*", ""), Err(NotifyError::Key));
        assert_eq!(Notice::new("c", "a=b", ""), Err(NotifyError::Key));
        assert_eq!(Notice::new("c", "k", "\0"), Err(NotifyError::Key));
        assert_eq!(Notice::new("c", "k", &long), Err(NotifyError::TooLong(8_001)));
    }
}

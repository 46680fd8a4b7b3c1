//! Security events: who was refused, who did or read what needs watching.
//!
//! Each is counted, and written as one `tracing` event with target `annals::security`. What strangers can cause
//! is limited to [`LINES_PER_WINDOW`] lines of a kind in [`WINDOW_MS`], so that nobody can fill a disk; how many
//! were left out is written once the window ends. What only trusted roles can cause (operators' actions, reads of
//! personal data, erased keys) is always written: each of them has to be on record.
//!
//! *Invariant:* no event holds a token, a key or personal data. `sub` is a pseudonymous id.

use std::sync::{Mutex, PoisonError};

use annals_domain::Ambient;
use metrics::counter;

use crate::metrics as names;
use crate::token::TokenError;

/// The target of all security events.
pub const TARGET: &str = "annals::security";
/// The length of a window, in ms.
pub const WINDOW_MS: i64 = 10_000;
/// The most lines of one kind that a window writes.
pub const LINES_PER_WINDOW: u32 = 100;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityEvent<'a> {
    /// No token, or one that was refused.
    Unauthenticated {
        /// Why; `None`: there was none.
        why: Option<TokenError>,
    },
    /// The caller's roles do not allow it.
    ForbiddenRole {
        /// Who asked.
        sub: &'a str,
        /// What is guarded: `orders/place`, `customers`, `audit`.
        what: &'a str,
    },
    /// The roles would, but the object is not the caller's.
    ForbiddenObject {
        /// Who asked.
        sub: &'a str,
        /// The command: `orders/place`.
        what: &'a str,
        /// The stream.
        stream: &'a str,
    },
    /// A request of the operations listener.
    OperatorAction {
        /// Who did it.
        sub: &'a str,
        /// `projections/orders/rebuild`.
        action: &'a str,
    },
    /// Personal fields were read in the clear.
    PrivacyRead {
        /// Who read.
        sub: &'a str,
        /// The resource or route.
        what: &'a str,
        /// How many values were opened.
        values: usize,
    },
    /// A data subject's key was destroyed.
    KeyDestroyed {
        /// Whose: a stream id.
        subject: &'a str,
    },
    /// A call on the internal listener without a good node token.
    NodeTokenRefused {
        /// Why; `None`: there was none.
        why: Option<TokenError>,
    },
}

impl SecurityEvent<'_> {
    /// Its name: the label of counters.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        KINDS[self.index()]
    }

    fn index(&self) -> usize {
        match self {
            Self::Unauthenticated { .. } => 0,
            Self::ForbiddenRole { .. } => 1,
            Self::ForbiddenObject { .. } => 2,
            Self::NodeTokenRefused { .. } => 3,
            Self::OperatorAction { .. } => 4,
            Self::PrivacyRead { .. } => 5,
            Self::KeyDestroyed { .. } => 6,
        }
    }

    fn write(&self) {
        let kind = self.kind();
        let reason = |why: &Option<TokenError>| why.map_or("none", TokenError::reason);
        match self {
            Self::Unauthenticated { why } | Self::NodeTokenRefused { why } => {
                tracing::warn!(target: TARGET, kind, reason = reason(why), "refused");
            }
            Self::ForbiddenRole { sub, what } => {
                tracing::warn!(target: TARGET, kind, sub, what, "forbidden");
            }
            Self::ForbiddenObject { sub, what, stream } => {
                tracing::warn!(target: TARGET, kind, sub, what, stream, "forbidden");
            }
            Self::OperatorAction { sub, action } => {
                tracing::info!(target: TARGET, kind, sub, action, "operator");
            }
            Self::PrivacyRead { sub, what, values } => {
                tracing::info!(target: TARGET, kind, sub, what, values, "personal data read");
            }
            Self::KeyDestroyed { subject } => {
                tracing::info!(target: TARGET, kind, subject, "key destroyed");
            }
        }
    }
}

const KINDS: [&str; 7] = [
    "unauthenticated",
    "forbidden_role",
    "forbidden_object",
    "node_token_refused",
    "operator_action",
    "privacy_read",
    "key_destroyed",
];
/// The first kinds can be caused by strangers, and are limited.
const LIMITED_KINDS: usize = 4;

/// Counts and writes security events.
#[derive(Debug)]
pub struct SecurityLog {
    windows: [Mutex<Window>; LIMITED_KINDS],
    ambient: Ambient,
}

#[derive(Debug, Default, Clone, Copy)]
struct Window {
    began_ms: Option<i64>,
    lines: u32,
    suppressed: u64,
}

/// What becomes of one event's line.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    write: bool,
    /// Left out in the window that has just ended.
    suppressed: u64,
}

impl Window {
    fn turn(&mut self, now_ms: i64) -> Turn {
        let mut suppressed = 0;
        let running = self
            .began_ms
            .is_some_and(|began| (0..WINDOW_MS).contains(&(now_ms.saturating_sub(began))));
        if !running {
            suppressed = self.suppressed;
            *self = Self {
                began_ms: Some(now_ms),
                ..Self::default()
            };
        }
        let write = self.lines < LINES_PER_WINDOW;
        if write {
            self.lines += 1;
        } else {
            self.suppressed += 1;
        }
        Turn { write, suppressed }
    }
}

impl SecurityLog {
    /// An empty log.
    #[must_use]
    pub fn new(ambient: Ambient) -> Self {
        Self {
            windows: Default::default(),
            ambient,
        }
    }

    /// Counts an event, and writes it if there is room.
    pub fn record(&self, event: &SecurityEvent<'_>) {
        let kind = event.kind();
        counter!(names::SECURITY_EVENTS, "kind" => kind).increment(1);
        let Some(window) = self.windows.get(event.index()) else {
            return event.write();
        };
        let turn = window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .turn(self.ambient.now_ms());
        if turn.suppressed > 0 {
            tracing::warn!(target: TARGET, kind, suppressed = turn.suppressed, "security events left out");
        }
        if turn.write {
            event.write();
        } else {
            counter!(names::SECURITY_SUPPRESSED, "kind" => kind).increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_writes_so_many_lines_and_then_says_how_many_it_left_out() {
        let mut window = Window::default();
        let written = (0..250).filter(|_| window.turn(1_000).write).count();
        assert_eq!(written, 100);
        assert!(!window.turn(1_000 + WINDOW_MS - 1).write);
        assert_eq!(
            window.turn(1_000 + WINDOW_MS),
            Turn {
                write: true,
                suppressed: 151
            }
        );
        assert_eq!(window.turn(1_000 + WINDOW_MS).suppressed, 0, "said once");
    }

    #[test]
    fn a_clock_that_is_set_back_begins_a_new_window() {
        let mut window = Window::default();
        let written = (0..101).filter(|_| window.turn(5_000).write).count();
        assert_eq!(written, 100);
        assert!(window.turn(4_000).write);
    }
}

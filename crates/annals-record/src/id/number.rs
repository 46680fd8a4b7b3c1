//! Numbers that must not be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::IdError;
use crate::decimal;

const RULE: &str = "an integer without sign or leading zero, within its range";

/// What every number can do: plain conversions, so that nobody needs `as`.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $int:ty, $signed:ty, $what:literal, $parse:path) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name($int);

        impl $name {
            /// Wraps the number.
            #[must_use]
            pub const fn new(number: $int) -> Self {
                Self(number)
            }

            /// The bare number.
            #[must_use]
            pub const fn get(self) -> $int {
                self.0
            }

            /// The next one; the last one is its own successor.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl From<$int> for $name {
            fn from(number: $int) -> Self {
                Self(number)
            }
        }

        impl From<$name> for $int {
            fn from(number: $name) -> Self {
                number.0
            }
        }

        /// From the signed integer of a database or a broker; a negative one is an error.
        impl TryFrom<$signed> for $name {
            type Error = std::num::TryFromIntError;

            fn try_from(number: $signed) -> Result<Self, Self::Error> {
                <$int>::try_from(number).map(Self)
            }
        }

        /// To the signed integer of a database or a broker.
        impl TryFrom<$name> for $signed {
            type Error = std::num::TryFromIntError;

            fn try_from(number: $name) -> Result<Self, Self::Error> {
                <$signed>::try_from(number.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let number = $parse(text.as_bytes());
                number.map(Self).ok_or_else(|| IdError::new($what, RULE, text))
            }
        }
    };
}

number!(
    /// The place of a record within its shard, dense from 0. As text at most `i64::MAX`.
    Offset, u64, i64, "an offset", decimal::parse
);
number!(
    /// How many events a stream has; its first event has version 1. As text at most `i64::MAX`.
    Version, u64, i64, "a version", decimal::parse
);
number!(
    /// The number of an ownership term of a shard. 0 before the first claim, which has epoch 1. As
    /// text at most `i64::MAX`.
    Epoch, u64, i64, "an epoch", decimal::parse
);
number!(
    /// One totally ordered part of the log: a Kafka partition. Counted from 0.
    Shard, u32, i32, "a shard", decimal::parse_u32
);

impl Version {
    /// The version after `count` more events; it stops at `u64::MAX`.
    #[must_use]
    pub const fn plus(self, events: u64) -> Self {
        Self(self.0.saturating_add(events))
    }
}

/// Which copy of a log a position belongs to: 1 for the first, and `log copy` makes the next.
/// Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Generation(u32);

impl Generation {
    /// The generation of a log that is no copy.
    pub const FIRST: Self = Self(1);

    /// The bare number, at least 1.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The generation of a copy of this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self::FIRST
    }
}

impl TryFrom<u32> for Generation {
    type Error = IdError;

    fn try_from(number: u32) -> Result<Self, IdError> {
        if number == 0 {
            return Err(IdError::new("a generation", "an integer from 1", "0"));
        }
        Ok(Self(number))
    }
}

impl From<Generation> for u32 {
    fn from(generation: Generation) -> Self {
        generation.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Generation {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        decimal::parse_u32(text.as_bytes())
            .and_then(|n| Self::try_from(n).ok())
            .ok_or_else(|| IdError::new("a generation", RULE, text))
    }
}

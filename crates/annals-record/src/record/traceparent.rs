//! The trace that a command belongs to, as W3C Trace Context writes it.

use std::fmt;
use std::str::FromStr;

use crate::hash::{hex_into, write_hex};

/// Text that is not a `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00")]
pub struct TraceparentError;

/// `00-{trace id}-{parent id}-{flags}`, lower-case hexadecimal; neither id is all zeros.
///
/// Source: W3C Trace Context, section 3.2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traceparent {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl Traceparent {
    /// Bytes of the one spelling.
    pub const BYTES: usize = 55;

    /// The trace.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span that caused this one.
    #[must_use]
    pub fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// The flags; bit 0 is "sampled".
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// From its parts; `None` if an id is all zeros, which stands for no id.
    #[must_use]
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) -> Option<Self> {
        (trace_id != [0; 16] && parent_id != [0; 8]).then_some(Self {
            trace_id,
            parent_id,
            flags,
        })
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::BYTES || !text.starts_with(b"00-") || text[35] != b'-' {
            return None;
        }
        let (mut trace_id, mut parent_id, mut flags) = ([0; 16], [0; 8], [0; 1]);
        hex_into(&text[3..35], &mut trace_id)?;
        hex_into(&text[36..52], &mut parent_id)?;
        hex_into(&text[53..55], &mut flags)?;
        (text[52] == b'-').then(|| Self::new(trace_id, parent_id, flags[0]))?
    }

    pub(crate) fn to_ascii(self) -> [u8; Self::BYTES] {
        let mut text = [b'-'; Self::BYTES];
        text[..2].copy_from_slice(b"00");
        write_hex(&self.trace_id, &mut text[3..35]);
        write_hex(&self.parent_id, &mut text[36..52]);
        write_hex(&[self.flags], &mut text[53..55]);
        text
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.to_ascii()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Traceparent({self})")
    }
}

impl FromStr for Traceparent {
    type Err = TraceparentError;

    fn from_str(text: &str) -> Result<Self, TraceparentError> {
        Self::parse(text.as_bytes()).ok_or(TraceparentError)
    }
}

//! Answers: rows as Postgres wrote them in JSON, and what they are worth: positions, lag, parked streams, entity tag.

use std::fmt::Write;
use std::ops::Deref;
use std::sync::Arc;

use annals_record::{Offset, Position, Version};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::cursor::Fingerprint;
use crate::freshness::{Freshness, State};

/// One row.
#[derive(Debug, Clone)]
pub struct RowAnswer {
    /// The row, a JSON object.
    pub data: Arc<str>,
    /// The version of the stream behind the row, where each row has one.
    pub version: Option<Version>,
    /// How fresh it is.
    pub meta: Meta,
}

/// A page of rows.
#[derive(Debug, Clone)]
pub struct ListAnswer {
    /// The rows, a JSON array.
    pub data: Arc<str>,
    /// The cursor of the next page, if there is one.
    pub next: Option<Arc<str>>,
    /// How many rows the filters let through, if that was asked for.
    pub count: Option<u64>,
    /// How fresh it is.
    pub meta: Meta,
}

/// How fresh an answer is: of one snapshot with its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The last offset folded of each shard that has records, in the order of shards; with expansions, by all
    /// projections that the answer comes from.
    pub positions: Positions,
    /// The age of the oldest record that was not folded, in ms; 0 if all were. See [`crate::freshness`].
    pub lag_ms: u64,
    /// How many streams of these projections are parked.
    pub parked: u64,
    /// `W/"…"`, the same as long as request, caller's access and checkpoints are.
    pub etag: String,
}

/// Positions in the order of shards, and the text that headers have of them: written once for all answers of one state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions(Arc<(Vec<Position>, String)>);

impl Positions {
    /// With a comma and a space between: `0:1041, 1:77`.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.1
    }
}

impl From<Vec<Position>> for Positions {
    fn from(positions: Vec<Position>) -> Self {
        let mut text = String::with_capacity(positions.len() * 12);
        for (at, position) in positions.iter().enumerate() {
            // Writing to a text cannot fail.
            let _ = write!(text, "{}{position}", if at == 0 { "" } else { ", " });
        }
        Self(Arc::new((positions, text)))
    }
}

impl Deref for Positions {
    type Target = [Position];

    fn deref(&self) -> &[Position] {
        &self.0.0
    }
}

impl<const N: usize> PartialEq<[Position; N]> for Positions {
    fn eq(&self, other: &[Position; N]) -> bool {
        **self == other[..]
    }
}

impl RowAnswer {
    /// `{"data": {…}}`.
    #[must_use]
    pub fn body(&self) -> String {
        ["{\"data\":", &self.data, "}"].concat()
    }
}

impl ListAnswer {
    /// `{"data": […], "next": "cursor or null"}`, with `"count"` if it was asked for.
    #[must_use]
    pub fn body(&self) -> String {
        let mut body =
            String::with_capacity(self.data.len() + 64 + self.next.as_ref().map_or(0, |next| next.len()));
        body.push_str("{\"data\":");
        body.push_str(&self.data);
        body.push_str(",\"next\":");
        match &self.next {
            // Cursors are base64url: nothing to escape.
            Some(next) => body.extend(["\"", next, "\""]),
            None => body.push_str("null"),
        }
        if let Some(count) = self.count {
            body.push_str(",\"count\":");
            body.push_str(&count.to_string());
        }
        body.push('}');
        body
    }
}

impl Meta {
    pub(crate) fn new(
        request: &Fingerprint,
        sources: &[(&str, i32)],
        states: &[Arc<State>],
        freshness: &Freshness,
        now_ms: i64,
    ) -> Self {
        Self::with_tag(etag(request, states), sources, states, freshness, now_ms)
    }

    /// The same where the tag is known.
    pub(crate) fn with_tag(
        etag: String,
        sources: &[(&str, i32)],
        states: &[Arc<State>],
        freshness: &Freshness,
        now_ms: i64,
    ) -> Self {
        Self {
            positions: positions(states, freshness),
            lag_ms: freshness.lag_ms(sources, states, now_ms),
            parked: states.iter().map(|state| state.parked()).sum(),
            etag,
        }
    }
}

/// What all of these have folded.
fn positions(states: &[Arc<State>], freshness: &Freshness) -> Positions {
    match states.split_first() {
        None => Positions::from(Vec::new()),
        // Each answer of a state says the same of it.
        Some((only, [])) => only.positions(|| common(only, &[], freshness)).clone(),
        Some((first, others)) => common(first, others, freshness),
    }
}

/// Of each shard the least that these have folded.
fn common(first: &State, others: &[Arc<State>], freshness: &Freshness) -> Positions {
    let position = |(shard, next): &(annals_record::Shard, Offset)| {
        let next = others
            .iter()
            .map(|state| state.next(*shard))
            .fold(*next, Ord::min);
        let last = next.get().checked_sub(1)?;
        Some(Position::new(
            freshness.log().generation,
            *shard,
            Offset::new(last),
        ))
    };
    let positions: Vec<_> = first.checkpoints().iter().filter_map(position).collect();
    positions.into()
}

/// `W/"{request}.{state}…"`, each part 12 bytes of SHA-256 in base64url.
pub(crate) fn etag(request: &Fingerprint, states: &[Arc<State>]) -> String {
    let mut tag = String::with_capacity(24 + 17 * states.len());
    tag.push_str("W/\"");
    URL_SAFE_NO_PAD.encode_string(&request[..12], &mut tag);
    for state in states {
        tag.push('.');
        tag.push_str(state.token());
    }
    tag.push('"');
    tag
}

/// Whether a value of `If-None-Match` names this tag; `*` does not count, since it asks whether there is any row.
///
/// Source: RFC 9110, 13.1.2, with the weak comparison of 8.8.3.2.
pub(crate) fn names(if_none_match: &str, etag: &str) -> bool {
    fn opaque(tag: &str) -> &str {
        tag.trim().trim_start_matches("W/")
    }
    if_none_match.split(',').any(|tag| opaque(tag) == opaque(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_tags_weakly() {
        assert!(names("\"x\", W/\"a.b\"", "W/\"a.b\""));
        assert!(names("\"a.b\"", "W/\"a.b\""));
        assert!(!names("*", "W/\"a.b\""));
        assert!(!names("W/\"a\"", "W/\"a.b\""));
    }
}

//! One line of a batch: a command with what would otherwise be path and headers.

use std::borrow::Cow;

use annals_domain::{Precondition, Violation};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::command::head::{self, MAX_KEY};
use crate::problem::{Code, Problem};
use crate::scan::scan;

/// A line as it stands.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    resource: Cow<'a, str>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    command: Cow<'a, str>,
    #[serde(borrow, default)]
    idempotency_key: Option<Cow<'a, str>>,
    #[serde(default)]
    if_match: Option<Value>,
    #[serde(default)]
    if_none_match: Option<Value>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// A line that reads.
pub(super) struct Line {
    pub(super) resource: String,
    pub(super) key: Option<String>,
    pub(super) command: String,
    idempotency_key: Option<String>,
    if_match: Option<Value>,
    if_none_match: Option<Value>,
    /// The command's body; `{}` if there is none.
    pub(super) data: Bytes,
}

impl Line {
    /// Reads a line whose data may be `depth` deep.
    ///
    /// # Errors
    /// 400 if it is not JSON as it is taken here, 422 if it is not a line.
    pub(super) fn read(line: &Bytes, depth: usize) -> Result<Self, Problem> {
        scan(line, depth.saturating_add(1))?;
        let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| {
            Problem::from(vec![Violation::at("", format!("not a line of a batch: {error}"))])
        })?;
        Ok(Self {
            data: match fields.data {
                Some(data) => line.slice_ref(data.get().as_bytes()),
                None => Bytes::from_static(b"{}"),
            },
            resource: fields.resource.into_owned(),
            key: fields.key.map(Cow::into_owned),
            command: fields.command.into_owned(),
            idempotency_key: fields.idempotency_key.map(Cow::into_owned),
            if_match: fields.if_match,
            if_none_match: fields.if_none_match,
        })
    }

    /// The key itself: JSON has quoted it already.
    pub(super) fn idempotency_key(&self) -> Result<String, Problem> {
        let key = self.idempotency_key.as_deref().unwrap_or_default();
        if key.is_empty() {
            let detail = "A line needs the member idempotency_key.";
            return Err(Problem::because(Code::IdempotencyKeyRequired, detail));
        }
        let fits = key.len() <= MAX_KEY && key.bytes().all(|b| matches!(b, b' '..=b'~'));
        fits.then(|| key.to_owned())
            .ok_or_else(|| wrong("idempotency_key", "1 to 255 characters of ASCII"))
    }

    /// `"3"`, `3` or `"*"`; what would be a quoted tag in a header may keep its quotes.
    pub(super) fn precondition(&self) -> Result<Precondition, Problem> {
        let if_match = |value: &Value| match value {
            Value::Number(number) => head::if_match(&format!("\"{number}\"")),
            Value::String(text) => head::if_match(text).or_else(|| head::if_match(&format!("\"{text}\""))),
            _ => None,
        };
        match (&self.if_match, &self.if_none_match) {
            (None, None) => Ok(Precondition::None),
            (Some(value), None) => if_match(value).ok_or_else(|| wrong("if_match", "a version or *")),
            (None, Some(Value::String(star))) if star == "*" => Ok(Precondition::Absent),
            (None, Some(_)) => Err(wrong("if_none_match", "*")),
            (Some(_), Some(_)) => Err(wrong("if_match", "there without if_none_match")),
        }
    }
}

fn wrong(member: &str, expected: &str) -> Problem {
    Problem::because(
        Code::InvalidParameter,
        format!("The member {member} must be {expected}."),
    )
}

//! The auditors' routes: histories, states by replay, a search, exact bytes, shards. Everything as stored.

use std::time::Duration;

use annals_audit::{AuditError, RecordKind, Search, Upto};
use annals_auth::{Area, SecurityEvent};
use annals_record::{Position, StreamId};
use axum::response::Response;
use chrono::{DateTime, Utc};
use http::StatusCode;
use http::request::Parts as Head;

use crate::authenticate::Who;
use crate::edge::{Ids, Inner};
use crate::ports::Question;
use crate::problem::{Code, Problem};
use crate::query::{ANNALS_LAG_MS, PREFERENCE_APPLIED, Prefer, WAIT, accepts_json, after, list};
use crate::reply::{ANNALS_POSITION, Reply};
use crate::target;

/// Records of a page without `limit`.
const PAGE: u32 = 50;
/// The largest `limit`.
pub(crate) const MAX_PAGE: u32 = 500;

/// Which of the auditors' routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditRoute<'a> {
    /// `streams/{stream}`.
    History(&'a str),
    /// `streams/{stream}/state`.
    State(&'a str),
    /// `records`.
    Records,
    /// `records/{id}`.
    Record(&'a str),
    /// `records/{id}/raw`.
    Raw(&'a str),
    /// `shards`.
    Shards,
}

impl<'a> AuditRoute<'a> {
    /// From the segments behind `/v1/audit/`.
    pub(crate) fn of(segments: &[&'a str]) -> Option<Self> {
        Some(match *segments {
            ["streams", stream] => Self::History(stream),
            ["streams", stream, "state"] => Self::State(stream),
            ["records"] => Self::Records,
            ["records", id] => Self::Record(id),
            ["records", id, "raw"] => Self::Raw(id),
            ["shards"] => Self::Shards,
            _ => return None,
        })
    }
}

impl Inner {
    /// Answers an auditor.
    ///
    /// # Errors
    /// 421, 403, 406, 400, then what the journal says.
    pub(crate) async fn audit(
        &self,
        who: &Who,
        route: AuditRoute<'_>,
        head: &Head,
        ids: &Ids,
    ) -> Result<Response, Problem> {
        let missing = || Problem::new(Code::Misdirected).with("role", "audit");
        let audits = self.audits.as_ref().ok_or_else(missing)?;
        if !self.policies.may_enter(&who.caller.roles, Area::Audit) {
            self.security.record(&SecurityEvent::ForbiddenRole {
                sub: &who.caller.sub,
                what: "audit",
            });
            return Err(Code::Forbidden.into());
        }
        accepts_json(&head.headers)?;
        if let Some(problem) = &ids.refused {
            return Err(problem.clone());
        }
        let longest = self.settings.request_time();
        let prefer = Prefer::read(&head.headers, longest);
        let wait = prefer.wait.unwrap_or(WAIT).min(longest);
        let question = question(route, Parameters::read(head.uri.query())?)?;
        let answer = audits.ask(question, after(&head.headers)?, wait);
        let answer = tokio::time::timeout(longest + Duration::from_secs(1), answer).await;
        let answer = answer
            .map_err(|_| Problem::new(Code::Overloaded))?
            .map_err(|error| {
                if let AuditError::Unreadable(what) = &error {
                    tracing::error!(what, "the journal holds what cannot be read");
                }
                Problem::from(&error)
            })?;
        let oldest = answer.fresh.oldest_missing_ms;
        // A record from a clock ahead of this one is missing too.
        let age = |time: i64| u64::try_from(self.ambient.now_ms() - time).unwrap_or(0).max(1);
        let reply = Reply::json(StatusCode::OK, answer.body)
            .with_text(ANNALS_POSITION, &list(&answer.fresh.positions))
            .with_text(ANNALS_LAG_MS, &oldest.map_or(0, age).to_string());
        let reply = match prefer.wait {
            Some(wait) => reply.with_text(PREFERENCE_APPLIED, &format!("wait={}", wait.as_secs())),
            None => reply,
        };
        Ok(reply.into_response())
    }
}

fn question(route: AuditRoute<'_>, mut parameters: Parameters) -> Result<Question, Problem> {
    let stream = |text: &str| text.parse::<StreamId>().map_err(|_| Problem::new(Code::NotFound));
    let record = |text: &str| text.parse().map_err(|_| Problem::new(Code::NotFound));
    let question = match route {
        AuditRoute::History(text) => Question::History {
            stream: stream(text)?,
            after: parameters.parsed("after", "a position as in 3:1042")?,
            limit: parameters.limit()?,
        },
        AuditRoute::State(text) => {
            let version = parameters.parsed("version", "a stream's version")?;
            let at = parameters.time("at")?;
            let upto = match (version, at) {
                (None, None) => Upto::Now,
                (Some(version), None) => Upto::Version(version),
                (None, Some(time)) => Upto::Time(time),
                (Some(_), Some(_)) => return Err(wrong("at", "there without version")),
            };
            Question::State {
                stream: stream(text)?,
                upto,
            }
        }
        AuditRoute::Records => {
            let kind = parameters.take("kind")?.map(|kind| {
                RecordKind::from_name(&kind).ok_or_else(|| wrong("kind", "commit, refusal, claim or close"))
            });
            Question::Records {
                search: Search {
                    kind: kind.transpose()?,
                    category: parameters.take("category")?,
                    event_type: parameters.take("type")?,
                    actor: parameters.take("actor")?,
                    from: parameters.time("from")?,
                    to: parameters.time("to")?,
                    after: parameters.take("after")?,
                },
                limit: parameters.limit()?,
            }
        }
        AuditRoute::Record(text) => Question::Record(record(text)?),
        AuditRoute::Raw(text) => Question::Raw(record(text)?),
        AuditRoute::Shards => Question::Shards,
    };
    parameters.none_left()?;
    Ok(question)
}

/// A query string whose parameters are each taken once.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        target::parameters(query).map(Self)
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(at) = self.0.iter().position(|(other, _)| other == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        match self.0.iter().any(|(other, _)| other == name) || value.contains('\0') {
            true => Err(wrong(name, "there once, and a text without U+0000")),
            false => Ok(Some(value)),
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let value = self.take(name)?;
        value
            .map(|value| value.parse().map_err(|_| wrong(name, expected)))
            .transpose()
    }

    fn time(&mut self, name: &str) -> Result<Option<DateTime<Utc>>, Problem> {
        let time = |value: String| DateTime::parse_from_rfc3339(&value).map(|time| time.to_utc());
        let time = self.take(name)?.map(time).transpose();
        time.map_err(|_| wrong(name, "a time of RFC 3339 as in 2026-11-01T00:00:00Z"))
    }

    fn limit(&mut self) -> Result<u32, Problem> {
        let limit = self.parsed("limit", "from 1 to 500")?.unwrap_or(PAGE);
        match (1..=MAX_PAGE).contains(&limit) {
            true => Ok(limit),
            false => Err(wrong("limit", "from 1 to 500")),
        }
    }

    fn none_left(&self) -> Result<(), Problem> {
        let Some((name, _)) = self.0.first() else {
            return Ok(());
        };
        let name: String = name.chars().take(80).collect();
        Err(Problem::because(
            Code::UnknownParameter,
            format!("Unknown parameter `{name}`."),
        ))
    }
}

fn wrong(name: &str, expected: &str) -> Problem {
    Problem::because(
        Code::InvalidParameter,
        format!("The parameter {name} must be {expected}."),
    )
}

impl From<&AuditError> for Problem {
    fn from(error: &AuditError) -> Self {
        let because = |code| Self::because(code, format!("{error}."));
        match error {
            AuditError::NotFound(_) => because(Code::NotFound),
            AuditError::UnknownPosition(_) => because(Code::UnknownPosition),
            AuditError::Cursor(_) => because(Code::InvalidCursor),
            AuditError::Behind { asked, at } => {
                let distance = asked.offset.get().saturating_sub(at.get()).saturating_add(1);
                because(Code::ProjectionBehind)
                    .with("distance", distance)
                    .with("position", Position::to_string(asked))
            }
            AuditError::Store(_) | AuditError::Database(_) | AuditError::Leases(_) => {
                tracing::warn!(%error, "an auditor's question has no answer");
                Code::LogUnavailable.into()
            }
            AuditError::Unreadable(_) => Code::Internal.into(),
        }
    }
}

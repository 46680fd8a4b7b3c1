//! Read models: path, parameters and headers to a typed request, its answer to a response.

use std::fmt::Write;
use std::time::Duration;

use annals_auth::{Area, Reach, SecurityEvent};
use annals_query::{
    Access, Definition, ListAnswer, Meta, Private, QueryError, Request as QueryRequest, RowAnswer, Rows,
    Scope,
};
use annals_record::Position;
use axum::response::Response;
use http::header::{ACCEPT, ETAG, IF_NONE_MATCH, LINK};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderName, StatusCode};

use crate::authenticate::Who;
use crate::edge::{Ids, Inner};
use crate::live::EVENT_STREAM;
use crate::ports::Read;
use crate::problem::{Code, Problem};
use crate::reply::{ANNALS_POSITION, Reply};
use crate::target;

const ANNALS_AFTER: HeaderName = HeaderName::from_static("annals-after");
pub(crate) const ANNALS_LAG_MS: HeaderName = HeaderName::from_static("annals-lag-ms");
const ANNALS_PARKED: HeaderName = HeaderName::from_static("annals-parked");
const ANNALS_VERSION: HeaderName = HeaderName::from_static("annals-version");
const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// How long a request with `Annals-After` waits if it does not say.
pub(crate) const WAIT: Duration = Duration::from_secs(2);

impl Inner {
    /// Answers a `GET` or `HEAD` of a resource whose definition was found.
    ///
    /// # Errors
    /// 421, 403, 406, 400, then what the read model says.
    pub(crate) async fn query(
        &self,
        who: &Who,
        definition: &Definition,
        key: Option<String>,
        head: &Head,
        ids: &Ids,
    ) -> Result<Response, Problem> {
        let missing = || Problem::new(Code::Misdirected).with("role", "query");
        let reads = self.reads.as_ref().ok_or_else(missing)?;
        let scope = self.scope(who, definition)?;
        let opened = self.opens(who, definition, &scope);
        let form = wanted(&head.headers)?;
        if let Some(problem) = &ids.refused {
            return Err(problem.clone());
        }
        let prefer = Prefer::read(&head.headers, self.settings.request_time());
        let request = QueryRequest {
            resource: definition.resource.clone(),
            key,
            parameters: target::parameters(head.uri.query())?,
            scope,
            after: after(&head.headers)?,
            wait: prefer.wait.unwrap_or(WAIT).min(self.settings.request_time()),
            count: prefer.count,
        };
        if form == Form::Events {
            return self.follow(who, reads.as_ref(), request, opened, head, ids).await;
        }
        let tags = if_none_match(&head.headers);
        let answered = tokio::time::timeout(self.settings.request_time(), reads.read(request, tags)).await;
        let read = answered.map_err(|_| Problem::new(Code::Overloaded))?;
        let read = read.map_err(|error| problem_of(&error))?;
        if opened > 0 && !matches!(read, Read::NotModified(_)) {
            self.security.record(&SecurityEvent::PrivacyRead {
                sub: &who.caller.sub,
                what: &definition.resource,
                values: opened,
            });
        }
        let reply = match &read {
            Read::NotModified(meta) => fresh(Reply::empty(StatusCode::NOT_MODIFIED), meta),
            Read::Row(row) => row_reply(row),
            Read::List(list) => list_reply(list, head),
        };
        let reply = match prefer.applied() {
            Some(applied) => reply.with_text(PREFERENCE_APPLIED, &applied),
            None => reply,
        };
        Ok(reply.into_response())
    }

    /// What the caller may see: of the resource, and of what may be expanded.
    fn scope(&self, who: &Who, definition: &Definition) -> Result<Scope, Problem> {
        let own = self.access(who, &definition.resource);
        if own.rows == Rows::None {
            self.security.record(&SecurityEvent::ForbiddenRole {
                sub: &who.caller.sub,
                what: &definition.resource,
            });
            return Err(Code::Forbidden.into());
        }
        let scope = Scope::default().with(definition.resource.as_str(), own);
        let expansions = definition.expand.values();
        Ok(expansions.fold(scope, |scope, expansion| {
            scope.with(expansion.resource.as_str(), self.access(who, &expansion.resource))
        }))
    }

    fn access(&self, who: &Who, resource: &str) -> Access {
        let access = self.policies.read_access(&who.caller.roles, resource);
        let owner = who.caller.owner.as_deref();
        let rows = match (access.rows, owner) {
            (Reach::All, _) => Rows::All,
            (Reach::Own, Some(owner)) => Rows::Own(owner.to_owned()),
            (Reach::Own, None) | (Reach::None, _) => Rows::None,
        };
        let private = match (access.private, owner) {
            (Reach::All, _) => Private::All,
            (Reach::Own, Some(owner)) => Private::Own(owner.to_owned()),
            (Reach::Own, None) | (Reach::None, _) => Private::None,
        };
        Access { rows, private }
    }

    /// How many personal columns are shown to a caller whose every look at such data is on record; 0 for others.
    fn opens(&self, who: &Who, definition: &Definition, scope: &Scope) -> usize {
        let watched = self.policies.may_enter(&who.caller.roles, Area::Personal);
        match watched && scope.of(&definition.resource).private == Private::All {
            true => definition.private.len(),
            false => 0,
        }
    }
}

fn row_reply(row: &RowAnswer) -> Reply {
    let reply = fresh(Reply::json(StatusCode::OK, row.body()), &row.meta);
    match row.version {
        Some(version) => reply.with_text(ANNALS_VERSION, &version.to_string()),
        None => reply,
    }
}

fn list_reply(list: &ListAnswer, head: &Head) -> Reply {
    let reply = fresh(Reply::json(StatusCode::OK, list.body()), &list.meta);
    let Some(next) = &list.next else {
        return reply;
    };
    let mut query: String = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="))
        .flat_map(|pair| [pair, "&"])
        .collect();
    query.extend(["cursor=", next]);
    reply.with_text(LINK, &format!("<{}?{query}>; rel=\"next\"", head.uri.path()))
}

/// Positions with commas between.
pub(crate) fn list(positions: &[Position]) -> String {
    let mut text = String::with_capacity(positions.len() * 12);
    for (at, position) in positions.iter().enumerate() {
        // Writing to a text cannot fail.
        let _ = write!(text, "{}{position}", if at == 0 { "" } else { ", " });
    }
    text
}

pub(crate) fn problem_of(error: &QueryError) -> Problem {
    if let QueryError::Internal(source) = error {
        tracing::error!(error = %source, "a query failed");
    }
    Problem::from(error)
}

pub(crate) fn fresh(reply: Reply, meta: &Meta) -> Reply {
    let reply = reply
        .with_text(ETAG, &meta.etag)
        .with_text(ANNALS_POSITION, meta.positions.text())
        .with_text(ANNALS_LAG_MS, &meta.lag_ms.to_string());
    match meta.parked {
        0 => reply,
        parked => reply.with_text(ANNALS_PARKED, &parked.to_string()),
    }
}

/// The positions of `Annals-After`, several in one header or in several.
pub(crate) fn after(headers: &HeaderMap) -> Result<Vec<Position>, Problem> {
    let wrong = || {
        let detail = "The header annals-after must be positions as in 3:1042, with commas between.";
        Problem::because(Code::InvalidParameter, detail)
    };
    let mut positions = Vec::new();
    for value in headers.get_all(ANNALS_AFTER) {
        for text in value.to_str().map_err(|_| wrong())?.split(',') {
            positions.push(text.trim().parse().map_err(|_| wrong())?);
        }
    }
    Ok(positions)
}

fn if_none_match(headers: &HeaderMap) -> Option<String> {
    let values: Vec<_> = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// What of `Prefer` is understood; the rest is ignored, as it has to be.
///
/// **Source:** RFC 7240.
pub(crate) struct Prefer {
    pub(crate) wait: Option<Duration>,
    count: bool,
}

impl Prefer {
    pub(crate) fn read(headers: &HeaderMap, longest: Duration) -> Self {
        let mut prefer = Self {
            wait: None,
            count: false,
        };
        let values = headers
            .get_all(PREFER)
            .iter()
            .filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            // What follows a semicolon are a preference's parameters.
            let token = preference.split(';').next().unwrap_or_default();
            let Some((name, value)) = token.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "wait" if prefer.wait.is_none() => {
                    let seconds = value.parse::<u32>().ok();
                    prefer.wait = seconds.map(|s| Duration::from_secs(s.into()).min(longest));
                }
                "count" if value.eq_ignore_ascii_case("exact") => prefer.count = true,
                _ => {}
            }
        }
        prefer
    }

    fn applied(&self) -> Option<String> {
        let wait = self.wait.map(|wait| format!("wait={}", wait.as_secs()));
        let count = self.count.then(|| "count=exact".to_owned());
        let applied: Vec<_> = wait.into_iter().chain(count).collect();
        (!applied.is_empty()).then(|| applied.join(", "))
    }
}

/// What an answer is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// Live changes.
    Events,
}

/// Whether `Accept` leaves room for JSON.
///
/// # Errors
/// 406.
pub(crate) fn accepts_json(headers: &HeaderMap) -> Result<(), Problem> {
    match quality(headers, "application/json") {
        Some(quality) if quality > 0.0 => Ok(()),
        _ => Err(Code::NotAcceptable.into()),
    }
}

/// What `Accept` asks for: live changes only if they are named, and JSON is not wanted more.
///
/// # Errors
/// 406.
fn wanted(headers: &HeaderMap) -> Result<Form, Problem> {
    let named = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(',')).any(|range| {
        let range = range.split(';').next().unwrap_or_default();
        range.trim().eq_ignore_ascii_case(EVENT_STREAM)
    });
    if named {
        let events = quality(headers, EVENT_STREAM).unwrap_or(0.0);
        let json = quality(headers, "application/json").unwrap_or(0.0);
        if events > 0.0 && events >= json {
            return Ok(Form::Events);
        }
    }
    accepts_json(headers).map(|()| Form::Json)
}

/// How much a media type is wanted: 1 without any `Accept`, none if no range matches.
///
/// **Source:** RFC 9110, section 12.5.1: the most specific range that matches decides; quality 0 means no.
fn quality(headers: &HeaderMap, media: &str) -> Option<f32> {
    let kind = media.split('/').next().unwrap_or_default();
    let mut best: Option<(u8, f32)> = None;
    let mut any = false;
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        any = true;
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let specific = if range.eq_ignore_ascii_case(media) {
            3
        } else if range
            .strip_suffix("/*")
            .is_some_and(|of| of.eq_ignore_ascii_case(kind))
        {
            2
        } else if range == "*/*" {
            1
        } else {
            continue;
        };
        let quality = parts.find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f32>().ok());
        if best.is_none_or(|(known, _)| specific > known) {
            best = Some((specific, quality.unwrap_or(1.0)));
        }
    }
    match best {
        Some((_, quality)) => Some(quality),
        None => (!any).then_some(1.0),
    }
}

impl From<&QueryError> for Problem {
    fn from(error: &QueryError) -> Self {
        let because = |code| Self::because(code, format!("{error}."));
        match error {
            QueryError::UnknownResource(_) => Code::UnknownResource.into(),
            QueryError::UnknownParameter { .. } => because(Code::UnknownParameter),
            QueryError::InvalidParameter { .. } => because(Code::InvalidParameter),
            QueryError::InvalidCursor => because(Code::InvalidCursor),
            QueryError::UnknownPosition(_) => because(Code::UnknownPosition),
            QueryError::NotFound => because(Code::NotFound),
            QueryError::Behind {
                position, distance, ..
            } => because(Code::ProjectionBehind)
                .with("distance", *distance)
                .with("position", position.to_string()),
            QueryError::NotBuilt { .. } => because(Code::ProjectionBehind),
            QueryError::TooManySubscribers => because(Code::Overloaded),
            QueryError::TooManyOfCaller { limit } => Self::live_quota(*limit),
            QueryError::Timeout => because(Code::Overloaded),
            QueryError::Unavailable(_) => Code::LogUnavailable.into(),
            _ => Code::Internal.into(),
        }
    }
}

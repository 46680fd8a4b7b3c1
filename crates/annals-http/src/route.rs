//! Path and method to what is meant by them: what there is not is 404, what there is with another method 405.
//!
//! A path is understood by its number of segments alone: `POST /v1/orders/place` is the command `place` without a
//! key, also if some key is spelled `place`.

use std::borrow::Cow;

use annals_domain::catalog::AggregateType;
use annals_query::Definition;
use annals_record::Key;
use http::Method;

use crate::audit::AuditRoute;
use crate::edge::Inner;
use crate::problem::{Code, Problem};
use crate::target::decode;

/// What a request is about, behind authentication.
pub(crate) enum Route<'a> {
    /// `OPTIONS` of a path that there is.
    Options { allow: &'static str },
    /// A command; without a key the server makes it.
    Command {
        aggregate: &'a AggregateType,
        name: &'static str,
        key: Option<Key>,
    },
    /// Many commands.
    Batch,
    /// What auditors ask: the segments behind `/v1/audit/`, which [`AuditRoute::of`] knows.
    Audit(Vec<String>),
    /// A list of rows, or with a key one row.
    Query {
        definition: &'a Definition,
        key: Option<String>,
    },
}

/// What needs no token.
pub(crate) enum Open<'a> {
    /// `/v1/openapi.json`.
    Description,
    /// `/docs` and what lies under it.
    Docs(&'a str),
    /// `/problems/{code}`.
    Problem(&'a str),
}

/// The methods of a path, as `Allow` lists them.
const POST: &str = "POST, OPTIONS";
const GET: &str = "GET, HEAD, OPTIONS";
const BOTH: &str = "GET, HEAD, POST, OPTIONS";
const NONE: &str = "OPTIONS";

/// What paths are called in metrics and log lines.
pub(crate) const TEMPLATES: [&str; 10] = [
    "/v1/{resource}/{key}/{command}",
    "/v1/{resource}/{key}",
    "/v1/{resource}",
    "/v1/{resource}/{command}",
    "/v1/batch",
    "/v1/audit",
    "/v1/openapi.json",
    "/docs",
    "/problems/{code}",
    "other",
];

/// What a path is called: an index of [`TEMPLATES`].
pub(crate) fn template(path: &str, method: &Method) -> usize {
    let mut segments = path.trim_start_matches('/').split('/');
    let post = method == Method::POST;
    let [first, second, third, fourth, fifth] = std::array::from_fn(|_| segments.next());
    match (first, second, third, fourth, fifth) {
        (Some("v1"), Some("openapi.json"), None, ..) => 6,
        (Some("v1"), Some("batch"), None, ..) => 4,
        (Some("v1"), Some("audit"), Some(_), ..) => 5,
        (Some("v1"), Some(_), None, ..) => 2,
        (Some("v1"), Some(_), Some(_), None, _) if post => 3,
        (Some("v1"), Some(_), Some(_), None, _) => 1,
        (Some("v1"), Some(_), Some(_), Some(_), None) => 0,
        (Some("docs"), ..) => 7,
        (Some("problems"), ..) => 8,
        _ => 9,
    }
}

/// Whether a path is one of those that need no token.
pub(crate) fn open(path: &str) -> Option<Open<'_>> {
    if path == "/v1/openapi.json" {
        return Some(Open::Description);
    }
    if let Some(code) = path.strip_prefix("/problems/") {
        return Some(Open::Problem(code));
    }
    let tail = path.strip_prefix("/docs")?;
    (tail.is_empty() || tail.starts_with('/')).then_some(Open::Docs(tail))
}

/// Lets `GET` and `HEAD` pass, for what has no other.
///
/// # Errors
/// 405.
pub(crate) fn reading(method: &Method) -> Result<(), Problem> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Problem::method_not_allowed(GET)),
    }
}

impl Inner {
    /// What a request of an authenticated caller is about.
    ///
    /// # Errors
    /// 404 or 405.
    pub(crate) fn route(&self, method: &Method, path: &str) -> Result<Route<'_>, Problem> {
        let unknown = || Problem::new(Code::UnknownResource);
        let rest = path.strip_prefix("/v1/").ok_or_else(unknown)?;
        // One more than any path has, so that a longer one is seen.
        let mut decoded: [Cow<'_, str>; 5] = Default::default();
        let mut count = 0;
        for (segment, place) in rest.split('/').zip(&mut decoded) {
            *place = decode(segment).ok_or_else(unknown)?;
            count += 1;
        }
        let segments: [&str; 5] = std::array::from_fn(|n| &*decoded[n]);
        match segments[..count] {
            ["audit", ref rest @ ..] => {
                AuditRoute::of(rest).ok_or_else(unknown)?;
                let rest = rest.iter().map(|&segment| segment.to_owned()).collect();
                on(method, GET, Some(Route::Audit(rest)), None)
            }
            ["batch"] => on(method, POST, None, Some(Route::Batch)),
            [resource] => {
                let definition = self.definitions.get(resource).ok_or_else(unknown)?;
                on(
                    method,
                    GET,
                    Some(Route::Query {
                        definition,
                        key: None,
                    }),
                    None,
                )
            }
            [resource, second] => self.two(method, resource, second),
            [resource, key, name] => {
                let aggregate = self.catalog.resource(resource).ok_or_else(unknown)?;
                let name = command(aggregate, name)?;
                let key = Some(key_of(aggregate, key)?);
                on(method, POST, None, Some(Route::Command { aggregate, name, key }))
            }
            _ => Err(unknown()),
        }
    }

    /// `GET` reads a row, `POST` sends a command without a key.
    fn two(&self, method: &Method, resource: &str, second: &str) -> Result<Route<'_>, Problem> {
        let definition = self.definitions.get(resource);
        let aggregate = self.catalog.resource(resource);
        let keyless = aggregate.filter(|aggregate| aggregate.is_keyless(second));
        let allow = match (definition, keyless) {
            (Some(_), Some(_)) => BOTH,
            (Some(_), None) => GET,
            (None, Some(_)) => POST,
            (None, None) => NONE,
        };
        if method == Method::POST
            && let Some(aggregate) = aggregate
        {
            let name = command(aggregate, second)?;
            let route = keyless.map(|aggregate| Route::Command {
                aggregate,
                name,
                key: None,
            });
            return on(method, allow, None, route);
        }
        let row = definition.map(|definition| Route::Query {
            definition,
            key: Some(second.to_owned()),
        });
        if row.is_none() && aggregate.is_none_or(|aggregate| aggregate.command(second).is_none()) {
            return Err(Code::UnknownResource.into());
        }
        on(method, allow, row, None)
    }
}

/// The command of this name.
///
/// # Errors
/// 404.
pub(crate) fn command(aggregate: &AggregateType, name: &str) -> Result<&'static str, Problem> {
    let command = aggregate.command(name).ok_or(Code::UnknownCommand)?;
    Ok(command.command.name)
}

/// A key in its one form.
///
/// # Errors
/// 404: no stream of this aggregate can have it.
pub(crate) fn key_of(aggregate: &AggregateType, text: &str) -> Result<Key, Problem> {
    // The grammar of all keys first: an aggregate's own reads only what is of it.
    text.parse::<Key>()
        .ok()
        .and_then(|key| aggregate.parse_key(key.as_str()).ok())
        .ok_or_else(|| Problem::because(Code::NotFound, "The key is not one that this resource can have."))
}

fn on<'a>(
    method: &Method,
    allow: &'static str,
    get: Option<Route<'a>>,
    post: Option<Route<'a>>,
) -> Result<Route<'a>, Problem> {
    let route = match *method {
        Method::OPTIONS => Some(Route::Options { allow }),
        Method::GET | Method::HEAD => get,
        Method::POST => post,
        _ => None,
    };
    route.ok_or_else(|| Problem::method_not_allowed(allow))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_hold_no_ids() {
        let template = |path, method| TEMPLATES[super::template(path, &method)];
        assert_eq!(
            template("/v1/orders/x/place", Method::POST),
            "/v1/{resource}/{key}/{command}"
        );
        assert_eq!(
            template("/v1/orders/place", Method::POST),
            "/v1/{resource}/{command}"
        );
        assert_eq!(template("/v1/orders/x", Method::GET), "/v1/{resource}/{key}");
        assert_eq!(template("/v1/batch", Method::POST), "/v1/batch");
        assert_eq!(template("/v1/orders", Method::GET), "/v1/{resource}");
        assert_eq!(template("/v1/audit/shards", Method::GET), "/v1/audit");
        assert_eq!(template("/v1/openapi.json", Method::GET), "/v1/openapi.json");
        assert_eq!(template("/docs/x", Method::GET), "/docs");
        assert_eq!(template("/problems/x", Method::GET), "/problems/{code}");
        assert_eq!(template("/a/b/c/d/e/f", Method::GET), "other");
    }
}

//! Path and method to what is meant by them: what there is not is 404, what there is with another method 405.
//!
//! A path is understood by its number of segments alone: `POST /v1/orders/place` is the command `place` without a
//! key, also if some key is spelled `place`.

use annals_domain::catalog::AggregateType;
use annals_record::Key;
use http::Method;

use crate::edge::Inner;
use crate::problem::{Code, Problem};

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

const POST: &str = "POST, OPTIONS";
const GET: &str = "GET, HEAD, OPTIONS";

/// What a path is called in metrics and spans.
pub(crate) fn template(path: &str, method: &Method) -> &'static str {
    let mut segments = path.trim_start_matches('/').split('/');
    let post = method == Method::POST;
    let named = (
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
    );
    match named {
        (Some("v1"), Some("openapi.json"), None, ..) => "/v1/openapi.json",
        (Some("v1"), Some("batch"), None, ..) => "/v1/batch",
        (Some("v1"), Some("audit"), Some(_), ..) => "/v1/audit",
        (Some("v1"), Some(_), None, ..) => "/v1/{resource}",
        (Some("v1"), Some(_), Some(_), None, _) if post => "/v1/{resource}/{command}",
        (Some("v1"), Some(_), Some(_), None, _) => "/v1/{resource}/{key}",
        (Some("v1"), Some(_), Some(_), Some(_), None) => "/v1/{resource}/{key}/{command}",
        (Some("docs"), ..) => "/docs",
        (Some("problems"), ..) => "/problems/{code}",
        _ => "other",
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

impl Inner {
    /// What a request of an authenticated caller is about.
    ///
    /// # Errors
    /// 404 or 405.
    pub(crate) fn route(&self, method: &Method, path: &str) -> Result<Route<'_>, Problem> {
        let unknown = || Problem::new(Code::UnknownResource);
        let rest = path.strip_prefix("/v1/").ok_or_else(unknown)?;
        let segments: Vec<_> = rest
            .split('/')
            .map(decode)
            .collect::<Option<_>>()
            .ok_or_else(unknown)?;
        let segments: Vec<_> = segments.iter().map(String::as_str).collect();
        match segments[..] {
            ["batch"] => on(method, POST, &[Method::POST], || Ok(Route::Batch)),
            [resource, name] => self.keyless(method, resource, name),
            [resource, key, name] => self.keyed(method, resource, key, name),
            _ => Err(unknown()),
        }
    }

    fn keyless(&self, method: &Method, resource: &str, name: &str) -> Result<Route<'_>, Problem> {
        let aggregate = self.catalog.resource(resource);
        let aggregate = aggregate.ok_or_else(|| Problem::new(Code::UnknownResource))?;
        let (aggregate, name) = self.command_of(aggregate, name)?;
        if !aggregate.is_keyless(name) {
            return Err(Problem::method_not_allowed("OPTIONS"));
        }
        on(method, POST, &[Method::POST], || {
            Ok(Route::Command {
                aggregate,
                name,
                key: None,
            })
        })
    }

    fn keyed(&self, method: &Method, resource: &str, key: &str, name: &str) -> Result<Route<'_>, Problem> {
        let aggregate = self.catalog.resource(resource);
        let aggregate = aggregate.ok_or_else(|| Problem::new(Code::UnknownResource))?;
        let (aggregate, name) = self.command_of(aggregate, name)?;
        let key = key_of(aggregate, key)?;
        on(method, POST, &[Method::POST], || {
            Ok(Route::Command {
                aggregate,
                name,
                key: Some(key),
            })
        })
    }

    pub(crate) fn command_of<'a>(
        &self,
        aggregate: &'a AggregateType,
        name: &str,
    ) -> Result<(&'a AggregateType, &'static str), Problem> {
        let command = aggregate.command(name);
        let command = command.ok_or_else(|| Problem::new(Code::UnknownCommand))?;
        Ok((aggregate, command.command.name))
    }
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
    methods: &[Method],
    route: impl FnOnce() -> Result<Route<'a>, Problem>,
) -> Result<Route<'a>, Problem> {
    if method == Method::OPTIONS {
        return Ok(Route::Options { allow });
    }
    if methods.contains(method) {
        return route();
    }
    Err(Problem::method_not_allowed(allow))
}

/// A segment without its percent-encoding; `None` if that is broken or hides what is no text.
///
/// **Source:** RFC 3986, section 2.1; an encoded unreserved character is the character itself (6.2.2.2).
pub(crate) fn decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = segment.bytes();
    let mut plain = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit()? * 16 + digit()?;
        plain.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_and_broken_encoding_is_no_segment() {
        assert_eq!(decode("a%2Db%41").as_deref(), Some("a-bA"));
        assert_eq!(decode("%c3%A9").as_deref(), Some("é"));
        for broken in ["%", "%4", "%4g", "%ff"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn templates_hold_no_ids() {
        assert_eq!(
            template("/v1/orders/x/place", &Method::POST),
            "/v1/{resource}/{key}/{command}"
        );
        assert_eq!(
            template("/v1/orders/place", &Method::POST),
            "/v1/{resource}/{command}"
        );
        assert_eq!(template("/v1/orders/x", &Method::GET), "/v1/{resource}/{key}");
        assert_eq!(template("/a/b/c/d/e/f", &Method::GET), "other");
    }
}

//! The headers of a command.

use std::sync::Arc;

use annals_domain::Precondition;
use annals_record::Traceparent;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use crate::authenticate::{CAUSATION, Who};
use crate::edge::{Ids, Listener};
use crate::problem::{Code, Problem};
use crate::reply::CORRELATION_ID;
use crate::scan::scan;
use crate::settings::Settings;

/// Tells a repeat from a new command.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The client's own facts.
pub(crate) const ANNALS_METADATA: HeaderName = HeaderName::from_static("annals-metadata");
/// The longest idempotency key, in characters.
pub(crate) const MAX_KEY: usize = 255;
/// The largest metadata, in bytes.
const MAX_METADATA: usize = 4 << 10;
/// The longest correlation id, in characters.
const MAX_CORRELATION: usize = 128;

/// What a command's headers say.
#[derive(Debug, Clone)]
pub(crate) struct CommandHead {
    pub(crate) idempotency_key: String,
    pub(crate) precondition: Precondition,
    pub(crate) correlation: Arc<str>,
    pub(crate) causation: Option<String>,
    pub(crate) traceparent: Option<Traceparent>,
    pub(crate) metadata: Option<Box<RawValue>>,
}

/// Reads them.
///
/// # Errors
/// 400 with the first that is wrong.
pub(crate) fn read(
    headers: &HeaderMap,
    listener: Listener,
    who: &Who,
    ids: &Ids,
    settings: &Settings,
) -> Result<CommandHead, Problem> {
    let idempotency_key = idempotency_key(headers)?;
    let precondition = precondition(headers)?;
    if let Some(problem) = &ids.refused {
        return Err(problem.clone());
    }
    // Only a process manager says what its command follows from.
    let causation = match listener == Listener::Internal && who.caller.is_system() {
        true => single(headers, &CAUSATION)?.map(str::to_owned),
        false => None,
    };
    Ok(CommandHead {
        idempotency_key,
        precondition,
        correlation: Arc::clone(&ids.correlation),
        causation,
        traceparent: ids.traceparent,
        metadata: metadata(headers, settings)?,
    })
}

fn bad(name: &HeaderName, expected: &str) -> Problem {
    Problem::because(
        Code::InvalidParameter,
        format!("The header {name} must be {expected}."),
    )
}

/// The only value of a header; none if it is not there.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => Err(bad(name, "there once, in ASCII")),
    }
}

/// **Source:** draft-ietf-httpapi-idempotency-key-header-07, section 2.1: a String of RFC 8941; a bare key is
/// taken as well, and is the same key.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let text = single(headers, &IDEMPOTENCY_KEY)?
        .map(str::trim)
        .unwrap_or_default();
    if text.is_empty() {
        return Err(Problem::new(Code::IdempotencyKeyRequired));
    }
    let expected = || {
        bad(
            &IDEMPOTENCY_KEY,
            "1 to 255 characters, as a quoted string or bare",
        )
    };
    let key = match text.strip_prefix('"') {
        Some(rest) => quoted(rest),
        None => text.bytes().all(is_bare).then(|| text.to_owned()),
    };
    key.filter(|key| (1..=MAX_KEY).contains(&key.len()))
        .ok_or_else(expected)
}

/// What a bare key may hold: visible ASCII that means nothing in a list, a string or a parameter.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';')
}

/// The text of a String behind its first quote; RFC 8941, section 4.2.5.
fn quoted(rest: &str) -> Option<String> {
    let mut text = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.as_str().is_empty().then_some(text),
            '\\' => text.push(chars.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            plain @ ' '..='~' => text.push(plain),
            _ => return None,
        }
    }
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let version =
        |text| if_match(text).ok_or_else(|| bad(&IF_MATCH, "one strong entity tag as in \"3\", or *"));
    match (single(headers, &IF_MATCH)?, single(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::None),
        (Some(text), None) => version(text.trim()),
        (None, Some(text)) if text.trim() == "*" => Ok(Precondition::Absent),
        (None, Some(_)) => Err(bad(&IF_NONE_MATCH, "*")),
        (Some(_), Some(_)) => Err(bad(&IF_MATCH, "there without If-None-Match")),
    }
}

/// `"3"` or `*`.
pub(crate) fn if_match(text: &str) -> Option<Precondition> {
    if text == "*" {
        return Some(Precondition::Exists);
    }
    let version = text.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
    Some(Precondition::Version(version))
}

fn metadata(headers: &HeaderMap, settings: &Settings) -> Result<Option<Box<RawValue>>, Problem> {
    let mut values = headers.get_all(&ANNALS_METADATA).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let expected = || bad(&ANNALS_METADATA, "one JSON object of at most 4096 bytes");
    // Bytes and not text: UTF-8 is not ASCII.
    let bytes = value.as_bytes();
    let object = bytes.trim_ascii_start().starts_with(b"{");
    if values.next().is_some() || bytes.len() > MAX_METADATA || !object {
        return Err(expected());
    }
    scan(bytes, settings.json_depth).map_err(|error| {
        let text = format!("The header annals-metadata must be one JSON object. {error}.");
        Problem::because(Code::InvalidParameter, text)
    })?;
    let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|_| expected())?;
    let raw = RawValue::from_string(text.to_owned()).map_err(|_| expected())?;
    Ok(Some(raw))
}

/// A client's correlation id.
///
/// # Errors
/// 400.
pub(crate) fn correlation(headers: &HeaderMap) -> Result<Option<Arc<str>>, Problem> {
    let expected = || bad(&CORRELATION_ID, "1 to 128 of A-Z, a-z, 0-9 and . _ ~ : / + = @ -");
    let Some(text) = single(headers, &CORRELATION_ID).map_err(|_| expected())? else {
        return Ok(None);
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~:/+=@-".contains(&b);
    let fits = (1..=MAX_CORRELATION).contains(&text.len()) && text.bytes().all(allowed);
    fits.then(|| Some(text.into())).ok_or_else(expected)
}

/// The headers with which another node understands the same command.
pub(crate) fn write(head: &CommandHead) -> Vec<(HeaderName, HeaderValue)> {
    let quoted = head.idempotency_key.replace('\\', "\\\\").replace('"', "\\\"");
    let mut headers = vec![
        (IDEMPOTENCY_KEY, format!("\"{quoted}\"")),
        (CORRELATION_ID, head.correlation.to_string()),
    ];
    match head.precondition {
        Precondition::None => {}
        Precondition::Version(version) => headers.push((IF_MATCH, format!("\"{version}\""))),
        Precondition::Exists => headers.push((IF_MATCH, "*".to_owned())),
        Precondition::Absent => headers.push((IF_NONE_MATCH, "*".to_owned())),
    }
    if let Some(traceparent) = head.traceparent {
        headers.push((crate::reply::TRACEPARENT, traceparent.to_string()));
    }
    if let Some(causation) = &head.causation {
        headers.push((CAUSATION, causation.clone()));
    }
    if let Some(metadata) = &head.metadata {
        headers.push((ANNALS_METADATA, metadata.get().to_owned()));
    }
    let value =
        |(name, text): (HeaderName, String)| Some((name, HeaderValue::from_bytes(text.as_bytes()).ok()?));
    headers.into_iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(text).unwrap());
        idempotency_key(&headers).map_err(|problem| problem.code())
    }

    #[test]
    fn a_quoted_and_a_bare_key_are_the_same() {
        assert_eq!(key("\"k\"").unwrap(), "k");
        assert_eq!(key("k").unwrap(), "k");
        assert_eq!(key(r#""a \"b\" \\""#).unwrap(), r#"a "b" \"#);
        assert_eq!(key(&"x".repeat(255)).unwrap().len(), 255);
        assert_eq!(key(&format!("\"{}\"", "x".repeat(255))).unwrap().len(), 255);
        for wrong in [
            "\"k",
            "\"k\"x",
            "a b",
            "a,b",
            "a\"b",
            "\"\\x\"",
            "\"\"",
            &"x".repeat(256),
        ] {
            assert_eq!(key(wrong), Err(Code::InvalidParameter), "{wrong}");
        }
        assert_eq!(key(" "), Err(Code::IdempotencyKeyRequired));
    }

    #[test]
    fn preconditions_are_strict() {
        assert_eq!(
            if_match("\"3\""),
            Some(Precondition::Version(annals_record::Version::new(3)))
        );
        assert_eq!(if_match("*"), Some(Precondition::Exists));
        for wrong in [
            "3",
            "W/\"3\"",
            "\"3\", \"4\"",
            "\"03\"",
            "\"\"",
            "\"-1\"",
            "\"*\"",
            "",
        ] {
            assert_eq!(if_match(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_head_that_is_sent_on_reads_the_same() {
        let head = CommandHead {
            idempotency_key: r#"a "quoted\" key"#.to_owned(),
            precondition: Precondition::Absent,
            correlation: "c-1".into(),
            causation: None,
            traceparent: None,
            metadata: Some(RawValue::from_string("{\"é\":1}".to_owned()).unwrap()),
        };
        let headers: HeaderMap = write(&head).into_iter().collect();
        assert_eq!(idempotency_key(&headers).unwrap(), head.idempotency_key);
        assert_eq!(precondition(&headers).unwrap(), head.precondition);
        assert_eq!(correlation(&headers).unwrap().unwrap(), head.correlation);
        let metadata = metadata(&headers, &Settings::default()).unwrap().unwrap();
        assert_eq!(metadata.get(), "{\"é\":1}");
    }
}

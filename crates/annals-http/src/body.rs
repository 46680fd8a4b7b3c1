//! Reading a body: its form (415), its size (413), its time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body as _, Incoming};

use crate::problem::{Code, Problem};

/// Of a body that nobody wants, so much is read all the same, and for so long.
const DISCARDED_BYTES: usize = 4 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// A request's body: a socket's as it is, so that commands need no box around it, or any other.
pub(crate) type Inbound = Either<Incoming, Body>;
/// A response's body: one that is there whole, or any other.
pub(crate) type Outbound = Either<Full<Bytes>, Body>;

/// The body of a request; an empty one stays behind.
pub(crate) fn take(body: &mut Inbound) -> Body {
    match std::mem::replace(body, Either::Right(Body::empty())) {
        Either::Left(body) => Body::new(body),
        Either::Right(body) => body,
    }
}

/// Reads what is left of a body whose answer is known. A connection that is closed while its client still writes
/// is reset, and the answer is lost on the way; so a refusal waits for the end of what it refuses, within bounds.
///
/// **Source:** RFC 9112, section 9.6.
pub(crate) async fn discard(headers: &HeaderMap, body: &mut Inbound) {
    // Who asks before sending has sent nothing.
    if body.is_end_stream() || headers.contains_key(header::EXPECT) {
        return;
    }
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARDED_BYTES {
                return;
            }
        }
    };
    // Out of time or not: the answer goes.
    let _ = tokio::time::timeout(DISCARD_TIME, rest).await;
}

/// Reads a command's body; `{}` stands for none.
///
/// # Errors
/// 415 if there is a body and it is not JSON by its headers, then 413, then 400 if it does not arrive whole.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: &mut Inbound,
    limit: usize,
    time: Duration,
) -> Result<Bytes, Problem> {
    let form = form(headers, "application/json");
    if body.is_end_stream() {
        return Ok(Bytes::from_static(b"{}"));
    }
    if announced(headers).is_some_and(|bytes| bytes > limit) {
        form?;
        return Err(too_large(limit));
    }
    let bytes = tokio::time::timeout(time, collect(body, limit, &form)).await;
    let bytes =
        bytes.map_err(|_| Problem::because(Code::Malformed, "The body did not arrive in time."))??;
    if bytes.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    Ok(bytes)
}

async fn collect(body: &mut Inbound, limit: usize, form: &Result<(), Problem>) -> Result<Bytes, Problem> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::because(Code::Malformed, "The body did not arrive whole."))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        form.clone()?;
        let so_far = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if data.len() > limit - so_far {
            return Err(too_large(limit));
        }
        match first {
            None => first = Some(data),
            Some(_) => rest.extend_from_slice(&data),
        }
    }
    let Some(first) = first else {
        return Ok(Bytes::new());
    };
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// Whether a body of these headers is of `expected` type, UTF-8 and not encoded further.
pub(crate) fn form(headers: &HeaderMap, expected: &'static str) -> Result<(), Problem> {
    let wrong = || {
        Problem::because(
            Code::UnsupportedMediaType,
            format!("The body needs the content type {expected}, without a Content-Encoding."),
        )
    };
    let one = |name: header::HeaderName| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap_or_default());
        values.next().map_or(Ok(first), |_| Err(wrong()))
    };
    if one(CONTENT_ENCODING)?.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(wrong());
    }
    let content_type = one(CONTENT_TYPE)?.ok_or_else(wrong)?;
    let mut parts = content_type.split(';').map(str::trim);
    let matches = parts
        .next()
        .is_some_and(|essence| essence.eq_ignore_ascii_case(expected));
    let charsets = parts.filter_map(|parameter| parameter.split_once('='));
    let utf8 = charsets
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .all(|(_, value)| value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8"));
    (matches && utf8).then_some(()).ok_or_else(wrong)
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body over its limit.
pub(crate) fn too_large(limit: usize) -> Problem {
    Problem::because(Code::TooLarge, format!("The body is larger than {limit} bytes.")).with("limit", limit)
}

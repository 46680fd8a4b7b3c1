//! A request's target: path segments and parameters without their percent-encoding.

use std::borrow::Cow;

use crate::problem::{Code, Problem};

/// The parameters of a query string, decoded, in order.
///
/// # Errors
/// 400 if the encoding is broken.
///
/// **Source:** WHATWG URL, `application/x-www-form-urlencoded`.
pub(crate) fn parameters(query: Option<&str>) -> Result<Vec<(String, String)>, Problem> {
    let broken = || {
        Problem::because(
            Code::InvalidParameter,
            "The query string's percent-encoding is broken.",
        )
    };
    let plain = |text: &str| {
        decode(&text.replace('+', " "))
            .map(Cow::into_owned)
            .ok_or_else(broken)
    };
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((plain(name)?, plain(value)?))
        })
        .collect()
}

/// Refuses every parameter: what takes none says so.
///
/// # Errors
/// 400.
pub(crate) fn no_parameters(query: Option<&str>) -> Result<(), Problem> {
    if query.is_none() {
        return Ok(());
    }
    match parameters(query)?.first() {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(80).collect();
            Err(Problem::because(
                Code::UnknownParameter,
                format!("Unknown parameter `{name}`: none is taken here."),
            ))
        }
    }
}

/// A segment without its percent-encoding; `None` if that is broken or hides what is no text.
///
/// **Source:** RFC 3986, section 2.1; an encoded unreserved character is the character itself (6.2.2.2).
pub(crate) fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
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
    String::from_utf8(plain).ok().map(Cow::Owned)
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
    fn parameters_keep_their_order_and_repeat() {
        let read = parameters(Some("a=1&a=%32&b=x+y&&c")).unwrap();
        let expected = [("a", "1"), ("a", "2"), ("b", "x y"), ("c", "")];
        assert_eq!(
            read,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(
            parameters(Some("a=%zz")).unwrap_err().code(),
            Code::InvalidParameter
        );
        assert_eq!(
            no_parameters(Some("a=1")).unwrap_err().code(),
            Code::UnknownParameter
        );
        assert!(no_parameters(Some("")).is_ok());
    }
}

//! The types of columns: how a caller's text becomes a value of one, and how a column becomes text again.
//!
//! Values travel to Postgres as text in the one spelling that `SqlType::parse` makes, and are cast there. So a
//! value that was accepted here cannot fail there, and no value is ever part of a statement.

use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Utc};

/// A column's type, as far as filters, sorts and keys know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `uuid`.
    Uuid,
    /// `text` and `varchar`.
    Text,
    /// `char(n)`.
    Char,
    /// `smallint`.
    SmallInt,
    /// `int`.
    Int,
    /// `bigint`.
    BigInt,
    /// `numeric`.
    Numeric,
    /// `double precision`.
    Double,
    /// `boolean`.
    Bool,
    /// `date`.
    Date,
    /// `timestamptz`.
    Timestamptz,
    /// `timestamp`, taken as UTC.
    Timestamp,
    /// Any other: shown as Postgres writes it in JSON, never filtered or sorted by.
    Other,
}

/// The longest text of a filter, in bytes: longer ones would be longer than what a btree index holds.
const MAX_TEXT: usize = 2_000;

impl SqlType {
    /// From `pg_type.typname`.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "uuid" => Self::Uuid,
            "text" | "varchar" => Self::Text,
            "bpchar" => Self::Char,
            "int2" => Self::SmallInt,
            "int4" => Self::Int,
            "int8" => Self::BigInt,
            "numeric" => Self::Numeric,
            "float8" => Self::Double,
            "bool" => Self::Bool,
            "date" => Self::Date,
            "timestamptz" => Self::Timestamptz,
            "timestamp" => Self::Timestamp,
            _ => Self::Other,
        }
    }

    /// What a parameter is cast to.
    pub(crate) fn cast(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text | Self::Other => "text",
            Self::Char => "bpchar",
            Self::SmallInt => "int2",
            Self::Int => "int4",
            Self::BigInt => "int8",
            Self::Numeric => "numeric",
            Self::Double => "float8",
            Self::Bool => "bool",
            Self::Date => "date",
            Self::Timestamptz => "timestamptz",
            Self::Timestamp => "timestamp",
        }
    }

    /// What a value looks like, for a caller who got it wrong.
    #[must_use]
    pub fn expects(self) -> &'static str {
        match self {
            Self::Uuid => "a UUID",
            Self::Text | Self::Char | Self::Other => "a text of at most 2000 bytes without U+0000",
            Self::SmallInt => "an integer from -32768 to 32767",
            Self::Int => "an integer from -2147483648 to 2147483647",
            Self::BigInt => "an integer of 64 bits",
            Self::Numeric => "a decimal number",
            Self::Double => "a number",
            Self::Bool => "true or false",
            Self::Date => "a date as in 1996-01-02",
            Self::Timestamptz | Self::Timestamp => "a time of RFC 3339 as in 2026-11-01T12:00:00Z",
        }
    }

    /// The one spelling of a value; `None` if the text is no value of this type.
    pub(crate) fn parse(self, text: &str) -> Option<String> {
        match self {
            Self::Uuid => uuid(text),
            Self::Text | Self::Char => {
                (text.len() <= MAX_TEXT && !text.contains('\0')).then(|| text.to_owned())
            }
            Self::SmallInt => integer::<i16>(text),
            Self::Int => integer::<i32>(text),
            Self::BigInt => integer::<i64>(text),
            Self::Numeric => decimal(text),
            Self::Double => {
                let number: f64 = text.parse().ok()?;
                number.is_finite().then(|| number.to_string())
            }
            Self::Bool => matches!(text, "true" | "false").then(|| text.to_owned()),
            Self::Date => {
                let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
                let plain = text.len() == 10 && (1..=9_999).contains(&date.year());
                plain.then(|| date.to_string())
            }
            Self::Timestamptz | Self::Timestamp => {
                let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
                // Postgres has no year 0.
                let known = (1..=9_999).contains(&time.year());
                known.then(|| time.to_rfc3339_opts(SecondsFormat::Micros, true))
            }
            Self::Other => None,
        }
    }

    /// An expression of this type as JSON shows it: times in RFC 3339 with milliseconds and `Z`.
    pub(crate) fn shown(self, expression: &str) -> String {
        match self {
            Self::Timestamptz => {
                format!(r#"to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#)
            }
            Self::Timestamp => format!(r#"to_char({expression}, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"#),
            Self::Date => format!("to_char({expression}, 'YYYY-MM-DD')"),
            _ => expression.to_owned(),
        }
    }

    /// An expression of this type as text that [`SqlType::parse`] reads without loss.
    pub(crate) fn exact(self, expression: &str) -> String {
        match self {
            Self::Timestamptz => {
                format!(r#"to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#)
            }
            Self::Timestamp => format!(r#"to_char({expression}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#),
            Self::Date => format!("to_char({expression}, 'YYYY-MM-DD')"),
            _ => format!("{expression}::text"),
        }
    }
}

fn uuid(text: &str) -> Option<String> {
    // Only the usual form with hyphens: others would give one row several addresses.
    let uuid = uuid::Uuid::try_parse(text).ok()?;
    (text.len() == 36).then(|| uuid.to_string())
}

fn integer<T: std::str::FromStr + ToString>(text: &str) -> Option<String> {
    let plain = !text.starts_with('+');
    text.parse::<T>()
        .ok()
        .filter(|_| plain)
        .map(|number| number.to_string())
}

/// Digits with an optional sign and an optional fraction; at most 100 characters.
fn decimal(text: &str) -> Option<String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (text.len() <= 100 && all_digits(whole) && all_digits(fraction)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_a_type_holds_in_one_spelling() {
        let same = |ty: SqlType, text: &str| assert_eq!(ty.parse(text).as_deref(), Some(text), "{text}");
        same(SqlType::BigInt, "-9223372036854775808");
        same(SqlType::Numeric, "-12.50");
        same(SqlType::Bool, "true");
        same(SqlType::Date, "1996-01-02");
        same(SqlType::Text, "");
        assert_eq!(
            SqlType::Uuid
                .parse("0192F000-0000-7000-8000-00000000000A")
                .as_deref(),
            Some("0192f000-0000-7000-8000-00000000000a")
        );
        assert_eq!(
            SqlType::Timestamptz
                .parse("2026-11-01T01:00:00.5+01:00")
                .as_deref(),
            Some("2026-11-01T00:00:00.500000Z")
        );
    }

    #[test]
    fn refuses_what_postgres_would_refuse() {
        let refused = [
            (SqlType::Uuid, "0192f00000007000800000000000000a"),
            (SqlType::Uuid, "x"),
            (SqlType::Text, "a\0b"),
            (SqlType::SmallInt, "32768"),
            (SqlType::Int, "2147483648"),
            (SqlType::Int, "+1"),
            (SqlType::Int, ""),
            (SqlType::BigInt, "9223372036854775808"),
            (SqlType::BigInt, "1.0"),
            (SqlType::Numeric, "1e5"),
            (SqlType::Numeric, "."),
            (SqlType::Double, "inf"),
            (SqlType::Bool, "yes"),
            (SqlType::Date, "1996-02-30"),
            (SqlType::Date, "0000-01-01"),
            (SqlType::Date, "1996-1-2"),
            (SqlType::Timestamptz, "1996-01-02"),
            (SqlType::Timestamptz, "0000-01-01T00:00:00Z"),
            (SqlType::Other, "x"),
        ];
        for (ty, text) in refused {
            assert_eq!(ty.parse(text), None, "{ty:?} {text}");
        }
    }
}

//! What is wrong with a body, in words for people, and never with a value that the body holds.
//!
//! The parser stops at its first error and quotes what it found; so once it has failed, the command's schema is
//! asked for everything that is wrong, and the words are made here from the schema alone.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::RegisteredCommand;
use super::builder::escape;
use crate::{ReadError, Violation};

/// No answer lists more violations: the rest comes after these are mended.
const MAX_VIOLATIONS: usize = 50;
/// No pointer names an unknown field with a longer name, in bytes: it may be anything.
const MAX_UNKNOWN_NAME: usize = 128;

/// Why `body` does not read as the command; never empty.
pub(super) fn violations(registered: &RegisteredCommand, body: &[u8], error: &ReadError) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_slice(body) {
        let validator = registered.validator.get_or_init(|| {
            jsonschema::options()
                .should_validate_formats(true)
                .build(registered.schema.as_value())
                .ok()
        });
        for error in validator
            .iter()
            .flat_map(|validator| validator.iter_errors(&value))
        {
            explain(&error, &value, &mut found);
            if found.len() >= MAX_VIOLATIONS {
                break;
            }
        }
    }
    found.dedup();
    found.truncate(MAX_VIOLATIONS);
    if found.is_empty() {
        found.push(unexplained(error));
    }
    found
}

/// What the parser refused and the schema would take: only where it stands, for the parser quotes values.
fn unexplained(error: &ReadError) -> Violation {
    let ReadError::Data { source, .. } = error else {
        return Violation::at("", "does not read as this command");
    };
    let what = if source.is_data() {
        "has a value that is not allowed there, or a field twice"
    } else {
        "is not JSON"
    };
    let (line, column) = (source.line(), source.column());
    Violation::at("", format!("{what} (line {line}, column {column})"))
}

fn explain(error: &ValidationError<'_>, body: &Value, found: &mut Vec<Violation>) {
    let pointer = error.instance_path().as_str();
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            found.extend(unexpected.iter().map(|name| unknown_field(pointer, name)));
        }
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            alternatives(pointer, context, body, found)
        }
        // An object that may have no field at all; the validator does not say which it has.
        Kind::FalseSchema if error.schema_path().as_str().ends_with("/additionalProperties") => {
            let fields = body
                .pointer(pointer)
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            found.extend(fields.map(|(name, _)| unknown_field(pointer, name)));
        }
        kind => found.push(Violation::at(pointer, words(kind))),
    }
}

fn unknown_field(pointer: &str, name: &str) -> Violation {
    if name.len() > MAX_UNKNOWN_NAME {
        return Violation::at(pointer, "has an unknown field with a long name");
    }
    Violation::at(format!("{pointer}/{}", escape(name)), "is not a known field")
}

/// Of several forms the one that was meant: all others fail at the value itself or at a tag within it.
fn alternatives(
    pointer: &str,
    forms: &[Vec<ValidationError<'static>>],
    body: &Value,
    found: &mut Vec<Violation>,
) {
    let mut meant = forms
        .iter()
        .filter(|errors| !errors.iter().any(|error| is_other_form(pointer, error)));
    if let (Some(errors), None) = (meant.next(), meant.next()) {
        return errors.iter().for_each(|error| explain(error, body, found));
    }
    let mut allowed: Vec<String> = Vec::new();
    let mut place = None;
    for error in forms.iter().flatten() {
        let options = match error.kind() {
            Kind::Constant { expected_value } => vec![expected_value.to_string()],
            Kind::Enum { options } => listed(options),
            _ => continue,
        };
        let at = place.get_or_insert_with(|| error.instance_path().as_str());
        if *at == error.instance_path().as_str() {
            allowed.extend(
                options
                    .into_iter()
                    .filter(|option| !allowed.contains(option))
                    .collect::<Vec<_>>(),
            );
        }
    }
    match place {
        Some(place) => found.push(Violation::at(place, one_of(&allowed))),
        None => found.push(Violation::at(pointer, "has none of the allowed forms")),
    }
}

fn is_other_form(pointer: &str, error: &ValidationError<'_>) -> bool {
    match error.kind() {
        Kind::Type { .. } => error.instance_path().as_str() == pointer,
        Kind::Constant { .. } => true,
        _ => false,
    }
}

fn words(kind: &Kind) -> String {
    match kind {
        Kind::Required { property } => format!("lacks the field `{}`", property.as_str().unwrap_or_default()),
        Kind::Type { kind } => format!("must be {}", types(kind)),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MinLength { limit: 1 } | Kind::MinItems { limit: 1 } => "must not be empty".to_owned(),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::AdditionalItems { limit } => format!("must have at most {limit} items"),
        Kind::MinProperties { limit } => format!("must have at least {limit} fields"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} fields"),
        Kind::UniqueItems => "must not have an item twice".to_owned(),
        Kind::Pattern { pattern } => format!("must match `{pattern}`"),
        Kind::Format { format } => format!("must be {}", format_words(format)),
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::Enum { options } => one_of(&listed(options)),
        Kind::OneOfMultipleValid { .. } => "must have exactly one of the allowed forms".to_owned(),
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::PropertyNames { .. } => "has a field with a name that is not allowed".to_owned(),
        other => format!("does not fit `{}` of the schema", other.keyword()),
    }
}

fn types(kind: &TypeKind) -> String {
    let with_article = |kind: JsonType| match kind {
        JsonType::Null => "null",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "an array",
        JsonType::Object => "an object",
    };
    match kind {
        TypeKind::Single(kind) => with_article(*kind).to_owned(),
        TypeKind::Multiple(kinds) => {
            // Null comes first in the set, and reads best at the end.
            let mut names: Vec<_> = kinds.iter().map(with_article).collect();
            let null = usize::from(names.first() == Some(&"null"));
            names.rotate_left(null);
            names.join(" or ")
        }
    }
}

fn format_words(format: &str) -> String {
    match format {
        "uuid" => "a UUID with hyphens".to_owned(),
        "date" => "a date as in 1996-01-02".to_owned(),
        "date-time" => "a time as in 1996-01-02T03:04:05Z".to_owned(),
        "email" => "an email address".to_owned(),
        other => format!("of the format `{other}`"),
    }
}

fn listed(options: &Value) -> Vec<String> {
    match options {
        Value::Array(options) => options.iter().map(Value::to_string).collect(),
        other => vec![other.to_string()],
    }
}

fn one_of(options: &[String]) -> String {
    format!("must be one of {}", options.join(", "))
}

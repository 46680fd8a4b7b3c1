//! Whether a type parses exactly what its schema accepts.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::__private::schema_of;
use crate::personal;

/// Shows for every candidate that the schema of `T` accepts it if and only if it parses, as clients send it; and
/// that the schema accepts what a parsed value is written as.
///
/// Give candidates on both sides of every limit, of every wrong type, with fields missing and too many.
///
/// # Panics
/// With the first candidate about which they disagree; also if all candidates are accepted, or none, which would
/// show nothing.
pub fn schema_agrees<T: DeserializeOwned + Serialize + JsonSchema>(
    candidates: impl IntoIterator<Item = Value>,
) {
    let schema = schema_of::<T>();
    let name = T::schema_name();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(schema.as_value())
        .unwrap_or_else(|error| panic!("the schema of {name} is none: {error}"));
    let (mut accepted, mut refused) = (0_usize, 0_usize);
    for candidate in candidates {
        let parsed = personal::from_client(|| serde_json::from_str::<T>(&candidate.to_string()));
        match (validator.validate(&candidate), parsed) {
            (Ok(()), Ok(parsed)) => {
                accepted += 1;
                let written = personal::in_the_clear(|| serde_json::to_value(&parsed))
                    .unwrap_or_else(|error| panic!("{name} does not write {candidate} again: {error}"));
                if let Err(error) = validator.validate(&written) {
                    panic!("{name} writes {candidate} as {written}, which its schema refuses: {error}");
                }
            }
            (Err(_), Err(_)) => refused += 1,
            (Ok(()), Err(error)) => {
                panic!("the schema of {name} accepts {candidate}, which does not parse: {error}")
            }
            (Err(error), Ok(_)) => panic!("{name} parses {candidate}, which its schema refuses: {error}"),
        }
    }
    assert!(
        accepted > 0 && refused > 0,
        "{accepted} candidates are accepted and {refused} refused: give some of each"
    );
}

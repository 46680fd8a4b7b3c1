//! What is in effect and where it came from; and `annals.example.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;

use ::config::Value;
use serde::Serialize;

use super::section::SectionInfo;
use super::value::STARS;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said otherwise.
    Default,
    /// A file, by name.
    File(String),
    /// A variable, by name.
    Environment(String),
    /// A flag, by name.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) | Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A key that has a value.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Effective {
    /// `log.kind`.
    pub(crate) key: String,
    /// Stars if it is a secret.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) source: String,
}

impl Effective {
    pub(super) fn all(known: &[SectionInfo], values: &BTreeMap<String, (Value, Source)>) -> Vec<Self> {
        let mut all = Vec::new();
        for section in known {
            for key in section.keys {
                let path = format!("{}.{}", section.name, key.name);
                let found = values.get(&path);
                let value = match found {
                    None => String::new(),
                    Some(_) if key.is_secret() => STARS.to_owned(),
                    Some((value, _)) => shown(value),
                };
                let source = found.map_or(&Source::Default, |(_, source)| source).to_string();
                all.push(Self {
                    key: path,
                    value,
                    source,
                });
            }
        }
        all
    }
}

fn shown(value: &Value) -> String {
    match value.clone().into_array() {
        Ok(parts) => parts.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
        Err(_) => value.to_string(),
    }
}

/// The example file: every key with its documentation, set to its default, all commented out.
#[must_use]
pub fn example(sections: &[SectionInfo]) -> String {
    let mut text = String::from(
        "# Every setting with its default. Generated: `config --example` prints this file, and a test compares them.\n\
         # Environment: ANNALS__LOG__KIND=kafka; secrets also from files: ANNALS__DATABASE__COMMAND_FILE=/run/….\n",
    );
    for section in sections {
        let _ = writeln!(text, "\n[{}]", section.name);
        for key in section.keys {
            for line in key.doc {
                let _ = writeln!(text, "#{line}");
            }
            match section.defaults.get(key.name) {
                None | Some(serde_json::Value::Null) => {
                    let _ = writeln!(text, "# {} = \"\"", key.name);
                }
                // JSON's numbers, strings, booleans and lists of strings are TOML's.
                Some(default) => {
                    let _ = writeln!(
                        text,
                        "{} = {}",
                        key.name,
                        default.to_string().replace("\",\"", "\", \"")
                    );
                }
            }
        }
    }
    text
}

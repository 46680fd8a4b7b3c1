//! The layers, one over the other: defaults, file, environment, flags.

use std::collections::BTreeMap;
use std::path::Path;

use ::config::{Config, File, FileFormat, Value};
use serde::de::DeserializeOwned;

use super::explain::{Effective, Source};
use super::section::{KeyInfo, Section, SectionInfo};
use super::{ConfigError, Settings, sections};

/// What the prefix of every long name in the environment is: `ANNALS__LOG__KIND`.
const PREFIX: &str = "ANNALS__";

/// The few usual short names.
pub(crate) const SHORT_NAMES: [(&str, &str); 2] = [
    ("ANNALS_DATABASE_URL", "database.url"),
    ("ANNALS_KAFKA_BROKERS", "log.brokers"),
];

/// Short names that are no settings of a node: clients and tests read them.
const OTHER_NAMES: [&str; 5] = [
    "ANNALS_URL",
    "ANNALS_TOKEN",
    "ANNALS_CACHE",
    "ANNALS_DATA_DIR",
    "ANNALS_LOG",
];

/// What settings are made of.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file's name and text.
    pub file: Option<(String, String)>,
    /// The environment: every variable whose name begins with `ANNALS`.
    pub environment: Vec<(String, String)>,
    /// Flags: key, value, and the flag's name.
    pub flags: Vec<(String, String, &'static str)>,
    /// Other defaults than usual, and who says so: key, value, who. Whatever else is said wins over them.
    pub base: Vec<(String, String, &'static str)>,
}

impl Layers {
    /// Those of this process: `file`, or `annals.toml` in the working directory if it is there.
    ///
    /// # Errors
    /// [`ConfigError`] if a file that was named cannot be read.
    pub fn of_process(file: Option<&Path>) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new("annals.toml"));
        let read = match std::fs::read_to_string(path) {
            Ok(text) => Some((path.display().to_string(), text)),
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(ConfigError(format!("{} cannot be read: {error}", path.display())));
            }
        };
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("ANNALS_"));
        Ok(Self {
            file: read,
            environment: environment.collect(),
            flags: Vec::new(),
            base: Vec::new(),
        })
    }

    /// The same with another default.
    #[must_use]
    pub fn base(mut self, key: &str, who: &'static str, value: impl ToString) -> Self {
        self.base.push((key.to_owned(), value.to_string(), who));
        self
    }

    /// The same with one flag more, if it was given.
    #[must_use]
    pub fn flag(mut self, key: &str, flag: &'static str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.flags.push((key.to_owned(), value.to_string(), flag));
        }
        self
    }
}

/// Every section of the machinery.
#[must_use]
pub fn machinery() -> Vec<SectionInfo> {
    vec![
        SectionInfo::of::<sections::Node>(),
        SectionInfo::of::<sections::Database>(),
        SectionInfo::of::<sections::Log>(),
        SectionInfo::of::<sections::Command>(),
        SectionInfo::of::<sections::Lease>(),
        SectionInfo::of::<sections::Projection>(),
        SectionInfo::of::<sections::Process>(),
        SectionInfo::of::<sections::Http>(),
        SectionInfo::of::<sections::Query>(),
        SectionInfo::of::<sections::Auth>(),
        SectionInfo::of::<sections::Audit>(),
        SectionInfo::of::<sections::Publish>(),
        SectionInfo::of::<sections::Telemetry>(),
    ]
}

/// A value on its way into the settings.
struct Given {
    key: String,
    value: Value,
    source: Source,
}

/// Settings of these layers, with the domain's own sections.
///
/// # Errors
/// [`ConfigError`]: an unknown key, with the nearest that is known; a value of the wrong type.
pub fn load(layers: &Layers, domain: &[SectionInfo]) -> Result<Settings, ConfigError> {
    let mut known = machinery();
    known.extend(domain.iter().cloned());
    let mut given = Vec::new();
    of_program(&layers.base, &known, &mut given)?;
    if let Some((name, text)) = &layers.file {
        of_file(name, text, &known, &mut given)?;
    }
    of_environment(&layers.environment, &known, &mut given)?;
    of_program(&layers.flags, &known, &mut given)?;
    let mut values = of_defaults(&known)?;
    for Given { key, value, source } in given {
        values.insert(key, (value, source));
    }
    merge(&known, &values, domain)
}

fn of_program(
    said: &[(String, String, &'static str)],
    known: &[SectionInfo],
    given: &mut Vec<Given>,
) -> Result<(), ConfigError> {
    for (key, value, who) in said {
        let info = find(known, key).ok_or_else(|| unknown(key, who, known))?;
        let source = Source::Flag((*who).to_owned());
        given.push(Given {
            key: key.clone(),
            value: of_text(info, value),
            source,
        });
    }
    Ok(())
}

type Values = BTreeMap<String, (Value, Source)>;

fn of_defaults(known: &[SectionInfo]) -> Result<Values, ConfigError> {
    let mut values = Values::new();
    for section in known {
        for (name, default) in section.defaults.iter().filter(|(_, default)| !default.is_null()) {
            let value = Value::deserialize_json(default)
                .map_err(|error| ConfigError(format!("the default of {}.{name}: {error}", section.name)))?;
            values.insert(format!("{}.{name}", section.name), (value, Source::Default));
        }
    }
    Ok(values)
}

/// A bridge from JSON, which the defaults come as.
trait FromJson: Sized {
    fn deserialize_json(json: &serde_json::Value) -> Result<Self, serde_json::Error>;
}

impl FromJson for Value {
    fn deserialize_json(json: &serde_json::Value) -> Result<Self, serde_json::Error> {
        serde::Deserialize::deserialize(json)
    }
}

fn of_file(name: &str, text: &str, known: &[SectionInfo], given: &mut Vec<Given>) -> Result<(), ConfigError> {
    let wrong = |error: &dyn std::fmt::Display| ConfigError(format!("{name}: {error}"));
    let parsed = Config::builder()
        .add_source(File::from_str(text, FileFormat::Toml))
        .build()
        .map_err(|error| wrong(&error))?;
    let sections: BTreeMap<String, Value> = parsed.try_deserialize().map_err(|error| wrong(&error))?;
    for (section, value) in sections {
        if !known.iter().any(|info| info.name == section) {
            let names = known.iter().map(|info| info.name.to_owned());
            return Err(ConfigError(format!(
                "{name}: there is no section `{section}`; the nearest is `{}`",
                nearest(&section, names)
            )));
        }
        let keys: BTreeMap<String, Value> = value
            .try_deserialize()
            .map_err(|_| ConfigError(format!("{name}: `{section}` is a section: write [{section}]")))?;
        for (key, value) in keys {
            let path = format!("{section}.{key}");
            let source = Source::File(name.to_owned());
            let given_value = match find(known, &path) {
                Some(_) => Given {
                    key: path,
                    value,
                    source,
                },
                None => of_secret_file(&path, &value.to_string(), known, source)
                    .unwrap_or_else(|| Err(unknown(&path, name, known)))?,
            };
            given.push(given_value);
        }
    }
    Ok(())
}

fn of_environment(
    environment: &[(String, String)],
    known: &[SectionInfo],
    given: &mut Vec<Given>,
) -> Result<(), ConfigError> {
    let mut long = Vec::new();
    for (name, text) in environment {
        let source = Source::Environment(name.clone());
        if let Some(path) = name.strip_prefix(PREFIX) {
            let path = path.to_ascii_lowercase().replacen("__", ".", 1);
            long.push(match find(known, &path) {
                Some(info) => Given {
                    value: of_text(info, text),
                    key: path,
                    source,
                },
                None => of_secret_file(&path, text, known, source)
                    .unwrap_or_else(|| Err(unknown(&path, name, known)))?,
            });
        } else if let Some((_, key)) = SHORT_NAMES.iter().find(|(short, _)| short == name) {
            given.push(Given {
                key: (*key).to_owned(),
                value: text.as_str().into(),
                source,
            });
        } else if let Some((_, key)) = SHORT_NAMES
            .iter()
            .find(|(short, _)| Some(*short) == name.strip_suffix("_FILE"))
        {
            given.push(Given {
                key: (*key).to_owned(),
                value: read_secret(text, name)?.into(),
                source,
            });
        } else {
            // Not a setting of ours: a test's variable, or a client's.
            let misspelt = SHORT_NAMES.iter().map(|(short, _)| *short).chain(OTHER_NAMES);
            if let Some(near) = misspelt.into_iter().find(|known| distance(known, name) == 1) {
                return Err(ConfigError(format!(
                    "there is no variable {name}; did you mean {near}?"
                )));
            }
        }
    }
    // Long names say exactly what is meant, and win.
    given.extend(long);
    Ok(())
}

/// The secret `{key}` out of the file that `{key}_file` names.
fn of_secret_file(
    path: &str,
    file: &str,
    known: &[SectionInfo],
    source: Source,
) -> Option<Result<Given, ConfigError>> {
    let key = path.strip_suffix("_file")?;
    find(known, key).filter(|info| info.is_secret())?;
    let read = read_secret(file, path);
    Some(read.map(|secret| Given {
        key: key.to_owned(),
        value: secret.into(),
        source,
    }))
}

fn read_secret(file: &str, name: &str) -> Result<String, ConfigError> {
    let read = std::fs::read_to_string(file);
    let text = read.map_err(|error| ConfigError(format!("{name}: {file} cannot be read: {error}")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn of_text(info: &KeyInfo, text: &str) -> Value {
    if info.is_list() {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        return parts.map(str::to_owned).collect::<Vec<_>>().into();
    }
    text.into()
}

fn find<'a>(known: &'a [SectionInfo], path: &str) -> Option<&'a KeyInfo> {
    let (section, key) = path.split_once('.')?;
    let section = known.iter().find(|info| info.name == section)?;
    section.keys.iter().find(|info| info.name == key)
}

fn unknown(path: &str, whence: &str, known: &[SectionInfo]) -> ConfigError {
    let all = known.iter().flat_map(|section| {
        let path = |key: &KeyInfo| format!("{}.{}", section.name, key.name);
        section.keys.iter().map(path)
    });
    ConfigError(format!(
        "{whence}: there is no setting `{path}`; the nearest is `{}`",
        nearest(path, all)
    ))
}

fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    known
        .min_by_key(|known| distance(known, name))
        .unwrap_or_default()
}

/// How many letters must be put in, left out or changed. Source: Levenshtein 1966, by rows.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn merge(known: &[SectionInfo], values: &Values, domain: &[SectionInfo]) -> Result<Settings, ConfigError> {
    Ok(Settings {
        node: read(values)?,
        database: read(values)?,
        log: read(values)?,
        command: read(values)?,
        lease: read(values)?,
        projection: read(values)?,
        process: read(values)?,
        http: read(values)?,
        query: read(values)?,
        auth: read(values)?,
        audit: read(values)?,
        publish: read(values)?,
        telemetry: read(values)?,
        domain: domain
            .iter()
            .map(|info| (info.name.to_owned(), table(values, info.name)))
            .collect(),
        effective: Effective::all(known, values),
    })
}

fn read<S: Section + DeserializeOwned>(values: &Values) -> Result<S, ConfigError> {
    let section = table(values, S::NAME);
    section
        .try_deserialize()
        .map_err(|error| blame(S::NAME, values, &error))
}

fn table(values: &Values, section: &str) -> Value {
    let of_section = values.iter().filter_map(|(path, (value, _))| {
        let key = path.strip_prefix(section)?.strip_prefix('.')?;
        Some((key.to_owned(), value.clone()))
    });
    of_section.collect::<std::collections::HashMap<_, _>>().into()
}

/// Names the value that does not fit by where it came from: the library names only its key.
fn blame(section: &str, values: &Values, error: &::config::ConfigError) -> ConfigError {
    let said = error.to_string();
    let named = |(path, (_, source)): (&String, &(Value, Source))| {
        let key = path.strip_prefix(section)?.strip_prefix('.')?;
        let meant = *source != Source::Default && said.contains(&format!("`{key}`"));
        meant.then(|| format!("{path} ({source})"))
    };
    let meant = values
        .iter()
        .find_map(named)
        .unwrap_or_else(|| format!("section `{section}`"));
    ConfigError(format!("{meant}: {said}"))
}

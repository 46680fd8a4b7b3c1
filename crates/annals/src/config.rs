//! Settings: defaults, then `annals.toml`, then the environment, then flags; each value with where it came from.
//!
//! In reading order: [`sections`] (every key, its default, what it means), [`value`] (sizes and secrets), [`load()`]
//! (the layers, unknown keys), [`explain`] (what is in effect, and the example file).
//!
//! *Invariant:* nothing else of the workspace reads files of settings or the environment.

pub mod explain;
pub mod load;
pub mod section;
pub mod sections;
pub mod value;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

pub use load::{Layers, load};
pub use section::{KeyInfo, Section, SectionInfo};
pub use value::{Bytes, Secret};

/// Every setting in effect.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Section `node`.
    pub node: sections::Node,
    /// Section `database`.
    pub database: sections::Database,
    /// Section `log`.
    pub log: sections::Log,
    /// Section `command`.
    pub command: sections::Command,
    /// Section `lease`.
    pub lease: sections::Lease,
    /// Section `projection`.
    pub projection: sections::Projection,
    /// Section `process`.
    pub process: sections::Process,
    /// Section `http`.
    pub http: sections::Http,
    /// Section `query`.
    pub query: sections::Query,
    /// Section `auth`.
    pub auth: sections::Auth,
    /// Section `audit`.
    pub audit: sections::Audit,
    /// Section `publish`.
    pub publish: sections::Publish,
    /// Section `telemetry`.
    pub telemetry: sections::Telemetry,
    /// The domain's own sections, merged but not read yet.
    domain: BTreeMap<String, ::config::Value>,
    /// Every key that has a value, with where it came from.
    pub(crate) effective: Vec<explain::Effective>,
}

impl Settings {
    /// A section of the domain's own, as [`crate::App::section`] announced it.
    ///
    /// # Errors
    /// [`ConfigError`] if a value is of the wrong type; or if the section was not announced.
    pub fn section<S: Section + DeserializeOwned>(&self) -> Result<S, ConfigError> {
        let value = self.domain.get(S::NAME).cloned();
        let value = value.ok_or_else(|| ConfigError(format!("section `{}` was not announced", S::NAME)))?;
        value
            .try_deserialize()
            .map_err(|error| ConfigError(format!("section `{}`: {error}", S::NAME)))
    }
}

/// A setting that cannot be used: which, where it came from, and what would be right. Exit status 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

//! `projection.toml` as it is written: every key known, none extra.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Rows;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestFile {
    pub(super) name: String,
    pub(super) build: i32,
    #[serde(default)]
    pub(super) doc: String,
    pub(super) rows: Rows,
    #[serde(default, rename = "table")]
    pub(super) tables: Vec<TableFile>,
    #[serde(default)]
    pub(super) on: BTreeMap<String, OnFile>,
    /// In the order of the file's text after sorting by name: TOML tables have no order of their own.
    #[serde(default, rename = "resource")]
    pub(super) resources: BTreeMap<String, ResourceFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableFile {
    pub(super) name: String,
    pub(super) key: Vec<String>,
    pub(super) stream: Option<String>,
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) private: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnFile {
    #[serde(default)]
    pub(super) repeat: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceFile {
    pub(super) table: String,
    #[serde(default = "everything", rename = "where")]
    pub(super) condition: String,
    #[serde(default)]
    pub(super) filter: Vec<String>,
    #[serde(default)]
    pub(super) sort: Vec<String>,
    #[serde(default)]
    pub(super) expand: BTreeMap<String, String>,
}

fn everything() -> String {
    "true".to_owned()
}

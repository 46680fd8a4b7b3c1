//! What a manifest says about a resource, as plain data, and the checks that need no database.

use std::collections::{BTreeMap, BTreeSet};

use annals_projection::Manifest;

use super::LoadError;

/// What a manifest says about a resource and its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The name in the path.
    pub resource: String,
    /// The projection.
    pub projection: String,
    /// The manifest's own build, from 1.
    pub build: i32,
    /// Digest of the manifest's files: another one makes other entity tags.
    pub digest: [u8; 32],
    /// What the projection is for, in a sentence.
    pub doc: String,
    /// The table.
    pub table: String,
    /// Its key, in order.
    pub key: Vec<String>,
    /// Whether each row comes from one stream, whose version is in `_version`.
    pub versioned: bool,
    /// The column that says whose row it is.
    pub owner: Option<String>,
    /// Columns with personal data.
    pub private: Vec<String>,
    /// An SQL condition; rows for which it is not true are not shown.
    pub condition: String,
    /// Columns to filter by.
    pub filter: Vec<String>,
    /// Columns to sort by.
    pub sort: Vec<String>,
    /// What can be shown with a row, by name.
    pub expand: BTreeMap<String, Expansion>,
}

/// The row of another resource whose key is in a column here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The other resource.
    pub resource: String,
    /// The column: here, and there the whole key.
    pub column: String,
}

/// The resources of one manifest.
#[must_use]
pub fn definitions(manifest: &Manifest) -> Vec<Definition> {
    let definition = |resource: &annals_projection::Resource| {
        let table = manifest.table(&resource.table)?;
        let expand = resource.expand.iter().map(|(name, expand)| {
            let expansion = Expansion {
                resource: expand.resource.clone(),
                column: expand.column.clone(),
            };
            (name.clone(), expansion)
        });
        Some(Definition {
            resource: resource.name.clone(),
            projection: manifest.id.name.to_string(),
            build: manifest.id.build.get(),
            digest: *manifest.digest.as_bytes(),
            doc: manifest.doc.clone(),
            table: table.name.clone(),
            key: table.key.clone(),
            versioned: table.stream.is_some(),
            owner: table.owner.clone(),
            private: table.private.clone(),
            condition: resource.condition.clone(),
            filter: resource.filter.clone(),
            sort: resource.sort.clone(),
            expand: expand.collect(),
        })
    };
    // A manifest was refused if a resource of it has no table.
    manifest.resources.iter().filter_map(definition).collect()
}

/// Checks what needs no database.
pub(super) fn check(definitions: &[Definition]) -> Result<(), LoadError> {
    let mut seen = BTreeSet::new();
    for definition in definitions {
        let wrong = |what: String| LoadError::Wrong {
            resource: definition.resource.clone(),
            what,
        };
        if !seen.insert(&definition.resource) {
            return Err(wrong("is there twice".to_owned()));
        }
        for name in definition.names() {
            if !is_name(name) {
                return Err(wrong(format!("`{name}` is no plain name (a-z, 0-9 and _)")));
            }
        }
        let offered = definition.filter.iter().chain(&definition.sort);
        for column in offered {
            if definition.private.contains(column) {
                return Err(wrong(format!(
                    "`{column}` is private, and filter or order would give it away"
                )));
            }
        }
        if definition.key.is_empty() {
            return Err(wrong("its table has no key".to_owned()));
        }
    }
    Ok(())
}

impl Definition {
    fn names(&self) -> impl Iterator<Item = &str> {
        let single = [&self.resource, &self.projection, &self.table];
        let expand = self
            .expand
            .iter()
            .flat_map(|(name, to)| [name, &to.resource, &to.column]);
        single
            .into_iter()
            .chain(&self.key)
            .chain(&self.owner)
            .chain(&self.private)
            .chain(&self.filter)
            .chain(&self.sort)
            .chain(expand)
            .map(String::as_str)
    }
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(plain)
}

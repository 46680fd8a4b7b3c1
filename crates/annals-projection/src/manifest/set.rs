//! All read models of a program: loaded together, and checked against each other and the catalog.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_domain::Catalog;

use super::{Manifest, ManifestError, Resource};

/// Every projection of a program, by name.
#[derive(Debug, Clone, Default)]
pub struct Projections {
    all: BTreeMap<String, Arc<Manifest>>,
}

impl Projections {
    /// Loads every folder of `dir` that is not hidden. A folder that is not there is no projections.
    ///
    /// # Errors
    /// [`ManifestError`] with the first thing that is wrong: in one folder, or between them and the catalog.
    pub fn load(dir: &Path, catalog: &Catalog) -> Result<Self, ManifestError> {
        let failed = |error: std::io::Error| ManifestError::new(dir, format!("cannot be read: {error}"));
        let mut manifests = Vec::new();
        if dir.exists() {
            for entry in std::fs::read_dir(dir).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let hidden = path
                    .file_name()
                    .is_none_or(|name| name.to_string_lossy().starts_with('.'));
                if path.is_dir() && !hidden {
                    manifests.push(Manifest::load(&path)?);
                }
            }
        }
        Self::of(manifests, catalog)
    }

    /// Checks manifests against each other and the catalog.
    ///
    /// # Errors
    /// [`ManifestError`] with the first thing that is wrong.
    pub fn of(manifests: Vec<Manifest>, catalog: &Catalog) -> Result<Self, ManifestError> {
        let mut all = BTreeMap::new();
        for manifest in manifests {
            check_events(&manifest, catalog)?;
            all.insert(manifest.id.name.to_string(), Arc::new(manifest));
        }
        let projections = Self { all };
        projections.check_names()?;
        projections.check_expands()?;
        Ok(projections)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        self.all.values()
    }

    /// One by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Manifest>> {
        self.all.get(name)
    }

    /// A resource by its name in the path, and the projection that it belongs to.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<(&Arc<Manifest>, &Resource)> {
        self.resources().find(|(_, resource)| resource.name == name)
    }

    /// Every resource with its projection.
    pub fn resources(&self) -> impl Iterator<Item = (&Arc<Manifest>, &Resource)> {
        self.iter().flat_map(|manifest| {
            manifest
                .resources
                .iter()
                .map(move |resource| (manifest, resource))
        })
    }

    fn check_names(&self) -> Result<(), ManifestError> {
        let mut tables: BTreeMap<&str, &Manifest> = BTreeMap::new();
        let mut resources: BTreeMap<&str, &Manifest> = BTreeMap::new();
        for manifest in self.iter() {
            for table in &manifest.tables {
                once(&mut tables, "table", &table.name, manifest)?;
            }
            for resource in &manifest.resources {
                once(&mut resources, "resource", &resource.name, manifest)?;
            }
        }
        Ok(())
    }

    fn check_expands(&self) -> Result<(), ManifestError> {
        for (manifest, resource) in self.resources() {
            for (name, expand) in &resource.expand {
                let wrong = |what: String| {
                    let what = format!("resource `{}`, key `expand.{name}`: {what}", resource.name);
                    ManifestError::new(toml_of(manifest), what)
                };
                let Some((owner, target)) = self.resource(&expand.resource) else {
                    return Err(wrong(format!("there is no resource `{}`", expand.resource)));
                };
                let key = owner.table(&target.table).map(|table| table.key.as_slice());
                if key != Some(std::slice::from_ref(&expand.column)) {
                    let what = format!(
                        "`{}` must be the whole key of `{}`",
                        expand.column, expand.resource
                    );
                    return Err(wrong(what));
                }
            }
        }
        Ok(())
    }
}

fn once<'a>(
    seen: &mut BTreeMap<&'a str, &'a Manifest>,
    what: &str,
    name: &'a str,
    manifest: &'a Manifest,
) -> Result<(), ManifestError> {
    match seen.insert(name, manifest) {
        None => Ok(()),
        Some(other) => Err(ManifestError::new(
            toml_of(manifest),
            format!(
                "{what} `{name}` is also one of projection `{}`: rename one",
                other.id.name
            ),
        )),
    }
}

fn toml_of(manifest: &Manifest) -> PathBuf {
    manifest.dir.join("projection.toml")
}

fn check_events(manifest: &Manifest, catalog: &Catalog) -> Result<(), ManifestError> {
    for (event, handler) in &manifest.on {
        if catalog.event(event).is_some() {
            continue;
        }
        let file = handler
            .statements
            .first()
            .map_or("on", |statement| statement.file.as_str());
        let category = event.split('.').next().unwrap_or_default();
        let prefix = format!("{category}.");
        let known: Vec<&str> = catalog
            .events()
            .map(|event| event.name)
            .filter(|name| name.starts_with(&prefix))
            .collect();
        let what = if known.is_empty() {
            format!(
                "no event `{event}` is registered, and none of category `{category}`: rename the file, or register the aggregate"
            )
        } else {
            format!(
                "no event `{event}` is registered: rename the file; there are {}",
                known.join(", ")
            )
        };
        return Err(ManifestError::new(manifest.dir.join(file), what));
    }
    for table in &manifest.tables {
        if let Some(stream) = &table.stream
            && catalog.category(stream.category.as_str()).is_none()
        {
            let what = format!(
                "table `{}`, key `stream`: no aggregate has the category `{}`",
                table.name, stream.category
            );
            return Err(ManifestError::new(toml_of(manifest), what));
        }
    }
    Ok(())
}

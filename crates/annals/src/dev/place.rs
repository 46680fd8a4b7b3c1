//! The data dir: one `dev` at a time has it.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest, Sha256};

use crate::config::Settings;

/// A data dir that is this process's.
pub(crate) struct Place {
    dir: PathBuf,
    _lock: File,
}

impl Place {
    /// Makes the folder if it is not there, and locks it. A lock ends with its process, however that ends.
    pub(crate) fn take(dir: &Path) -> anyhow::Result<Self> {
        let cannot = |what: &str| format!("the data dir {} {what}", dir.display());
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| cannot("cannot be made"))?;
        let dir = std::path::absolute(dir).with_context(|| cannot("has no absolute path"))?;
        let file = dir.join("dev.lock");
        let lock = File::options().create(true).append(true).open(&file);
        let lock = lock.with_context(|| format!("{} cannot be written", file.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another `dev` runs on {}: end it, or take another --data-dir",
                dir.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{} cannot be locked", file.display()))
            }
        }
    }

    /// Its absolute path.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The node's name: the same at every start on this folder.
    pub(crate) fn node(&self) -> String {
        let digest = Sha256::digest(self.dir.as_os_str().as_encoded_bytes());
        let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("dev-{hex}")
    }

    /// What commands on this data dir need to know: database, log. Only the owner may read it.
    pub(crate) fn write_settings(&self, file: &Path, settings: &Settings) -> anyhow::Result<()> {
        let mut text = String::from("# What `dev` runs with, for other commands. Written at every start.\n");
        let mut section = "";
        let url = settings.database.url.as_ref().map(|url| url.reveal().to_owned());
        let values = [
            ("database", "url", url),
            ("log", "kind", Some(settings.log.kind.clone())),
            ("log", "brokers", settings.log.brokers.clone()),
            ("log", "topic", Some(settings.log.topic.clone())),
            (
                "auth",
                "jwks_file",
                settings
                    .auth
                    .jwks_file
                    .as_ref()
                    .map(|file| file.display().to_string()),
            ),
            ("auth", "audience", Some(settings.auth.audience.clone())),
        ];
        for (of, key, value) in values {
            let Some(value) = value else { continue };
            if of != section {
                section = of;
                text.push_str(&format!("\n[{of}]\n"));
                if of == "log" {
                    text.push_str(&format!(
                        "shards = {}\nallow_single_replica = true\n",
                        settings.log.shards
                    ));
                }
            }
            // A JSON string is a TOML string.
            text.push_str(&format!("{key} = {}\n", serde_json::Value::String(value)));
        }
        let written = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(file);
        let written = written.and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("{} cannot be written", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_kept_out_and_the_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::take(&dir.path().join("a/b")).unwrap();
        let error = Place::take(place.dir()).err().unwrap();
        assert!(error.to_string().contains("another `dev`"), "{error}");
        let (path, node) = (place.dir().to_owned(), place.node());
        drop(place);
        assert_eq!(Place::take(&path).unwrap().node(), node);
    }
}

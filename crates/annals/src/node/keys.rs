//! The files of keys: in `dev` they are made where they are missing, elsewhere they must be there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use annals_auth::{KeyRing, NodeKey, SubjectKeys, subject};
use annals_domain::Ambient;
use annals_query::CursorKey;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::PgPool;

use crate::config::{ConfigError, Settings};
use crate::node::DevShape;

/// Every key of a node.
pub(crate) struct Keys {
    pub(crate) node: Arc<NodeKey>,
    pub(crate) cursor: CursorKey,
    ring_file: PathBuf,
    ring: Mutex<Option<KeyRing>>,
    ambient: Ambient,
}

impl Keys {
    pub(crate) fn open(
        settings: &Settings,
        dev: Option<&DevShape>,
        ambient: &Ambient,
    ) -> anyhow::Result<Self> {
        let file = |key: &str, given: &Option<PathBuf>, name: &str| match (given, dev) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(dev)) => Ok(dev.data_dir.join(name)),
            (None, None) => Err(ConfigError(format!(
                "{key} is not set: outside `dev` the file must be named"
            ))),
        };
        let node = file("node.key_file", &settings.node.key_file, "node.key")?;
        let cursor = file(
            "http.cursor_key_file",
            &settings.http.cursor_key_file,
            "cursor.key",
        )?;
        let ring_file = file(
            "auth.subject_key_file",
            &settings.auth.subject_key_file,
            "subject.key",
        )?;
        if dev.is_some() {
            drop(KeyRing::open_or_create(&ring_file)?);
            make_cursor_key(&cursor, ambient)?;
            drop(NodeKey::open_or_create(&node, ambient.clone())?);
        }
        Ok(Self {
            node: Arc::new(NodeKey::open(&node, ambient.clone())?),
            cursor: CursorKey::read(&cursor)?,
            ring: Mutex::new(Some(KeyRing::open(&ring_file)?)),
            ring_file,
            ambient: ambient.clone(),
        })
    }

    /// The data subjects' keys over a pool.
    pub(crate) fn subjects(&self, pool: PgPool) -> anyhow::Result<SubjectKeys> {
        let first = self.ring.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ring = match first {
            Some(ring) => ring,
            None => KeyRing::open(&self.ring_file)?,
        };
        Ok(SubjectKeys::new(
            pool,
            ring,
            subject::CACHED_KEYS,
            self.ambient.clone(),
        ))
    }
}

/// Text, since white space around it does not count.
fn make_cursor_key(path: &Path, ambient: &Ambient) -> anyhow::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let text = STANDARD.encode(ambient.random::<32>());
    write_private(path, &text).with_context(|| format!("{} cannot be written", path.display()))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

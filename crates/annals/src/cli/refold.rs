//! What commands need that fold the log again: database, log, events, keys.

use std::sync::Arc;
use std::time::Duration;

use annals_auth::{KeyRing, Opener, SubjectKeys, subject};
use annals_domain::Catalog;
use annals_log::{JournalHead, LogKind, PgStreamStore};
use annals_projection::lifecycle::{self, BuildRow};
use annals_projection::{BuildId, Closed, Limits, Manifest, Name, OpenPersonal, Source};
use annals_store::notify::{self, Notifier};
use annals_store::roles::DatabaseRole;
use sqlx::PgPool;

use crate::app::App;
use crate::cli::args::Common;
use crate::config::Settings;
use crate::exit::Usage;
use crate::node::databases::Databases;
use crate::node::log::{self, OpenLog};
use crate::node::tasks::Tasks;
use crate::node::{DevShape, Shape};

/// A database role's view of everything.
pub(crate) struct Desk {
    pub(crate) pool: PgPool,
    pub(crate) log: OpenLog,
    catalog: Catalog,
    /// The log's own tasks; they end with it.
    _tasks: Tasks,
}

impl Desk {
    pub(crate) async fn open(app: &App, settings: &Settings, role: DatabaseRole) -> anyhow::Result<Self> {
        let databases = Databases::new(settings.database.clone(), false);
        let pool = databases.pool(role, "operator", 4, None).await?;
        let mut tasks = Tasks::default();
        let notifier = databases.settings(role, "notifier", 1)?;
        let (notifier, _) = Notifier::new(&notifier, notify::Limits::default())?;
        // Whoever looks at an unsafe log must be able to.
        let shape = Shape {
            dev: Some(DevShape {
                data_dir: "".into(),
                node: String::new(),
            }),
        };
        let catalog = app.catalog()?;
        let log = log::open(
            &catalog, settings, &databases, role, &notifier, &shape, &mut tasks,
        )
        .await?;
        Ok(Self {
            pool,
            log,
            catalog,
            _tasks: tasks,
        })
    }

    /// What a build of these files is folded from. Personal fields are opened only if it has private columns; that
    /// needs the key-encryption keys, of the settings or of `dev`.
    pub(crate) fn source(
        &self,
        settings: &Settings,
        common: &Common,
        manifest: &Manifest,
    ) -> anyhow::Result<Source> {
        let opener: Arc<dyn OpenPersonal> = match manifest.is_private() {
            false => Arc::new(Closed),
            true => {
                let own = settings.auth.subject_key_file.clone();
                let file = own.unwrap_or_else(|| common.data_dir.join("subject.key"));
                if !file.exists() {
                    let what = format!(
                        "{} has private columns: set auth.subject_key_file, whose keys open what they are made of ({} is not there)",
                        manifest.id.name,
                        file.display()
                    );
                    return Err(Usage(what).into());
                }
                let ring = KeyRing::open(&file)?;
                let ambient = crate::ambient::system();
                let keys = SubjectKeys::new(self.pool.clone(), ring, subject::CACHED_KEYS, ambient);
                Arc::new(Opener::new(keys))
            }
        };
        Ok(Source {
            log: Arc::clone(&self.log.log),
            catalog: self.catalog.clone(),
            opener,
            limits: Limits {
                statement_timeout: Duration::from_millis(settings.projection.statement_timeout_ms),
            },
        })
    }

    /// The journal, for whole streams.
    pub(crate) fn journal(&self) -> PgStreamStore {
        let head = match self.log.kind {
            LogKind::Kafka => JournalHead::Indexer,
            LogKind::Postgres | LogKind::Memory => JournalHead::LogHead,
        };
        let app = self.catalog.app().clone();
        PgStreamStore::new(self.pool.clone(), app, self.log.shards, head)
    }

    /// Every build of a projection.
    pub(crate) async fn builds(&self, name: &Name) -> anyhow::Result<Vec<BuildRow>> {
        Ok(lifecycle::builds(&self.pool, Some(name)).await?)
    }

    /// The manifest of a build as it was made; with the folder's `lineage.sql`, which may be newer.
    pub(crate) async fn manifest(&self, id: &BuildId, folder: &Manifest) -> anyhow::Result<Manifest> {
        let stored = lifecycle::stored(&self.pool, id).await?;
        let mut manifest = stored.ok_or_else(|| {
            anyhow::anyhow!("build {id} has no files stored: start a projector that has its folder")
        })?;
        if manifest.lineage_sql.is_none() {
            manifest.lineage_sql.clone_from(&folder.lineage_sql);
        }
        Ok(manifest)
    }
}

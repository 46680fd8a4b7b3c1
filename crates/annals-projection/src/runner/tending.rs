//! Brings about what the table says there is to be: builds made, fed, stopped, dropped; parked streams replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_record::StreamId;
use chrono::{DateTime, Utc};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::plan::{Step, steps};
use super::worker::Work;
use super::{BatchSize, Parts, Progress};
use crate::apply::Projector;
use crate::build::{self, BuildError};
use crate::lifecycle::{self, BuildRow};
use crate::manifest::{BuildId, Manifest, Projections};
use crate::metrics as names;
use crate::parking::{self, FromLog};

/// Between two looks at the table: how soon what was asked for begins.
const LOOK: Duration = Duration::from_millis(500);

/// One node's part of it.
pub(super) struct Tender {
    parts: Arc<Parts>,
    folder: Projections,
    progress: Progress,
    stop: CancellationToken,
    /// What is fed here; cancelled when it is to stop, gone when it has.
    workers: BTreeMap<BuildId, CancellationToken>,
    /// Builds whose parked streams are being replayed here.
    jobs: BTreeSet<BuildId>,
    tasks: JoinSet<Ended>,
    /// What was said already, and is not said again every time.
    said: BTreeSet<String>,
    /// Builds whose gauge was set: it goes back to 0 with the build.
    shown: BTreeSet<String>,
}

enum Ended {
    Worker(BuildId),
    Job(BuildId),
}

impl Tender {
    pub(super) fn new(
        parts: Arc<Parts>,
        folder: Projections,
        progress: Progress,
        stop: CancellationToken,
    ) -> Self {
        Self {
            parts,
            folder,
            progress,
            stop,
            workers: BTreeMap::new(),
            jobs: BTreeSet::new(),
            tasks: JoinSet::new(),
            said: BTreeSet::new(),
            shown: BTreeSet::new(),
        }
    }

    /// Runs until it is told to stop, and then until everything has.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                again = self.look() => {
                    // What was just made is fed at once.
                    if again {
                        continue;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                ended = self.tasks.join_next(), if !self.tasks.is_empty() => self.take(ended),
                () = sleep(LOOK) => {}
            }
        }
        for stop in self.workers.values() {
            stop.cancel();
        }
        while let Some(ended) = self.tasks.join_next().await {
            self.take(Some(ended));
        }
    }

    fn take(&mut self, ended: Option<Result<Ended, tokio::task::JoinError>>) {
        match ended {
            Some(Ok(Ended::Worker(id))) => {
                self.workers.remove(&id);
                self.progress.end(&id);
            }
            Some(Ok(Ended::Job(id))) => {
                self.jobs.remove(&id);
            }
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => {}
        }
    }

    /// Looks once, and does what is to be done. Whether there is more to be done at once.
    async fn look(&mut self) -> bool {
        let rows = match lifecycle::builds(&self.parts.pool, None).await {
            Ok(rows) => rows,
            Err(error) => {
                self.say("builds", &error);
                return false;
            }
        };
        self.said.remove("builds");
        let folder: Vec<_> = self
            .folder
            .iter()
            .map(|manifest| (manifest.id.clone(), manifest.digest))
            .collect();
        let running = self.workers.keys().cloned().collect();
        let mut again = false;
        for step in steps(&folder, &rows, &running, &self.jobs) {
            again |= self.step(step, &rows).await;
        }
        self.show(&rows).await;
        again
    }

    async fn step(&mut self, step: Step, rows: &[BuildRow]) -> bool {
        let row = |id: &BuildId| rows.iter().find(|row| row.id == *id);
        let (id, done) = match step {
            Step::Stop(id) => {
                if let Some(worker) = self.workers.get(&id) {
                    worker.cancel();
                }
                return false;
            }
            Step::Resume(id) => {
                let asked = row(&id).and_then(|row| Some((row.resume_asked_at?, row.resume_stream.clone())));
                if let Some((at, stream)) = asked {
                    self.jobs.insert(id.clone());
                    self.tasks.spawn(resume(Arc::clone(&self.parts), id, at, stream));
                }
                return false;
            }
            Step::OtherFiles(id) => {
                let Some(manifest) = self.folder.get(id.name.as_str()) else {
                    return false;
                };
                let highest = rows.iter().filter(|row| row.id.name == id.name);
                let highest = highest.map(|row| row.id.build).max().unwrap_or(id.build);
                let stored = row(&id).map(|row| row.digest.as_slice()).unwrap_or_default();
                let error = build::other_files(manifest, stored, highest);
                self.say(&format!("{id} files"), &error);
                return false;
            }
            Step::First(id) => (id.clone(), self.first(&id).await),
            Step::Keep(id) => (id.clone(), self.keep(&id).await),
            Step::Make(id) => (id.clone(), self.make(&id).await),
            Step::Feed { id, beside } => (id.clone(), self.feed(&id, beside).await),
            Step::Drop(id) => {
                let dropped = build::drop_build(&self.parts.pool, &id).await;
                if dropped.is_ok() {
                    tracing::info!(build = %id, "dropped a build");
                }
                (id, dropped.map(|()| false))
            }
            Step::Views(id) => (id.clone(), self.views(&id).await),
        };
        match done {
            Ok(again) => {
                self.said.remove(&id.to_string());
                again
            }
            Err(error) => {
                self.say(&id.to_string(), &error);
                self.progress
                    .change(&id, |progress| progress.error = Some(error.to_string()));
                false
            }
        }
    }

    /// The first time it is news, after that it is repetition.
    fn say(&mut self, about: &str, error: &BuildError) {
        if self.said.insert(about.to_owned()) {
            tracing::error!(about, %error, "a build cannot be tended; trying again");
        }
        if !matches!(error, BuildError::OtherFiles { .. }) {
            metrics::counter!(names::RETRIES, "projection" => about.to_owned()).increment(1);
        }
    }

    async fn first(&self, id: &BuildId) -> Result<bool, BuildError> {
        match self.folder.get(id.name.as_str()) {
            Some(manifest) => build::ensure(&self.parts.pool, manifest).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn keep(&self, id: &BuildId) -> Result<bool, BuildError> {
        match self.folder.get(id.name.as_str()) {
            Some(manifest) => lifecycle::keep_files(&self.parts.pool, manifest)
                .await
                .map(|()| true),
            None => Ok(false),
        }
    }

    async fn make(&self, id: &BuildId) -> Result<bool, BuildError> {
        let pool = &self.parts.pool;
        let made = match lifecycle::stored(pool, id).await {
            Ok(Some(manifest)) => build::ensure(pool, &manifest).await,
            Ok(None) => return Ok(false),
            Err(error) => Err(error),
        };
        match made {
            Ok(()) => Ok(true),
            Err(error @ BuildError::File { .. }) => {
                lifecycle::failed(pool, id, &error.to_string()).await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn feed(&mut self, id: &BuildId, beside: bool) -> Result<bool, BuildError> {
        let manifest = match lifecycle::stored(&self.parts.pool, id).await? {
            Some(manifest) => Arc::new(manifest),
            // Made before builds kept their files: only a folder with the same can go on.
            None => match self.folder.get(id.name.as_str()) {
                Some(manifest) if manifest.id == *id => Arc::clone(manifest),
                _ => {
                    let what = format!("build {id} has no files, and the folder has other ones");
                    return Err(BuildError::File {
                        file: id.name.as_str().into(),
                        what,
                    });
                }
            },
        };
        let settings = &self.parts.settings;
        let batch = match beside {
            true => BatchSize {
                events: settings.rebuild_events,
                bytes: settings.rebuild_bytes,
            },
            false => BatchSize {
                events: settings.batch_events,
                bytes: settings.batch_bytes,
            },
        };
        let stop = CancellationToken::new();
        self.progress.begin(id);
        self.workers.insert(id.clone(), stop.clone());
        let work = Work {
            parts: Arc::clone(&self.parts),
            manifest,
            batch,
            progress: self.progress.clone(),
            stop,
        };
        let id = id.clone();
        self.tasks.spawn(async move {
            work.run().await;
            Ended::Worker(id)
        });
        Ok(false)
    }

    async fn views(&self, id: &BuildId) -> Result<bool, BuildError> {
        if let Some(manifest) = self.manifest(id).await? {
            build::renew_views(&self.parts.pool, &manifest).await?;
        }
        Ok(false)
    }

    async fn manifest(&self, id: &BuildId) -> Result<Option<Manifest>, BuildError> {
        lifecycle::stored(&self.parts.pool, id).await
    }

    /// How many streams are parked, for those who watch.
    async fn show(&mut self, rows: &[BuildRow]) {
        let counts = match parking::counts(&self.parts.pool).await {
            Ok(counts) => counts,
            Err(error) => {
                tracing::debug!(%error, "parked streams cannot be counted");
                return;
            }
        };
        let now: BTreeSet<String> = rows.iter().map(|row| row.id.to_string()).collect();
        for id in self.shown.union(&now) {
            let parked = counts.get(id).copied().unwrap_or(0);
            let parked = u32::try_from(parked).unwrap_or(u32::MAX);
            metrics::gauge!(names::PARKED_STREAMS, "projection" => id.clone()).set(f64::from(parked));
        }
        self.shown = now;
    }
}

/// Replays what is parked; what stays parked says why in its row.
async fn resume(parts: Arc<Parts>, id: BuildId, asked_at: DateTime<Utc>, stream: Option<String>) -> Ended {
    if let Err(error) = try_resume(&parts, &id, stream.as_deref()).await {
        // It stays asked for: the next look tries again.
        tracing::warn!(build = %id, error, "parked streams cannot be resumed for now");
        sleep(parts.pause(3)).await;
    } else if let Err(error) = lifecycle::resumed(&parts.pool, &id, asked_at).await {
        tracing::warn!(build = %id, %error, "a resume is not marked as done");
    }
    Ended::Job(id)
}

async fn try_resume(parts: &Parts, id: &BuildId, stream: Option<&str>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let Some(manifest) = lifecycle::stored(&parts.pool, id)
        .await
        .map_err(|error| text(&error))?
    else {
        return Ok(());
    };
    let stream: Option<StreamId> = stream.map(str::parse).transpose().map_err(|error| text(&error))?;
    let projector = Projector::of_made(
        parts.pool.clone(),
        Arc::new(manifest),
        Arc::clone(&parts.opener),
        parts.settings.limits,
    );
    let projector = projector.await.map_err(|error| text(&error))?;
    let source = FromLog {
        log: Arc::clone(&parts.log),
        catalog: parts.catalog.clone(),
    };
    let resumed = parking::resume(&projector, &source, stream.as_ref())
        .await
        .map_err(|error| text(&error))?;
    let replayed: usize = resumed.iter().map(|stream| stream.replayed).sum();
    let still = resumed.iter().filter(|stream| stream.error.is_some()).count();
    tracing::info!(build = %id, streams = resumed.len(), replayed, still, "resumed parked streams");
    Ok(())
}

//! How far each build has got on this node, and what holds it up, for whoever is in the same process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_record::{Offset, Shard};
use tokio::sync::watch;

use crate::manifest::BuildId;

/// What one build's worker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildProgress {
    /// The next offset of each shard that this node has moved: everything below is in the tables.
    pub next: BTreeMap<Shard, Offset>,
    /// Shards of this node whose reader halted, and why.
    pub halted: BTreeMap<Shard, String>,
    /// Why the worker is trying again; none while it works.
    pub error: Option<String>,
}

/// The progress of every build that a node runs. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    builds: Arc<Mutex<Builds>>,
}

type Builds = BTreeMap<BuildId, watch::Sender<BuildProgress>>;

impl Progress {
    pub(super) fn of(builds: impl Iterator<Item = BuildId>) -> Self {
        let builds = builds.map(|id| (id, watch::Sender::new(BuildProgress::default())));
        Self {
            builds: Arc::new(Mutex::new(builds.collect())),
        }
    }

    /// A build's progress, seen after every commit; `None` if this node does not run it (yet).
    #[must_use]
    pub fn subscribe(&self, id: &BuildId) -> Option<watch::Receiver<BuildProgress>> {
        self.lock().get(id).map(watch::Sender::subscribe)
    }

    /// Every build with its progress now.
    #[must_use]
    pub fn now(&self) -> Vec<(BuildId, BuildProgress)> {
        let builds = self.lock();
        let builds = builds.iter();
        builds
            .map(|(id, progress)| (id.clone(), progress.borrow().clone()))
            .collect()
    }

    pub(super) fn change(&self, id: &BuildId, change: impl FnOnce(&mut BuildProgress)) {
        if let Some(progress) = self.lock().get(id) {
            progress.send_modify(change);
        }
    }

    /// From now on this node runs it.
    pub(super) fn begin(&self, id: &BuildId) {
        self.lock().entry(id.clone()).or_default();
    }

    /// It does not any more.
    pub(super) fn end(&self, id: &BuildId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, Builds> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

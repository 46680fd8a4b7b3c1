//! Who runs: every task has a name and a phase in which it ends; a panic ends the process in order.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// When a task ends. Phases end in this order, each when the one before is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Listeners: no new requests, open ones are finished.
    Edge,
    /// What asks the engine, applies events, keeps leases.
    Work,
    /// The engine.
    Engine,
    /// The log, notifications: what all others use. They have no end of their own.
    Log,
}

const PHASES: [Phase; 4] = [Phase::Edge, Phase::Work, Phase::Engine, Phase::Log];

/// Every task of a node.
#[derive(Default)]
pub(crate) struct Tasks {
    sets: [JoinSet<()>; 4],
    names: HashMap<Id, &'static str>,
    tokens: [CancellationToken; 4],
}

/// A task that ended although nobody told it to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

fn index(phase: Phase) -> usize {
    match phase {
        Phase::Edge => 0,
        Phase::Work => 1,
        Phase::Engine => 2,
        Phase::Log => 3,
    }
}

impl Tasks {
    /// Cancelled when the phase ends.
    pub(crate) fn token(&self, phase: Phase) -> CancellationToken {
        self.tokens[index(phase)].clone()
    }

    /// Runs a task of that name until its phase ends.
    pub(crate) fn spawn(
        &mut self,
        phase: Phase,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.sets[index(phase)].spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// The set itself, for parts that spawn their own tasks.
    pub(crate) fn set(&mut self, phase: Phase) -> &mut JoinSet<()> {
        &mut self.sets[index(phase)]
    }

    /// The first task that ends. Pends for ever if there is none. Cancel safe.
    pub(crate) async fn first_end(&mut self) -> Ended {
        let [edge, work, engine, log] = &mut self.sets;
        let joined = tokio::select! {
            Some(joined) = edge.join_next_with_id() => joined,
            Some(joined) = work.join_next_with_id() => joined,
            Some(joined) = engine.join_next_with_id() => joined,
            Some(joined) = log.join_next_with_id() => joined,
            else => std::future::pending().await,
        };
        let (id, why) = match joined {
            Ok((id, ())) => (id, "it returned".to_owned()),
            Err(error) => (error.id(), words(error)),
        };
        Ended {
            name: self.names.get(&id).copied().unwrap_or("engine"),
            why,
        }
    }

    /// Ends phase after phase. Returns whether all of it ended in time; what did not is cut off.
    pub(crate) async fn stop(mut self, within: Duration) -> bool {
        let names = std::mem::take(&mut self.names);
        let ending = async {
            for phase in PHASES {
                self.tokens[index(phase)].cancel();
                let set = &mut self.sets[index(phase)];
                if phase == Phase::Log {
                    set.abort_all();
                }
                while let Some(joined) = set.join_next_with_id().await {
                    if let Err(error) = joined
                        && !error.is_cancelled()
                    {
                        let name = names.get(&error.id()).copied().unwrap_or("engine");
                        tracing::error!(task = name, why = words(error), "a task ended badly");
                    }
                }
            }
        };
        tokio::time::timeout(within, ending).await.is_ok()
    }
}

fn words(error: JoinError) -> String {
    if !error.is_panic() {
        return error.to_string();
    }
    let panic = error.into_panic();
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_seen_with_the_tasks_name() {
        let mut tasks = Tasks::default();
        let stop = tasks.token(Phase::Work);
        tasks.spawn(Phase::Work, "steady", async move { stop.cancelled().await });
        tasks.spawn(Phase::Engine, "shaky", async { panic!("no {}", "good") });
        let ended = tasks.first_end().await;
        assert_eq!(
            (ended.name, ended.why.as_str()),
            ("shaky", "it panicked: no good")
        );
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    #[tokio::test]
    async fn phases_end_in_order() {
        let mut tasks = Tasks::default();
        let (order, mut ended) = tokio::sync::mpsc::unbounded_channel();
        for (phase, name) in [
            (Phase::Engine, "engine"),
            (Phase::Edge, "edge"),
            (Phase::Work, "work"),
        ] {
            let (stop, order) = (tasks.token(phase), order.clone());
            tasks.spawn(phase, name, async move {
                stop.cancelled().await;
                order.send(name).ok();
            });
        }
        tasks.spawn(Phase::Log, "log", std::future::pending());
        drop(order);
        assert!(tasks.stop(Duration::from_secs(5)).await);
        let mut seen = Vec::new();
        while let Some(name) = ended.recv().await {
            seen.push(name);
        }
        assert_eq!(seen, ["edge", "work", "engine"]);
    }

    #[tokio::test]
    async fn what_does_not_end_is_cut_off() {
        let mut tasks = Tasks::default();
        tasks.spawn(Phase::Edge, "stubborn", std::future::pending());
        assert!(!tasks.stop(Duration::from_millis(10)).await);
    }
}

//! Committed histories: what `evolve` made of them once it must make of them again, or `REVISION` is raised.
//!
//! A history is a file `{name}.json` with an array of stored events; beside it `{name}.state.json` holds what they
//! led to, and under which fingerprint (the state's schema and `REVISION`). While the fingerprint is the same,
//! snapshots in production are still believed, so the state must be the same too.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::pretty;
use crate::catalog::fingerprint;
use crate::{Aggregate, Event as _};

/// What to do about a history whose recorded state is missing or of another fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    /// Fail: what tests commit to.
    Check,
    /// Record the state anew: for the moment at which somebody raised `REVISION` or added a history.
    Write,
}

#[derive(Deserialize)]
struct StoredEvent {
    r#type: String,
    schema: u32,
    data: Box<RawValue>,
}

#[derive(Serialize, Deserialize)]
struct Recorded {
    revision: u32,
    fingerprint: String,
    state: Value,
}

/// Replays every history in `folder`, and shows that `evolve` makes of it what it made of it when it was recorded.
///
/// A history is never changed, so that events of every schema ever written stay readable.
///
/// # Panics
/// If an event does not read; if the state moved while `REVISION` and the state's schema did not, also with
/// [`Update::Write`]; if nothing is recorded for the present ones ([`Update::Check`] only); if the folder holds no
/// history.
pub fn check_histories<A: Aggregate>(folder: &Path, update: Update) {
    let histories = histories(folder);
    assert!(!histories.is_empty(), "{} holds no history", folder.display());
    for history in histories {
        check::<A>(&history, update);
    }
}

fn histories(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries
        .map(|entry| {
            entry
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
                .path()
        })
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".json") && !name.ends_with(".state.json")
        })
        .collect();
    paths.sort();
    paths
}

fn check<A: Aggregate>(history: &Path, update: Update) {
    let name = history.display();
    let text = fs::read_to_string(history).unwrap_or_else(|error| panic!("{name}: {error}"));
    let now = Recorded {
        revision: A::REVISION,
        fingerprint: fingerprint::<A>().to_string(),
        state: replay::<A>(&text, history),
    };
    let path = history.with_extension("state.json");
    let recorded = fs::read_to_string(&path).ok().map(|text| {
        let recorded = serde_json::from_str::<Recorded>(&text);
        recorded.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    });
    match recorded {
        Some(recorded) if recorded.fingerprint == now.fingerprint => assert!(
            recorded.state == now.state,
            "{name}: `evolve` makes another state of the same events, so raise `{}::REVISION` above {} and record \
             anew with `Update::Write`\n  recorded {}\n  now {}",
            std::any::type_name::<A>(),
            A::REVISION,
            pretty(&recorded.state),
            pretty(&now.state)
        ),
        Some(_) | None if update == Update::Write => {
            let json = serde_json::to_string_pretty(&now).unwrap_or_else(|error| panic!("{name}: {error}"));
            fs::write(&path, json + "\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        Some(recorded) => panic!(
            "{name}: its state is recorded for revision {} and another schema or revision than now ({}): record it \
             anew with `Update::Write`, and read the difference",
            recorded.revision, now.revision
        ),
        None => panic!(
            "{name}: no state is recorded in {}: run once with `Update::Write`",
            path.display()
        ),
    }
}

fn replay<A: Aggregate>(text: &str, history: &Path) -> Value {
    let name = history.display();
    let events: Vec<StoredEvent> =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut state = A::default();
    for event in &events {
        let read = A::Event::read(&event.r#type, event.schema, &event.data);
        state.evolve(&read.unwrap_or_else(|error| panic!("{name}: {error}")));
    }
    serde_json::to_value(&state)
        .unwrap_or_else(|error| panic!("{name}: its state cannot be written: {error}"))
}

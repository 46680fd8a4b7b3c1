//! Which records concern a process: decided where they are read, so that all others need not go any further.

use std::sync::Arc;

use annals_domain::RecordView;
use annals_log::{Accepted, Entry};

use crate::erased::AnyProcess;

/// Which records concern a process: those that answer its own commands, and those that it reads something from.
pub(super) struct Concern {
    process: AnyProcess,
    actor: String,
}

impl Concern {
    pub(super) fn of(process: &AnyProcess) -> Self {
        Self {
            process: Arc::clone(process),
            actor: format!("process:{}", process.name()),
        }
    }

    /// Whether a record has to be looked at by the runner. One that does not read has.
    pub(super) fn has(&self, accepted: &Accepted) -> bool {
        let Some(entry) = accepted.entry() else {
            return false;
        };
        if *entry.actor.sub == *self.actor {
            return true;
        }
        let has_events = entry.outcome.as_ref().is_ok_and(|events| !events.is_empty());
        has_events
            && self.process.categories().contains(&entry.stream.category())
            && !matches!(self.process.of_record(&view(entry, false)), Ok(None))
    }
}

/// A record as processes look at it.
pub(super) fn view(entry: &Entry, own: bool) -> RecordView<'_> {
    let result = match &entry.outcome {
        Ok(events) => Ok(events
            .iter()
            .map(|e| (&*e.event_type, e.schema, &*e.stored))
            .collect()),
        Err(refusal) => Err(refusal.clone()),
    };
    RecordView {
        stream: &entry.stream,
        command: &entry.command,
        data: &entry.data,
        version: entry.version,
        result,
        own,
    }
}

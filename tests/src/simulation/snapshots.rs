//! What a snapshot must be.

use annals_log::Snapshot;

use super::world::World;
use super::{Check, Violation};

impl World {
    /// A snapshot is what the accepted records below its offset add up to, keys included.
    pub(super) fn is_true(&self, n: usize, snapshot: &Snapshot) -> Check {
        if self.cut.is_some() {
            return Ok(());
        }
        let at = self.truth.stream_at(&snapshot.stream, snapshot.offset);
        let state = format!("{{\"sum\":{}}}", at.sum);
        if snapshot.state != state.as_bytes() || snapshot.version.get() != at.version {
            let found = String::from_utf8_lossy(&snapshot.state);
            let what = format!(
                "node {n}: {} below {} is {state} at version {}, and a snapshot says {found} at {}",
                snapshot.stream, snapshot.offset, at.version, snapshot.version
            );
            return Violation::of("snapshots", what);
        }
        let Some(newest) = self.truth.newest_below(&snapshot.stream, snapshot.offset) else {
            return Ok(());
        };
        for (offset, fact) in self.truth.remembered(&snapshot.stream, newest) {
            if offset < snapshot.offset && !snapshot.keys.iter().any(|key| key.offset == offset) {
                let what = format!(
                    "node {n}: the key of {offset} ({}) is missing in a snapshot",
                    fact.id
                );
                return Violation::of("snapshots", what);
            }
        }
        Ok(())
    }
}

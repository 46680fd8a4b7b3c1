//! Names of what is counted here. No label holds a stream or a key.

use crate::manifest::BuildId;

/// Events applied: label `projection`.
pub const EVENTS_APPLIED: &str = "annals_projection_events_applied_total";
/// Events parked: label `projection`.
pub const EVENTS_PARKED: &str = "annals_projection_events_parked_total";
/// Gauge: streams that are parked, all nodes' together: label `projection`.
pub const PARKED_STREAMS: &str = "annals_projection_parked_streams";
/// Transactions committed: label `projection`.
pub const BATCHES: &str = "annals_projection_batches_total";
/// Batches tried again after a technical failure: label `projection`.
pub const RETRIES: &str = "annals_projection_retries_total";
/// Times another projector was found to have moved a checkpoint: label `projection`.
pub const ZOMBIES: &str = "annals_projection_zombies_total";
/// Histogram: seconds from begin to commit: label `projection`.
pub const BATCH_SECONDS: &str = "annals_projection_batch_seconds";
/// Gauge: shards this node reads for a projection: label `projection`.
pub const SHARDS: &str = "annals_projection_shards";
/// Gauge, on nodes that query or project: seconds from the first record that the live build does not have to now, of the
/// shard that is furthest behind: label `projection` (its name, without the build).
pub const LAG_SECONDS: &str = "annals_projection_lag_seconds";
/// Times a reader halted for good: label `projection`. An alarm.
pub const HALTS: &str = "annals_projection_halts_total";

pub(crate) fn applied(id: &BuildId, events: usize, parked: usize) {
    let label = id.to_string();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    metrics::counter!(BATCHES, "projection" => label.clone()).increment(1);
    metrics::counter!(EVENTS_APPLIED, "projection" => label.clone()).increment(count(events));
    if parked > 0 {
        metrics::counter!(EVENTS_PARKED, "projection" => label).increment(count(parked));
    }
}

//! What the engine counts; no label holds a stream or a caller.

use annals_log::metrics::Invariant;
use annals_record::fold::Ghost;
use annals_record::{Offset, Shard};
use metrics::{counter, gauge, histogram};

pub(crate) fn refused() {
    counter!("annals_command_refusals_total").increment(1);
}

pub(crate) fn replayed() {
    counter!("annals_command_replays_total").increment(1);
}

pub(crate) fn over_budget() {
    counter!("annals_command_refusal_budget_exhausted_total").increment(1);
}

pub(crate) fn shed() {
    counter!("annals_command_shed_total").increment(1);
}

pub(crate) fn claimed(took_ms: u32) {
    histogram!("annals_shard_claim_seconds").record(f64::from(took_ms) / 1_000.0);
}

pub(crate) fn never_happened() {
    counter!("annals_command_decided_anew_total").increment(1);
}

pub(crate) fn broken_stream() {
    Invariant::L2.broken();
}

pub(crate) fn wrong_snapshot() {
    counter!("annals_command_wrong_snapshots_total").increment(1);
}

pub(crate) fn owner(shard: Shard, owner: bool) {
    gauge!("annals_shard_owner", "shard" => shard.to_string()).set(if owner { 1.0 } else { 0.0 });
}

pub(crate) fn halted(shard: Shard) {
    gauge!("annals_shard_halted", "shard" => shard.to_string()).set(1.0);
}

pub(crate) fn stalled(shard: Shard, stalled: bool) {
    gauge!("annals_shard_stalled", "shard" => shard.to_string()).set(if stalled { 1.0 } else { 0.0 });
    if stalled {
        counter!("annals_shard_stalls_total").increment(1);
    }
}

pub(crate) fn ghost(shard: Shard, offset: Offset, why: Ghost) {
    annals_log::metrics::ghost(why);
    match why {
        Ghost::Foreign | Ghost::Unchained => {
            tracing::error!(%shard, %offset, %why, "a record in the log does not count and should not be there");
        }
        Ghost::Closed | Ghost::LostClaim | Ghost::Superseded => {
            tracing::debug!(%shard, %offset, %why, "a ghost");
        }
    }
}

pub(crate) fn sizes(streams: usize, cache_bytes: usize) {
    gauge!("annals_command_streams").set(number(streams));
    gauge!("annals_command_cache_bytes").set(number(cache_bytes));
}

fn number(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::from(u32::MAX), f64::from)
}

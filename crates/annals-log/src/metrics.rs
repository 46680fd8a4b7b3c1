//! Names of what this crate counts: ghosts, halts, appends, and one counter for every broken invariant.
//!
//! All are counters unless said otherwise. A counter of [`INVARIANTS_BROKEN`] that is not 0 is an alarm: the
//! invariants L1 to L9 are those of the log's design, and each has a place in this crate that watches it.

use annals_record::fold::Ghost;

/// Records that a reader passed over: label `kind` (`foreign`, `closed`, `lost-claim`, `superseded`,
/// `unchained`). Every reader counts for itself. `foreign` and `unchained` are alarms.
pub const GHOSTS: &str = "annals_log_ghosts_total";
/// Readers that stopped in front of a record: label `reason` (`unknown-format`, `history-replaced`,
/// `record-replaced`, `log-shortened`, `other-log`). An alarm.
pub const HALTS: &str = "annals_log_halts_total";
/// Accepted records whose value this program could not read; the reader stopped. An alarm.
pub const UNREADABLE: &str = "annals_log_unreadable_total";
/// Broken invariants: label `id`, see [`Invariant`]. An alarm.
pub const INVARIANTS_BROKEN: &str = "annals_log_invariants_broken_total";
/// Statements or batches handed to the log.
pub const APPEND_BATCHES: &str = "annals_log_append_batches_total";
/// Records that landed.
pub const APPENDED: &str = "annals_log_appended_total";
/// Appends that did not land: label `outcome` (`head-moved`, `not-written`, `unknown`).
pub const APPENDS_FAILED: &str = "annals_log_appends_failed_total";
/// Histogram: seconds that one batch took from being sent to being durable.
pub const APPEND_SECONDS: &str = "annals_log_append_seconds";
/// Reads answered from memory.
pub const READS_RECENT: &str = "annals_log_reads_recent_total";
/// Reads that asked the log itself.
pub const READS_STORED: &str = "annals_log_reads_stored_total";
/// Connections that were lost and made anew: label `task` (`appender`, `follower`, `notifier`).
pub const RECONNECTS: &str = "annals_log_reconnects_total";
/// Kafka: producer instances started, spare ones included.
pub const KAFKA_PRODUCERS_STARTED: &str = "annals_log_kafka_producers_started_total";
/// Kafka: producer instances that ended with a fatal error.
pub const KAFKA_PRODUCERS_FATAL: &str = "annals_log_kafka_producers_fatal_total";
/// Kafka, gauge: producer instances that run, retiring ones included.
pub const KAFKA_PRODUCERS: &str = "annals_log_kafka_producers";
/// Kafka: deliveries that came without an offset.
pub const KAFKA_DELIVERIES_WITHOUT_OFFSET: &str = "annals_log_kafka_deliveries_without_offset_total";
/// Kafka: deliveries that failed.
pub const KAFKA_DELIVERIES_FAILED: &str = "annals_log_kafka_deliveries_failed_total";
/// Kafka, gauge: bytes of appends under way.
pub const KAFKA_IN_FLIGHT_BYTES: &str = "annals_log_kafka_in_flight_bytes";
/// Kafka: reads that found another record than the one that was delivered, or read before, at an offset. An alarm.
pub const KAFKA_DELIVERED_OTHERWISE: &str = "annals_log_kafka_delivered_otherwise_total";
/// Kafka: offsets that were not the successor of the one before: label `shard`. An alarm.
pub const KAFKA_GAPS: &str = "annals_log_kafka_gaps_total";
/// Transactions of the indexer.
pub const INDEXER_COMMITS: &str = "annals_log_indexer_commits_total";
/// Rows that the indexer put into the journal.
pub const INDEXER_ROWS: &str = "annals_log_indexer_rows_total";
/// Things that the indexer tried again: reads, transactions.
pub const INDEXER_RETRIES: &str = "annals_log_indexer_retries_total";
/// Shards that the indexer stopped with. An alarm.
pub const INDEXER_STOPPED: &str = "annals_log_indexer_stopped_total";

/// The invariants of the log, by their ids in its design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// An acknowledged record is accepted by every later fold, at the acknowledged offset.
    L1,
    /// The accepted versions of a stream are 1 to n without gap or repeat.
    L2,
    /// At most one accepted record per stream and idempotency key while the key is remembered.
    L3,
    /// Two readers that folded to the same offset have the same head.
    L4,
    /// A refusal is decided on a state with every commit accepted before it, and none after.
    L5,
    /// No answer that depends on a stream's state is sent before the fold accepted its record.
    L6,
    /// Timestamps of accepted commits and refusals never fall within a shard.
    L7,
    /// A checkpoint never moves back, and moves only with the rows it stands for.
    L8,
    /// A changed, missing, added or moved byte of accepted history does not go unnoticed.
    L9,
}

impl Invariant {
    const ALL: [Self; 9] = [
        Self::L1,
        Self::L2,
        Self::L3,
        Self::L4,
        Self::L5,
        Self::L6,
        Self::L7,
        Self::L8,
        Self::L9,
    ];

    /// Shows the counters of all of them from the start on: an alarm cannot be set on what is not there.
    pub fn show_all() {
        for invariant in Self::ALL {
            metrics::counter!(INVARIANTS_BROKEN, "id" => invariant.id()).increment(0);
        }
    }

    /// Its id, as in the label.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
            Self::L5 => "L5",
            Self::L6 => "L6",
            Self::L7 => "L7",
            Self::L8 => "L8",
            Self::L9 => "L9",
        }
    }

    /// Counts that it was found broken.
    pub fn broken(self) {
        metrics::counter!(INVARIANTS_BROKEN, "id" => self.id()).increment(1);
    }
}

/// Counts a record that does not count.
pub fn ghost(kind: Ghost) {
    metrics::counter!(GHOSTS, "kind" => kind.as_str()).increment(1);
}

//! Names of what the Kafka log counts. Counters unless said otherwise.

/// Producer instances started.
pub(super) const PRODUCERS_STARTED: &str = "annals_log_kafka_producers_started_total";
/// Producer instances that ended with a fatal error.
pub(super) const PRODUCERS_FATAL: &str = "annals_log_kafka_producers_fatal_total";
/// Gauge: producer instances that run, retiring ones included.
pub(super) const PRODUCERS: &str = "annals_log_kafka_producers";
/// Deliveries that came without an offset.
pub(super) const DELIVERIES_WITHOUT_OFFSET: &str = "annals_log_kafka_deliveries_without_offset_total";
/// Deliveries that failed.
pub(super) const DELIVERIES_FAILED: &str = "annals_log_kafka_deliveries_failed_total";
/// Gauge: bytes of appends under way.
pub(super) const IN_FLIGHT_BYTES: &str = "annals_log_kafka_in_flight_bytes";
/// Times that a record was not the successor of the one before it: label `shard`.
pub(super) const GAPS: &str = "annals_log_kafka_gaps_total";
/// Reads behind what is kept of a shard, served by a consumer of their own.
pub(super) const CATCH_UP_READS: &str = "annals_log_kafka_catch_up_reads_total";

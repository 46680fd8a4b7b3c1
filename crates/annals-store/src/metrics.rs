//! Names of what this crate counts. All counters unless said otherwise.

/// Leases taken: labels `kind`. A take-over of an expired lease counts too.
pub const LEASES_ACQUIRED: &str = "annals_store_leases_acquired_total";
/// Leases that this node had and found in another's hands: label `kind`.
pub const LEASES_LOST: &str = "annals_store_leases_lost_total";
/// Leases given back: label `kind`.
pub const LEASES_RELEASED: &str = "annals_store_leases_released_total";
/// Rounds of notifications sent.
pub const NOTIFY_ROUNDS: &str = "annals_store_notify_rounds_total";
/// Notifications sent, after coalescing.
pub const NOTIFY_SENT: &str = "annals_store_notify_sent_total";
/// Channels whose dirty keys exceeded the bound and were replaced by one "read again".
pub const NOTIFY_OVERFLOWS: &str = "annals_store_notify_overflows_total";
/// Rounds that failed and were kept for the next connection.
pub const NOTIFY_FAILURES: &str = "annals_store_notify_failures_total";
/// Times a listener lost its connection and made a new one.
pub const LISTENER_RECONNECTS: &str = "annals_store_listener_reconnects_total";
/// Gauge: how far the local clock is ahead of the database's, in ms; negative if behind.
pub const CLOCK_OFFSET_MS: &str = "annals_store_clock_offset_ms";

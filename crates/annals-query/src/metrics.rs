//! Names of what is counted here. No label holds a key, a caller or a value.

/// Queries that ran a statement: label `resource`.
pub const STATEMENTS: &str = "annals_query_statements_total";
/// Answers from the cache: label `resource`. The hit ratio is hits / (hits + misses).
pub const CACHE_HITS: &str = "annals_query_cache_hits_total";
/// Answers that the cache did not have: label `resource`.
pub const CACHE_MISSES: &str = "annals_query_cache_misses_total";
/// Answers in the cache.
pub const CACHE_ENTRIES: &str = "annals_query_cache_entries";
/// What they take, bytes; bounded by `query.cache_bytes`.
pub const CACHE_BYTES: &str = "annals_query_cache_bytes";
/// Of all answers that the cache was asked for since the start, the part that it had, 0 to 1.
pub const CACHE_HIT_RATIO: &str = "annals_query_cache_hit_ratio";
/// Answers "not modified" that needed no database: label `resource`.
pub const NOT_MODIFIED: &str = "annals_query_not_modified_total";
/// Queries that waited for a position and did not see it in time.
pub const BEHIND: &str = "annals_query_behind_total";
/// Statements run again because another build had become live.
pub const BUILD_SWITCHES: &str = "annals_query_build_switches_total";
/// Connections that broke while no query ran on them; the query was run again on another.
pub const BROKEN_CONNECTIONS: &str = "annals_query_broken_connections_total";
/// Reads of all checkpoints by the freshness task.
pub const REFRESHES: &str = "annals_query_refreshes_total";
/// Reads of all checkpoints that failed.
pub const REFRESH_FAILURES: &str = "annals_query_refresh_failures_total";
/// Subscribers of live changes at this moment.
pub const LIVE_CONNECTIONS: &str = "annals_query_live_connections";
/// Subscriptions that began: label `how` is `new`, `exact` (resumed without a snapshot) or `snapshot` (resumed with one).
pub const LIVE_BEGINNINGS: &str = "annals_query_live_beginnings_total";
/// Events handed to subscribers.
pub const LIVE_EVENTS: &str = "annals_query_live_events_total";
/// Subscribers that were ended because they took events too slowly.
pub const LIVE_TOO_SLOW: &str = "annals_query_live_too_slow_total";
/// Readings of a feed's rows that failed and are tried again.
pub const LIVE_FAILURES: &str = "annals_query_live_failures_total";

//! Names of what is counted here. No label holds a key, a caller or a value.

/// Queries that ran a statement: label `resource`.
pub const STATEMENTS: &str = "annals_query_statements_total";
/// Answers from the cache: label `resource`. The hit ratio is hits / (hits + misses).
pub const CACHE_HITS: &str = "annals_query_cache_hits_total";
/// Answers that the cache did not have: label `resource`.
pub const CACHE_MISSES: &str = "annals_query_cache_misses_total";
/// Answers "not modified" that needed no database: label `resource`.
pub const NOT_MODIFIED: &str = "annals_query_not_modified_total";
/// Queries that waited for a position and did not see it in time.
pub const BEHIND: &str = "annals_query_behind_total";
/// Statements run again because another build had become live.
pub const BUILD_SWITCHES: &str = "annals_query_build_switches_total";
/// Reads of all checkpoints by the freshness task.
pub const REFRESHES: &str = "annals_query_refreshes_total";
/// Reads of all checkpoints that failed.
pub const REFRESH_FAILURES: &str = "annals_query_refresh_failures_total";

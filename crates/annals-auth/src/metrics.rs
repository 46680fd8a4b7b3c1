//! Names of what this crate counts. All counters.

/// Tokens verified with a signature check: label `outcome` (`ok`, or the reason of the refusal).
pub const TOKENS: &str = "annals_auth_tokens_total";
/// Tokens answered from the cache.
pub const TOKENS_CACHED: &str = "annals_auth_tokens_cached_total";
/// Key sets fetched or read anew: label `outcome` (`changed`, `same`, `failed`).
pub const KEY_REFRESHES: &str = "annals_auth_key_refreshes_total";
/// Keys of data subjects read from Postgres because they were not cached.
pub const SUBJECT_KEY_READS: &str = "annals_auth_subject_key_reads_total";
/// Keys of data subjects made.
pub const SUBJECT_KEYS_MADE: &str = "annals_auth_subject_keys_made_total";
/// Keys of data subjects destroyed.
pub const SUBJECT_KEYS_DESTROYED: &str = "annals_auth_subject_keys_destroyed_total";
/// Sealed values that did not open although their key is there: tampered with, or another key's.
pub const WRONG_SEALS: &str = "annals_auth_wrong_seals_total";
/// Security events: label `kind`.
pub const SECURITY_EVENTS: &str = "annals_auth_security_events_total";
/// Security events that were counted but not logged: label `kind`.
pub const SECURITY_SUPPRESSED: &str = "annals_auth_security_suppressed_total";

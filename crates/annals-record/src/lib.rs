//! Ids, record bytes, hashes and the fold: what a stranger needs to check a log.

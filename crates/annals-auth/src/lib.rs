//! Tokens to callers, policies to decisions, keys of data subjects.

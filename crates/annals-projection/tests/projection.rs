//! Read models on a real Postgres: builds, batches, parking, the runner, and the tests of commerce's own folders.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "projection/catalog.rs"]
mod catalog;
#[path = "projection/check.rs"]
mod check;

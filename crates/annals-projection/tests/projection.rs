//! Read models on a real Postgres: builds, batches, parking, the runner, and the tests of commerce's own folders.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

#[path = "projection/apply.rs"]
mod apply;
#[path = "projection/attest.rs"]
mod attest;
#[path = "projection/build.rs"]
mod build;
#[path = "projection/catalog.rs"]
mod catalog;
#[path = "projection/check.rs"]
mod check;
#[path = "projection/diff.rs"]
mod diff;
#[path = "projection/lifecycle.rs"]
mod lifecycle;
#[path = "projection/lineage.rs"]
mod lineage;
#[path = "projection/parking.rs"]
mod parking;
#[path = "projection/runner.rs"]
mod runner;
#[path = "projection/support.rs"]
mod support;
#[path = "projection/waves.rs"]
mod waves;

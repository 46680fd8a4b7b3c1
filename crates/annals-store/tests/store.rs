//! The store against a real Postgres: each test in a database of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "store/migrations.rs"]
mod migrations;

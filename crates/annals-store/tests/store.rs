//! The store against a real Postgres: each test in a database of its own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]
// Tests are composition roots: they read the environment and the clock.
#![allow(clippy::disallowed_methods)]

#[path = "store/clusters.rs"]
mod clusters;
#[path = "store/leases.rs"]
mod leases;
#[path = "store/migrations.rs"]
mod migrations;
#[path = "store/notifications.rs"]
mod notifications;
#[path = "store/pools.rs"]
mod pools;
#[path = "store/roles.rs"]
mod roles;

//! Queries on a real Postgres: tables and checkpoints as the projection engine makes them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs
)]

#[path = "query/follow.rs"]
mod follow;
#[path = "query/support.rs"]
mod support;

#[path = "query/bounds.rs"]
mod bounds;
#[path = "query/cache.rs"]
mod cache;
#[path = "query/commerce.rs"]
mod commerce;
#[path = "query/connections.rs"]
mod connections;
#[path = "query/freshness.rs"]
mod freshness;
#[path = "query/large.rs"]
mod large;
#[path = "query/live.rs"]
mod live;
#[path = "query/pages.rs"]
mod pages;
#[path = "query/replica.rs"]
mod replica;
#[path = "query/rows.rs"]
mod rows;

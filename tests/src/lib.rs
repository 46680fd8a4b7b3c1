//! System tests of Annals: the real program, started as a user starts it, asked over HTTP and by its own commands.
//!
//! In reading order: [`program`] (where the program is, running one of its commands), [`server`] (a server on free
//! ports with data of its own, ended by SIGTERM or SIGKILL), [`cluster`] (node roles in processes of their own), [`api`]
//! (requests and what every answer must be), [`follow`] (live changes), [`shop`] (what the tests do in the shop), [`load`] (a
//! kill in the middle of it), [`scan`] (searching all that was stored), [`kafka`] and [`leaders`] (brokers of a run's own; the log's tests have the same), [`fault`] (real
//! processes broken on purpose, and a checker). Apart from them stands [`simulation`], which needs no program.
//!
//! Requests are made by hand here and not by `annals-client`: most of these tests send what a good client never
//! would, and a test must not share its reading of the contract with what it tests. The client itself is driven
//! through the program's own commands.
//!
//! This library panics where a test would: it is compiled for tests only.

#![allow(
    clippy::disallowed_methods,
    reason = "programs from outside: they have no composition root to ask"
)]
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test's own words, and its end"
)]

pub mod api;
pub mod cluster;
pub mod fault;
pub mod follow;
#[path = "../../crates/annals-log/tests/kafka/cluster.rs"]
pub mod kafka;
#[path = "../../crates/annals-log/tests/kafka/leaders.rs"]
pub mod leaders;
pub mod load;
pub mod program;
pub mod scan;
pub mod server;
pub mod shop;
pub mod simulation;

pub use api::{Answer, Api, Call};
pub use server::{Home, Server, Shared};
pub use shop::Shop;

/// A name nobody else has: lets tests share a server.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::now_v7().simple())
}

/// A new UUID in its one form.
#[must_use]
pub fn uuid() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// 32 bytes that nobody else knows: a key. Files of keys may end with a line's end, so this one does not look like that.
#[must_use]
pub fn key() -> Vec<u8> {
    loop {
        let key = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()]
            .map(uuid::Uuid::into_bytes)
            .concat();
        if !key.first().is_some_and(u8::is_ascii_whitespace)
            && !key.last().is_some_and(u8::is_ascii_whitespace)
        {
            return key;
        }
    }
}

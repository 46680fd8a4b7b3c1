//! The Kafka log on a real broker. Skipped, with a line, where `ANNALS_TEST_KAFKA` names none.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::as_conversions,
    missing_docs,
    unreachable_pub
)]

mod kafka {
    mod broker;
    mod conformance;
    mod indexer;
    mod log;
    mod protocol;
    mod settings;
}
#[path = "log/domain.rs"]
mod domain;

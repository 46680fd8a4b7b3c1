//! Reader, checkpoints, logs and stores, on memory and on Postgres.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub)]

mod log {
    mod checkpoint;
    mod conformance;
    mod copy;
    mod domain;
    mod faulty;
    mod postgres;
    mod reader;
    mod streams;
}

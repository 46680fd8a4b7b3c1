//! The application builder: configuration, command line, telemetry, node roles, development mode.

#![allow(
    clippy::disallowed_methods,
    reason = "composition root: clocks, ids, settings and tasks are made here and handed down"
)]

pub mod config;

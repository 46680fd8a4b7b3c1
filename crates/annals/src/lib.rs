//! The application builder: configuration, command line, telemetry, node roles, development mode.
//!
//! In reading order: [`app`] (what a program says of itself), [`config`] (settings), [`cli`] (what can be typed),
//! `node` (the parts of a node and how they are put together), `dev` (everything in one process), `telemetry`,
//! `ambient` (time and randomness), [`exit`] (how a command ends).
//!
//! *Invariant:* nothing below depends on this crate; nothing here decides anything about records or domains.

#![allow(
    clippy::disallowed_methods,
    reason = "composition root: clocks, ids, settings and tasks are made here and handed down"
)]

mod ambient;
pub mod app;
pub mod cli;
pub mod config;
mod dev;
pub mod exit;
mod node;
mod telemetry;

pub use app::{App, DevService, Load, Request, Subcommand};
pub use cli::args::ClientArgs;
pub use cli::output::{Output, Progress};
pub use cli::session::Context;
pub use config::{ConfigError, Settings};
pub use exit::{Answer, Usage};

/// What a subcommand of the domain's own prints with.
pub use cli::output;

//! The one HTTP client: command line, benches, system tests, node to node.
//!
//! In reading order: [`client`] (one address, one source of tokens), [`command`] (one command), [`query`] (rows and
//! pages), [`batch`] (many commands in one request), [`response`] (what came back, problem documents), [`retry`]
//! (what is tried again, and how often), [`token`], [`peers`] (node to node).
//!
//! *Invariant:* no rule of a domain is here; and a command is only ever tried again under the same idempotency key.

pub mod batch;
pub mod client;
pub mod command;
pub mod error;
pub mod peers;
pub mod query;
pub mod response;
pub mod retry;
pub mod token;

pub use batch::{BatchLine, BatchResult};
pub use client::{Client, Settings};
pub use command::{Accepted, Command, EventRef, Precondition};
pub use error::Error;
pub use peers::{PeerError, Peers};
pub use query::{Page, Query};
pub use response::{Problem, Rejection, Response};
pub use retry::Retries;
pub use token::{Fixed, NoToken, Token, TokenSource};

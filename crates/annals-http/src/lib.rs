//! The edge: HTTP to typed calls, answers to HTTP.
//!
//! In reading order:
//!
//! - [`problem`]: every error that leaves the program, and the only place that names codes and statuses;
//! - [`scan`]: a look at a body's bytes before anything parses it;
//! - [`settings`], [`ports`]: the limits, and what the edge calls, as traits that the layers below satisfy;
//! - [`request`]: the request that a thread works on, for log lines;
//! - [`edge`]: one request from its head to its response, in the order in which requests are judged;
//! - `route`, `authenticate`, `body`: path and method, token, bytes;
//! - `command`, `batch`: commands, one and many;
//! - `query`: read models; `live`: their changes as they happen; `audit`: the auditors' routes;
//! - [`process`]: the same way for process managers;
//! - [`openapi`]: the description of all of that, made from the same tables;
//! - [`operations`]: the listener that is not public;
//! - [`serve`]: sockets, TLS, and their end in order.
//!
//! *Invariant:* no rule of a domain is here, and no error code is named outside [`problem`].

mod audit;
mod authenticate;
mod batch;
mod body;
mod command;
pub mod edge;
mod live;
pub mod metrics;
mod open;
pub mod openapi;
pub mod operations;
pub mod ports;
pub mod problem;
pub mod process;
mod query;
mod refusals;
mod reply;
pub mod request;
mod route;
pub mod scan;
pub mod serve;
pub mod settings;
mod target;

pub use authenticate::{CAUSATION, FORWARDED, NODE_TOKEN};
pub use edge::{Edge, Engine, Listener, Node, Parts};
pub use ports::{Audits, Commands, Peers, Place, Reads, Seal};
pub use problem::{Code, Problem};
pub use settings::Settings;

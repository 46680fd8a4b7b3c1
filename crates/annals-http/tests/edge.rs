//! The edge over ports that answer what a test says: every status, the order of judgement, batches, queries,
//! the description, sockets.

// Test code may unwrap; see clippy.toml.
#![allow(clippy::unwrap_used)]

#[path = "edge/auditors.rs"]
mod auditors;
#[path = "edge/bank.rs"]
mod bank;
#[path = "edge/batches.rs"]
mod batches;
#[path = "edge/commands.rs"]
mod commands;
#[path = "edge/description.rs"]
mod description;
#[path = "edge/harness.rs"]
mod harness;
#[path = "edge/live.rs"]
mod live;
#[path = "edge/nodes.rs"]
mod nodes;
#[path = "edge/operators.rs"]
mod operators;
#[path = "edge/order.rs"]
mod order;
#[path = "edge/queries.rs"]
mod queries;
#[path = "edge/refusals.rs"]
mod refusals;
#[path = "edge/sockets.rs"]
mod sockets;

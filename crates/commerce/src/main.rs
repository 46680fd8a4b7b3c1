//! The commerce backend.

#![allow(
    clippy::disallowed_methods,
    reason = "composition root: clocks, ids, settings and tasks are made here and handed down"
)]

fn main() {}

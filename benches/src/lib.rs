//! Benchmarks of Annals.

#![allow(
    clippy::disallowed_methods,
    reason = "programs from outside: they have no composition root to ask"
)]

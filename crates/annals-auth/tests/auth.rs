//! Tests of the whole crate from outside, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::as_conversions)]

#[path = "auth/policy.rs"]
mod policy;

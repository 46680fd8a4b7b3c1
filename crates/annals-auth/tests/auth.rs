//! Tests of the whole crate from outside, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::as_conversions)]

#[path = "auth/discovery.rs"]
mod discovery;
#[path = "auth/forge.rs"]
mod forge;
#[path = "auth/keys.rs"]
mod keys;
#[path = "auth/people.rs"]
mod people;
#[path = "auth/policy.rs"]
mod policy;
#[path = "auth/sealing.rs"]
mod sealing;
#[path = "auth/security.rs"]
mod security;
#[path = "auth/token.rs"]
mod token;

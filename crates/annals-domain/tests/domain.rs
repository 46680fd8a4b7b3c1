//! The crate as a domain sees it: derives, catalog and kit over a small shop.

// Test code may unwrap; see clippy.toml.
#![allow(clippy::unwrap_used)]

#[path = "domain/derive.rs"]
mod derive;
#[path = "domain/shop.rs"]
mod shop;

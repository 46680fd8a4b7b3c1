//! The crate as a domain sees it: derives, keys, catalog and kit over a small shop.

// Test code may unwrap and panic; see clippy.toml.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "domain/catalog.rs"]
mod catalog;
#[path = "domain/constrained.rs"]
mod constrained;
#[path = "domain/derive.rs"]
mod derive;
#[path = "domain/keys.rs"]
mod keys;
#[path = "domain/kit.rs"]
mod kit;
#[path = "domain/personal.rs"]
mod personal;
#[path = "domain/shop.rs"]
mod shop;
#[path = "domain/violations.rs"]
mod violations;

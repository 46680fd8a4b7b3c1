//! The record layer from outside: golden bytes, the grammar, the fold's table and its laws.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod fixture;
mod fold_laws;
mod fold_table;
mod golden;
mod grammar;
mod ids;
mod value;

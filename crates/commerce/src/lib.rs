//! A complete backend on Annals: products and stock, customers, orders, payments, checkout.
//!
//! | module | what it has |
//! |---|---|
//! | [`limits`], [`money`] | values with their limits |
//! | [`product`], [`customer`], [`order`], [`payment`] | the four aggregates: rules without I/O |
//! | [`checkout`] | the process that ties them together |
//! | [`gateway`] | what the checkout asks of the payment gateway, the way to it over HTTP, and the sandbox |
//! | [`demo`] | TPC-H as real commands: a client of this backend |
//! | [`program`] | the program around the domain: settings, subcommands, what `dev` starts, what `bench` sends |
//!
//! *Invariant:* nothing in the aggregates and in the process reads a clock, a setting or the world outside.

#![allow(
    clippy::disallowed_methods,
    reason = "composition root: clocks, ids, settings and tasks are made here and handed down"
)]

pub mod checkout;
pub mod customer;
pub mod demo;
#[cfg(test)]
mod fixture;
pub mod gateway;
pub mod limits;
pub mod money;
pub mod order;
pub mod payment;
pub mod product;
pub mod program;

use annals_domain::{Catalog, catalog};

/// The catalog of all four aggregates, for the app `commerce`.
pub fn catalog() -> catalog::Builder {
    Catalog::builder("commerce".try_into().expect("it is of the grammar of names"))
        .aggregate::<product::Product>()
        .aggregate::<customer::Customer>()
        .aggregate::<order::Order>()
        .aggregate::<payment::Payment>()
}

//! A complete backend on Annals: products and stock, customers, orders, payments, checkout.

#![allow(
    clippy::disallowed_methods,
    reason = "composition root: clocks, ids, settings and tasks are made here and handed down"
)]

//! A complete backend on Annals: products and stock, customers, orders, payments, checkout.

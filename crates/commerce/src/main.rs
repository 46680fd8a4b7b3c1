//! The commerce backend: what it is made of. Everything else is in the library.

#![allow(
    clippy::disallowed_methods,
    reason = "composition root: clocks, ids, settings and tasks are made here and handed down"
)]

use std::process::ExitCode;

use annals::App;
use commerce::checkout::Checkout;
use commerce::customer::Customer;
use commerce::gateway::{AuthorizePayment, TellGateway};
use commerce::order::Order;
use commerce::payment::Payment;
use commerce::product::Product;
use commerce::program::{self, Commerce, Demo};

/// Commands are small allocations, made in one thread and freed in another: the system's allocator took a fifth more CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    App::new("commerce")
        .about_text("A shop's backend: products and stock, customers, orders, payments, checkout")
        .aggregate::<Product>()
        .aggregate::<Customer>()
        .aggregate::<Order>()
        .aggregate::<Payment>()
        .section::<Commerce>()
        .process::<Checkout>(program::checkout)
        .effect(|settings| Ok(AuthorizePayment(program::gateway(settings)?)))
        .effect(|settings| Ok(TellGateway(program::gateway(settings)?)))
        .subcommand::<Demo>()
        .load(program::RECEIVE)
        .load(program::PLACE)
        .load(program::GET)
        .in_dev(program::sandbox)
        .run()
}

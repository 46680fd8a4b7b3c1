//! The commands that are sent: `products/receive` over some thousand products that were registered before.
//!
//! The aggregate is the reference backend's as far as these two commands go, with the same bytes in and out. It is
//! written here again so that the benchmarks without HTTP build without the whole backend; those with HTTP ask the
//! backend's own binary.

use std::sync::Arc;

use annals_domain::{
    Aggregate, Catalog, Command, CommandRequest, Context as Cx, Event, Owner, Rejection, ensure, text_key,
};
use anyhow::anyhow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::load::Requests;

text_key!(
    /// A stock keeping unit.
    pub struct Sku(max = 64);
);

/// What a piece costs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    amount: i64,
    currency: String,
}

/// A new product.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    name: String,
    price: Price,
}

/// Goods that came in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    quantity: i64,
    reference: String,
}

/// What a product can be asked.
#[derive(Debug, Clone, Command)]
pub enum ProductCommand {
    /// Registers it.
    Register(Registration),
    /// Takes in goods.
    Receive(Receipt),
}

/// What can have happened to it.
#[derive(Debug, Clone, Event)]
#[event(category = "product")]
pub enum ProductEvent {
    /// It is on sale.
    Registered(Registration),
    /// Goods came in.
    StockReceived(Receipt),
}

/// How it says no.
#[derive(Debug, Clone, Rejection)]
pub enum ProductRejection {
    /// There is such a product.
    AlreadyRegistered,
    /// There is no such product.
    UnknownProduct,
}

/// A product.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Product {
    price: Option<Price>,
    on_hand: i64,
}

impl Aggregate for Product {
    const CATEGORY: &'static str = "product";
    const RESOURCE: &'static str = "products";
    const REVISION: u32 = 1;
    type Key = Sku;
    type Command = ProductCommand;
    type Event = ProductEvent;
    type Rejection = ProductRejection;

    fn decide(
        &self,
        command: &ProductCommand,
        _: &Cx<'_, Self>,
    ) -> Result<Vec<ProductEvent>, ProductRejection> {
        match command {
            ProductCommand::Register(registration) => {
                ensure(self.price.is_none(), ProductRejection::AlreadyRegistered)?;
                Ok(vec![ProductEvent::Registered(registration.clone())])
            }
            ProductCommand::Receive(receipt) => {
                ensure(self.price.is_some(), ProductRejection::UnknownProduct)?;
                Ok(vec![ProductEvent::StockReceived(receipt.clone())])
            }
        }
    }

    fn evolve(&mut self, event: &ProductEvent) {
        match event {
            ProductEvent::Registered(registration) => self.price = Some(registration.price.clone()),
            ProductEvent::StockReceived(receipt) => self.on_hand += receipt.quantity,
        }
    }

    fn owner(&self, _: &Sku, _: &ProductCommand) -> Option<Owner> {
        None
    }
}

/// A catalog with products and nothing else, for the app `commerce`.
///
/// # Errors
/// If it contradicts itself.
pub fn catalog() -> anyhow::Result<Catalog> {
    let built = Catalog::builder("commerce".try_into()?)
        .aggregate::<Product>()
        .build();
    built.map_err(|error| anyhow!("{error}"))
}

/// How many products there are in the claims.
pub const PRODUCTS: u64 = 10_000;

/// A product's number of the n-th command: all of them in turn, in an order that jumps (the factor has no divisor in
/// common with a power of ten).
#[must_use]
pub fn product_of(n: u64, products: u64) -> u64 {
    n.wrapping_mul(7_919) % products
}

/// A product's key.
#[must_use]
pub fn sku(product: u64) -> String {
    format!("P{product:06}")
}

/// Registers the n-th product.
#[must_use]
pub fn registration(n: u64) -> String {
    format!(r#"{{"name":"Product {n}","price":{{"amount":1299,"currency":"USD"}}}}"#)
}

/// The body of the n-th receipt.
#[must_use]
pub fn receipt(n: u64) -> String {
    format!(r#"{{"quantity":{},"reference":"delivery-{n:08}"}}"#, n % 90 + 10)
}

/// HTTP requests of `POST /v1/products/{sku}/register`, one a product.
#[must_use]
pub fn register_over_http(token: &str) -> Requests {
    let token = token.to_owned();
    Arc::new(move |n, into| {
        post(
            into,
            &token,
            &sku(n),
            "register",
            &format!("register-{n}"),
            &registration(n),
        )
    })
}

/// HTTP requests of `POST /v1/products/{sku}/receive`. `run` tells the keys of one run from another's.
#[must_use]
pub fn receive_over_http(token: &str, run: &str, products: u64) -> Requests {
    let (token, run) = (token.to_owned(), run.to_owned());
    Arc::new(move |n, into| {
        let sku = sku(product_of(n, products));
        post(
            into,
            &token,
            &sku,
            "receive",
            &format!("{run}-{n:012}"),
            &receipt(n),
        );
    })
}

fn post(into: &mut Vec<u8>, token: &str, sku: &str, command: &str, key: &str, body: &str) {
    use std::io::Write;
    let written = write!(
        into,
        "POST /v1/products/{sku}/{command} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    written.expect("a vector takes any bytes");
}

/// A command as the edge hands it to the engine.
///
/// # Errors
/// If the catalog has no products, or the body is not one's.
pub fn request(
    catalog: &Catalog,
    sku: &str,
    command: &str,
    key: &str,
    body: &str,
) -> anyhow::Result<CommandRequest> {
    crate::request::request(catalog, "products", sku, command, key, body)
}

/// `count` receipts from the n-th on, ready to be sent.
///
/// # Errors
/// As [`request`].
pub fn receipts(catalog: &Catalog, n: u64, count: u64, products: u64) -> anyhow::Result<Vec<CommandRequest>> {
    let one = |n| {
        request(
            catalog,
            &sku(product_of(n, products)),
            "receive",
            &format!("receipt-{n:012}"),
            &receipt(n),
        )
    };
    (n..n + count).map(one).collect()
}

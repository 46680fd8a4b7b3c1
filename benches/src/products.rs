//! The commands that are sent: `products/receive` over some thousand products that were registered before.

use std::sync::Arc;

use annals_domain::{Caller, Catalog, CommandRequest, Permission, Precondition};
use annals_record::{Fingerprint, KeyHash, StreamId, hash};
use anyhow::{Context, anyhow};

use crate::load::Requests;

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
    let aggregate = catalog.resource("products").context("the catalog has products")?;
    let product = aggregate.parse_key(sku).map_err(|error| anyhow!("{error}"))?;
    let parsed = aggregate
        .parse(&product, command, body.as_bytes())
        .map_err(|error| anyhow!("{error:?}"))?;
    let data = parsed.canonical()?;
    let caller = Caller {
        sub: "bench".into(),
        roles: Arc::from(["clerk".into()]),
        owner: None,
    };
    let print = hash::sha256(&[caller.sub.as_bytes(), b"\0", command.as_bytes(), b"\0\0", &data].concat());
    Ok(CommandRequest {
        stream: StreamId::try_from(format!("product-{sku}").as_str())?,
        command: parsed,
        data: serde_json::from_slice(&data)?,
        fingerprint: Fingerprint::new(print),
        idempotency_key: KeyHash::of(key),
        precondition: Precondition::None,
        caller,
        permission: Permission::Allow,
        correlation: key.to_owned(),
        causation: None,
        traceparent: None,
        metadata: None,
    })
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

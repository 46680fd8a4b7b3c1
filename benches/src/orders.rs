//! The reference backend's own orders: placed, confirmed, shipped, one event each, through its own rules and codec.

use annals_domain::{Catalog, CommandRequest};
use anyhow::anyhow;

/// So many orders are placed before the first of them is confirmed, and confirmed before it is shipped: more than are
/// under way at once, so that each command finds what it needs.
const APART: u64 = 8_192;
/// Events of an order.
pub const EVENTS: u64 = 3;

/// The reference backend's catalog.
///
/// # Errors
/// If it contradicts itself.
pub fn catalog() -> anyhow::Result<Catalog> {
    commerce::catalog().build().map_err(|error| anyhow!("{error}"))
}

/// The commands of the orders from the `first` on, `EVENTS` for each, streams mixed as they are in a shop.
pub fn commands(
    catalog: &Catalog,
    first: u64,
    orders: u64,
) -> impl Iterator<Item = anyhow::Result<CommandRequest>> {
    let of_step = move |step: u64| {
        let of = move |back: u64| step.checked_sub(back * APART).filter(|order| *order < orders);
        let all = [(0, "place"), (1, "confirm"), (2, "ship")].into_iter();
        all.filter_map(move |(back, command)| Some((first + of(back)?, command)))
    };
    (0..orders + 2 * APART)
        .flat_map(of_step)
        .map(|(order, command)| request(catalog, order, command))
}

/// The order's key.
#[must_use]
pub fn key(order: u64) -> String {
    format!("0192f000-0001-7000-8000-{order:012x}")
}

/// One command as the edge hands it to the engine.
///
/// # Errors
/// If the catalog has no orders, or the body is not one's.
pub fn request(catalog: &Catalog, order: u64, command: &str) -> anyhow::Result<CommandRequest> {
    let body = match command {
        "place" => placement(order),
        "ship" => format!(r#"{{"carrier":"Post","tracking":"T{order}"}}"#),
        _ => "{}".to_owned(),
    };
    crate::request::request(catalog, "orders", &key(order), command, command, &body)
}

fn placement(order: u64) -> String {
    let (month, day, quantity) = (order % 12 + 1, order % 28 + 1, order % 5 + 1);
    let customer = order % 5_000;
    format!(
        r#"{{"customer":"0192f000-0002-7000-8000-{customer:012x}","currency":"USD","ordered_on":"2025-{month:02}-{day:02}","payment_method":"tok_ok","lines":[{{"sku":"P{:06}","quantity":{quantity},"unit_price":90100}},{{"sku":"P{:06}","quantity":1,"unit_price":5000}}]}}"#,
        order % 1_000,
        1_000 + order % 1_000
    )
}

//! What the body of `place` and `return` alone decides.

use annals_domain::kit::schema_agrees;

use super::*;
use crate::order::{Place, Return};

fn pointers(data: Value) -> Vec<String> {
    Order::check(&c("place", data))
        .into_iter()
        .map(|violation| violation.pointer)
        .collect()
}

fn line(sku: &str, quantity: i64, unit_price: i64) -> Value {
    json!({ "sku": sku, "quantity": quantity, "unit_price": unit_price })
}

fn with_lines(lines: Vec<Value>) -> Value {
    let mut data = place_data();
    data["lines"] = lines.into();
    data
}

fn with(field: &str, value: Value) -> Value {
    let mut data = place_data();
    data[field] = value;
    data
}

#[test]
fn lines_of_one_product_have_one_price() {
    assert_eq!(pointers(place_data()), Vec::<String>::new());
    let lines = vec![
        line("P1", 1, 5),
        line("P2", 1, 7),
        line("P1", 1, 6),
        line("P1", 1, 5),
        line("P1", 2, 4),
    ];
    assert_eq!(
        pointers(with_lines(lines)),
        ["/lines/2/unit_price", "/lines/4/unit_price"]
    );
}

#[test]
fn the_total_is_at_most_2_53_less_1() {
    const MOST: i64 = 9_007_199_254_740_991;
    let price = 100_000_000_000;
    // 90,071 pieces at 10^11, and the rest at 1 a piece.
    let rest = MOST - 90_071 * price;
    assert_eq!(rest, 99_254_740_991);
    let lines = |rest: i64| with_lines(vec![line("P1", 90_071, price), line("P2", 1, rest)]);
    assert_eq!(pointers(lines(rest)), Vec::<String>::new());
    assert_eq!(pointers(lines(rest + 1)), ["/lines"]);
    assert_eq!(
        pointers(with_lines(vec![line("P1", 1_000_000, price)])),
        ["/lines"]
    );
    assert_eq!(
        pointers(with_lines(vec![line("P1", 1_000_000, price); 100])),
        ["/lines"]
    );
}

#[test]
fn a_full_order_that_was_let_through_unchecked_does_not_panic() {
    let lines = vec![line("P1", 1_000_000, 100_000_000_000); 100];
    let answer = given::<Order>([])
        .when(c("place", with_lines(lines)))
        .answer()
        .unwrap();
    assert_eq!(answer.len(), 1);
}

#[test]
fn the_schema_of_place_agrees_with_its_parser() {
    let without = |field: &str| {
        let mut data = place_data();
        data.as_object_mut().unwrap().remove(field);
        data
    };
    schema_agrees::<Place>([
        place_data(),
        without("ordered_on"),
        with("ordered_on", json!(null)),
        without("customer"),
        without("currency"),
        without("payment_method"),
        without("lines"),
        with("ordered_on", json!("2023-02-29")),
        with("currency", json!("usd")),
        with("payment_method", json!("x".repeat(64))),
        with("payment_method", json!("x".repeat(65))),
        with("note", json!("hello")),
        with("customer", json!("nobody")),
        with_lines(vec![]),
        with_lines(vec![line("P1", 1, 0); 100]),
        with_lines(vec![line("P1", 1, 0); 101]),
        with_lines(vec![line("P 1", 1, 0)]),
        with_lines(vec![line(&"x".repeat(65), 1, 0)]),
        with_lines(vec![line("P1", 0, 0)]),
        with_lines(vec![line("P1", 1_000_000, 100_000_000_000)]),
        with_lines(vec![line("P1", 1_000_001, 0)]),
        with_lines(vec![line("P1", 1, -1)]),
        with_lines(vec![line("P1", 1, 100_000_000_001)]),
        with_lines(vec![json!({ "sku": "P1", "quantity": 1 })]),
        with_lines(vec![
            json!({ "sku": "P1", "quantity": 1, "unit_price": 1, "discount": 1 }),
        ]),
    ]);
}

#[test]
fn the_schema_of_return_agrees_with_its_parser() {
    let of = |lines: Value| json!({ "reason": "broken", "lines": lines });
    schema_agrees::<Return>([
        of(json!([{ "line": 1, "quantity": 1 }])),
        of(json!([{ "line": 0, "quantity": 1 }])),
        of(json!([{ "line": 1, "quantity": 0 }])),
        of(json!([{ "line": 1 }])),
        of(json!([])),
        json!({ "lines": [{ "line": 1, "quantity": 1 }] }),
        json!({ "reason": "", "lines": [{ "line": 1, "quantity": 1 }] }),
    ]);
}

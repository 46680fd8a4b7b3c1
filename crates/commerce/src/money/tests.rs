//! Money never leaves its range and never mixes currencies.

use annals_domain::kit::schema_agrees;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::limits::MAX_AMOUNT;

fn money(amount: i64, currency: &str) -> Money {
    serde_json::from_value(json!({ "amount": amount, "currency": currency })).unwrap()
}

fn amount(value: i64) -> Amount {
    Amount::new(value).unwrap()
}

#[test]
fn a_currency_is_three_capital_letters() {
    let codes = ["USD", "EUR", "usd", "US", "USDX", "U$D", "ÄBC", ""];
    schema_agrees::<Currency>(codes.map(Value::from).into_iter().chain([json!(840)]));
}

#[test]
fn money_is_an_amount_and_a_currency_and_nothing_else() {
    schema_agrees::<Money>([
        json!({ "amount": 0, "currency": "USD" }),
        json!({ "amount": MAX_AMOUNT, "currency": "USD" }),
        json!({ "amount": MAX_AMOUNT + 1, "currency": "USD" }),
        json!({ "amount": -1, "currency": "USD" }),
        json!({ "amount": 1 }),
        json!({ "currency": "USD" }),
        json!({ "amount": 1, "currency": "USD", "scale": 2 }),
        json!({ "amount": "1", "currency": "USD" }),
    ]);
    schema_agrees::<Price>([
        json!({ "amount": 100_000_000_000_i64, "currency": "USD" }),
        json!({ "amount": 100_000_000_001_i64, "currency": "USD" }),
    ]);
}

#[test]
fn sums_end_at_the_limit() {
    assert_eq!(checked_sum([]), Some(amount(0)));
    assert_eq!(
        checked_sum([amount(MAX_AMOUNT - 1), amount(1)]),
        Some(amount(MAX_AMOUNT))
    );
    assert_eq!(checked_sum([amount(MAX_AMOUNT), amount(1)]), None);
    assert_eq!(
        checked_sum(vec![amount(MAX_AMOUNT); 5_000]),
        None,
        "beyond 64 bits too"
    );
}

#[test]
fn a_line_ends_at_the_limit() {
    let product = |quantity, price| {
        checked_product(
            LineQuantity::new(quantity).unwrap(),
            UnitPrice::new(price).unwrap(),
        )
    };
    assert_eq!(product(3, 90_100), Some(amount(270_300)));
    assert_eq!(
        product(90_071, 100_000_000_000),
        Some(amount(9_007_100_000_000_000))
    );
    assert_eq!(product(90_072, 100_000_000_000), None);
    assert_eq!(product(1_000_000, 100_000_000_000), None);
}

#[test]
fn currencies_do_not_mix() {
    assert_eq!(money(5, "USD").checked_add(money(5, "EUR")), None);
    assert_eq!(money(5, "USD").checked_sub(money(5, "EUR")), None);
    assert_eq!(money(5, "USD").checked_sub(money(6, "USD")), None);
    assert_eq!(
        money(5, "USD").checked_sub(money(5, "USD")),
        Some(Money::zero(Currency::new("USD").unwrap()))
    );
}

proptest! {
    #[test]
    fn adding_and_taking_away_is_as_before(a in 0..=MAX_AMOUNT, b in 0..=MAX_AMOUNT) {
        let (a, b) = (money(a, "USD"), money(b, "USD"));
        match a.checked_add(b) {
            Some(sum) => prop_assert_eq!(sum.checked_sub(b), Some(a)),
            None => prop_assert!(a.amount.get() + b.amount.get() > MAX_AMOUNT),
        }
    }
}

//! Each limit on both sides: what the schema accepts parses, and the reverse.

use annals_domain::kit::schema_agrees;
use serde_json::{Value, json};

use super::*;

fn texts(max: usize) -> Vec<Value> {
    let long = |n| Value::from("ä".repeat(n));
    vec![
        json!(""),
        json!("x"),
        long(max),
        long(max + 1),
        json!(1),
        json!(null),
    ]
}

fn numbers(min: i64, max: i64) -> Vec<Value> {
    vec![
        json!(min - 1),
        json!(min),
        json!(max),
        json!(max + 1),
        json!("1"),
        json!(1.5),
        json!(null),
    ]
}

#[test]
fn texts_are_never_empty_and_end_at_their_limit() {
    schema_agrees::<Name>(texts(200));
    schema_agrees::<Email>(texts(254));
    schema_agrees::<Address>(texts(500));
    schema_agrees::<Reason>(texts(500));
    schema_agrees::<Reference>(texts(100));
    schema_agrees::<Carrier>(texts(100));
    schema_agrees::<Tracking>(texts(100));
    schema_agrees::<PaymentMethod>(texts(64));
}

#[test]
fn numbers_end_at_their_limits() {
    schema_agrees::<LineQuantity>(numbers(1, 1_000_000));
    schema_agrees::<ReserveQuantity>(numbers(1, 100_000_000));
    schema_agrees::<ReceiptQuantity>(numbers(1, 1_000_000_000));
    schema_agrees::<Delta>(numbers(-1_000_000_000, 1_000_000_000));
    schema_agrees::<UnitPrice>(numbers(0, 100_000_000_000));
    schema_agrees::<Amount>(numbers(0, 9_007_199_254_740_991));
    schema_agrees::<LineNumber>(numbers(1, 9_007_199_254_740_991));
}

#[test]
fn a_sku_is_a_key_of_at_most_64_characters() {
    let candidates = ["P000001", "a.b_c~d-E", "", "P 1", "P/1", "ä", "a@b"];
    let long = |n| Value::from("x".repeat(n));
    schema_agrees::<Sku>(
        candidates
            .map(Value::from)
            .into_iter()
            .chain([long(64), long(65), json!(1)]),
    );
}

#[test]
fn ids_are_uuids_of_any_version() {
    schema_agrees::<OrderId>([
        json!("0192f1c0-0000-7000-8000-000000000001"),
        json!("2B1E4C3A-9F41-4E6B-8C55-9C1F4B1A7C10"),
        json!("not-a-uuid"),
        json!(7),
    ]);
}

#[test]
fn a_day_has_one_form_and_a_year_of_four_digits() {
    let days = [
        "1996-01-02",
        "0001-01-01",
        "9999-12-31",
        "2024-02-29",
        "2023-02-29",
        "0000-01-01",
        "1996-1-2",
        "+1996-01-02",
        " 1996-01-02",
        "1996-01-02T00:00:00Z",
        "19960102",
        "10000-01-01",
        "1996-13-01",
        "",
    ];
    schema_agrees::<Day>(days.map(Value::from).into_iter().chain([json!(19_960_102)]));
    let far = NaiveDate::from_ymd_opt(12_345, 6, 7).unwrap();
    assert!(Day::new(far).is_err());
    assert_eq!(Day::nearest(far).to_string(), "9999-12-31");
    assert_eq!(Day::nearest(NaiveDate::MIN).to_string(), "0001-01-01");
}

#[test]
fn lists_have_1_to_100_items() {
    let list = |n: usize| Value::from(vec![json!("r"); n]);
    schema_agrees::<Lines<Reason>>([list(0), list(1), list(100), list(101), json!("r"), json!([1])]);
}

#[test]
fn a_reason_of_the_program_is_cut_to_its_limit() {
    assert_eq!(reason("timeout").as_str(), "timeout");
    assert_eq!(reason(&"x".repeat(501)).as_str().len(), 500);
    assert_eq!(reason("").as_str(), "unspecified");
}

#[test]
fn clamping_keeps_what_is_within() {
    assert_eq!(clamped::<1, 9>(i128::MIN).get(), 1);
    assert_eq!(clamped::<1, 9>(5).get(), 5);
    assert_eq!(clamped::<1, 9>(i128::MAX).get(), 9);
}

//! Limits in types: what the schema accepts parses, and what parses the schema accepts.

use annals_domain::kit::schema_agrees;
use annals_domain::{Bounded, Empty, Text};
use proptest::prelude::*;
use serde_json::{Value, json};

fn number(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_integer_reads_in_every_spelling_and_writes_in_one() {
    for text in ["3", "3.0", "3e0", "0.3e1", "30e-1"] {
        let read: Bounded<1, 10> = serde_json::from_str(text).unwrap();
        assert_eq!(
            (read.get(), serde_json::to_string(&read).unwrap()),
            (3, "3".to_owned()),
            "{text}"
        );
    }
    assert_eq!(serde_json::from_str::<Bounded<-1, 1>>("-0.0").unwrap().get(), 0);
}

#[test]
fn an_integer_parses_exactly_what_its_schema_accepts() {
    let candidates = [
        "0",
        "1",
        "1.0",
        "0.99",
        "1.5",
        "10",
        "10.0",
        "11",
        "1e1",
        "1e2",
        "1e300",
        "-1",
        "-1e300",
        "-0.0",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "1e19",
    ];
    let candidates = candidates.iter().map(|text| number(text));
    schema_agrees::<Bounded<1, 10>>(candidates.chain([json!("3"), json!([3]), Value::Null, json!(true)]));
}

#[test]
fn the_largest_integers_are_exact() {
    const MAX: i64 = (1 << 53) - 1;
    type Whole = Bounded<{ -MAX }, MAX>;
    for text in ["9007199254740991", "9007199254740991.0", "-9007199254740991.0"] {
        let read: Whole = serde_json::from_str(text).unwrap();
        assert_eq!(read.get().abs(), MAX, "{text}");
    }
    assert!(serde_json::from_str::<Whole>("9007199254740992.0").is_err());
    assert!(serde_json::from_str::<Whole>("-9007199254740993").is_err());
}

#[test]
fn a_text_parses_exactly_what_its_schema_accepts() {
    let candidates = [
        "",
        "a",
        "äöü",
        "🦀🦀🦀",
        "🦀🦀🦀🦀",
        "e\u{301}e\u{301}",
        "abcd",
        " ",
        "\u{0}",
    ];
    schema_agrees::<Text<3>>(candidates.iter().map(|text| json!(text)).chain([
        json!(3),
        Value::Null,
        json!(["a"]),
    ]));
}

#[test]
fn empty_data_are_an_object_without_fields() {
    schema_agrees::<Empty>([json!({}), json!({"a": 1}), Value::Null, json!("")]);
}

proptest! {
    #[test]
    fn any_number_is_within_bounds_to_both_or_to_neither(n in any::<i64>(), f in any::<f64>(), near in -12.0..12.0_f64) {
        schema_agrees::<Bounded<-10, 10>>([json!(0), json!(""), json!(n), json!(n % 20), json!(f), json!(near), json!(near.round())]);
    }

    #[test]
    fn any_text_has_its_length_to_both_or_to_neither(text in any::<String>(), short in ".{0,6}") {
        schema_agrees::<Text<5>>([json!("a"), json!(""), json!(text), json!(short)]);
    }
}

//! What is wrong with a body: every violation, at its place, in words, and without the values sent.

use annals_domain::catalog::ParseError;
use annals_domain::{Catalog, Violation};
use annals_record::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::catalog::{KEY, shop};

fn violations_of(command: &str, body: &[u8]) -> Vec<(String, String)> {
    let catalog: Catalog = shop();
    let key = Key::try_from(KEY).unwrap();
    let parsed = catalog.resource("orders").unwrap().parse(&key, command, body);
    let Err(ParseError::Invalid(violations)) = parsed else {
        panic!("{parsed:?} is not invalid")
    };
    violations
        .into_iter()
        .map(|Violation { pointer, message }| (pointer, message))
        .collect()
}

/// One valid body, changed.
fn place(change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
    let mut body = json!({"sku": "a", "quantity": 1, "customer": KEY});
    change(&mut body);
    violations_of("place", body.to_string().as_bytes())
}

fn one(pointer: &str, message: &str) -> Vec<(String, String)> {
    vec![(pointer.to_owned(), message.to_owned())]
}

#[test]
fn a_missing_field_is_reported_at_its_object() {
    assert_eq!(
        place(|b| drop(b.as_object_mut().unwrap().remove("sku"))),
        one("", "lacks the field `sku`")
    );
}

#[test]
fn an_unknown_field_is_reported_at_itself() {
    assert_eq!(
        place(|b| b["a/b~c"] = json!(1)),
        one("/a~1b~0c", "is not a known field")
    );
    assert_eq!(
        violations_of("confirm", br#"{"x": 1}"#),
        one("/x", "is not a known field")
    );
    let long = place(|b| b["x".repeat(129)] = json!(1));
    assert_eq!(long, one("", "has an unknown field with a long name"));
}

#[test]
fn a_wrong_type_says_the_right_one() {
    assert_eq!(
        place(|b| b["quantity"] = json!("5551234")),
        one("/quantity", "must be an integer")
    );
    assert_eq!(
        place(|b| b["quantity"] = json!(1.5)),
        one("/quantity", "must be an integer")
    );
    assert_eq!(
        place(|b| b["note"] = json!(5_551_234)),
        one("/note", "must be a string or null")
    );
    assert_eq!(violations_of("place", b"[]"), one("", "must be an object"));
}

#[test]
fn a_value_out_of_bounds_says_the_bound() {
    assert_eq!(
        place(|b| b["quantity"] = json!(0)),
        one("/quantity", "must be at least 1")
    );
    assert_eq!(
        place(|b| b["quantity"] = json!(5_551_234)),
        one("/quantity", "must be at most 1000")
    );
    assert_eq!(
        place(|b| b["sku"] = json!("a b")),
        one("/sku", "must match `^[A-Za-z0-9._~-]+$`")
    );
    assert_eq!(
        place(|b| b["tags"] = json!(["a", ""])),
        one("/tags/1", "must not be empty")
    );
    assert_eq!(
        place(|b| b["tags"] = json!(["555123"])),
        one("/tags/0", "must have at most 5 characters")
    );
    assert_eq!(
        place(|b| b["customer"] = json!("5551234")),
        one("/customer", "must be a UUID with hyphens")
    );
}

#[test]
fn everything_that_is_wrong_is_listed_at_once() {
    let found =
        place(|b| *b = json!({"quantity": 0, "customer": 5_551_234, "note": "", "tags": 1, "extra": 1}));
    let mut places: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
    places.sort_unstable();
    assert_eq!(places, ["", "/customer", "/extra", "/note", "/quantity", "/tags"]);
    let many = place(|b| b["tags"] = (0..200).map(|_| json!("")).collect());
    assert_eq!(many.len(), 50, "and no more than anybody reads");
}

#[test]
fn a_contradiction_is_reported_by_the_aggregate() {
    assert_eq!(
        place(|b| b["tags"] = json!(["a", "b", "c"])),
        one("/tags", "must have at most 2 items")
    );
}

#[test]
fn what_the_parser_alone_refuses_is_placed_but_not_quoted() {
    let twice = br#"{"sku": "a", "quantity": 1, "customer": "x", "sku": "5551234"}"#;
    let found = violations_of("place", &twice[..]);
    assert!(
        found.iter().all(|(_, message)| !message.contains("5551234")),
        "{found:?}"
    );
    let body = format!(r#"{{"sku":"a","sku":"5551234","quantity":1,"customer":"{KEY}"}}"#);
    let found = violations_of("place", body.as_bytes());
    assert_eq!(
        found,
        one(
            "",
            "has a value that is not allowed there, or a field twice (line 1, column 16)"
        )
    );
    assert_eq!(
        violations_of("place", b"{")[0].1,
        "is not JSON (line 1, column 1)"
    );
}

#[test]
fn no_message_repeats_what_was_sent() {
    const SECRET: &str = "5551234";
    for value in [
        json!(SECRET),
        json!(5_551_234),
        json!(-5_551_234.5),
        json!([SECRET]),
        json!({"x": SECRET}),
        json!(format!("{SECRET} \u{0}").repeat(40)),
    ] {
        for field in ["sku", "quantity", "customer", "note", "tags", "extra"] {
            let mut body = json!({"sku": "a", "quantity": 1, "customer": KEY});
            body[field] = value.clone();
            let parsed = parse("place", &body);
            let Err(ParseError::Invalid(violations)) = parsed else {
                continue;
            };
            assert!(!violations.is_empty());
            for violation in violations {
                assert!(!violation.message.contains(SECRET), "{field}: {violation:?}");
                assert!(!violation.pointer.contains(SECRET), "{field}: {violation:?}");
            }
        }
    }
}

fn parse(command: &str, body: &Value) -> Result<(), ParseError> {
    let key = Key::try_from(KEY).unwrap();
    let catalog = shop();
    let order = catalog.resource("orders").unwrap();
    order.parse(&key, command, body.to_string().as_bytes()).map(drop)
}

/// How somebody pays: forms that a tag tells apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Payment {
    Card { number: annals_domain::Text<4> },
    Cash { amount: annals_domain::Bounded<1, 9> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pay {
    pub(crate) with: Payment,
    pub(crate) currency: Currency,
    pub(crate) tip: Option<Tip>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tip {
    pub(crate) amount: annals_domain::Bounded<1, 9>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Currency {
    #[serde(rename = "EUR")]
    Euro,
    #[serde(rename = "USD")]
    Dollar,
}

/// As [`place`], of a command with alternatives in it.
fn pay(change: impl FnOnce(&mut Value)) -> Vec<(String, String)> {
    let mut body = json!({"with": {"by": "card", "number": "1"}, "currency": "EUR"});
    change(&mut body);
    violations_of("pay", body.to_string().as_bytes())
}

#[test]
fn of_several_forms_the_one_that_was_meant_is_explained() {
    assert_eq!(
        pay(|b| b["with"]["number"] = json!("")),
        one("/with/number", "must not be empty")
    );
    assert_eq!(
        pay(|b| b["with"] = json!({"by": "cash"})),
        one("/with", "lacks the field `amount`")
    );
    assert_eq!(
        pay(|b| b["with"]["by"] = json!("555")),
        one("/with/by", r#"must be one of "card", "cash""#)
    );
    assert_eq!(
        pay(|b| b["currency"] = json!("XXX")),
        one("/currency", r#"must be one of "EUR", "USD""#)
    );
    assert_eq!(
        pay(|b| b["tip"] = json!({"amount": 0})),
        one("/tip/amount", "must be at least 1")
    );
    assert_eq!(
        pay(|b| b["tip"] = json!({"amount": 1, "x": 1})),
        one("/tip/x", "is not a known field")
    );
}

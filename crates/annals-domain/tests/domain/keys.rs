//! Keys: one form each, the same in paths, data and schemas.

use annals_domain::kit::schema_agrees;
use annals_domain::{AggregateKey, Owner, ProcessId};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::shop::{OrderId, Sku};

const UPPER: &str = "0192F1C0-0000-7000-8000-00000000000A";

#[test]
fn a_uuid_key_has_one_form() {
    let id = OrderId::parse(UPPER).unwrap();
    assert_eq!(id.to_key().as_str(), UPPER.to_ascii_lowercase());
    assert_eq!(id.to_string(), UPPER.to_ascii_lowercase());
    assert_eq!(
        serde_json::to_value(id).unwrap(),
        json!(UPPER.to_ascii_lowercase())
    );
    assert_eq!(format!("{id:?}"), format!("OrderId({id})"));
    assert_eq!(OrderId::from_text(&id.to_text()), Some(id));
    assert_eq!(OrderId::made_from(Uuid::nil()), Some(OrderId::new(Uuid::nil())));
    assert_eq!(OrderId::new(id.get()), id);
    assert_eq!(Owner::from(id).as_str(), UPPER.to_ascii_lowercase());
    assert_eq!(Owner::from(&id), Owner::from(id));
}

#[test]
fn other_spellings_of_a_uuid_are_no_key() {
    for text in [
        "",
        "x",
        "0192f1c0000070008000000000000001",
        "{0192f1c0-0000-7000-8000-000000000001}",
        "urn:uuid:0192f1c0-0000-7000-8000-000000000001",
        "0192f1c0-0000-7000-8000-00000000000g",
        "0192f1c00-000-7000-8000-000000000001",
    ] {
        let error = OrderId::parse(text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a UUID with hyphens is expected as the key",
            "{text:?}"
        );
    }
}

#[test]
fn a_text_key_is_of_the_grammar_of_keys_and_has_its_length() {
    let longest = "a".repeat(64);
    assert_eq!(Sku::parse(&longest).unwrap().as_str(), longest);
    for text in ["", "a b", "ä", "a/b", &"a".repeat(65)] {
        assert!(Sku::parse(text).is_err(), "{text:?}");
    }
    assert_eq!(Sku::made_from(Uuid::nil()), None);
    assert_eq!("A.b_c~d-1".parse::<Sku>().unwrap().to_key().as_str(), "A.b_c~d-1");
}

#[test]
fn a_key_in_data_reads_what_its_schema_accepts() {
    let candidates = || {
        [
            json!(UPPER),
            json!(UPPER.to_ascii_lowercase()),
            json!(UPPER.replace('-', "")),
            json!(7),
            Value::Null,
        ]
    };
    schema_agrees::<OrderId>(candidates());
    schema_agrees::<Sku>([
        json!("a"),
        json!(""),
        json!("a".repeat(64)),
        json!("a".repeat(65)),
        json!("a b\n"),
    ]);
    schema_agrees::<Sku>([json!("a\n"), json!("\na"), json!("a")]);
}

proptest! {
    #[test]
    fn any_text_is_a_uuid_to_both_or_to_neither(text in "[0-9a-fA-F]{8}-?[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-g]{4}-[0-9a-f]{11,12}") {
        schema_agrees::<OrderId>([json!(UPPER), json!(""), json!(text)]);
    }

    #[test]
    fn any_text_is_a_sku_to_both_or_to_neither(text in any::<String>()) {
        schema_agrees::<Sku>([json!("a"), json!(""), json!(text)]);
    }
}

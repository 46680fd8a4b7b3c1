//! Personal fields on their way: plain from the client, in the clear for the fingerprint, sealed in the record.

use std::rc::Rc;

use annals_domain::personal::{self, Sealer, in_the_clear, sealing};
use annals_domain::{Catalog, DataSubject};
use annals_record::{Key, Version};
use chrono::DateTime;
use serde_json::json;

use crate::catalog::{KEY, shop};

struct Reversed;

impl Sealer for Reversed {
    fn seal(&self, plain: &str) -> Option<String> {
        Some(plain.chars().rev().collect())
    }
}

#[test]
fn a_personal_field_is_sealed_before_any_record_and_rules_carry_it_unread() {
    let shop: Catalog = shop();
    let order = shop.resource("orders").unwrap();
    let key = Key::try_from(KEY).unwrap();
    let body = json!({"sku": "a", "quantity": 1, "customer": KEY, "note": "Ada", "tags": []});
    let parsed = order.parse(&key, "place", body.to_string().as_bytes()).unwrap();
    assert_eq!(
        order.data_subject(&parsed),
        DataSubject::from_text(&format!("order-{KEY}"))
    );

    assert!(
        parsed.canonical().is_err(),
        "outside a scope nothing plain is written"
    );
    let clear = in_the_clear(|| parsed.canonical()).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&clear).unwrap(), body);
    let sealed = sealing(Rc::new(Reversed), || parsed.canonical()).unwrap();
    let expected =
        format!(r#"{{"customer":"{KEY}","note":{{"personal":"\"adA\""}},"quantity":1,"sku":"a","tags":[]}}"#);
    assert_eq!(sealed, expected);

    let stored = order.read_stored(&key, "place", &sealed).unwrap();
    assert_eq!(stored.canonical().unwrap(), sealed);
    let time = DateTime::from_timestamp_millis(0).unwrap();
    let mut state = order.initial();
    let events = state.decide(&stored, time, Version::new(0)).unwrap().unwrap();
    assert!(events[0].data.get().contains(r#""note":{"personal":"\"adA\""}"#));
    let unsealed = order.initial().decide(&parsed, time, Version::new(0));
    assert!(unsealed.is_err(), "an event with a plain value cannot be written");
}

#[test]
fn a_client_sends_personal_fields_plain_and_records_hold_them_sealed() {
    let shop = shop();
    let order = shop.resource("orders").unwrap();
    let key = Key::try_from(KEY).unwrap();
    let with = |note: serde_json::Value| {
        json!({"sku": "a", "quantity": 1, "customer": KEY, "note": note}).to_string()
    };
    assert!(
        order
            .parse(&key, "place", with(json!({"personal": "x"})).as_bytes())
            .is_err()
    );
    assert!(
        order
            .parse(&key, "place", with(json!({"erased": true})).as_bytes())
            .is_err()
    );
    assert!(
        order
            .read_stored(&key, "place", with(json!("Ada")).as_bytes())
            .is_err()
    );
    let erased = order
        .read_stored(&key, "place", with(json!({"erased": true})).as_bytes())
        .unwrap();
    assert!(personal::occurs_in(&order.command("place").unwrap().schema));
    assert!(
        String::from_utf8(erased.canonical().unwrap().to_vec())
            .unwrap()
            .contains(r#""note":{"erased":true}"#)
    );
}

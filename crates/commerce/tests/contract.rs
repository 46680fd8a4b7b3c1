//! The names of the commerce domain, as the world outside knows them, and its histories as they were once written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use annals_domain::kit::{Update, check_histories};
use annals_domain::{Aggregate, Catalog, catalog::ParseError};
use annals_record::Key;
use commerce::{customer::Customer, order::Order, payment::Payment, product::Product};
use serde_json::{Value, json};

const ORDER: &str = "0192f1c0-0000-7000-8000-000000000001";

fn catalog() -> Catalog {
    commerce::catalog().build().unwrap()
}

/// Resource, commands, events, rejections, commands that need no key: the table of the domain's contract.
const TABLE: [(&str, &str, &str, &str, &str, &str); 4] = [
    (
        "products",
        "product",
        "register reprice receive adjust reserve release ship discontinue reinstate",
        "registered repriced stock_received stock_adjusted stock_reserved reservation_released stock_shipped \
         discontinued reinstated",
        "already_registered unknown_product discontinued not_discontinued currency_differs price_changed \
         out_of_stock reservation_differs no_such_reservation below_reserved",
        "",
    ),
    (
        "customers",
        "customer",
        "register change-contact admit block unblock erase",
        "registered contact_changed order_admitted blocked unblocked erased",
        "already_registered unknown_customer blocked not_blocked erased currency_differs",
        "register",
    ),
    (
        "orders",
        "order",
        "place confirm reject cancel ship deliver return",
        "placed confirmed rejected cancelled shipped delivered returned",
        "already_placed unknown_order date_in_future wrong_status no_such_line return_exceeds_order",
        "place",
    ),
    (
        "payments",
        "payment",
        "request authorize decline capture void refund",
        "requested authorized declined captured voided refunded",
        "already_requested unknown_payment wrong_status currency_differs exceeds_captured",
        "",
    ),
];

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

#[test]
fn has_the_names_of_its_contract_and_no_others() {
    let catalog = catalog();
    assert_eq!(catalog.aggregates().count(), TABLE.len());
    for (resource, category, commands, events, rejections, keyless) in TABLE {
        let aggregate = catalog.resource(resource).unwrap();
        assert_eq!(aggregate.category().as_str(), category);
        let names: BTreeSet<_> = aggregate.commands().map(|c| c.command.name).collect();
        assert_eq!(names, words(commands), "{resource}");
        assert_eq!(
            aggregate.rejections().iter().copied().collect::<BTreeSet<_>>(),
            words(rejections)
        );
        let prefix = format!("{category}.");
        let types: BTreeSet<_> = catalog
            .events()
            .filter_map(|e| e.name.strip_prefix(&prefix))
            .collect();
        assert_eq!(types, words(events), "{resource}");
        let without_key: BTreeSet<_> = names
            .into_iter()
            .filter(|name| aggregate.is_keyless(name))
            .collect();
        assert_eq!(without_key, words(keyless), "{resource}");
    }
}

#[test]
fn only_products_have_keys_that_are_no_uuids() {
    let catalog = catalog();
    for (resource, ..) in TABLE {
        let aggregate = catalog.resource(resource).unwrap();
        assert_eq!(
            aggregate.parse_key("P000001").is_ok(),
            resource == "products",
            "{resource}"
        );
        let upper = aggregate.parse_key(&ORDER.to_uppercase()).unwrap();
        assert_eq!(upper.as_str() == ORDER, resource != "products", "{resource}");
    }
}

fn usd(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "USD" })
}

/// A body of each command, as its contract shows it.
fn bodies() -> Vec<(&'static str, &'static str, Value)> {
    let because = json!({ "reason": "because" });
    let of_order = json!({ "order": ORDER });
    let contact = json!({ "name": "Ada", "email": "ada@example.org", "address": "1 Main St" });
    let lines = json!([{ "sku": "P000001", "quantity": 3, "unit_price": 90_100 }]);
    let place = json!({
        "customer": ORDER, "currency": "USD", "ordered_on": "1996-01-02", "payment_method": "tok_ok",
        "lines": lines,
    });
    let reserve = json!({ "order": ORDER, "quantity": 3, "unit_price": usd(90_100) });
    let request = json!({ "customer": ORDER, "amount": usd(270_300), "method": "tok_ok" });
    vec![
        (
            "products",
            "register",
            json!({ "name": "Bolt", "price": usd(90_100) }),
        ),
        ("products", "reprice", json!({ "price": usd(90_100) })),
        (
            "products",
            "receive",
            json!({ "quantity": 500, "reference": "D-1" }),
        ),
        ("products", "adjust", json!({ "delta": -2, "reason": "broken" })),
        ("products", "reserve", reserve),
        ("products", "release", of_order.clone()),
        ("products", "ship", of_order),
        ("products", "discontinue", because.clone()),
        ("products", "reinstate", because.clone()),
        ("customers", "register", contact.clone()),
        ("customers", "change-contact", contact),
        ("customers", "admit", json!({ "order": ORDER, "currency": "USD" })),
        ("customers", "block", because.clone()),
        ("customers", "unblock", because.clone()),
        ("customers", "erase", because.clone()),
        ("orders", "place", place),
        ("orders", "confirm", json!({})),
        ("orders", "reject", because.clone()),
        ("orders", "cancel", because.clone()),
        ("orders", "ship", json!({ "carrier": "DHL", "tracking": "123" })),
        ("orders", "deliver", json!({})),
        (
            "orders",
            "return",
            json!({ "reason": "broken", "lines": [{ "line": 1, "quantity": 1 }] }),
        ),
        ("payments", "request", request),
        ("payments", "authorize", json!({ "reference": "A-1" })),
        ("payments", "decline", because),
        ("payments", "capture", json!({})),
        ("payments", "void", json!({})),
        ("payments", "refund", json!({ "amount": usd(270_300) })),
    ]
}

fn parse(catalog: &Catalog, resource: &str, command: &str, body: &Value) -> Result<(), Vec<String>> {
    let key = Key::try_from(ORDER).unwrap();
    let parsed = catalog
        .resource(resource)
        .unwrap()
        .parse(&key, command, body.to_string().as_bytes());
    match parsed {
        Ok(_) => Ok(()),
        Err(ParseError::Invalid(violations)) => Err(violations.into_iter().map(|v| v.pointer).collect()),
        Err(error) => panic!("{resource}/{command}: {error}"),
    }
}

#[test]
fn every_command_takes_its_body_and_no_unknown_or_missing_field() {
    let catalog = catalog();
    let bodies = bodies();
    assert_eq!(
        bodies.len(),
        catalog.aggregates().map(|a| a.commands().count()).sum::<usize>()
    );
    for (resource, command, body) in bodies {
        let what = format!("{resource}/{command}");
        assert_eq!(parse(&catalog, resource, command, &body), Ok(()), "{what}");
        let mut more = body.clone();
        more["phone"] = json!("1");
        assert!(
            parse(&catalog, resource, command, &more).is_err(),
            "{what} takes an unknown field"
        );
        for field in body.as_object().unwrap().keys() {
            let mut less = body.clone();
            less.as_object_mut().unwrap().remove(field);
            let optional = matches!(field.as_str(), "address" | "ordered_on");
            assert_eq!(
                parse(&catalog, resource, command, &less).is_ok(),
                optional,
                "{what} without {field}"
            );
        }
    }
}

#[test]
fn a_bad_order_is_told_everything_that_is_wrong_with_it() {
    let line = |sku: &str, quantity: i64, price: i64| json!({ "sku": sku, "quantity": quantity, "unit_price": price });
    let place =
        |lines: Value| json!({ "customer": ORDER, "currency": "USD", "payment_method": "x", "lines": lines });
    let catalog = catalog();
    let wrong = |lines: Value| parse(&catalog, "orders", "place", &place(lines)).unwrap_err();
    assert_eq!(
        wrong(json!([line("P 1", 1, 1), line("P2", 0, 1)])),
        ["/lines/0/sku", "/lines/1/quantity"]
    );
    assert_eq!(
        wrong(json!([line("P1", 1, 1), line("P1", 1, 2)])),
        ["/lines/1/unit_price"]
    );
    assert_eq!(wrong(json!([line("P1", 1_000_000, 100_000_000_000)])), ["/lines"]);
    assert_eq!(wrong(json!([])), ["/lines"]);
}

/// The usual names of personal data are personal, wherever they occur; a product's name is nobody's.
#[test]
fn names_and_addresses_are_personal() {
    fn walk(path: &str, schema: &Value, found: &mut Vec<String>) {
        let fields = schema.get("properties").and_then(Value::as_object);
        for (field, inner) in fields.into_iter().flatten() {
            let usual = ["name", "email", "address", "phone"].contains(&field.as_str());
            if usual
                && !inner
                    .to_string()
                    .contains(annals_domain::personal::SCHEMA_KEYWORD)
            {
                found.push(format!("{path}: {field}"));
            }
        }
        let inner = schema.as_object().into_iter().flat_map(|map| map.values());
        inner
            .chain(schema.as_array().into_iter().flatten())
            .for_each(|inner| walk(path, inner, found));
    }
    let mut bare = Vec::new();
    for (path, schema) in catalog().schemas() {
        walk(&path, &schema, &mut bare);
    }
    assert_eq!(
        bare,
        [
            "commands/product/register.json: name",
            "events/product.registered/1.json: name"
        ]
    );
}

fn histories<A: Aggregate>(update: Update) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("histories")
        .join(A::CATEGORY);
    check_histories::<A>(&folder, update);
}

fn all_histories(update: Update) {
    histories::<Product>(update);
    histories::<Customer>(update);
    histories::<Order>(update);
    histories::<Payment>(update);
}

/// After raising a `REVISION` or adding a history: `ANNALS_WRITE_HISTORIES=1 cargo test -p commerce --test contract`.
#[test]
#[allow(clippy::disallowed_methods, reason = "a person at a terminal says so")]
fn histories_lead_to_the_states_that_they_led_to() {
    let write = std::env::var_os("ANNALS_WRITE_HISTORIES").is_some();
    all_histories(if write { Update::Write } else { Update::Check });
}

//! The catalog: what it refuses to be built of, and what goes in and comes out by name.

use annals_domain::catalog::{CatalogError, ParseError};
use annals_domain::{Aggregate, AggregateKey as _, Catalog, Context, Owner};
use annals_record::{AppName, Key, Version};
use chrono::DateTime;
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::to_raw_value;

use crate::shop::{Order, OrderId, Sku};

pub(crate) const KEY: &str = "0192f1c0-0000-7000-8000-000000000001";

fn app() -> AppName {
    AppName::try_from("shop").unwrap()
}

pub(crate) fn shop() -> Catalog {
    Catalog::builder(app()).aggregate::<Order>().build().unwrap()
}

fn key() -> Key {
    Key::try_from(KEY).unwrap()
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Closed {
    field: u8,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Open {
    field: u8,
}

/// An aggregate that does nothing: its names, its key, the type of its state, and its one command's.
macro_rules! aggregate {
    ($name:ident: $category:literal $resource:literal $events:literal, $key:ty, $keyless:expr, $state:ty, $command:ty) => {
        mod $name {
            use super::*;
            #[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
            pub(super) struct State {
                field: $state,
            }
            #[derive(Debug, Clone, annals_domain::Command)]
            pub(super) enum Command {
                Go($command),
            }
            #[derive(Debug, Clone, annals_domain::Event)]
            #[event(category = $events)]
            pub(super) enum Event {
                Gone,
            }
            #[derive(Debug, Clone, annals_domain::Rejection)]
            pub(super) enum Rejection {
                No,
            }
            impl Aggregate for State {
                const CATEGORY: &'static str = $category;
                const RESOURCE: &'static str = $resource;
                const REVISION: u32 = 1;
                const KEYLESS: &'static [&'static str] = $keyless;
                type Key = $key;
                type Command = Command;
                type Event = Event;
                type Rejection = Rejection;
                fn decide(&self, command: &Command, _: &Context<'_, Self>) -> Result<Vec<Event>, Rejection> {
                    let Command::Go(_) = command;
                    if self.field == 0 {
                        Err(Rejection::No)
                    } else {
                        Ok(vec![Event::Gone])
                    }
                }
                fn evolve(&mut self, _: &Event) {}
                fn owner(&self, _: &$key, _: &Command) -> Option<Owner> {
                    None
                }
            }
        }
    };
}

aggregate! { fine: "fine" "fines" "fine", Sku, &[], u8, Closed }
aggregate! { other_state: "fine" "fines" "fine", Sku, &[], u16, Closed }
aggregate! { same_category: "order" "others" "order", Sku, &[], u8, Closed }
aggregate! { same_resource: "other" "orders" "other", Sku, &[], u8, Closed }
aggregate! { bad_category: "Bad" "bads" "bad", Sku, &[], u8, Closed }
aggregate! { bad_resource: "bad" "Bads" "bad", Sku, &[], u8, Closed }
aggregate! { empty_resource: "bad" "" "bad", Sku, &[], u8, Closed }
aggregate! { other_events: "bad" "bads" "good", Sku, &[], u8, Closed }
aggregate! { no_such_command: "bad" "bads" "bad", OrderId, &["stop"], u8, Closed }
aggregate! { no_such_key: "bad" "bads" "bad", Sku, &["go"], u8, Closed }
aggregate! { open: "bad" "bads" "bad", Sku, &[], u8, Open }
aggregate! { open_inside: "bad" "bads" "bad", Sku, &[], u8, Vec<Open> }

fn error<A: Aggregate>() -> String {
    let builder = Catalog::builder(app()).aggregate::<Order>().aggregate::<A>();
    builder.build().map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_catalog_says_what_is_wrong_with_an_aggregate() {
    assert!(
        Catalog::builder(app())
            .aggregate::<Order>()
            .aggregate::<fine::State>()
            .build()
            .is_ok()
    );
    for (error, says) in [
        (error::<same_category::State>(), "`order"),
        (error::<same_resource::State>(), "resource `orders`"),
        (error::<bad_category::State>(), "its category"),
        (error::<bad_resource::State>(), "resource `Bads`"),
        (error::<empty_resource::State>(), "resource ``"),
        (
            error::<other_events::State>(),
            "`good.gone` must begin with `bad.`",
        ),
        (error::<no_such_command::State>(), "KEYLESS names `stop`"),
        (
            error::<no_such_key::State>(),
            "KEYLESS needs a key that can be made from a UUID",
        ),
        (error::<open::State>(), "add `#[serde(deny_unknown_fields)]`"),
    ] {
        assert!(error.contains(says), "{error}");
    }
    let twice = Catalog::builder(app())
        .aggregate::<Order>()
        .aggregate::<Order>()
        .build();
    assert!(matches!(twice.map(|_| ()), Err(CatalogError::Twice { .. })));
}

#[test]
fn a_command_with_an_open_struct_deep_inside_is_named_with_the_place() {
    let built = Catalog::builder(app()).aggregate::<open_inside::State>().build();
    let Err(CatalogError::OpenCommand {
        category,
        command,
        pointer,
    }) = built
    else {
        panic!("it is built")
    };
    assert_eq!((category, command), ("bad", "go"));
    assert_eq!(pointer, "/items");
}

#[test]
fn an_aggregate_is_found_by_its_names() {
    let shop = shop();
    let order = shop.category("order").unwrap();
    assert_eq!(shop.resource("orders").unwrap().category(), order.category());
    assert!(shop.category("orders").is_none() && shop.resource("order").is_none());
    let names: Vec<_> = order
        .commands()
        .map(|registered| registered.command.name)
        .collect();
    assert_eq!(names, ["place", "confirm", "call-off", "pay"]);
    assert!(order.is_keyless("place") && !order.is_keyless("confirm"));
    assert!(order.command("place").unwrap().personal && !order.command("pay").unwrap().personal);
    assert!(order.has_erasure());
    assert_eq!(shop.event("order.placed").unwrap().newest(), 3);
    assert_eq!(shop.events().count(), 3);
}

#[test]
fn a_key_that_is_not_of_the_type_is_no_key() {
    let shop = shop();
    let order = shop.resource("orders").unwrap();
    let upper = KEY.replace("f1c0", "F1C0");
    assert_eq!(order.parse_key(&upper).unwrap(), key());
    assert_eq!(order.parse_key("a").unwrap_err().expected, "a UUID with hyphens");
    let made = order.make_key(uuid::Uuid::from_u128(7)).unwrap();
    assert_eq!(order.parse_key(made.as_str()).unwrap(), made);
    assert_eq!(order.key_schema(), OrderId::schema());
}

#[test]
fn an_unknown_command_is_told_apart_from_an_invalid_one() {
    let shop = shop();
    let parsed = shop.resource("orders").unwrap().parse(&key(), "destroy", b"{}");
    assert!(matches!(parsed, Err(ParseError::UnknownCommand)));
}

fn canonical(body: &str) -> String {
    let shop = shop();
    let command = shop
        .resource("orders")
        .unwrap()
        .parse(&key(), "place", body.as_bytes());
    let bytes = command.unwrap().canonical().unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// **Source:** RFC 8785: members sorted by UTF-16 code units, shortest numbers, no escapes but the needed.
#[test]
fn a_command_is_written_in_one_form() {
    let upper = KEY.to_uppercase();
    let body = format!(
        r#" {{ "tags" : ["\u00e4\u20ac", "\ud83e\udd80", "\"\\\u001f"], "quantity" : 1.0e2, "sku":"a" ,"customer":"{upper}" }} "#
    );
    let tags = body.replace(r#", "\"\\\u001f""#, "");
    assert_eq!(
        canonical(&tags),
        format!(r#"{{"customer":"{KEY}","quantity":100,"sku":"a","tags":["ä€","🦀"]}}"#)
    );
    let odd = body.replace(r#""\ud83e\udd80", "#, "");
    assert!(canonical(&odd).ends_with(r#""tags":["ä€","\"\\\u001f"]}"#));
}

proptest! {
    #[test]
    fn a_command_read_from_its_one_form_has_the_same(quantity in 1..=1000_i64, reason in "\\PC{1,20}", sku in "[A-Za-z0-9._~-]{1,64}") {
        let shop = shop();
        let order = shop.resource("orders").unwrap();
        for (name, body) in [
            ("place", json!({"sku": sku, "quantity": quantity, "customer": KEY})),
            ("call-off", json!({"reason": reason})),
        ] {
            let first = order.parse(&key(), name, body.to_string().as_bytes()).unwrap().canonical().unwrap();
            let again = order.read_stored(&key(), name, &first).unwrap().canonical().unwrap();
            prop_assert_eq!(first, again);
        }
    }
}

#[test]
fn a_state_decides_evolves_and_comes_back() {
    let shop = shop();
    let order = shop.category("order").unwrap();
    let time = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
    let command =
        |name: &str, body: serde_json::Value| order.parse(&key(), name, body.to_string().as_bytes()).unwrap();
    let place = command("place", json!({"sku": "a", "quantity": 2, "customer": KEY}));
    let mut live = order.initial();
    assert_eq!(live.owner(&place).unwrap().as_str(), KEY);
    assert!(live.owner(&command("confirm", json!({}))).is_none());
    let refused = live
        .decide(&command("confirm", json!({})), time, Version::new(0))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        (refused.code.as_str(), refused.detail.get()),
        ("unknown_order", "{}")
    );

    let events = live.decide(&place, time, Version::new(0)).unwrap().unwrap();
    assert_eq!((events[0].event_type, events[0].schema), ("order.placed", 3));
    let refused = live.decide(&place, time, Version::new(1)).unwrap().unwrap_err();
    assert_eq!(refused.code, "already_placed");

    let mut replayed = order.initial();
    replayed.evolve("order.placed", 3, &events[0].data).unwrap();
    assert_eq!(replayed.to_json().unwrap(), live.to_json().unwrap());
    let restored = order.restore(&live.to_json().unwrap()).unwrap();
    assert_eq!(restored.to_json().unwrap(), live.to_json().unwrap());
    assert!(replayed.evolve("order.placed", 9, &events[0].data).is_err());
}

#[test]
fn old_events_are_brought_up_and_new_ones_left_alone() {
    let shop = shop();
    let old = to_raw_value(&json!({"sku": "a", "quantity": 5})).unwrap();
    let new = shop.upcast("order.placed", 2, &old).unwrap().unwrap();
    assert_eq!(
        new.get(),
        r#"{"sku":"a","quantity":5,"customer":null,"note":null}"#
    );
    assert!(shop.upcast("order.placed", 3, &new).unwrap().is_none());
    assert!(shop.upcast("order.placed", 4, &new).is_err());
    assert!(shop.upcast("order.placed", 0, &new).is_err());
    assert!(shop.upcast("order.lost", 1, &new).is_err());
}

#[test]
fn the_fingerprint_of_a_state_follows_its_schema_and_revision() {
    let of = |catalog: Catalog| catalog.category("fine").unwrap().fingerprint();
    let fine = of(Catalog::builder(app())
        .aggregate::<fine::State>()
        .build()
        .unwrap());
    let again = of(Catalog::builder(app())
        .aggregate::<fine::State>()
        .build()
        .unwrap());
    let other = of(Catalog::builder(app())
        .aggregate::<other_state::State>()
        .build()
        .unwrap());
    assert_eq!(fine, again);
    assert_ne!(fine, other, "its field has another type");
    let one = shop().category("order").unwrap().fingerprint();
    let builder = Catalog::builder(app()).aggregate::<crate::kit::Revised>();
    let two = builder.build().unwrap().category("order").unwrap().fingerprint();
    assert_ne!(one, two, "it has another revision");
}

#[test]
fn every_schema_is_a_file() {
    let schemas = shop().schemas();
    let paths: Vec<_> = schemas.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "commands/order/place.json",
            "commands/order/confirm.json",
            "commands/order/call-off.json",
            "commands/order/pay.json",
            "events/order.placed/1.json",
            "events/order.placed/2.json",
            "events/order.placed/3.json",
            "events/order.confirmed/1.json",
            "events/order.called_off/1.json",
        ]
    );
    let (_, place) = &schemas[0];
    assert_eq!(place["$id"], "/schemas/commands/order/place.json");
    assert_eq!(place["title"], "place");
    assert_eq!(place["description"], "Places an order of one article.");
    assert_eq!(place["properties"]["note"]["x-personal"], true);
    let (_, placed) = &schemas[6];
    assert_eq!(
        (&placed["$id"], &placed["title"]),
        (&json!("/schemas/order.placed/3.json"), &json!("order.placed"))
    );
    let validator = jsonschema::validator_for(placed).unwrap();
    for (note, fits) in [
        (json!("Ada"), true),
        (json!({"personal": "x"}), true),
        (json!({"erased": true}), true),
        (serde_json::Value::Null, true),
        (json!({"erased": false}), false),
        (json!(""), false),
    ] {
        let event = json!({"sku": "a", "quantity": 1, "customer": null, "note": note});
        assert_eq!(validator.is_valid(&event), fits, "{note}");
    }
    assert_eq!(placed["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

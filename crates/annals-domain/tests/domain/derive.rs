//! What the derive macros write.

use annals_domain::{
    Command as _, Event as _, Input as _, Outcome, ReadError, RecordView, Refusal, Rejection as _, TimerName,
};
use annals_record::{StreamId, Version};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::shop::{Command, Event, Order, OrderId, Rejection, Status};

fn raw(value: serde_json::Value) -> Box<RawValue> {
    to_raw_value(&value).unwrap()
}

fn written<E>(write: impl FnOnce(&mut serde_json::Serializer<&mut Vec<u8>>) -> Result<(), E>) -> String
where
    E: std::fmt::Debug,
{
    let mut bytes = Vec::new();
    write(&mut serde_json::Serializer::new(&mut bytes)).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_command_has_name_documentation_and_schema() {
    let types = Command::types();
    let names: Vec<_> = types.iter().map(|command| (command.name, command.doc)).collect();
    assert_eq!(
        names,
        [
            ("place", "Places an order of one article."),
            ("confirm", ""),
            ("call-off", ""),
            ("pay", "Changes nothing; it is there for its shape.")
        ]
    );
    let schema = (types[0].schema)();
    assert_eq!(schema.as_value()["properties"]["sku"]["maxLength"], 64);
    assert_eq!(schema.as_value()["additionalProperties"], false);
    assert!(schema.as_value().get("$defs").is_none(), "it stands alone");
}

#[test]
fn a_command_reads_and_writes_by_name() {
    let cancel = Command::read("call-off", br#"{"reason":"late"}"#)
        .unwrap()
        .unwrap();
    assert_eq!(cancel.name(), "call-off");
    assert_eq!(written(|s| cancel.write(s)), r#"{"reason":"late"}"#);
    let confirm = Command::read("confirm", b"{}").unwrap().unwrap();
    assert_eq!(written(|s| confirm.write(s)), "{}");
    assert!(Command::read("confirm", br#"{"x":1}"#).unwrap().is_err());
    assert!(Command::read("cancel", b"{}").is_none(), "it has another name");
}

#[test]
fn an_event_has_every_schema_that_it_ever_had() {
    let types = Event::types();
    let names: Vec<_> = types.iter().map(|e| (e.name, e.newest(), e.erasure)).collect();
    assert_eq!(
        names,
        [
            ("order.placed", 3, false),
            ("order.confirmed", 1, false),
            ("order.called_off", 1, true)
        ]
    );
    assert_eq!(types[0].doc, "An order came in.");
    let numbers: Vec<_> = types[0].versions.iter().map(|version| version.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let second = (types[0].versions[1].schema)();
    assert_eq!(second.as_value()["title"], "PlacedV2");
}

#[test]
fn an_old_event_is_brought_up_to_the_newest_schema() {
    for (schema, data, quantity) in [
        (1, json!({"sku": "a"}), 1),
        (2, json!({"sku": "a", "quantity": 5}), 5),
        (
            3,
            json!({"sku": "a", "quantity": 6, "customer": null, "note": null}),
            6,
        ),
    ] {
        let event = Event::read("order.placed", schema, &raw(data)).unwrap();
        assert_eq!((event.event_type(), event.schema()), ("order.placed", 3));
        let Event::Placed(placed) = event else {
            panic!("another event")
        };
        assert_eq!(placed.quantity, quantity);
    }
}

#[test]
fn an_event_of_an_unknown_type_or_schema_is_told_apart_from_unreadable_data() {
    let empty = raw(json!({}));
    let read = |name, schema| Event::read(name, schema, &empty).unwrap_err();
    assert!(matches!(read("order.lost", 1), ReadError::Unknown { name } if name == "order.lost"));
    assert!(matches!(
        read("order.placed", 4),
        ReadError::UnknownSchema {
            schema: 4,
            newest: 3,
            ..
        }
    ));
    assert!(matches!(
        read("order.placed", 0),
        ReadError::UnknownSchema { schema: 0, .. }
    ));
    assert!(matches!(
        read("order.placed", 3),
        ReadError::Data { schema: 3, .. }
    ));
    assert_eq!(
        Event::read("order.confirmed", 1, &empty).unwrap(),
        Event::Confirmed
    );
}

#[test]
fn a_rejection_is_a_code_with_its_fields_as_detail() {
    assert_eq!(
        Rejection::CODES,
        ["already_placed", "unknown_order", "wrong_status", "too_late"]
    );
    let wrong = Rejection::WrongStatus {
        status: Status::CalledOff,
        r#type: 7,
    };
    assert_eq!(wrong.code(), "wrong_status");
    assert_eq!(
        written(|s| wrong.write_detail(s)),
        r#"{"status":"called_off","type":7}"#
    );
    assert_eq!(Rejection::Late.code(), "too_late");
    assert_eq!(written(|s| Rejection::Late.write_detail(s)), "{}");
}

#[derive(Debug, annals_domain::Input)]
enum Input {
    Order(Outcome<Order>),
    #[input(timer)]
    TimedOut(OrderId),
}

const STREAM: &str = "order-0192f1c0-0000-7000-8000-000000000001";

#[test]
fn an_input_reads_the_records_of_its_categories() {
    assert_eq!(Input::CATEGORIES, ["order"]);
    let stream: StreamId = STREAM.parse().unwrap();
    let (command, event) = (raw(json!({})), raw(json!({})));
    let mut record = RecordView {
        stream: &stream,
        command: "confirm",
        data: &command,
        version: Version::new(2),
        result: Ok(vec![("order.confirmed", 1, &event)]),
        own: false,
    };
    let Some(Input::Order(outcome)) = Input::from_record(&record).unwrap() else {
        panic!("its category is read")
    };
    assert_eq!(outcome.result.unwrap(), [Event::Confirmed]);
    assert_eq!(format!("order-{}", outcome.key), STREAM);

    let refusal = Refusal {
        code: "too_late".to_owned(),
        detail: raw(json!({})),
    };
    record.result = Err(refusal);
    let Some(Input::Order(outcome)) = Input::from_record(&record).unwrap() else {
        panic!("its category is read")
    };
    assert_eq!(outcome.result.unwrap_err().code, "too_late");

    let other: StreamId = "product-a".parse().unwrap();
    record.stream = &other;
    assert!(Input::from_record(&record).unwrap().is_none());
}

#[test]
fn an_input_reads_its_timers_by_name() {
    let name: TimerName = Input::TIMED_OUT;
    assert_eq!(name, "timed_out");
    let id = &STREAM["order-".len()..];
    let Some(Input::TimedOut(order)) = Input::from_timer(name, id) else {
        panic!("it is a timer")
    };
    assert_eq!(order.to_string(), id);
    assert!(Input::from_timer("order", id).is_none());
    assert!(Input::from_timer(name, "no-uuid").is_none());
}

/// A crate that gives the domain's under another path, as an application's crate may.
mod application {
    pub(super) use annals_domain as domain;
}

#[derive(Debug, Clone, application::domain::Command)]
#[command(crate = "application::domain")]
enum Elsewhere {
    Go,
}

#[derive(Debug, Clone, application::domain::Event)]
#[event(category = "elsewhere", crate = "application::domain")]
enum Went {
    Away,
}

#[test]
fn the_domain_crate_may_go_by_another_path() {
    assert_eq!(Elsewhere::Go.name(), "go");
    assert_eq!(Went::Away.event_type(), "elsewhere.away");
}

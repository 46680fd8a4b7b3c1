//! The JSON of commits, refusals and claims: exact bytes out, the same pieces in.

use annals_record::hash::sha256;
use annals_record::value::{
    ActorValue, ClaimValue, CommandValue, EntryValue, EntryView, EventValue, OutcomeValue, OutcomeView,
    RefusalValue, ValueError,
};
use annals_record::{EventId, Fingerprint, Generation, ShardCount, StreamId};
use serde_json::value::RawValue;

use crate::fixture::id;

const FINGERPRINT: &str = "hP2brDM615FUNIKWIE-n-MU3qW4ImD5fc7P1rKjo7fc";
const COMMIT: &str = r#"{"stream":"order-1","command":{"name":"place","fingerprint":"hP2brDM615FUNIKWIE-n-MU3qW4ImD5fc7P1rKjo7fc","actor":{"sub":"u\"1","roles":["clerk","auditor"]},"data":{"b":1.50,"a":[ ]}},"events":[{"id":"6df2b93a-4707-55e8-aa85-8c47e01b2f58","type":"order.placed","schema":2,"data":{"z":1e2, "y":null}}],"metadata":{},"correlation":"c-1","causation":null}"#;
const REFUSAL: &str = r#"{"stream":"order-1","command":{"name":"place","fingerprint":"hP2brDM615FUNIKWIE-n-MU3qW4ImD5fc7P1rKjo7fc","actor":{"sub":"u\"1","roles":["clerk","auditor"]},"data":{"b":1.50,"a":[ ]}},"refusal":{"code":"out_of_stock","detail":{"left":0}},"metadata":{"k":"v"},"correlation":"c-1","causation":"e-9"}"#;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.into()).unwrap()
}

fn write(outcome: OutcomeValue<'_>, metadata: Option<&RawValue>, causation: Option<&str>) -> String {
    let stream: StreamId = "order-1".parse().unwrap();
    let roles = ["clerk".into(), "auditor".into()];
    let data = raw(r#"{"b":1.50,"a":[ ]}"#);
    let value = EntryValue {
        stream: &stream,
        command: CommandValue {
            name: "place",
            fingerprint: Fingerprint::new(sha256(b"prev")),
            actor: ActorValue {
                sub: "u\"1",
                roles: &roles,
            },
            data: &data,
        },
        outcome,
        metadata,
        correlation: "c-1",
        causation,
    };
    String::from_utf8(value.to_bytes().to_vec()).unwrap()
}

#[test]
fn a_commit_is_written_in_one_order_with_nested_json_as_it_came() {
    let data = raw(r#"{"z":1e2, "y":null}"#);
    let event = EventValue {
        id: EventId::of(id(), 0),
        type_name: "order.placed",
        schema: 2,
        data: &data,
    };
    assert_eq!(write(OutcomeValue::Events(&[event]), None, None), COMMIT);
}

#[test]
fn a_refusal_stands_where_the_events_would() {
    let (detail, metadata) = (raw(r#"{"left":0}"#), raw(r#"{"k":"v"}"#));
    let refusal = RefusalValue {
        code: "out_of_stock",
        detail: &detail,
    };
    let json = write(OutcomeValue::Refusal(refusal), Some(&metadata), Some("e-9"));
    assert_eq!(json, REFUSAL);
}

#[test]
fn a_commit_is_read_without_touching_nested_json() {
    let view = EntryView::parse(COMMIT.as_bytes()).unwrap();
    assert_eq!(view.stream.as_str(), "order-1");
    assert_eq!(view.command.name, "place");
    assert_eq!(view.command.fingerprint.to_string(), FINGERPRINT);
    assert_eq!(view.command.actor.sub, "u\"1");
    assert_eq!(view.command.actor.roles, ["clerk", "auditor"]);
    assert_eq!(view.command.data.get(), r#"{"b":1.50,"a":[ ]}"#);
    assert_eq!(view.events().len(), 1);
    let event = &view.events()[0];
    assert_eq!(event.id, EventId::of(id(), 0));
    assert_eq!((event.type_name.as_ref(), event.schema), ("order.placed", 2));
    assert_eq!(event.data.get(), r#"{"z":1e2, "y":null}"#);
    assert_eq!(view.metadata.get(), "{}");
    assert_eq!(
        (view.correlation.as_ref(), view.causation.as_deref()),
        ("c-1", None)
    );
}

#[test]
fn a_refusal_is_read_and_has_no_events() {
    let view = EntryView::parse(REFUSAL.as_bytes()).unwrap();
    let OutcomeView::Refusal(refusal) = &view.outcome else {
        panic!("not a refusal");
    };
    assert_eq!(refusal.code, "out_of_stock");
    assert_eq!(refusal.detail.get(), r#"{"left":0}"#);
    assert!(view.events().is_empty());
    assert_eq!(view.causation.as_deref(), Some("e-9"));
}

#[test]
fn fields_of_a_later_release_are_passed_over() {
    let json = COMMIT.replacen('{', r#"{"later":[1,2],"#, 1);
    assert_eq!(EntryView::parse(json.as_bytes()).unwrap().events().len(), 1);
}

#[test]
fn a_value_without_an_outcome_or_with_two_is_an_error() {
    let outcome = |json: String| match EntryView::parse(json.as_bytes()) {
        Err(ValueError::Outcome) => true,
        Err(ValueError::Json(_) | ValueError::NoEntry) | Ok(_) => false,
    };
    assert!(outcome(COMMIT.replace("\"events\"", "\"evants\"")));
    assert!(outcome(COMMIT.replace(
        "\"metadata\"",
        r#""refusal":{"code":"c","detail":{}},"metadata""#
    )));
    for cut in 0..COMMIT.len() {
        assert!(EntryView::parse(&COMMIT.as_bytes()[..cut]).is_err());
    }
    for field in [
        "stream",
        "command",
        "metadata",
        "correlation",
        "fingerprint",
        "sub",
        "schema",
    ] {
        let json = COMMIT.replace(&format!("\"{field}\""), "\"gone\"");
        assert!(EntryView::parse(json.as_bytes()).is_err(), "without {field}");
    }
}

#[test]
fn a_claims_value_names_log_and_node() {
    let value = ClaimValue {
        app: "commerce".parse().unwrap(),
        shard: 3.into(),
        shards: ShardCount::try_from(16).unwrap(),
        generation: Generation::FIRST,
        node: "node-1".into(),
        url: "https://10.0.0.1:7443".into(),
    };
    let json = r#"{"app":"commerce","shard":3,"shards":16,"generation":1,"node":"node-1","url":"https://10.0.0.1:7443"}"#;
    assert_eq!(value.to_bytes(), json);
    assert_eq!(ClaimValue::parse(json.as_bytes()).unwrap(), value);
    for wrong in [r#""shards":0"#, r#""shards":65537"#, r#""shards":"16""#] {
        let json = json.replace(r#""shards":16"#, wrong);
        assert!(ClaimValue::parse(json.as_bytes()).is_err(), "{wrong}");
    }
}

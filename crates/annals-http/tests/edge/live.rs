//! Live changes: what is written, when it ends, and what is refused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_http::ports::Live;
use annals_query::live::{End, Kind, Next};
use annals_query::{Event, Meta, QueryError};
use annals_record::Position;
use futures_util::{Stream, StreamExt, stream};
use http::Method;
use http_body_util::BodyExt;

use crate::harness::{Ask, Bank, ID, got};

const FIRST: &str = "0:1041,1:77;q83vEjRWeJCrze8SNFZ4kA";

pub(crate) fn event(data: &str) -> Next {
    Next::Events(vec![Event {
        id: FIRST.parse().unwrap(),
        kind: Kind::Change,
        data: data.to_owned(),
    }])
}

pub(crate) fn live(events: impl Stream<Item = Next> + Send + 'static) -> Live {
    let positions: [Position; 2] = ["0:1041".parse().unwrap(), "1:77".parse().unwrap()];
    Live {
        meta: Meta {
            positions: positions.to_vec().into(),
            lag_ms: 12,
            parked: 1,
            etag: "W/\"abc\"".to_owned(),
        },
        events: events.boxed(),
    }
}

fn events(bank: &Bank, target: &str) -> Ask {
    bank.ask(Method::GET, target).with("accept", "text/event-stream")
}

/// What follows may be written at any time: read until it ends.
async fn whole(bank: &Bank, ask: Ask) -> String {
    let got = bank.get(ask).await;
    assert_eq!(got.status, 200, "{}", got.json());
    String::from_utf8(got.bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn events_are_written_with_their_ids_and_the_answer_says_how_fresh_it_is() {
    let bank = Bank::new();
    bank.follows(|request, caller, last| {
        assert_eq!(
            (request.resource.as_str(), caller, last),
            ("accounts", "ada", None)
        );
        let end = Next::End(End::TooSlow);
        Ok(live(stream::iter([event(r#"{"key":"k","data":{"a":1}}"#), end])))
    });
    let response = bank.open(events(&bank, "/v1/accounts?balance.gte=1")).await;
    let got = got(response).await;
    let headers = [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("annals-position", "0:1041, 1:77"),
        ("annals-lag-ms", "12"),
        ("annals-parked", "1"),
        ("etag", ""),
    ];
    for (name, value) in headers {
        assert_eq!(got.header(name), value, "{name}");
    }
    let text = String::from_utf8(got.bytes.to_vec()).unwrap();
    let expected = format!(
        "retry: 1000\n\nid: {FIRST}\nevent: change\ndata: {{\"key\":\"k\",\"data\":{{\"a\":1}}}}\n\n"
    );
    let (events, end) = text.split_once("event: end\ndata: ").unwrap();
    assert_eq!(events, expected);
    let problem: serde_json::Value = serde_json::from_str(end.trim()).unwrap();
    assert_eq!(
        (&problem["code"], &problem["instance"]),
        (&"overloaded".into(), &"/v1/accounts".into())
    );
    assert_eq!(problem["correlation_id"], got.header("correlation-id"));
}

#[tokio::test]
async fn the_last_id_is_handed_on_and_what_is_none_is_400() {
    let bank = Bank::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    bank.follows(move |request, _, last| {
        into.lock()
            .unwrap()
            .push((request.key.clone(), last.map(ToString::to_string)));
        Ok(live(stream::empty()))
    });
    let row = format!("/v1/accounts/{ID}");
    assert_eq!(
        whole(&bank, events(&bank, &row).with("last-event-id", FIRST)).await,
        "retry: 1000\n\n"
    );
    whole(&bank, events(&bank, "/v1/accounts").with("last-event-id", "")).await;
    let expected = [(Some(ID.to_owned()), Some(FIRST.to_owned())), (None, None)];
    assert_eq!(*seen.lock().unwrap(), expected);
    for wrong in ["7", "0:1", "0:1;x", "\u{e4}"] {
        let got = bank
            .get(events(&bank, "/v1/accounts").with("last-event-id", wrong))
            .await;
        assert_eq!(got.problem(), (400, "invalid-parameter".to_owned()), "{wrong}");
    }
    let twice = events(&bank, "/v1/accounts")
        .with("last-event-id", FIRST)
        .with("last-event-id", FIRST);
    assert_eq!(bank.get(twice).await.problem().0, 400);
    assert_eq!(seen.lock().unwrap().len(), 2, "nothing is followed then");
}

#[tokio::test]
async fn who_may_not_look_may_not_follow_and_places_are_limited() {
    let bank = Bank::new();
    let as_role = |role: &str| {
        Ask::new(Method::GET, "/v1/ledger")
            .with("authorization", &bank.token("bob", role))
            .with("accept", "text/event-stream")
    };
    assert_eq!(bank.get(as_role("nobody")).await.problem().0, 403);
    bank.follows(|_, _, _| Err(QueryError::TooManySubscribers));
    assert_eq!(
        bank.get(as_role("teller")).await.problem(),
        (503, "overloaded".to_owned())
    );
    bank.follows(|_, _, _| Err(QueryError::TooManyOfCaller { limit: 32 }));
    let got = bank.get(as_role("teller")).await;
    assert_eq!(got.problem(), (429, "quota-exceeded".to_owned()));
    assert_eq!(got.header("ratelimit-policy"), "\"live\";q=32");
    assert!(!got.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_is_there_and_ends_with_the_token() {
    let bank = Bank::with(|parts| parts.settings.live_heartbeat_ms = 100);
    bank.follows(|_, _, _| Ok(live(stream::pending())));
    let ask = events(&bank, "/v1/accounts");
    // Tokens of these tests are good for 900 s, and a little longer for clocks that differ.
    bank.clock.advance_ms(899_000);
    let began = tokio::time::Instant::now();
    let text = whole(&bank, ask).await;
    assert!(
        began.elapsed() >= Duration::from_millis(990),
        "{:?}",
        began.elapsed()
    );
    let beats = text.matches("\n:\n").count();
    assert!((1..200).contains(&beats), "{beats} heartbeats");
    let (_, end) = text.split_once("event: end\ndata: ").unwrap();
    assert!(end.contains("\"code\":\"unauthenticated\""), "{end}");
}

#[tokio::test]
async fn a_failure_on_the_way_is_the_last_event() {
    let bank = Bank::new();
    bank.follows(|_, _, _| {
        let why = Arc::new(QueryError::InvalidParameter {
            name: "limit".to_owned(),
            expected: "given".to_owned(),
        });
        Ok(live(stream::iter([Next::End(End::Failed(why)), event("{}")])))
    });
    let text = whole(&bank, events(&bank, "/v1/accounts")).await;
    let (_, end) = text.split_once("event: end\ndata: ").unwrap();
    assert!(
        end.contains("\"code\":\"invalid-parameter\"") && !end.contains("event:"),
        "{end}"
    );
}

#[tokio::test]
async fn json_stays_json_for_whoever_wants_it_more() {
    let bank = Bank::new();
    bank.reads(|_, _| Err(QueryError::NotFound));
    bank.follows(|_, _, _| Ok(live(stream::empty())));
    let accepts = [
        ("text/event-stream", 200),
        ("text/event-stream, application/json", 200),
        ("text/event-stream, */*;q=0.1", 200),
        ("text/event-stream;q=0.5, application/json", 404),
        ("*/*", 404),
    ];
    for (accept, status) in accepts {
        let ask = bank.ask(Method::GET, "/v1/accounts").with("accept", accept);
        let response = bank.open(ask).await;
        assert_eq!(response.status().as_u16(), status, "{accept}");
        response.into_body().collect().await.unwrap();
    }
}

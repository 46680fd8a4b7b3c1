//! The auditors' routes.

use annals_audit::{AuditError, RecordKind, Upto};
use annals_http::ports::Question;
use annals_record::{Offset, Position};
use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::harness::{Ask, Bank, Got, ID};

async fn ask(bank: &Bank, target: &str) -> Got {
    let ask = Ask::new(Method::GET, target).with("authorization", &bank.token("otto", "auditor"));
    bank.get(ask.with("annals-after", "3:1").with("prefer", "wait=1"))
        .await
}

#[tokio::test]
async fn each_route_asks_what_it_says() {
    let bank = Bank::new();
    *bank.ports.auditing.lock().unwrap() = Box::new(|_| Ok(Bytes::from_static(br#"{"data":[1]}"#)));
    let question = async |target: &str| {
        let got = ask(&bank, target).await;
        assert_eq!(
            (got.status.as_u16(), got.json()),
            (200, json!({"data": [1]})),
            "{target}"
        );
        assert_eq!(got.header("preference-applied"), "wait=1");
        assert_eq!((got.header("annals-position"), got.header("annals-lag-ms")), ("0:7, 3:1042", "250"));
        let (question, after, wait) = bank.ports.questions.lock().unwrap().pop().unwrap();
        assert_eq!((after.len(), wait.as_secs()), (1, 1));
        question
    };
    let history = question(&format!("/v1/audit/streams/account-{ID}?after=3:7&limit=2")).await;
    let Question::History { stream, after, limit } = history else {
        panic!("{history:?}")
    };
    assert_eq!(
        (stream.as_str(), after.unwrap().to_string().as_str(), limit),
        (format!("account-{ID}").as_str(), "3:7", 2)
    );
    let state = question("/v1/audit/streams/account-x/state?version=3").await;
    assert!(matches!(state, Question::State { upto: Upto::Version(version), .. } if version.get() == 3));
    let state = question("/v1/audit/streams/account-x/state?at=2026-11-01T00:00:00Z").await;
    assert!(
        matches!(state, Question::State { upto: Upto::Time(time), .. } if time.timestamp() == 1_793_491_200)
    );
    let target = "/v1/audit/records?category=order&type=order.placed&actor=ada&kind=refusal\
        &from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00%2B01:00&after=abc";
    let records = question(target).await;
    let Question::Records { search, limit: 50 } = records else {
        panic!("{records:?}")
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    assert_eq!(
        [
            text(&search.category),
            text(&search.event_type),
            text(&search.actor),
            text(&search.after)
        ],
        ["order", "order.placed", "ada", "abc"].map(str::to_owned)
    );
    assert_eq!(search.kind, Some(RecordKind::Refusal));
    assert_eq!((search.to.unwrap() - search.from.unwrap()).num_hours(), 23);
    assert!(matches!(
        question(&format!("/v1/audit/records/{ID}")).await,
        Question::Record(_)
    ));
    assert!(matches!(
        question(&format!("/v1/audit/records/{ID}/raw")).await,
        Question::Raw(_)
    ));
    assert!(matches!(question("/v1/audit/shards").await, Question::Shards));
}

#[tokio::test]
async fn auditors_alone_may_ask_and_only_what_there_is() {
    let bank = Bank::new();
    assert_eq!(
        bank.get(bank.ask(Method::GET, "/v1/audit/shards"))
            .await
            .problem(),
        (403, "forbidden".to_owned())
    );
    let none = Bank::with(|parts| parts.audits = None);
    assert_eq!(
        ask(&none, "/v1/audit/shards").await.problem(),
        (421, "misdirected".to_owned())
    );
    let cases = [
        ("/v1/audit/nothing", 404, "unknown-resource"),
        ("/v1/audit/records/x/raw/more", 404, "unknown-resource"),
        ("/v1/audit/streams/nonsense", 404, "not-found"),
        ("/v1/audit/records/nonsense", 404, "not-found"),
        ("/v1/audit/shards?x=1", 400, "unknown-parameter"),
        ("/v1/audit/records?kind=x", 400, "invalid-parameter"),
        ("/v1/audit/records?limit=501", 400, "invalid-parameter"),
        ("/v1/audit/records?actor=a&actor=b", 400, "invalid-parameter"),
        ("/v1/audit/streams/account-x?after=7", 400, "invalid-parameter"),
        (
            "/v1/audit/streams/account-x/state?version=1&at=2026-11-01T00:00:00Z",
            400,
            "invalid-parameter",
        ),
        (
            "/v1/audit/streams/account-x/state?at=yesterday",
            400,
            "invalid-parameter",
        ),
    ];
    for (target, status, code) in cases {
        assert_eq!(
            ask(&bank, target).await.problem(),
            (status, code.to_owned()),
            "{target}"
        );
    }
    let post = bank.get(bank.ask(Method::POST, "/v1/audit/shards")).await;
    assert_eq!(
        (post.problem().0, post.header("allow")),
        (405, "GET, HEAD, OPTIONS")
    );
    assert!(bank.ports.questions.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_reason_for_no_answer_has_its_status() {
    type Failing = fn(Position) -> AuditError;
    let cases: [(Failing, u16, &str); 4] = [
        (|_| AuditError::NotFound("stream"), 404, "not-found"),
        (AuditError::UnknownPosition, 400, "unknown-position"),
        (
            |asked| AuditError::Behind {
                asked,
                at: Offset::new(1_040),
            },
            503,
            "projection-behind",
        ),
        (|_| AuditError::Unreadable("secret".to_owned()), 500, "internal"),
    ];
    let bank = Bank::new();
    for (error, status, code) in cases {
        *bank.ports.auditing.lock().unwrap() = Box::new(move |_| Err(error("3:1042".parse().unwrap())));
        let got = ask(&bank, "/v1/audit/shards").await;
        assert_eq!(got.problem(), (status, code.to_owned()));
        assert!(!String::from_utf8_lossy(&got.bytes).contains("secret"));
        if status == 503 {
            assert_eq!(got.json()["distance"], 3);
        }
    }
}

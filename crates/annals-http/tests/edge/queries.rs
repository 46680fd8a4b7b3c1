//! Queries: parameters and headers in, freshness out, who sees what.

use std::time::Duration;

use annals_http::ports::Read;
use annals_query::{Access, ListAnswer, Meta, Private, QueryError, RowAnswer, Rows};
use annals_record::{Position, Version};
use http::Method;
use serde_json::json;

use crate::harness::{Ask, Bank, ID};

fn meta(parked: u64) -> Meta {
    let positions: [Position; 2] = ["0:1041".parse().unwrap(), "1:77".parse().unwrap()];
    Meta {
        positions: positions.to_vec().into(),
        lag_ms: 12,
        parked,
        etag: "W/\"abc\"".to_owned(),
    }
}

fn list(next: Option<&str>, count: Option<u64>) -> Read {
    Read::List(ListAnswer {
        data: r#"[{"a":1}]"#.into(),
        next: next.map(Into::into),
        count,
        meta: meta(2),
    })
}

fn row() -> Read {
    Read::Row(RowAnswer {
        data: r#"{"a":1}"#.into(),
        version: Some(Version::new(3)),
        meta: meta(0),
    })
}

#[tokio::test]
async fn a_list_carries_its_freshness_and_its_next_page() {
    let bank = Bank::new();
    bank.reads(|_, _| Ok(list(Some("abc"), Some(7))));
    let ask = bank
        .ask(
            Method::GET,
            "/v1/accounts?limit=2&balance.gte=1&cursor=old&name=a%20b+c",
        )
        .with("annals-after", "3:1042, 1:7")
        .with("annals-after", "0:1")
        .with("prefer", "wait=5, count=exact")
        .with("prefer", "respond-async");
    let got = bank.get(ask).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.json(), json!({"data": [{"a": 1}], "next": "abc", "count": 7}));
    let link = "</v1/accounts?limit=2&balance.gte=1&name=a%20b+c&cursor=abc>; rel=\"next\"";
    let headers = [
        ("annals-position", "0:1041, 1:77"),
        ("annals-lag-ms", "12"),
        ("annals-parked", "2"),
        ("etag", "W/\"abc\""),
        ("link", link),
        ("preference-applied", "wait=5, count=exact"),
        ("annals-version", ""),
    ];
    for (name, value) in headers {
        assert_eq!(got.header(name), value, "{name}");
    }
    let asked = bank.ports.queries.lock().unwrap().pop().unwrap();
    assert_eq!(
        (asked.resource.as_str(), asked.key, asked.count),
        ("accounts", None, true)
    );
    let parameters = [
        ("limit", "2"),
        ("balance.gte", "1"),
        ("cursor", "old"),
        ("name", "a b c"),
    ];
    assert_eq!(
        asked.parameters,
        parameters.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(
        asked.after.iter().map(Position::to_string).collect::<Vec<_>>(),
        ["3:1042", "1:7", "0:1"]
    );
    assert_eq!(asked.wait, Duration::from_secs(5));
}

#[tokio::test]
async fn a_row_carries_its_streams_version() {
    let bank = Bank::new();
    bank.reads(|_, _| Ok(row()));
    let got = bank
        .get(bank.ask(Method::GET, "/v1/ledger/1996-01-02,USD%20x"))
        .await;
    assert_eq!(
        (got.status.as_u16(), got.json()),
        (200, json!({"data": {"a": 1}}))
    );
    assert_eq!(
        (got.header("annals-version"), got.header("annals-parked")),
        ("3", "")
    );
    let asked = bank.ports.queries.lock().unwrap().pop().unwrap();
    assert_eq!(
        (asked.key.as_deref(), asked.wait),
        (Some("1996-01-02,USD x"), Duration::from_secs(2))
    );

    let head = bank.get(bank.ask(Method::HEAD, "/v1/ledger/x")).await;
    assert_eq!(
        (
            head.status.as_u16(),
            head.bytes.len(),
            head.header("content-length")
        ),
        (200, 0, "16")
    );
    assert_eq!(head.header("annals-position"), "0:1041, 1:77");
}

#[tokio::test]
async fn waiting_never_goes_over_the_requests_own_limit() {
    let bank = Bank::new();
    bank.reads(|_, _| Ok(row()));
    let got = bank
        .get(bank.ask(Method::GET, "/v1/ledger/x").with("prefer", "wait=3600"))
        .await;
    assert_eq!(got.header("preference-applied"), "wait=10");
    assert_eq!(
        bank.ports.queries.lock().unwrap()[0].wait,
        Duration::from_secs(10)
    );
}

#[tokio::test]
async fn what_the_caller_has_already_is_304_without_a_body() {
    let bank = Bank::new();
    bank.reads(|_, tags| {
        assert_eq!(tags, Some("W/\"abc\", \"x\""));
        Ok(Read::NotModified(meta(0)))
    });
    let got = bank
        .get(
            bank.ask(Method::GET, "/v1/accounts")
                .with("if-none-match", "W/\"abc\", \"x\""),
        )
        .await;
    assert_eq!((got.status.as_u16(), got.bytes.len()), (304, 0));
    assert_eq!(
        (got.header("etag"), got.header("annals-position")),
        ("W/\"abc\"", "0:1041, 1:77")
    );
    assert_eq!(got.header("content-type"), "");
}

#[tokio::test]
async fn every_reason_for_no_answer_has_its_status() {
    let position: Position = "3:1042".parse().unwrap();
    let text = str::to_owned;
    type Failing = fn(Position) -> QueryError;
    let cases: [(Failing, u16, &str); 9] = [
        (
            |_| QueryError::UnknownResource("x".to_owned()),
            404,
            "unknown-resource",
        ),
        (
            |_| QueryError::UnknownParameter {
                name: "x".to_owned(),
                nearest: None,
            },
            400,
            "unknown-parameter",
        ),
        (
            |_| QueryError::InvalidParameter {
                name: "limit".to_owned(),
                expected: "1 to 500".to_owned(),
            },
            400,
            "invalid-parameter",
        ),
        (|_| QueryError::InvalidCursor, 400, "invalid-cursor"),
        (QueryError::UnknownPosition, 400, "unknown-position"),
        (|_| QueryError::NotFound, 404, "not-found"),
        (
            |position| QueryError::Behind {
                position,
                at: None,
                distance: 4,
            },
            503,
            "projection-behind",
        ),
        (
            |_| QueryError::NotBuilt {
                projection: "x".to_owned(),
            },
            503,
            "projection-behind",
        ),
        (|_| QueryError::Timeout, 503, "overloaded"),
    ];
    let bank = Bank::new();
    for (error, status, code) in cases {
        bank.reads(move |_, _| Err(error(position)));
        let got = bank.get(bank.ask(Method::GET, "/v1/accounts")).await;
        assert_eq!(got.problem(), (status, text(code)));
        assert_eq!(got.headers.contains_key("retry-after"), status == 503);
        if let QueryError::Behind { .. } = error(position) {
            assert_eq!(
                (&got.json()["distance"], &got.json()["position"]),
                (&json!(4), &json!("3:1042"))
            );
        }
    }
}

#[tokio::test]
async fn bad_headers_and_parameters_are_400_and_unknown_forms_406() {
    let bank = Bank::new();
    bank.reads(|_, _| Ok(row()));
    for after in ["3", "3:x", "3:1042,", "03:1"] {
        let got = bank
            .get(bank.ask(Method::GET, "/v1/ledger/x").with("annals-after", after))
            .await;
        assert_eq!(got.problem(), (400, "invalid-parameter".to_owned()), "{after}");
    }
    let broken = bank.get(bank.ask(Method::GET, "/v1/accounts?a=%zz")).await;
    assert_eq!(broken.problem(), (400, "invalid-parameter".to_owned()));
    let accepts = [
        ("text/event-stream;q=0", 406),
        ("text/*", 406),
        ("text/html", 406),
        ("application/json;q=0, */*", 406),
        ("*/*;q=0", 406),
        ("text/html, */*;q=0.1", 200),
        ("application/*", 200),
        ("application/json", 200),
        ("application/json, text/event-stream;q=0.9", 200),
        ("*/*", 200),
    ];
    for (accept, status) in accepts {
        let got = bank
            .get(bank.ask(Method::GET, "/v1/ledger/x").with("accept", accept))
            .await;
        assert_eq!(got.status.as_u16(), status, "{accept}");
        if status == 406 {
            assert_eq!(got.problem().1, "not-acceptable");
        }
    }
}

#[tokio::test]
async fn roles_and_owner_decide_what_is_seen() {
    let bank = Bank::new();
    bank.reads(|_, _| Ok(row()));
    let as_role =
        |role| Ask::new(Method::GET, "/v1/accounts").with("authorization", &bank.token("bob", role));
    assert_eq!(
        bank.get(as_role("nobody")).await.problem(),
        (403, "forbidden".to_owned())
    );
    assert!(bank.ports.queries.lock().unwrap().is_empty());

    assert_eq!(bank.get(as_role("customer")).await.status, 200);
    let scope = bank.ports.queries.lock().unwrap().pop().unwrap().scope;
    assert_eq!(
        scope.of("accounts"),
        Access {
            rows: Rows::Own("bob".to_owned()),
            private: Private::None
        }
    );

    assert_eq!(bank.get(as_role("teller")).await.status, 200);
    let scope = bank.ports.queries.lock().unwrap().pop().unwrap().scope;
    assert_eq!(scope.of("accounts"), Access::all());
    assert_eq!(scope.of("ledger"), Access::default(), "only what was asked for");

    let ledger = Ask::new(Method::GET, &format!("/v1/ledger/{ID}"))
        .with("authorization", &bank.token("bob", "customer"));
    assert_eq!(bank.get(ledger).await.status, 403);
}

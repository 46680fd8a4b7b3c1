//! What a command can be refused for before it reaches the engine.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Bank, ID};

#[tokio::test]
async fn what_the_body_alone_decides_is_422_with_all_that_is_wrong() {
    let bank = Bank::new();
    let errors = async |body: &str| -> Value {
        let got = bank.get(bank.deposit().body(body.to_owned())).await;
        assert_eq!(got.problem(), (422, "invalid".to_owned()), "{body}");
        got.json()["errors"].clone()
    };
    let both = errors(r#"{"amount":0,"notes":[{"text":""}],"extra":1}"#).await;
    let pointers: Vec<_> = both
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["pointer"].as_str().unwrap())
        .collect();
    assert!(
        pointers.contains(&"/amount") && pointers.contains(&"/notes/0/text"),
        "{both}"
    );
    assert!(both.as_array().unwrap().len() >= 3, "{both}");
    assert_eq!(
        errors(r#"{"amount":13}"#).await,
        json!([{"pointer": "/amount", "message": "thirteen brings bad luck"}])
    );
    assert!(!errors("[]").await.as_array().unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_is_400() {
    let bank = Bank::new();
    let nested = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    for body in [
        "{",
        "nope",
        r#"{"amount":1,"amount":2}"#,
        r#"{"amount":1,"a\u006dount":2}"#,
        r#"{"a":"\u0000"}"#,
        r#"{"amount":9007199254740992}"#,
        nested.as_str(),
    ] {
        let got = bank.get(bank.deposit().body(body.to_owned())).await;
        assert_eq!(got.problem(), (400, "malformed".to_owned()), "{body}");
        assert!(got.json()["offset"].is_number());
    }
    let headers = [
        ("idempotency-key", "a b"),
        ("if-match", "W/\"3\""),
        ("if-match", "\"3\", \"4\""),
        ("if-match", "3"),
        ("if-none-match", "\"3\""),
        ("annals-metadata", "[]"),
        ("annals-metadata", "{"),
        ("annals-metadata", r#"{"a":1,"a":1}"#),
        ("correlation-id", "a b"),
        ("correlation-id", ""),
    ];
    for (name, value) in headers {
        let got = bank.get(bank.deposit().without(name).with(name, value)).await;
        assert_eq!(
            got.problem(),
            (400, "invalid-parameter".to_owned()),
            "{name}: {value}"
        );
    }
    let both = bank.deposit().with("if-match", "*").with("if-none-match", "*");
    assert_eq!(
        bank.get(both).await.problem(),
        (400, "invalid-parameter".to_owned())
    );
    let two = bank.deposit().with("idempotency-key", "k2");
    assert_eq!(
        bank.get(two).await.problem(),
        (400, "invalid-parameter".to_owned())
    );
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(4_096));
    let large = bank.deposit().with("annals-metadata", &large);
    assert_eq!(
        bank.get(large).await.problem(),
        (400, "invalid-parameter".to_owned())
    );
    let none = bank.deposit().without("idempotency-key");
    assert_eq!(
        bank.get(none).await.problem(),
        (400, "idempotency-key-required".to_owned())
    );
    let parameter = bank
        .ask(Method::POST, &format!("/v1/accounts/{ID}/close?x=1"))
        .with("idempotency-key", "k");
    assert_eq!(
        bank.get(parameter).await.problem(),
        (400, "unknown-parameter".to_owned())
    );
}

#[tokio::test]
async fn a_traceparent_that_cannot_be_read_is_left_out() {
    let bank = Bank::new();
    let got = bank.get(bank.deposit().with("traceparent", "nonsense")).await;
    assert_eq!((got.status.as_u16(), got.header("traceparent")), (201, ""));
    assert_eq!(bank.ports.commands.lock().unwrap()[0].traceparent, None);
}

#[tokio::test]
async fn bodies_of_another_form_or_size_are_415_and_413() {
    let bank = Bank::new();
    for content in [
        "text/plain",
        "application/json; charset=latin1",
        "application/jsonp",
        "",
    ] {
        let ask = bank
            .deposit()
            .without("content-type")
            .with("content-type", content);
        assert_eq!(
            bank.get(ask).await.problem(),
            (415, "unsupported-media-type".to_owned()),
            "{content}"
        );
    }
    let none = bank.deposit().without("content-type");
    assert_eq!(bank.get(none).await.status, 415);
    let encoded = bank.deposit().with("content-encoding", "gzip");
    assert_eq!(bank.get(encoded).await.status, 415);
    for content in ["application/json;charset=UTF-8", "Application/JSON"] {
        let ask = bank
            .deposit()
            .without("content-type")
            .with("content-type", content);
        assert_eq!(bank.get(ask).await.status, 201, "{content}");
    }
    let body = |bytes: usize| format!("{{\"amount\":5}}{}", " ".repeat(bytes - 12));
    let limit = 256 << 10;
    assert_eq!(bank.get(bank.deposit().body(body(limit))).await.status, 201);
    let got = bank.get(bank.deposit().body(body(limit + 1))).await;
    assert_eq!(got.problem(), (413, "too-large".to_owned()));
    assert_eq!(got.json()["limit"], limit);
}

#[tokio::test]
async fn there_are_resources_commands_keys_and_methods_that_there_are_not() {
    let bank = Bank::new();
    let cases = [
        (
            Method::POST,
            format!("/v1/nothing/{ID}/open"),
            404,
            "unknown-resource",
            "",
        ),
        (
            Method::POST,
            format!("/v1/accounts/{ID}/explode"),
            404,
            "unknown-command",
            "",
        ),
        (
            Method::POST,
            "/v1/accounts/explode".to_owned(),
            404,
            "unknown-command",
            "",
        ),
        (
            Method::POST,
            "/v1/accounts/not-a-uuid/open".to_owned(),
            404,
            "not-found",
            "",
        ),
        (
            Method::POST,
            "/v1/coins/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/mint".to_owned(),
            404,
            "not-found",
            "",
        ),
        (
            Method::POST,
            "/v1/coins/a%20b/mint".to_owned(),
            404,
            "not-found",
            "",
        ),
        (
            Method::POST,
            "/v1/accounts/deposit".to_owned(),
            405,
            "method-not-allowed",
            "GET, HEAD, OPTIONS",
        ),
        (
            Method::POST,
            "/v1/coins/mint".to_owned(),
            405,
            "method-not-allowed",
            "OPTIONS",
        ),
        (
            Method::GET,
            format!("/v1/accounts/{ID}/open"),
            405,
            "method-not-allowed",
            "POST, OPTIONS",
        ),
        (
            Method::POST,
            "/v1/accounts".to_owned(),
            405,
            "method-not-allowed",
            "GET, HEAD, OPTIONS",
        ),
        (
            Method::DELETE,
            "/v1/batch".to_owned(),
            405,
            "method-not-allowed",
            "POST, OPTIONS",
        ),
        (
            Method::PUT,
            "/v1/accounts/open".to_owned(),
            405,
            "method-not-allowed",
            "GET, HEAD, POST, OPTIONS",
        ),
        (Method::GET, "/v1/coins".to_owned(), 404, "unknown-resource", ""),
        (Method::GET, "/v1".to_owned(), 404, "unknown-resource", ""),
        (Method::GET, "/".to_owned(), 404, "unknown-resource", ""),
        (
            Method::POST,
            "/v1/a/b/c/d".to_owned(),
            404,
            "unknown-resource",
            "",
        ),
        (
            Method::POST,
            "/docs".to_owned(),
            405,
            "method-not-allowed",
            "GET, HEAD, OPTIONS",
        ),
        (Method::GET, "/problems/none".to_owned(), 404, "not-found", ""),
    ];
    for (method, target, status, code, allow) in cases {
        let got = bank.get(bank.ask(method.clone(), &target)).await;
        assert_eq!(got.problem(), (status, code.to_owned()), "{method} {target}");
        assert_eq!(got.header("allow"), allow, "{method} {target}");
    }
    let options = bank
        .get(bank.ask(Method::OPTIONS, &format!("/v1/accounts/{ID}/open")))
        .await;
    assert_eq!(
        (options.status.as_u16(), options.header("allow")),
        (204, "POST, OPTIONS")
    );
    let escaped = bank.deposit();
    assert_eq!(bank.get(escaped).await.status, 201);
}

#[tokio::test]
async fn a_node_without_the_role_says_so() {
    let bank = Bank::with(|parts| parts.commands = None);
    let got = bank.get(bank.deposit()).await;
    assert_eq!(
        (got.problem(), &got.json()["role"]),
        ((421, "misdirected".to_owned()), &json!("command"))
    );
    let bank = Bank::with(|parts| parts.reads = None);
    let got = bank.get(bank.ask(Method::GET, "/v1/accounts")).await;
    assert_eq!(
        (got.problem(), &got.json()["role"]),
        ((421, "misdirected".to_owned()), &json!("query"))
    );
}

#[tokio::test]
async fn headers_that_are_too_large_are_431() {
    let bank = Bank::new();
    let got = bank
        .get(bank.deposit().with("x-large", &"x".repeat(16 << 10)))
        .await;
    assert_eq!(got.problem(), (431, "headers-too-large".to_owned()));
}

#[tokio::test]
async fn a_panic_is_500_and_says_nothing() {
    let bank = Bank::new();
    bank.answers(|_| panic!("secret"));
    let got = bank.get(bank.deposit()).await;
    assert_eq!(got.problem(), (500, "internal".to_owned()));
    assert!(!String::from_utf8_lossy(&got.bytes).contains("secret"));
}

//! Batches: lines judged alone, answered in order, and in turn where they are of one stream.

use std::sync::{Arc, Mutex};

use annals_http::Place;
use http::Method;
use serde_json::{Value, json};

use crate::harness::{Bank, Got, ID, committed};

fn lines(got: &Got) -> Vec<Value> {
    let text = std::str::from_utf8(&got.bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn batch(bank: &Bank, body: String) -> Vec<Value> {
    let ask = bank
        .ask(Method::POST, "/v1/batch")
        .with("content-type", "application/x-ndjson")
        .body(body);
    let got = bank.get(ask).await;
    assert_eq!(
        (got.status.as_u16(), got.header("content-type")),
        (200, "application/x-ndjson")
    );
    lines(&got)
}

#[tokio::test]
async fn a_bad_line_is_reported_alone_and_results_keep_the_order() {
    let bank = Bank::new();
    let good = |key: &str| json!({"resource": "accounts", "key": ID, "command": "deposit", "idempotency_key": key, "data": {"amount": 5}});
    let with = |name: &str, value: Value| {
        let mut line = good("k");
        line[name] = value;
        line.to_string()
    };
    let large = format!("{{\"data\":\"{}\"}}", "x".repeat(300_000));
    let body = [
        good("k1").to_string(),
        "nonsense".to_owned(),
        with("resource", json!("nothing")),
        with("command", json!("explode")),
        with("key", json!("no-uuid")),
        String::new(),
        with("idempotency_key", json!("")),
        with("if_match", json!("W/\"3\"")),
        with("data", json!({"amount": 0})),
        with("unknown", json!(1)),
        large,
        json!({"resource": "accounts", "command": "deposit", "idempotency_key": "k"}).to_string(),
        json!({"resource": "accounts", "command": "open", "idempotency_key": "k", "data": {"owner": "a"}})
            .to_string(),
        r#"{"resource":"accounts","resource":"accounts"}"#.to_owned(),
        with("data", json!({"amount": 13})),
        good("k2").to_string(),
    ];
    let got = batch(&bank, body.join("\n")).await;
    let expected = [
        (1, 201, ""),
        (2, 400, "malformed"),
        (3, 404, "unknown-resource"),
        (4, 404, "unknown-command"),
        (5, 404, "not-found"),
        (7, 400, "idempotency-key-required"),
        (8, 400, "invalid-parameter"),
        (9, 422, "invalid"),
        (10, 422, "invalid"),
        (11, 413, "too-large"),
        (12, 405, "method-not-allowed"),
        (13, 201, ""),
        (14, 400, "malformed"),
        (15, 422, "invalid"),
        (16, 201, ""),
    ];
    assert_eq!(got.len(), expected.len());
    for (line, (number, status, code)) in got.iter().zip(expected) {
        assert_eq!(
            (&line["line"], &line["status"]),
            (&json!(number), &json!(status)),
            "{line}"
        );
        match status {
            201 => assert_eq!(line["result"]["position"], "3:1042"),
            _ => assert_eq!(
                (&line["problem"]["code"], &line["problem"]["status"]),
                (&json!(code), &json!(status))
            ),
        }
    }
}

#[tokio::test]
async fn preconditions_may_be_written_as_versions() {
    let bank = Bank::new();
    let line = |extra: &str| {
        format!(r#"{{"resource":"accounts","key":"{ID}","command":"close","idempotency_key":"k",{extra}}}"#)
    };
    let body = [
        r#""if_match":"3""#,
        r#""if_match":3"#,
        r#""if_match":"\"3\"""#,
        r#""if_match":"*""#,
        r#""if_none_match":"*""#,
    ]
    .map(line);
    let got = batch(&bank, body.join("\n")).await;
    assert!(got.iter().all(|line| line["status"] == 201), "{got:?}");
    let sent: Vec<_> = bank
        .ports
        .commands
        .lock()
        .unwrap()
        .iter()
        .map(|c| c.precondition.canonical())
        .collect();
    assert_eq!(sent, ["=3", "=3", "=3", "=*", "*"]);
}

#[tokio::test]
async fn lines_of_one_stream_are_sent_in_their_order() {
    let bank = Bank::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let taken = seen.clone();
    bank.answers(move |request| {
        taken.lock().unwrap().push(request.data.get().to_owned());
        Ok(committed(request, 2))
    });
    let line = |n: usize| {
        format!(
            r#"{{"resource":"accounts","key":"{ID}","command":"deposit","idempotency_key":"k{n}","data":{{"amount":{n}}}}}"#
        )
    };
    let body: Vec<_> = (101..=600).map(line).collect();
    let got = batch(&bank, body.join("\n")).await;
    assert!(
        got.iter()
            .zip(1..)
            .all(|(line, n)| line["line"] == n && line["status"] == 200)
    );
    let sent: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|data| serde_json::from_str::<Value>(data).unwrap()["amount"].clone())
        .collect();
    assert_eq!(sent, (101..=600).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_itself_can_be_refused() {
    let bank = Bank::new();
    let wrong = bank.ask(Method::POST, "/v1/batch").json("{}");
    assert_eq!(
        bank.get(wrong).await.problem(),
        (415, "unsupported-media-type".to_owned())
    );
    assert!(batch(&bank, String::new()).await.is_empty());
    let none = Bank::with(|parts| parts.commands = None);
    let ask = none
        .ask(Method::POST, "/v1/batch")
        .with("content-type", "application/x-ndjson");
    assert_eq!(none.get(ask).await.problem(), (421, "misdirected".to_owned()));
}

#[tokio::test]
async fn a_token_that_expires_meanwhile_ends_what_comes_after() {
    let bank = Bank::new();
    let clock = bank.clock.clone();
    bank.answers(move |request| {
        clock.advance_ms(3_600_000);
        Ok(committed(request, 1))
    });
    *bank.ports.place.lock().unwrap() = Place::Here { owner: true };
    let line = |n: usize| {
        format!(r#"{{"resource":"accounts","key":"{ID}","command":"close","idempotency_key":"k{n}"}}"#)
    };
    let body: Vec<_> = (0..200).map(line).collect();
    let got = batch(&bank, body.join("\n")).await;
    assert_eq!(got[0]["status"], 201);
    assert_eq!(got[199]["problem"]["code"], "unauthenticated");
}

#[tokio::test]
async fn a_panic_is_one_lines_answer() {
    let bank = Bank::new();
    let mut count = 0;
    bank.answers(move |request| {
        count += 1;
        if count == 1 {
            panic!("secret");
        }
        Ok(committed(request, 1))
    });
    let line = |stamp: &str| {
        format!(r#"{{"resource":"coins","key":"{stamp}","command":"mint","idempotency_key":"k"}}"#)
    };
    // The panic poisons the fake's lock, so that the second line panics too: both are told.
    let got = batch(&bank, [line("a"), line("b")].join("\n")).await;
    assert_eq!((&got[0]["problem"]["code"], got.len()), (&json!("internal"), 2));
    assert!(!got[0].to_string().contains("secret"));
}

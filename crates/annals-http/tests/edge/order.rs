//! The order of judgement: each neighbouring pair, by a request that is wrong in both ways.

use annals_command::SendError;
use http::Method;

use crate::harness::{Ask, Bank, ID};

/// Each way of being wrong, in the order in which it is judged.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Wrong {
    Token,
    Path,
    Roles,
    Form,
    Size,
    Readable,
    Fits,
    Object,
}

const ALL: [(Wrong, u16); 8] = [
    (Wrong::Token, 401),
    (Wrong::Path, 404),
    (Wrong::Roles, 403),
    (Wrong::Form, 415),
    (Wrong::Size, 413),
    (Wrong::Readable, 400),
    (Wrong::Fits, 422),
    (Wrong::Object, 403),
];

fn request(bank: &Bank, wrong: &[Wrong]) -> Ask {
    let is = |way| wrong.contains(&way);
    let command = if is(Wrong::Path) { "explode" } else { "deposit" };
    let mut ask = Ask::new(Method::POST, &format!("/v1/accounts/{ID}/{command}"));
    if !is(Wrong::Token) {
        let role = if is(Wrong::Roles) { "nobody" } else { "customer" };
        ask = ask.with("authorization", &bank.token("bob", role));
    }
    ask = ask.with(
        "content-type",
        if is(Wrong::Form) {
            "text/plain"
        } else {
            "application/json"
        },
    );
    if !is(Wrong::Readable) {
        ask = ask.with("idempotency-key", "k");
    }
    let mut body = if is(Wrong::Fits) {
        r#"{"amount":0}"#
    } else {
        r#"{"amount":5}"#
    }
    .to_owned();
    if is(Wrong::Size) {
        body.push_str(&" ".repeat(300_000));
    }
    ask.body(body)
}

#[tokio::test]
async fn the_first_failure_in_the_order_is_the_answer() {
    let bank = Bank::new();
    bank.answers(|_| Err(SendError::Forbidden));
    for (n, (first, status)) in ALL.into_iter().enumerate() {
        let alone = bank.get(request(&bank, &[first])).await;
        assert_eq!(alone.status.as_u16(), status, "{first:?} alone");
        for (second, _) in &ALL[n + 1..] {
            let both = bank.get(request(&bank, &[first, *second])).await;
            assert_eq!(both.status.as_u16(), status, "{first:?} before {second:?}");
        }
    }
}

#[tokio::test]
async fn what_is_not_json_is_told_before_what_does_not_fit() {
    let bank = Bank::new();
    let both = bank.deposit().body(r#"{"amount":0,"amount":0}"#);
    assert_eq!(bank.get(both).await.status, 400);
}

#[tokio::test]
async fn a_token_is_needed_for_all_but_the_open_pages() {
    let bank = Bank::new();
    for target in [
        "/",
        "/v1/accounts",
        "/v1/nothing",
        "/v1/batch",
        "/v1/audit/shards",
        "/nothing",
    ] {
        let got = bank.get(Ask::new(Method::GET, target)).await;
        assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{target}");
        assert_eq!(got.header("www-authenticate"), "Bearer realm=\"annals\"");
    }
    for token in ["Bearer nonsense", "Basic YTpi", "Bearer", "Bearer "] {
        let got = bank
            .get(Ask::new(Method::GET, "/v1/accounts").with("authorization", token))
            .await;
        assert_eq!(got.problem(), (401, "unauthenticated".to_owned()), "{token}");
        assert!(got.header("www-authenticate").starts_with("Bearer realm="));
    }
    let old = bank.token("ada", "teller");
    bank.clock.advance_ms(3_600_000);
    let got = bank
        .get(Ask::new(Method::GET, "/v1/accounts").with("authorization", &old))
        .await;
    assert_eq!(got.problem(), (401, "unauthenticated".to_owned()));
    assert!(got.header("www-authenticate").contains("error=\"invalid_token\""));
    for target in ["/v1/openapi.json", "/docs/", "/problems/rejected"] {
        assert_eq!(
            bank.get(Ask::new(Method::GET, target)).await.status,
            200,
            "{target}"
        );
    }
}

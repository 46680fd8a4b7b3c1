//! Every row of the table of statuses; who may ask, and the order of judgement, are in `system_callers`.
//!
//! What needs a broken machine is elsewhere: 421 with split node roles, 503 and 504 with faults.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use annals_tests::shop::usd;
use annals_tests::{Answer, Api, Home, Shared, Shop, unique, uuid};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

fn receive(quantity: u64) -> Value {
    json!({"quantity": quantity, "reference": "delivery"})
}

/// A `receive` with this body, sent as it stands.
async fn raw(api: &Api, sku: &str, body: impl Into<Vec<u8>>) -> Answer {
    let call = api
        .call("POST", &format!("/v1/products/{sku}/receive"))
        .key(&unique("k"));
    call.header("content-type", "application/json")
        .body(body.into())
        .send()
        .await
}

#[tokio::test]
async fn open_pages_need_no_token() {
    let Some(server) = SERVER.get() else { return };
    let nobody = server.nobody();
    nobody.get("/v1/openapi.json").await.is(200);
    let page = nobody.get("/problems/out-of-nowhere").await;
    page.problem(404, "not-found");
    for code in ["malformed", "rejected", "version-mismatch", "outcome-unknown"] {
        let page = nobody.get(&format!("/problems/{code}")).await;
        assert!(page.is(200).text().contains(code), "{}", page.text());
    }
}

#[tokio::test]
async fn what_is_no_json_as_it_is_taken_here_is_400_malformed() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    let bodies: [&[u8]; 14] = [
        b"{",
        b"nothing",
        b"{\"quantity\": 1, \"reference\": \"x\"} x",
        b"{\"quantity\": 1, \"quantity\": 1, \"reference\": \"x\"}",
        b"{\"quantity\": 1, \"reference\": \"x\", \"x\": {\"a\": 1, \"\\u0061\": 2}}",
        b"{\"quantity\": 1, \"reference\": \"\\u0000\"}",
        b"{\"quantity\": 1, \"reference\": \"a\0b\"}",
        b"{\"quantity\": 1, \"reference\": \"\xff\"}",
        b"{\"quantity\": 1, \"reference\": \"\\ud800\"}",
        b"{\"quantity\": 9007199254740992, \"reference\": \"x\"}",
        b"{\"quantity\": -9007199254740993, \"reference\": \"x\"}",
        b"{\"quantity\": 1e400, \"reference\": \"x\"}",
        b"{\"quantity\": 01, \"reference\": \"x\"}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let answer = raw(&shop.admin, &sku, body).await;
        assert_eq!(
            answer.status,
            400,
            "{}: {}",
            String::from_utf8_lossy(body),
            answer.text()
        );
        answer.problem(400, "malformed");
    }
}

#[tokio::test]
async fn a_command_without_an_idempotency_key_or_with_a_bad_one_is_400() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let call = || {
        shop.admin
            .call("POST", &format!("/v1/products/{sku}/receive"))
            .json(&receive(1))
    };
    call().send().await.problem(400, "idempotency-key-required");
    call()
        .header("idempotency-key", "")
        .send()
        .await
        .problem(400, "idempotency-key-required");
    let (fits, long) = ("k".repeat(255), "k".repeat(256));
    call().key(&fits).send().await.is(200);
    for bad in [long.as_str(), "\"half", "half\"", "a b", "\u{e9}", "\"\""] {
        let answer = call().header("idempotency-key", bad).send().await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
        assert_eq!(answer.json()["code"], "invalid-parameter", "{bad}");
    }
    let twice = call()
        .key(&unique("k"))
        .header("idempotency-key", "other")
        .send()
        .await;
    twice.problem(400, "invalid-parameter");
}

#[tokio::test]
async fn unknown_and_bad_parameters_are_400_and_named() {
    let Some(server) = SERVER.get() else { return };
    let admin = server.api("admin");
    let bad = [
        ("/v1/orders?colour=red", "unknown-parameter"),
        ("/v1/orders?reason=x", "unknown-parameter"),
        ("/v1/orders?status.like=x", "unknown-parameter"),
        ("/v1/orders?limit=501", "invalid-parameter"),
        ("/v1/orders?limit=0", "invalid-parameter"),
        ("/v1/orders?limit=many", "invalid-parameter"),
        ("/v1/orders?total.gte=much", "invalid-parameter"),
        ("/v1/orders?customer_id=me", "invalid-parameter"),
        ("/v1/orders?sort=reason", "invalid-parameter"),
        ("/v1/orders?fields=nothing", "invalid-parameter"),
        ("/v1/orders?expand=nothing", "invalid-parameter"),
        ("/v1/orders?status.is=perhaps", "invalid-parameter"),
        ("/v1/orders?cursor=AAAA", "invalid-cursor"),
    ];
    for (path, code) in bad {
        let answer = admin.get(path).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some(code)),
            "{path}: {}",
            answer.text()
        );
        answer.problem(400, code);
    }
    for (position, code) in [
        ("x", "invalid-parameter"),
        ("0:1~7", "unknown-position"),
        ("99:1", "unknown-position"),
    ] {
        admin
            .call("GET", "/v1/orders")
            .header("annals-after", position)
            .send()
            .await
            .problem(400, code);
    }
    let path = format!("/v1/products/{}/receive?fast=yes", unique("P"));
    admin
        .post(&path, &receive(1))
        .await
        .problem(400, "unknown-parameter");
}

#[tokio::test]
async fn what_does_not_exist_is_404_and_a_method_that_a_path_lacks_is_405() {
    let Some(server) = SERVER.get() else { return };
    let admin = server.api("admin");
    let reads = [
        ("/v1/nothings", "unknown-resource"),
        ("/v1/nothings/1", "unknown-resource"),
        ("/nothing", "unknown-resource"),
        ("/v1/products/no-such-product", "not-found"),
        ("/v1/orders/no-uuid", "not-found"),
    ];
    for (path, code) in reads {
        admin.get(path).await.problem(404, code);
    }
    let nobody_has = "k".repeat(129);
    let commands = [
        ("/v1/nothings/1/do".to_owned(), "unknown-resource"),
        ("/v1/orders/0/explode".to_owned(), "unknown-command"),
        ("/v1/orders/no-uuid/cancel".to_owned(), "not-found"),
        (format!("/v1/products/{nobody_has}/receive"), "not-found"),
        ("/v1/products/a@b/receive".to_owned(), "not-found"),
    ];
    for (path, code) in commands {
        admin.post(&path, &receive(1)).await.problem(404, code);
    }
    let methods = [
        ("PUT", "/v1/orders".to_owned()),
        ("POST", "/v1/orders".to_owned()),
        ("DELETE", format!("/v1/orders/{}", uuid())),
        ("GET", format!("/v1/orders/{}/cancel", uuid())),
        ("GET", "/v1/batch".to_owned()),
        // These aggregates' keys are not the server's to make.
        ("POST", "/v1/products/register".to_owned()),
        ("POST", "/v1/orders/cancel".to_owned()),
    ];
    for (method, path) in methods {
        let answer = admin
            .call(method, &path)
            .key(&unique("k"))
            .json(&json!({}))
            .send()
            .await;
        assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
        answer.problem(405, "method-not-allowed");
        assert!(answer.header("allow").is_some(), "{method} {path}");
    }
    let answer = admin
        .call("GET", "/v1/orders")
        .header("accept", "image/png")
        .send()
        .await;
    answer.problem(406, "not-acceptable");
}

#[tokio::test]
async fn an_upper_case_uuid_is_the_same_key() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let customer = uuid();
    let data = json!({"name": "Ada", "email": "ada@example.com"});
    let path = format!("/v1/customers/{}/register", customer.to_uppercase());
    let answer = shop.admin.post(&path, &data).await;
    assert_eq!(answer.is(201).json()["stream"], format!("customer-{customer}"));
    shop.admin
        .post(&format!("/v1/customers/{customer}/register"), &data)
        .await
        .rejection("already_registered");
}

#[tokio::test]
async fn a_rule_that_says_no_is_409_with_code_and_detail_on_the_record() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 5).await;
    let path = format!("/v1/products/{sku}/register");
    let again = shop
        .admin
        .post(&path, &json!({"name": "x", "price": usd(1)}))
        .await;
    again.rejection("already_registered");
    let reprice = json!({"price": {"amount": 1, "currency": "EUR"}});
    let detail = shop
        .admin
        .post(&format!("/v1/products/{sku}/reprice"), &reprice)
        .await;
    assert_eq!(detail.rejection("currency_differs")["currency"], "USD");
    let adjust = json!({"delta": -6, "reason": "lost"});
    let detail = shop
        .admin
        .post(&format!("/v1/products/{sku}/adjust"), &adjust)
        .await
        .rejection("below_reserved");
    assert_eq!(detail["reserved"], 0);
    let unknown = shop
        .admin
        .post(&format!("/v1/products/{}/receive", unique("P")), &receive(1))
        .await;
    unknown.rejection("unknown_product");
    assert_eq!(unknown.header("etag"), None);
}

#[tokio::test]
async fn a_body_that_is_too_large_or_of_another_type_is_413_or_415_and_large_headers_431() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let large = format!(
        "{{\"quantity\": 1, \"reference\": \"{}\"}}",
        "x".repeat(256 << 10)
    );
    raw(&shop.admin, &sku, large.clone())
        .await
        .problem(413, "too-large");
    // As large as it may be: the next judge has it.
    let fits = format!("{}{}", &large[..(256 << 10) - 2], "\"}");
    raw(&shop.admin, &sku, fits).await.problem(422, "invalid");
    let call = || {
        shop.admin
            .call("POST", &format!("/v1/products/{sku}/receive"))
            .key(&unique("k"))
    };
    let body = receive(1).to_string();
    let of_type = |kind: &str| call().header("content-type", kind).body(body.clone()).send();
    for kind in [
        "text/plain",
        "application/x-ndjson",
        "application/json; charset=latin1",
        "json",
    ] {
        of_type(kind).await.problem(415, "unsupported-media-type");
    }
    call()
        .body(body.clone())
        .send()
        .await
        .problem(415, "unsupported-media-type");
    let gzip = call()
        .header("content-encoding", "gzip")
        .header("content-type", "application/json");
    gzip.body(body.clone())
        .send()
        .await
        .problem(415, "unsupported-media-type");
    of_type("application/json; charset=utf-8").await.is(200);
    of_type("Application/JSON").await.is(200);
    // No body is `{}`: judged by the schema.
    call().send().await.problem(422, "invalid");
    let long = "x".repeat(20 << 10);
    let answer = call().header("x-long", &long).json(&receive(1)).send().await;
    answer.problem(431, "headers-too-large");
}

#[tokio::test]
async fn everything_that_is_wrong_with_the_data_is_listed_with_422() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let path = format!("/v1/orders/{}/place", uuid());
    let data = json!({
        "customer": "nobody", "currency": "dollars", "payment_method": "",
        "lines": [{"sku": "a b", "quantity": 0, "unit_price": -1}], "colour": "red",
    });
    let problem = shop.admin.post(&path, &data).await.problem(422, "invalid");
    let errors = problem["errors"].as_array().unwrap();
    let pointers: Vec<_> = errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    for pointer in [
        "/customer",
        "/currency",
        "/payment_method",
        "/lines/0/sku",
        "/lines/0/quantity",
        "/lines/0/unit_price",
    ] {
        assert!(pointers.contains(&pointer), "{pointer} is missing: {problem}");
    }
    assert!(
        pointers
            .iter()
            .any(|pointer| pointer.is_empty() || *pointer == "/colour"),
        "the unknown field: {problem}"
    );
    assert!(
        errors
            .iter()
            .all(|error| error["message"].as_str().is_some_and(|text| !text.is_empty())),
        "{problem}"
    );
    let none = json!({"customer": uuid(), "currency": "USD", "payment_method": "tok_ok", "lines": []});
    shop.admin.post(&path, &none).await.problem(422, "invalid");
}

#[tokio::test]
async fn a_caller_with_too_many_refusals_is_429_and_replays_do_not_count() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__COMMAND__REFUSAL_BURST", "5");
    home.set("ANNALS__COMMAND__REFUSALS_PER_MINUTE", "1");
    let server = home.dev();
    let api = server.api_as("admin", "stubborn");
    let path = format!("/v1/orders/{}/cancel", uuid());
    let reason = json!({"reason": "x"});
    let key = unique("k");
    api.post_with_key(&path, &key, &reason)
        .await
        .rejection("unknown_order");
    for _ in 0..4 {
        api.post(&path, &reason).await.rejection("unknown_order");
    }
    let answer = api.post(&path, &reason).await;
    answer.problem(429, "quota-exceeded");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(
        answer.header("ratelimit").is_some() && answer.header("ratelimit-policy").is_some(),
        "{:?}",
        answer.headers
    );
    let replay = api.post_with_key(&path, &key, &reason).await;
    replay.rejection("unknown_order");
    assert_eq!(replay.header("idempotent-replayed"), Some("true"));
    server
        .api_as("admin", "another")
        .post(&path, &reason)
        .await
        .rejection("unknown_order");
    server.stop();
}

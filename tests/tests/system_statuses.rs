//! Every row of the table of statuses, and the order in which a request is judged.
//!
//! What needs a broken machine is elsewhere: 421 with split node roles, 503 and 504 with faults.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use annals_tests::shop::{order_data, usd};
use annals_tests::{Answer, Api, Call, Home, Shared, Shop, unique, uuid};
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
async fn without_a_good_token_every_request_is_401_with_a_challenge() {
    let Some(server) = SERVER.get() else { return };
    let token = server.home.token("admin", "tester");
    let (head, signature) = token.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().rev().collect();
    let expired = server
        .home
        .run(&["token", "--role", "admin", "--ttl", "1s", "--subject", "late"]);
    let tokens = [
        None,
        Some("nonsense".to_owned()),
        Some(format!("{head}.{flipped}")),
        Some(format!("{head}.")),
    ];
    for token in tokens {
        let api = Api::new(&server.url, token);
        for call in [
            api.call("GET", "/v1/orders"),
            api.call("GET", "/v1/nothings"),
            api.call("POST", "/v1/batch"),
        ] {
            let answer = call.send().await;
            answer.problem(401, "unauthenticated");
            assert!(
                answer.header("www-authenticate").unwrap().starts_with("Bearer"),
                "{:?}",
                answer.headers
            );
        }
    }
    let basic = server
        .nobody()
        .call("GET", "/v1/orders")
        .header("authorization", "Basic YTpi")
        .send()
        .await;
    basic.problem(401, "unauthenticated");

    // A token that runs out: asked with until it has.
    let api = Api::new(&server.url, Some(expired.exits(0).trim().to_owned()));
    let mut answer = api.get("/v1/products").await;
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(90);
    while answer.status == 200 && tokio::time::Instant::now() < until {
        answer = api.get("/v1/products").await;
    }
    answer.problem(401, "unauthenticated");
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
async fn what_a_role_may_not_do_is_403() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let products = |command: &str| format!("/v1/products/{sku}/{command}");
    let (order, customer) = (uuid(), uuid());
    let orders = |command: &str| format!("/v1/orders/{order}/{command}");
    let payments = |command: &str| format!("/v1/payments/{order}/{command}");
    let customers = |command: &str| format!("/v1/customers/{customer}/{command}");
    let denied = [
        ("clerk", products("receive")),
        ("clerk", orders("ship")),
        ("clerk", payments("capture")),
        ("clerk", customers("erase")),
        ("warehouse", products("register")),
        ("warehouse", orders("place")),
        ("finance", orders("cancel")),
        ("auditor", products("register")),
        ("operator", products("register")),
        ("privacy", customers("block")),
        ("customer", products("register")),
        ("customer", orders("ship")),
        // What only processes may do is nobody's, not the admin's either.
        ("admin", customers("admit")),
        ("admin", products("reserve")),
        ("admin", orders("confirm")),
        ("admin", payments("authorize")),
    ];
    for (role, path) in denied {
        let answer = server.api(role).post(&path, &json!({})).await;
        assert_eq!(answer.status, 403, "{role} {path}: {}", answer.text());
        answer.problem(403, "forbidden");
    }
    let reads = [
        ("operator", "/v1/orders"),
        ("warehouse", "/v1/payments"),
        ("finance", "/v1/customers"),
        ("customer", "/v1/daily_sales"),
        ("privacy", "/v1/orders"),
        ("clerk", "/v1/audit/records"),
        ("operator", "/v1/audit/shards"),
    ];
    for (role, path) in reads {
        let answer = server.api(role).get(path).await;
        assert_eq!(answer.status, 403, "{role} {path}: {}", answer.text());
        answer.problem(403, "forbidden");
    }
    let system = server.home.run(&["token", "--role", "system"]);
    if system.code == Some(0) {
        let api = Api::new(&server.url, Some(system.stdout.trim().to_owned()));
        let answer = api.post(&orders("confirm"), &json!({})).await;
        assert!(
            matches!(answer.status, 401 | 403),
            "no client token can hold `system`: {}",
            answer.status
        );
    }
}

#[tokio::test]
async fn a_customer_commands_only_what_is_their_own() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer, other) = (
        shop.product(500, 9).await,
        shop.customer().await,
        shop.customer().await,
    );
    let api = server.api_as("customer", &customer);
    let (mine, theirs) = (uuid(), uuid());
    let path = format!("/v1/orders/{mine}/place");
    let lines = [(sku.as_str(), 1, 500)];
    api.post(&path, &order_data(&customer, "2003-01-02", "tok_hang", &lines))
        .await
        .is(201);
    let for_another = order_data(&other, "2003-01-02", "tok_hang", &lines);
    api.post(&format!("/v1/orders/{theirs}/place"), &for_another)
        .await
        .problem(403, "forbidden");
    shop.admin
        .post(&format!("/v1/orders/{theirs}/place"), &for_another)
        .await
        .is(201);
    let reason = json!({"reason": "x"});
    api.post(&format!("/v1/orders/{theirs}/cancel"), &reason)
        .await
        .problem(403, "forbidden");
    api.post(&format!("/v1/orders/{}/cancel", uuid()), &reason)
        .await
        .problem(403, "forbidden");
    api.post(&format!("/v1/orders/{mine}/cancel"), &reason)
        .await
        .is(200);
    let contact = json!({"name": "Ada", "email": "ada@example.com"});
    api.post(&format!("/v1/customers/{customer}/change-contact"), &contact)
        .await
        .is(200);
    api.post(&format!("/v1/customers/{other}/change-contact"), &contact)
        .await
        .problem(403, "forbidden");
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

/// Two things wrong in one request: the first in the order of judgement is the answer.
#[tokio::test]
async fn of_two_things_that_are_wrong_the_first_in_order_is_the_answer() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 0).await, shop.customer().await);
    let (nobody, clerk, admin) = (server.nobody(), server.api("clerk"), &shop.admin);
    let owner = server.api_as("customer", &uuid());
    let receive_path = format!("/v1/products/{sku}/receive");
    let large = "x".repeat(300 << 10);
    let used = unique("k");
    admin
        .post_with_key(&receive_path, &used, &receive(1))
        .await
        .is(200);
    let text = |call: Call, body: &str| call.header("content-type", "text/plain").body(body.to_owned());
    let json_body = |call: Call, body: &str| {
        call.header("content-type", "application/json")
            .body(body.to_owned())
    };
    let place = format!("/v1/orders/{}/place", uuid());
    let not_mine = order_data(&customer, "2003-01-03", "tok_ok", &[("a", 1, 1)]);

    let pairs: Vec<(&str, Call, u16, &str)> = vec![
        (
            "401 before 404",
            nobody.call("POST", "/v1/nothings/1/do"),
            401,
            "unauthenticated",
        ),
        (
            "401 before 415",
            text(nobody.call("POST", &receive_path), "x"),
            401,
            "unauthenticated",
        ),
        (
            "404 before 403",
            clerk.call("POST", &format!("/v1/products/{sku}/explode")),
            404,
            "unknown-command",
        ),
        (
            "404 before 415",
            text(admin.call("POST", "/v1/nothings/1/do"), "x"),
            404,
            "unknown-resource",
        ),
        (
            "403 before 415",
            text(clerk.call("POST", &receive_path), "x"),
            403,
            "forbidden",
        ),
        (
            "403 before 413",
            json_body(clerk.call("POST", &receive_path), &large),
            403,
            "forbidden",
        ),
        (
            "403 before 400",
            json_body(clerk.call("POST", &receive_path), "{"),
            403,
            "forbidden",
        ),
        (
            "415 before 413",
            text(admin.call("POST", &receive_path), &large),
            415,
            "unsupported-media-type",
        ),
        (
            "415 before 400",
            text(admin.call("POST", &receive_path), "{"),
            415,
            "unsupported-media-type",
        ),
        (
            "413 before 400",
            json_body(admin.call("POST", &receive_path), &large),
            413,
            "too-large",
        ),
        (
            "400 before 422",
            admin.call("POST", &receive_path).json(&json!({})),
            400,
            "idempotency-key-required",
        ),
        (
            "400 before 422, in the body",
            json_body(
                admin.call("POST", &receive_path).key(&unique("k")),
                "{\"x\": 1, \"x\": 1}",
            ),
            400,
            "malformed",
        ),
        (
            "422 before 403 of the object",
            owner
                .call("POST", &place)
                .key(&unique("k"))
                .json(&json!({"customer": customer})),
            422,
            "invalid",
        ),
        (
            "403 of the object before the state",
            owner.call("POST", &place).key(&unique("k")).json(&not_mine),
            403,
            "forbidden",
        ),
        (
            "422 of the body before the replay",
            admin
                .call("POST", &receive_path)
                .key(&used)
                .json(&json!({"quantity": 0, "reference": "x"})),
            422,
            "invalid",
        ),
        (
            "422 of a key used again before the state",
            admin
                .call("POST", &receive_path)
                .key(&used)
                .header("if-match", "\"77\"")
                .json(&receive(1)),
            422,
            "idempotency-key-reused",
        ),
    ];
    for (what, call, status, code) in pairs {
        let answer = call.send().await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (status, Some(code)),
            "{what}: {}",
            answer.text()
        );
    }
    // A replay comes before the state: what was right then is answered as it was then.
    let key = unique("k");
    let send = || {
        admin
            .call("POST", &receive_path)
            .key(&key)
            .header("if-match", "\"2\"")
            .json(&receive(1))
            .send()
    };
    let first = send().await;
    let again = send().await;
    assert_eq!(again.is(200).text(), first.is(200).text());
}

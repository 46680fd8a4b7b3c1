//! Who may ask for what, and in which order a request is judged.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use annals_tests::shop::order_data;
use annals_tests::{Api, Call, Shared, Shop, unique, uuid};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

fn receive(quantity: u64) -> Value {
    json!({"quantity": quantity, "reference": "delivery"})
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

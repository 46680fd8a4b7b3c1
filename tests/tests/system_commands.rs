//! Exactly once, in order, and only if: commands sent at the same time, again, and with conditions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::collections::BTreeSet;

use annals_tests::{Answer, Shared, Shop, unique, uuid};
use futures_util::future::join_all;
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

fn receive(quantity: u64) -> Value {
    json!({"quantity": quantity, "reference": "delivery"})
}

#[tokio::test]
async fn a_hundred_parallel_sends_with_one_key_are_one_event_and_a_hundred_equal_answers() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let (path, key) = (format!("/v1/products/{sku}/receive"), unique("k"));
    let sent = (0..100).map(|_| {
        let (admin, path, key) = (shop.admin.clone(), path.clone(), key.clone());
        async move { admin.post_for_good(&path, &key, &receive(7)).await }
    });
    let answers = join_all(sent).await;
    for answer in &answers {
        answer.is(200);
        assert_eq!(answer.text(), answers[0].text());
        assert_eq!(answer.header("etag"), Some("\"2\""));
        assert_eq!(answer.position(), answers[0].position());
    }
    let first = answers
        .iter()
        .filter(|answer| answer.header("idempotent-replayed").is_none())
        .count();
    assert_eq!(first, 1, "all but one are the first answer given again");
    let row = shop.row(&format!("/v1/products/{sku}"), &answers[0]).await;
    assert_eq!(row["on_hand"], 7);
    let history = shop
        .admin
        .get_after(&format!("/v1/audit/streams/product-{sku}"), answers[0].position())
        .await;
    assert_eq!(
        history.data().as_array().unwrap().len(),
        2,
        "register and one receive"
    );
}

#[tokio::test]
async fn a_thousand_concurrent_commands_on_one_stream_get_versions_without_a_gap() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let path = format!("/v1/products/{sku}/receive");
    let sent = (0..1_000).map(|_| {
        let (admin, path) = (shop.admin.clone(), path.clone());
        async move { admin.post_for_good(&path, &unique("k"), &receive(1)).await }
    });
    let answers = join_all(sent).await;
    let version = |answer: &Answer| answer.is(200).json()["version"].as_u64().unwrap();
    let versions: BTreeSet<u64> = answers.iter().map(version).collect();
    assert_eq!(versions, (2..=1_001).collect(), "each version once");
    let last = answers.iter().max_by_key(|answer| version(answer)).unwrap();
    let row = shop
        .admin
        .get_after(&format!("/v1/products/{sku}"), last.position())
        .await;
    assert_eq!(row.data()["on_hand"], 1_000);
    assert_eq!(row.header("annals-version"), Some("1001"));
}

#[tokio::test]
async fn of_a_thousand_concurrent_commands_for_one_version_one_is_accepted() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let path = format!("/v1/products/{sku}/receive");
    let sent = (0..1_000).map(|_| {
        let (admin, path) = (shop.admin.clone(), path.clone());
        async move {
            let key = unique("k");
            loop {
                let call = admin.call("POST", &path).key(&key).header("if-match", "\"1\"");
                let answer = call.json(&receive(1)).send().await;
                if !matches!(answer.status, 503 | 504) {
                    return (key, answer);
                }
            }
        }
    });
    let answers = join_all(sent).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(_, answer)| answer.status == 200);
    assert_eq!(accepted.len(), 1);
    for (_, answer) in &refused {
        let problem = answer.problem(412, "version-mismatch");
        assert!(
            problem["record"].is_string() && problem["position"].is_string(),
            "{problem}"
        );
        assert_eq!(problem["current"], 2);
    }
    let (key, first) = refused[0];
    let again = shop
        .admin
        .call("POST", &path)
        .key(key)
        .header("if-match", "\"1\"")
        .json(&receive(1))
        .send()
        .await;
    assert_eq!(
        again.problem(412, "version-mismatch")["record"],
        first.json()["record"],
        "it is on the record"
    );
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn the_same_key_gives_the_first_answer_again_also_when_the_rules_said_no() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (path, key) = (format!("/v1/orders/{}/cancel", uuid()), unique("k"));
    let data = json!({"reason": "x"});
    let first = shop.admin.post_with_key(&path, &key, &data).await;
    first.rejection("unknown_order");
    let again = shop.admin.post_with_key(&path, &key, &data).await;
    again.rejection("unknown_order");
    let of = |answer: &Answer, member: &str| answer.json()[member].clone();
    assert_eq!(of(&first, "record"), of(&again, "record"));
    assert_eq!(of(&first, "position"), of(&again, "position"));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn a_command_that_changes_nothing_is_an_answer_without_events_and_on_the_record() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2002-01-02", "tok_ok", &[(&sku, 1, 500)])
        .await;
    shop.order_is(&placed.order, "confirmed").await;
    let void = format!("/v1/payments/{}/void", placed.order);
    shop.done(&void, &json!({})).await;
    let again = shop.admin.post(&void, &json!({})).await;
    let body = again.is(200).json();
    assert_eq!(body["events"], json!([]));
    assert!(
        body["record"].is_string() && body["position"].is_string(),
        "{body}"
    );
    assert_eq!(
        again.header("etag"),
        Some(format!("\"{}\"", body["version"]).as_str())
    );
    assert_eq!(again.header("location"), None);
}

#[tokio::test]
async fn without_a_key_in_the_path_the_server_makes_one_and_the_same_for_a_repeat() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    let data = annals_tests::shop::order_data(&customer, "2002-01-03", "tok_ok", &[(&sku, 1, 500)]);
    let key = unique("k");
    let first = shop.admin.post_with_key("/v1/orders/place", &key, &data).await;
    let stream = first.is(201).json()["stream"].as_str().unwrap().to_owned();
    let order = stream.strip_prefix("order-").unwrap();
    assert_eq!(uuid::Uuid::parse_str(order).unwrap().get_version_num(), 5);
    assert_eq!(
        first.header("location"),
        Some(format!("/v1/orders/{order}").as_str())
    );
    let again = shop.admin.post_with_key("/v1/orders/place", &key, &data).await;
    assert_eq!(again.is(201).text(), first.text());
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    let other = shop.admin.post("/v1/orders/place", &data).await;
    assert_ne!(other.is(201).json()["stream"], stream.as_str());
    let somebody = server.api_as("clerk", "somebody-else");
    let theirs = somebody.post_with_key("/v1/orders/place", &key, &data).await;
    assert_ne!(
        theirs.is(201).json()["stream"],
        stream.as_str(),
        "the key is of its caller"
    );
}

#[tokio::test]
async fn a_quoted_key_and_a_bare_one_are_the_same_key() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, key) = (shop.product(500, 0).await, unique("k"));
    let path = format!("/v1/products/{sku}/receive");
    let send = |value: String| {
        shop.admin
            .call("POST", &path)
            .header("idempotency-key", &value)
            .json(&receive(1))
            .send()
    };
    let first = send(format!("\"{key}\"")).await;
    let again = send(key).await;
    assert_eq!(again.is(200).text(), first.is(200).text());
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn a_key_used_for_something_else_or_by_somebody_else_is_never_a_replay() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, key) = (shop.product(500, 0).await, unique("k"));
    let path = format!("/v1/products/{sku}/receive");
    shop.admin.post_with_key(&path, &key, &receive(1)).await.is(200);
    shop.admin
        .post_with_key(&path, &key, &receive(2))
        .await
        .problem(422, "idempotency-key-reused");
    let adjust = json!({"delta": 1, "reason": "found"});
    let other = shop
        .admin
        .post_with_key(&format!("/v1/products/{sku}/adjust"), &key, &adjust)
        .await;
    other.problem(422, "idempotency-key-reused");
    let somebody = server.api_as("warehouse", "somebody-else");
    somebody
        .post_with_key(&path, &key, &receive(1))
        .await
        .problem(422, "idempotency-key-reused");
    let condition = shop
        .admin
        .call("POST", &path)
        .key(&key)
        .header("if-match", "\"2\"")
        .json(&receive(1))
        .send()
        .await;
    condition.problem(422, "idempotency-key-reused");
    let reordered = r#"{ "reference": "delivery", "quantity" :1 }"#;
    let call = shop
        .admin
        .call("POST", &path)
        .key(&key)
        .header("content-type", "application/json");
    let same = call.body(reordered).send().await;
    same.is(200);
    assert_eq!(
        same.header("idempotent-replayed"),
        Some("true"),
        "the same data in another spelling"
    );
    let elsewhere = shop.product(500, 0).await;
    shop.admin
        .post_with_key(&format!("/v1/products/{elsewhere}/receive"), &key, &receive(1))
        .await
        .is(200);
}

#[tokio::test]
async fn conditions_hold_or_are_answered_412() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, nothing) = (shop.product(500, 0).await, unique("P"));
    let send = |sku: &str, name: &str, value: &str| {
        let call = shop.admin.call("POST", &format!("/v1/products/{sku}/receive"));
        call.key(&unique("k"))
            .header(name, value)
            .json(&receive(1))
            .send()
    };
    assert_eq!(
        send(&sku, "if-match", "\"1\"").await.is(200).header("etag"),
        Some("\"2\"")
    );
    assert_eq!(
        send(&sku, "if-match", "\"1\"")
            .await
            .problem(412, "version-mismatch")["current"],
        2
    );
    send(&sku, "if-match", "*").await.is(200);
    assert_eq!(
        send(&sku, "if-none-match", "*")
            .await
            .problem(412, "version-mismatch")["current"],
        3
    );
    assert_eq!(
        send(&nothing, "if-match", "*")
            .await
            .problem(412, "version-mismatch")["current"],
        0
    );
    let register = json!({"name": "New", "price": {"amount": 1, "currency": "USD"}});
    let call = shop
        .admin
        .call("POST", &format!("/v1/products/{nothing}/register"))
        .key(&unique("k"));
    call.header("if-none-match", "*")
        .json(&register)
        .send()
        .await
        .is(201);
    for bad in [
        "3",
        "\"1\", \"2\"",
        "W/\"3\"",
        "\"\"",
        "\"-1\"",
        "\"x\"",
        "\"01x\"",
    ] {
        send(&sku, "if-match", bad)
            .await
            .problem(400, "invalid-parameter");
    }
    send(&sku, "if-none-match", "\"3\"")
        .await
        .problem(400, "invalid-parameter");
}

#[tokio::test]
async fn correlation_trace_and_metadata_come_back_and_are_on_the_record() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let (correlation, trace) = (
        unique("c"),
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    let call = shop
        .admin
        .call("POST", &format!("/v1/products/{sku}/receive"))
        .key(&unique("k"));
    let call = call
        .header("correlation-id", &correlation)
        .header("traceparent", trace);
    let answer = call
        .header("annals-metadata", r#"{"till": 7}"#)
        .json(&receive(1))
        .send()
        .await;
    assert_eq!(
        answer.is(200).header("correlation-id"),
        Some(correlation.as_str())
    );
    assert!(
        answer
            .header("traceparent")
            .is_some_and(|back| back.contains("0af7651916cd43dd8448eb211c80319c"))
    );
    let record = answer.json()["record"].as_str().unwrap().to_owned();
    let path = format!("/v1/audit/records/{record}/raw");
    let raw = shop.admin.get_after(&path, answer.position()).await;
    let raw = raw.is(200).text();
    assert!(raw.contains(trace), "{raw}");
    let long = format!(r#"{{"a": "{}"}}"#, "x".repeat(4096));
    for bad in ["[]", "7", "{", long.as_str()] {
        let call = shop
            .admin
            .call("POST", &format!("/v1/products/{sku}/receive"))
            .key(&unique("k"));
        call.header("annals-metadata", bad)
            .json(&receive(1))
            .send()
            .await
            .problem(400, "invalid-parameter");
    }
}

/// A batch's results, one a line.
async fn batch(shop: &Shop, lines: &[String]) -> Vec<Value> {
    let call = shop
        .admin
        .call("POST", "/v1/batch")
        .header("content-type", "application/x-ndjson");
    let answer = call.body(lines.join("\n")).send().await;
    answer.is(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_batch_answers_line_by_line_in_order_and_a_bad_line_alone() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 0).await, shop.customer().await);
    let line = |resource: &str, key: &str, command: &str, data: Value| json!({"resource": resource, "key": key, "command": command, "idempotency_key": unique("k"), "data": data});
    let mut conditional = line("products", &sku, "receive", receive(1));
    conditional["if_match"] = json!("1");
    let mut exists = line("products", &sku, "receive", receive(1));
    exists["if_none_match"] = json!("*");
    let order = annals_tests::shop::order_data(&customer, "2002-01-04", "tok_ok", &[(&sku, 1, 500)]);
    let mut keyless = line("orders", "", "place", order);
    keyless.as_object_mut().unwrap().remove("key");
    let mut no_idempotency = line("products", &sku, "receive", receive(1));
    no_idempotency.as_object_mut().unwrap().remove("idempotency_key");
    let large = line(
        "products",
        &sku,
        "receive",
        json!({"quantity": 1, "reference": "x".repeat(300 << 10)}),
    );
    let lines = [
        line("products", &sku, "receive", receive(5)).to_string(),
        line("products", &sku, "receive", receive(6)).to_string(),
        "this is no JSON".to_owned(),
        conditional.to_string(),
        exists.to_string(),
        line(
            "products",
            &sku,
            "receive",
            json!({"quantity": -1, "reference": "x"}),
        )
        .to_string(),
        line("nothings", &sku, "receive", receive(1)).to_string(),
        line("products", &sku, "explode", receive(1)).to_string(),
        no_idempotency.to_string(),
        large.to_string(),
        keyless.to_string(),
        line("products", &sku, "receive", receive(7)).to_string(),
    ];
    let results = batch(&shop, &lines).await;
    let numbers: Vec<_> = results
        .iter()
        .map(|result| result["line"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    let said: Vec<_> = results
        .iter()
        .map(|result| {
            (
                result["status"].as_u64().unwrap(),
                result["problem"]["code"].as_str().unwrap_or(""),
            )
        })
        .collect();
    let expected = [
        (200, ""),
        (200, ""),
        (400, "malformed"),
        (412, "version-mismatch"),
        (412, "version-mismatch"),
        (422, "invalid"),
        (404, "unknown-resource"),
        (404, "unknown-command"),
        (400, "idempotency-key-required"),
        (413, "too-large"),
        (201, ""),
        (200, ""),
    ];
    assert_eq!(said, expected);
    let version = |line: usize| results[line]["result"]["version"].as_u64();
    assert_eq!(
        (version(0), version(1), version(11)),
        (Some(2), Some(3), Some(4)),
        "one stream keeps its order"
    );
    assert!(
        results[10]["result"]["stream"]
            .as_str()
            .unwrap()
            .starts_with("order-")
    );

    // The same lines again: the same answers.
    let again = batch(&shop, &lines).await;
    assert_eq!(again[0]["result"], results[0]["result"]);
    assert_eq!(again[10]["result"], results[10]["result"]);
    let wrong = shop.admin.call("POST", "/v1/batch").json(&json!({})).send().await;
    wrong.problem(415, "unsupported-media-type");
}

//! What auditors see: histories, states of the past, search, exact bytes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use annals_tests::{Answer, Shared, Shop, unique, uuid};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

async fn receive(shop: &Shop, sku: &str, quantity: u64) -> Answer {
    let data = json!({"quantity": quantity, "reference": "delivery"});
    shop.admin
        .post(&format!("/v1/products/{sku}/receive"), &data)
        .await
}

fn items(answer: &Answer) -> Vec<Value> {
    answer.is(200).json()["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_history_shows_commands_events_refusals_and_actors_in_order() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let accepted = receive(&shop, &sku, 3).await;
    let adjust = json!({"delta": -9, "reason": "lost"});
    let refused = shop
        .admin
        .post(&format!("/v1/products/{sku}/adjust"), &adjust)
        .await;
    refused.rejection("below_reserved");
    let position = refused.json()["position"].as_str().unwrap().to_owned();
    let auditor = server.api("auditor");
    // Whatever an auditor asks, the answer says how fresh it is.
    let (shard, offset) = position.split_once(':').unwrap();
    let (shard, offset): (u32, u64) = (shard.parse().unwrap(), offset.parse().unwrap());
    for path in ["streams/product-{sku}", "streams/product-{sku}/state", "records?limit=1", "shards"] {
        let path = format!("/v1/audit/{}", path.replace("{sku}", &sku));
        let answer = auditor.get_after(&path, &position).await;
        answer.is(200);
        assert!(answer.position_in(shard).unwrap() >= offset, "{path}");
        assert!(answer.header("annals-lag-ms").unwrap().parse::<u64>().is_ok(), "{path}");
    }
    let history = items(
        &auditor
            .get_after(&format!("/v1/audit/streams/product-{sku}"), &position)
            .await,
    );
    assert_eq!(history.len(), 3);
    let kinds: Vec<_> = history
        .iter()
        .map(|item| item["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["commit", "commit", "refusal"]);
    let receive = &history[1];
    assert_eq!(receive["record"], accepted.json()["record"]);
    assert_eq!(receive["position"], accepted.position());
    assert_eq!(receive["stream"], format!("product-{sku}"));
    assert_eq!(receive["command"]["name"], "receive");
    assert_eq!(receive["actor"]["sub"], "tester");
    assert_eq!(receive["events"][0]["type"], "product.stock_received");
    assert!(
        receive["time"].as_str().is_some_and(|time| time.ends_with('Z')),
        "{receive}"
    );
    assert!(
        receive["hash"].as_str().is_some_and(|hash| hash.len() >= 43),
        "{receive}"
    );
    assert_eq!(history[2]["refusal"]["code"], "below_reserved");
    assert_eq!(history[2]["record"], refused.json()["record"]);

    let record = receive["record"].as_str().unwrap();
    let one = auditor.get(&format!("/v1/audit/records/{record}")).await;
    let one = one.is(200).json();
    let one = one.get("data").unwrap_or(&one);
    assert_eq!(one["position"], receive["position"]);
    let raw = auditor.get(&format!("/v1/audit/records/{record}/raw")).await;
    assert!(raw.is(200).text().contains("idempotency-key"), "{}", raw.text());
    auditor
        .get(&format!("/v1/audit/records/{}", uuid()))
        .await
        .problem(404, "not-found");
    auditor
        .get(&format!("/v1/audit/streams/product-{}", unique("P")))
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn the_state_of_any_version_and_time_is_there_by_replay() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    receive(&shop, &sku, 3).await.is(200);
    let last = receive(&shop, &sku, 4).await;
    let auditor = server.api("auditor");
    let path = format!("/v1/audit/streams/product-{sku}/state");
    let state = |answer: Answer| {
        let body = answer.is(200).json();
        assert_eq!(body["stream"], format!("product-{sku}"));
        body
    };
    let now = state(auditor.get_after(&path, last.position()).await);
    assert_eq!(
        (&now["version"], &now["position"]),
        (&json!(3), &json!(last.position()))
    );
    let first = state(auditor.get(&format!("{path}?version=1")).await);
    let second = state(auditor.get(&format!("{path}?version=2")).await);
    assert_eq!((&first["version"], &second["version"]), (&json!(1), &json!(2)));
    let states = [&first["data"], &second["data"], &now["data"]].map(Value::to_string);
    assert!(states[0] != states[1] && states[1] != states[2], "{states:?}");
    let history = items(&auditor.get(&format!("/v1/audit/streams/product-{sku}")).await);
    let then = history[1]["time"].as_str().unwrap();
    let at = state(auditor.get(&format!("{path}?at={then}")).await);
    assert!(
        at["version"].as_u64().unwrap() >= 2,
        "the time of the second record is included: {at}"
    );
    auditor
        .get(&format!("{path}?version=one"))
        .await
        .problem(400, "invalid-parameter");
    auditor
        .get(&format!("{path}?colour=red"))
        .await
        .problem(400, "unknown-parameter");
}

#[tokio::test]
async fn a_history_is_paged_without_a_gap() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    let mut last = None;
    for _ in 0..12 {
        last = Some(receive(&shop, &sku, 1).await);
    }
    let auditor = server.api("auditor");
    let path = format!("/v1/audit/streams/product-{sku}?limit=5");
    let mut page = auditor.get_after(&path, last.unwrap().position()).await;
    let mut versions = Vec::new();
    loop {
        versions.extend(items(&page).iter().map(|item| item["version"].as_u64().unwrap()));
        let Some(next) = page.json()["next"].as_str().map(str::to_owned) else {
            break;
        };
        page = auditor.get(&format!("{path}&after={next}")).await;
    }
    assert_eq!(versions, (1..=13).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_are_found_by_category_type_actor_kind_and_time() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let actor = unique("actor");
    let api = server.api_as("warehouse", &actor);
    let sku = shop.product(500, 0).await;
    let data = json!({"quantity": 2, "reference": "delivery"});
    let accepted = api.post(&format!("/v1/products/{sku}/receive"), &data).await;
    accepted.is(200);
    let order = api
        .post(
            &format!("/v1/orders/{}/ship", uuid()),
            &json!({"carrier": "Owl", "tracking": "1"}),
        )
        .await;
    order.rejection("unknown_order");
    let refused = order.json()["position"].as_str().unwrap().to_owned();
    let after = format!("{}, {refused}", accepted.position());
    let auditor = server.api("auditor");
    let search = |query: String| {
        let (auditor, after) = (auditor.clone(), after.clone());
        async move {
            items(
                &auditor
                    .get_after(&format!("/v1/audit/records?{query}"), &after)
                    .await,
            )
        }
    };
    assert_eq!(search(format!("actor={actor}")).await.len(), 2);
    let refusals = search(format!("actor={actor}&kind=refusal")).await;
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0]["refusal"]["code"], "unknown_order");
    let products = search(format!("actor={actor}&category=product")).await;
    assert_eq!(products.len(), 1);
    assert_eq!(products[0]["record"], accepted.json()["record"]);
    assert_eq!(
        search(format!("actor={actor}&type=product.stock_received"))
            .await
            .len(),
        1
    );
    assert_eq!(search(format!("actor={actor}&type=order.shipped")).await.len(), 0);
    let time = products[0]["time"].as_str().unwrap().to_owned();
    assert!(!search(format!("actor={actor}&from={time}")).await.is_empty());
    assert_eq!(
        search(format!("actor={actor}&to=2001-01-01T00:00:00Z"))
            .await
            .len(),
        0
    );
    auditor
        .get("/v1/audit/records?colour=red")
        .await
        .problem(400, "unknown-parameter");
    auditor
        .get("/v1/audit/records?kind=strange")
        .await
        .problem(400, "invalid-parameter");
}

#[tokio::test]
async fn auditors_see_shards_and_everyone_else_sees_nothing_of_it() {
    let Some(server) = SERVER.get() else { return };
    let auditor = server.api("auditor");
    let shards = items(&auditor.get("/v1/audit/shards").await);
    assert_eq!(shards.len(), 16);
    assert!(
        shards
            .iter()
            .all(|shard| shard["epoch"].as_u64().is_some_and(|epoch| epoch >= 1)),
        "{shards:?}"
    );
    let owner = shards[0]["owner"].as_str().expect("an owner");
    assert!(shards.iter().all(|shard| shard["owner"] == owner), "{shards:?}");
    assert!(
        shards.iter().all(|shard| shard["time"].is_null()
            || shard["time"].as_str().is_some_and(|time| time.ends_with('Z'))),
        "{shards:?}"
    );
    for role in ["clerk", "warehouse", "finance", "operator", "customer"] {
        for path in [
            "/v1/audit/shards",
            "/v1/audit/records",
            "/v1/audit/streams/product-x",
        ] {
            server.api(role).get(path).await.problem(403, "forbidden");
        }
    }
    auditor
        .call("POST", "/v1/audit/shards")
        .json(&json!({}))
        .send()
        .await
        .problem(405, "method-not-allowed");
}

//! Read models over HTTP: filters, pages, freshness, and who sees what.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::collections::BTreeSet;

use annals_tests::shop::usd;
use annals_tests::{Answer, Home, Shared, Shop, unique};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

/// Products whose names begin with the same unique word, in price order; returns SKUs and the last answer.
async fn products(shop: &Shop, prices: &[u64]) -> (String, Vec<String>, Answer) {
    let word = unique("word");
    let mut skus = Vec::new();
    let mut positions = Vec::new();
    let mut last = None;
    for (number, price) in prices.iter().enumerate() {
        let sku = unique("P");
        let data = json!({"name": format!("{word}-{number:03}"), "price": usd(*price)});
        let answer = shop
            .admin
            .post(&format!("/v1/products/{sku}/register"), &data)
            .await;
        positions.push(answer.is(201).position().to_owned());
        skus.push(sku);
        last = Some(answer);
    }
    let all = positions.join(", ");
    shop.admin.get_after("/v1/products?limit=1", &all).await.is(200);
    (word, skus, last.unwrap())
}

fn names(answer: &Answer) -> Vec<String> {
    let rows = answer.is(200).json()["data"].as_array().unwrap().clone();
    rows.iter()
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_query_after_a_command_shows_it() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 0).await;
    for number in 1..=20 {
        let data = json!({"quantity": 1, "reference": "delivery"});
        let answer = shop
            .admin
            .post(&format!("/v1/products/{sku}/receive"), &data)
            .await;
        let row = shop
            .admin
            .get_after(&format!("/v1/products/{sku}"), answer.is(200).position())
            .await;
        assert_eq!(row.data()["on_hand"], number);
        assert_eq!(
            row.header("annals-version"),
            Some((number + 1).to_string().as_str())
        );
        assert!(row.header("annals-lag-ms").unwrap().parse::<u64>().is_ok());
        assert!(row.header("etag").unwrap().starts_with("W/\""));
        assert!(!row.position().is_empty());
    }
}

#[tokio::test]
async fn what_is_not_there_in_time_is_503_with_the_distance() {
    let Some(server) = SERVER.get() else { return };
    let admin = server.api("admin");
    let answer = admin
        .call("GET", "/v1/orders")
        .header("annals-after", "0:1000000")
        .header("prefer", "wait=0");
    let answer = answer.send().await;
    let problem = answer.problem(503, "projection-behind");
    assert!(
        problem["distance"]
            .as_u64()
            .is_some_and(|distance| distance > 900_000),
        "{problem}"
    );
    assert!(answer.header("retry-after").unwrap().parse::<u64>().is_ok());
}

#[tokio::test]
async fn the_version_of_a_row_is_what_if_match_takes() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 5).await;
    let row = shop.product_is(&sku, 5, 0).await;
    assert_eq!(row["on_hand"], 5);
    let version = shop
        .admin
        .get(&format!("/v1/products/{sku}"))
        .await
        .header("annals-version")
        .unwrap()
        .to_owned();
    let call = || {
        shop.admin
            .call("POST", &format!("/v1/products/{sku}/adjust"))
            .key(&unique("k"))
    };
    let data = json!({"delta": 1, "reason": "found"});
    let tag = format!("\"{version}\"");
    call().header("if-match", &tag).json(&data).send().await.is(200);
    call()
        .header("if-match", &tag)
        .json(&data)
        .send()
        .await
        .problem(412, "version-mismatch");
}

#[tokio::test]
async fn a_row_that_did_not_change_is_304() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 5).await;
    shop.product_is(&sku, 5, 0).await;
    let path = format!("/v1/products/{sku}");
    // Another test may move the checkpoint in between, and with it the tag: asked until nobody has.
    let mut unchanged = None;
    for _ in 0..200 {
        let tag = shop.admin.get(&path).await.header("etag").unwrap().to_owned();
        let answer = shop
            .admin
            .call("GET", &path)
            .header("if-none-match", &tag)
            .send()
            .await;
        if answer.status == 304 {
            unchanged = Some((tag, answer));
            break;
        }
        answer.is(200);
    }
    let (tag, answer) = unchanged.expect("a moment in which nothing changed");
    assert!(answer.body.is_empty());
    assert_eq!(answer.header("etag"), Some(tag.as_str()));
    let receive = json!({"quantity": 1, "reference": "delivery"});
    let changed = shop.admin.post(&format!("{path}/receive"), &receive).await;
    let call = shop.admin.call("GET", &path).header("if-none-match", &tag);
    let answer = call.header("annals-after", changed.position()).send().await;
    assert_eq!(answer.data()["on_hand"], 6);
    let list = shop
        .admin
        .call("GET", "/v1/products")
        .header("if-none-match", &tag)
        .send()
        .await;
    list.is(200);
}

#[tokio::test]
async fn filters_sorts_and_fields_do_what_they_say() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (word, skus, _) = products(&shop, &[500, 100, 300, 300, 200]).await;
    let range = format!("name.gte={word}-&name.lt={word}.");
    let get = |more: &str| {
        let path = format!("/v1/products?{range}{more}");
        let admin = shop.admin.clone();
        async move { admin.get(&path).await }
    };
    let of = |numbers: &[u32]| {
        numbers
            .iter()
            .map(|number| format!("{word}-{number:03}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&get("&sort=name").await), of(&[0, 1, 2, 3, 4]));
    assert_eq!(names(&get("&sort=-name").await), of(&[4, 3, 2, 1, 0]));
    assert_eq!(names(&get("&sort=name&price=300").await), of(&[2, 3]));
    assert_eq!(names(&get("&sort=name&price.eq=300").await), of(&[2, 3]));
    assert_eq!(names(&get("&sort=name&price.ne=300").await), of(&[0, 1, 4]));
    assert_eq!(
        names(&get("&sort=name&price.gt=200&price.lt=500").await),
        of(&[2, 3]),
        "repeated: both hold"
    );
    assert_eq!(names(&get("&sort=name&price.gte=300").await), of(&[0, 2, 3]));
    assert_eq!(names(&get("&sort=name&price.lte=200").await), of(&[1, 4]));
    assert_eq!(names(&get("&sort=name&price.in=100,500").await), of(&[0, 1]));
    assert_eq!(names(&get("&sort=name&status.is=null").await), of(&[]));
    assert_eq!(
        get("&status=active").await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    assert_eq!(names(&get("&sort=price&limit=2").await)[0], of(&[1])[0]);

    let some = get("&sort=name&fields=sku,price").await.json();
    assert_eq!(some["data"][1], json!({"sku": skus[1], "price": 100}));
    let row = shop
        .admin
        .get(&format!("/v1/products/{}?fields=status", skus[0]))
        .await;
    assert_eq!(row.data(), json!({"status": "active"}));

    let call = shop
        .admin
        .call("GET", &format!("/v1/products?{range}&limit=2"))
        .header("prefer", "count=exact");
    let counted = call.send().await.is(200).json();
    assert_eq!(counted["count"], 5);
    assert_eq!(counted["data"].as_array().unwrap().len(), 2);
    assert_eq!(get("&limit=5").await.json().get("count"), None);
}

#[tokio::test]
async fn pages_hold_every_row_once_while_others_are_inserted() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let prices: Vec<u64> = (0..60).map(|number| 100 + number % 7).collect();
    let (word, skus, _) = products(&shop, &prices).await;
    for sort in ["price", "-price", "-name"] {
        let mut path = Some(format!(
            "/v1/products?name.gte={word}-&name.lt={word}.&sort={sort}&limit=7"
        ));
        let mut seen = Vec::new();
        let mut pages = 0;
        while let Some(asked) = path {
            let page = shop.admin.get(&asked).await;
            let body = page.is(200).json();
            let rows = body["data"].as_array().unwrap();
            assert!(rows.len() <= 7);
            seen.extend(rows.iter().map(|row| row["sku"].as_str().unwrap().to_owned()));
            path = body["next"].as_str().map(|_| {
                let link = page.header("link").unwrap();
                assert!(link.ends_with("; rel=\"next\""), "{link}");
                link.trim_start_matches('<').split('>').next().unwrap().to_owned()
            });
            pages += 1;
            // Inserted before and behind: neither moves what was there.
            let other = json!({"name": format!("{word}-zzz"), "price": usd(100 + pages)});
            let extra = unique("P");
            shop.admin
                .post(&format!("/v1/products/{extra}/register"), &other)
                .await
                .is(201);
        }
        let known: Vec<_> = seen.iter().filter(|sku| skus.contains(sku)).collect();
        let different: BTreeSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len(), "{sort}: a row came twice");
        assert_eq!(known.len(), skus.len(), "{sort}: a row was skipped");
    }
}

#[tokio::test]
async fn a_cursor_is_of_its_query_and_its_caller() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (word, _, _) = products(&shop, &[1, 2, 3]).await;
    let base = format!("/v1/products?name.gte={word}-&limit=1");
    let next = shop.admin.get(&base).await.json()["next"]
        .as_str()
        .unwrap()
        .to_owned();
    let with = |query: &str| format!("{query}&cursor={next}");
    shop.admin.get(&with(&base)).await.is(200);
    shop.admin
        .get(&with(&format!("{base}&status=active")))
        .await
        .problem(400, "invalid-cursor");
    shop.admin
        .get(&with(&format!("{base}&sort=price")))
        .await
        .problem(400, "invalid-cursor");
    let mut bytes = next.clone().into_bytes();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(bytes).unwrap();
    shop.admin
        .get(&format!("{base}&cursor={changed}"))
        .await
        .problem(400, "invalid-cursor");
}

#[tokio::test]
async fn customers_see_their_own_rows_and_others_rows_are_404() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 50).await;
    let (mine, theirs) = (shop.customer().await, shop.customer().await);
    let my_order = shop.place(&mine, "2004-01-02", "tok_ok", &[(&sku, 1, 500)]).await;
    let their_order = shop
        .place(&theirs, "2004-01-02", "tok_ok", &[(&sku, 1, 500)])
        .await;
    shop.payment_is(&my_order, "authorized").await;
    shop.payment_is(&their_order, "authorized").await;
    let api = server.api_as("customer", &mine);
    let after = format!(
        "{}, {}",
        my_order.answer.position(),
        their_order.answer.position()
    );
    let list = api.get_after("/v1/orders", &after).await.json();
    let orders: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["order_id"].clone())
        .collect();
    assert_eq!(orders, [json!(my_order.order)]);
    for resource in ["orders", "payments"] {
        api.get(&format!("/v1/{resource}/{}", my_order.order))
            .await
            .is(200);
        api.get(&format!("/v1/{resource}/{}", their_order.order))
            .await
            .problem(404, "not-found");
    }
    let lines = api.get("/v1/order_lines").await.json();
    assert_eq!(lines["data"].as_array().unwrap().len(), 1);
    api.get(&format!("/v1/order_lines?order_id={}", their_order.order))
        .await
        .is(200);
    let own = api.get(&format!("/v1/customers/{mine}")).await.data();
    assert_eq!(
        own["name"], "Ada",
        "what they say of themselves is theirs to see: {own}"
    );
    api.get(&format!("/v1/customers/{theirs}"))
        .await
        .problem(404, "not-found");
    api.get(&format!("/v1/products/{sku}")).await.is(200);
    let all = server
        .api("clerk")
        .get(&format!("/v1/orders?customer_id={theirs}"))
        .await
        .json();
    assert_eq!(all["data"].as_array().unwrap().len(), 1);
    let count = api
        .call("GET", "/v1/orders")
        .header("prefer", "count=exact")
        .send()
        .await
        .json();
    assert_eq!(count["count"], 1, "others are not counted either");
}

#[tokio::test]
async fn expand_brings_what_the_caller_may_see_of_it() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 50).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2004-01-03", "tok_ok", &[(&sku, 2, 500)])
        .await;
    shop.order_is(&placed.order, "confirmed").await;
    let path = format!("/v1/orders/{}?expand=customer", placed.order);
    let confirmed = shop.order_is(&placed.order, "confirmed").await;
    let email = format!("{customer}@example.com");
    let clerk = server
        .api("clerk")
        .get_after(&path, confirmed.position())
        .await
        .data();
    assert_eq!(clerk["customer"]["customer_id"], customer.as_str(), "{clerk}");
    assert_eq!(clerk["customer"]["email"], email.as_str(), "{clerk}");
    let auditor = server
        .api("auditor")
        .get_after(&path, confirmed.position())
        .await
        .data();
    assert_eq!(auditor["customer"]["customer_id"], customer.as_str(), "{auditor}");
    assert_eq!(auditor["customer"]["email"], Value::Null, "{auditor}");
    // The warehouse may read orders, but not customers.
    let warehouse = server
        .api("warehouse")
        .get_after(&path, confirmed.position())
        .await;
    assert!(!warehouse.text().contains(&email), "{}", warehouse.text());
    if warehouse.status == 200 {
        assert_eq!(warehouse.data()["customer"], Value::Null);
    }
}

#[tokio::test]
async fn shared_rows_have_composite_keys_and_no_version() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 50).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2004-01-04", "tok_ok", &[(&sku, 2, 500)])
        .await;
    let confirmed = shop.order_is(&placed.order, "confirmed").await;
    let sales = shop
        .admin
        .get_after("/v1/daily_sales/2004-01-04,USD", confirmed.position())
        .await;
    assert_eq!(sales.data()["revenue"], 1000);
    assert_eq!(sales.header("annals-version"), None);
    shop.admin
        .get("/v1/daily_sales/2004-01-04,EUR")
        .await
        .problem(404, "not-found");
    shop.admin
        .get("/v1/daily_sales/2004-01-04")
        .await
        .problem(404, "not-found");
    let list = shop
        .admin
        .get("/v1/daily_sales?day=2004-01-04&currency=USD")
        .await
        .json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_asks_and_heads_have_no_body() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    products(&shop, &[5; 30]).await;
    let answer = shop
        .admin
        .call("GET", "/v1/products?limit=30")
        .header("accept-encoding", "gzip")
        .send()
        .await;
    assert_eq!(answer.is(200).header("content-encoding"), Some("gzip"));
    let answer = shop.admin.call("HEAD", "/v1/products?limit=30").send().await;
    assert!(answer.is(200).body.is_empty());
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_503_and_what_is_known_is_still_answered() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__QUERY__STATEMENT_TIMEOUT_MS", "400");
    let server = home.dev();
    let shop = Shop::of(&server);
    let sku = shop.product(500, 5).await;
    shop.product_is(&sku, 5, 0).await;
    let path = format!("/v1/products/{sku}");
    let tag = shop.admin.get(&path).await.header("etag").unwrap().to_owned();
    let pool = home.database().pool().await;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE products_b1.products IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    // Nothing that needs the table: no statement at all.
    let call = shop.admin.call("GET", &path).header("if-none-match", &tag);
    assert_eq!(call.send().await.status, 304);
    assert_eq!(shop.admin.get(&path).await.data()["on_hand"], 5);
    let late = shop.admin.get("/v1/products?limit=3").await;
    let problem = late.problem(503, "overloaded");
    assert!(problem["detail"].as_str().unwrap().contains("too long"), "{problem}");
    assert!(late.header("retry-after").unwrap().parse::<u64>().is_ok());
    lock.rollback().await.unwrap();
    shop.admin.get("/v1/products?limit=3").await.is(200);
    server.stop();
}

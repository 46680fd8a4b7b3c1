//! `log copy` the whole way: from Postgres to Kafka and back, with the real program on every log.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_store::testing::TestDatabase;
use annals_tests::server::kafka_broker;
use annals_tests::{Answer, Home, Server, Shop, unique};
use serde_json::{Value, json};

/// What every client of the shop sees: all lists, as far as they are the log's and not the log's place.
const LISTS: [&str; 5] = ["products", "customers", "orders", "payments", "daily_sales"];

/// A place for a log: a database, and the file that `log copy` reads.
struct Place {
    database: TestDatabase,
    file: String,
}

impl Place {
    async fn make(home: &Home, name: &str, log: &str) -> Self {
        let database = TestDatabase::create_empty()
            .await
            .expect("a server for tests is there");
        let file = home.dir().join(format!("{name}.toml")).display().to_string();
        let text = format!(
            "[database]\nurl = {:?}\n\n[log]\nshards = 16\n{log}",
            database.url()
        );
        std::fs::write(&file, text).unwrap();
        home.set("ANNALS_DATABASE_URL", &database.url());
        home.run(&["migrate", "up"]).exits(0);
        Self { database, file }
    }
}

/// Every list, sorted. Positions are not in it: they are another log's.
async fn lists(shop: &Shop) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for list in LISTS {
        let body = shop
            .admin
            .get(&format!("/v1/{list}?limit=500"))
            .await
            .is(200)
            .json();
        let rows = body["data"].as_array().unwrap();
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort_unstable();
        all.push(rows);
    }
    all
}

/// Waits until the read models, made anew, show what they showed.
async fn show(shop: &Shop, expected: &[Vec<String>]) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let now = lists(shop).await;
        if now == expected {
            return;
        }
        assert!(Instant::now() < until, "{now:#?}\n--- instead of\n{expected:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The same answer but for its position, which is of the new generation.
fn is_replay(first: &Answer, again: &Answer, generation: u32) {
    assert_eq!(again.status, first.status, "{}", again.text());
    assert_eq!(
        again.header("idempotent-replayed"),
        Some("true"),
        "{}",
        again.text()
    );
    let body = again.json();
    let position = again
        .header("annals-position")
        .or(body["position"].as_str())
        .unwrap_or_default();
    assert!(
        position.ends_with(&format!("~{generation}")),
        "{position}: {body}"
    );
    // A problem document has the correlation id of the request at hand.
    let without = |answer: &Answer| {
        let mut body = answer.json();
        let fields = body.as_object_mut().unwrap();
        fields.retain(|name, _| !["position", "correlation_id"].contains(&name.as_str()));
        body
    };
    assert_eq!(without(again), without(first));
}

async fn trade(shop: &Shop, sku: &str, day: &str) -> annals_tests::shop::Placed {
    let customer = shop.customer().await;
    let placed = shop.place(&customer, day, "tok_ok", &[(sku, 2, 500)]).await;
    shop.order_is(&placed.order, "confirmed").await;
    shop.payment_is(&placed, "authorized").await;
    placed
}

fn copied(home: &Home, from: &Place, to: &Place) -> Value {
    let words = [
        "log",
        "copy",
        "--from",
        &from.file,
        "--to",
        &to.file,
        "--replication",
        "1",
        "--output",
        "json",
    ];
    let report = home.run(&words).json();
    assert_eq!(report["behind"], json!([]));
    for row in report["shards"].as_array().unwrap() {
        assert_eq!(row["behind"], 0, "{row}");
    }
    report
}

fn records(report: &Value) -> u64 {
    let shards = report["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 16);
    shards.iter().map(|row| row["records"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_shop_moves_from_postgres_to_kafka_and_back() {
    let Some(broker) = kafka_broker() else { return };
    let Some(home) = Home::with_database() else { return };
    let first = Place::make(&home, "first", "kind = \"postgres\"\n").await;
    let server = home.dev();
    let shop = Shop::of(&server);
    let sku = shop.product(500, 100).await;
    for day in ["2006-01-02", "2006-01-03"] {
        trade(&shop, &sku, day).await;
    }
    let receive = (
        format!("/v1/products/{sku}/receive"),
        unique("k"),
        json!({"quantity": 5, "reference": "r"}),
    );
    let before = shop.admin.post_with_key(&receive.0, &receive.1, &receive.2).await;
    before.is(200);
    let refuse = (format!("/v1/products/{sku}/register"), unique("k"));
    let data = json!({"name": "again", "price": {"amount": 1, "currency": "USD"}});
    let refused = shop.admin.post_with_key(&refuse.0, &refuse.1, &data).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    let old_position = before.position().to_owned();
    shop.admin
        .get_after(&format!("/v1/products/{sku}"), &old_position)
        .await
        .is(200);
    let shown = lists(&shop).await;
    assert!(shown.iter().all(|rows| !rows.is_empty()), "{shown:?}");
    server.stop();

    let topic = unique("copy.");
    let on_kafka =
        format!("kind = \"kafka\"\nbrokers = {broker:?}\ntopic = {topic:?}\nallow_single_replica = true\n");
    let second = Place::make(&home, "second", &on_kafka).await;
    let report = copied(&home, &first, &second);
    assert_eq!(report["generation"], 2);
    assert!(
        records(&report) > 30 && report["subject_keys"].as_u64().unwrap() >= 3,
        "{report}"
    );
    assert!(
        report["processes"]["instances"].as_u64().unwrap() >= 2,
        "{report}"
    );
    let again = home.run(&["log", "copy", "--from", &first.file, "--to", &second.file]);
    assert!(again.stderr.contains("holds a log already"), "{}", again.stderr);
    assert_eq!(again.code, Some(2));

    home.set("ANNALS__LOG__TOPIC", &topic);
    let kafka = ["--log", "kafka", "--brokers", &broker];
    let server = serve(&home, &second, &kafka);
    let shop = Shop::of(&server);
    show(&shop, &shown).await;
    let replay = shop.admin.post_with_key(&receive.0, &receive.1, &receive.2).await;
    is_replay(&before, &replay, 2);
    is_replay(
        &refused,
        &shop.admin.post_with_key(&refuse.0, &refuse.1, &data).await,
        2,
    );
    let old = shop
        .admin
        .get_after(&format!("/v1/products/{sku}"), &old_position)
        .await;
    old.problem(400, "unknown-position");
    let placed = trade(&shop, &sku, "2006-01-04").await;
    assert!(
        placed.answer.position().ends_with("~2"),
        "{}",
        placed.answer.position()
    );
    shop.product_is(&sku, 105, 6).await;
    let shown = lists(&shop).await;
    server.stop();
    let checked = home
        .run(&["log", "check", "--config", &second.file, "--output", "json"])
        .json();
    assert!(
        checked
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["wrong"] == json!([])),
        "{checked}"
    );
    home.set("ANNALS_DATABASE_URL", &first.database.url());
    let source = home.run(&["log", "check", "--config", &first.file, "--output", "json"]);
    assert_eq!(
        source.stdout.matches("\"closed\": true").count(),
        16,
        "{}",
        source.stdout
    );

    home.unset("ANNALS__LOG__TOPIC");
    let third = Place::make(&home, "third", "kind = \"postgres\"\n").await;
    let report = copied(&home, &second, &third);
    assert_eq!(report["generation"], 3);
    let server = serve(&home, &third, &[]);
    let shop = Shop::of(&server);
    show(&shop, &shown).await;
    let replay = shop.admin.post_with_key(&receive.0, &receive.1, &receive.2).await;
    is_replay(&before, &replay, 3);
    trade(&shop, &sku, "2006-01-05").await;
    shop.product_is(&sku, 105, 8).await;
    server.stop();
    drop((first, second, third));
}

fn serve(home: &Arc<Home>, place: &Place, words: &[&str]) -> Server {
    home.set("ANNALS_DATABASE_URL", &place.database.url());
    home.dev_with(words)
}

#[tokio::test]
async fn a_copy_that_cannot_be_is_refused_with_what_to_do() {
    let Some(home) = Home::with_database() else { return };
    let first = Place::make(&home, "first", "kind = \"postgres\"\n").await;
    let second = Place::make(&home, "second", "kind = \"postgres\"\n").await;
    let copy = |words: &[&str]| {
        let mut all = vec!["log", "copy", "--from", &first.file, "--to", &second.file];
        all.extend(words);
        home.run(&all)
    };
    let none = copy(&[]);
    assert!(none.stderr.contains("`log create` makes one"), "{}", none.stderr);
    home.run(&["log", "create", "--config", &second.file]).exits(0);
    home.set("ANNALS_DATABASE_URL", &first.database.url());
    home.run(&["log", "create"]).exits(0);
    let full = copy(&[]);
    assert!(full.stderr.contains("holds a log already"), "{}", full.stderr);
    let wrong = copy(&["--until", "3"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    let empty = Place::make(&home, "third", "kind = \"postgres\"\n").await;
    let eight = std::fs::read_to_string(&empty.file)
        .unwrap()
        .replace("shards = 16", "shards = 8");
    std::fs::write(&empty.file, eight).unwrap();
    let shards = home.run(&["log", "copy", "--from", &first.file, "--to", &empty.file]);
    assert!(shards.stderr.contains("a copy has as many"), "{}", shards.stderr);
    assert_eq!(shards.code, Some(2));
}

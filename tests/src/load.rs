//! A load of commands with a kill in the middle, and the proof that nothing was lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::server::{Home, Server};
use crate::shop::Shop;
use crate::unique;

/// Streams that the load goes over.
const PRODUCTS: usize = 8;
/// Clients, each with one command under way.
const CLIENTS: usize = 32;
/// Answers after which the kill comes.
const ANSWERS: usize = 400;
/// Orders whose checkouts the kill interrupts.
const ORDERS: usize = 12;

/// One command of the load.
#[derive(Debug, Clone)]
struct Sent {
    sku: String,
    key: String,
    /// Its answer, if one came.
    answer: Option<Answer>,
}

fn receive() -> Value {
    json!({"quantity": 1, "reference": "delivery"})
}

/// Starts a server with these words on `home`, kills it under a load of commands and checkouts, starts it again, and
/// checks that each acknowledged answer is there exactly once, that the same key gives the first answer again, that
/// what was not answered can be sent again, and that every checkout ends.
///
/// # Panics
/// If not.
pub async fn survives_a_kill(home: &Arc<Home>, words: &[&str]) {
    let server = home.dev_with(words);
    let shop = Shop::of(&server);
    let mut skus = Vec::new();
    for _ in 0..PRODUCTS {
        skus.push(shop.product(100, 1_000).await);
    }
    let customer = shop.customer().await;
    let mut orders = Vec::new();
    for number in 0..ORDERS {
        let lines = [
            (skus[number % PRODUCTS].as_str(), 2, 100),
            (skus[(number + 1) % PRODUCTS].as_str(), 1, 100),
        ];
        orders.push(shop.place(&customer, "2005-01-02", "tok_ok", &lines).await.order);
    }
    let sent = killed_under_load(server, shop.admin.clone(), &skus).await;
    let answered = sent.iter().filter(|sent| sent.answer.is_some()).count();
    assert!(answered >= ANSWERS, "{answered} answers");

    let server = home.dev_with(words);
    let shop = Shop::of(&server);
    let again = join_all(sent.iter().map(|sent| {
        let (admin, path, key) = (
            shop.admin.clone(),
            format!("/v1/products/{}/receive", sent.sku),
            sent.key.clone(),
        );
        async move { admin.post_for_good(&path, &key, &receive()).await }
    }));
    let again = again.await;
    for (sent, again) in sent.iter().zip(&again) {
        again.is(200);
        if let Some(first) = &sent.answer {
            assert_eq!(again.text(), first.text(), "the same key gives the first answer");
            assert_eq!(
                again.header("idempotent-replayed"),
                Some("true"),
                "{}",
                again.text()
            );
        }
    }
    for sku in &skus {
        let answers: Vec<_> = sent
            .iter()
            .zip(&again)
            .filter(|(sent, _)| sent.sku == *sku)
            .map(|(_, answer)| answer)
            .collect();
        history_holds_each_once(&shop, sku, &answers).await;
    }
    for order in &orders {
        shop.order_is(order, "confirmed").await;
    }
    let units: BTreeMap<_, _> = skus
        .iter()
        .map(|sku| (sku, sent.iter().filter(|sent| sent.sku == *sku).count()))
        .collect();
    for (number, sku) in skus.iter().enumerate() {
        // Each product is first line of some orders and second line of others.
        let reserved: usize = (0..ORDERS)
            .map(|order| {
                2 * usize::from(order % PRODUCTS == number) + usize::from((order + 1) % PRODUCTS == number)
            })
            .sum();
        let number = |count: usize| u64::try_from(count).expect("small");
        shop.product_is(sku, 1_000 + number(units[sku]), number(reserved))
            .await;
    }
    server.stop();
}

/// Sends from all clients at once until enough was answered; kills the server then. Returns everything that was sent.
async fn killed_under_load(server: Server, admin: Api, skus: &[String]) -> Vec<Sent> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(tokio::sync::Notify::new());
    let clients = (0..CLIENTS).map(|client| {
        let (admin, skus) = (admin.clone(), skus.to_vec());
        let (all, answers, enough) = (Arc::clone(&all), Arc::clone(&answers), Arc::clone(&enough));
        async move {
            for number in 0.. {
                let sku = skus[(client + number) % skus.len()].clone();
                let key = unique("k");
                let path = format!("/v1/products/{sku}/receive");
                let answer = admin
                    .call("POST", &path)
                    .key(&key)
                    .json(&receive())
                    .try_send()
                    .await;
                let gone = answer.is_err();
                let answer = answer.ok().filter(|answer| answer.status == 200);
                if answer.is_some() && answers.fetch_add(1, Ordering::SeqCst) + 1 == ANSWERS {
                    enough.notify_one();
                }
                all.lock()
                    .expect("no client panics")
                    .push(Sent { sku, key, answer });
                if gone {
                    return;
                }
            }
        }
    });
    let kill = async {
        enough.notified().await;
        // In a thread: the clients go on meanwhile.
        tokio::task::spawn_blocking(move || server.kill())
            .await
            .expect("the kill does not panic");
    };
    tokio::join!(join_all(clients), kill);
    std::mem::take(&mut all.lock().expect("no client panics"))
}

/// Each answer's record is in the stream's history once, versions have no gap, and nothing else is there.
async fn history_holds_each_once(shop: &Shop, sku: &str, answers: &[&Answer]) {
    let positions: Vec<_> = answers
        .iter()
        .map(|answer| answer.position().to_owned())
        .collect();
    let mut records = Vec::new();
    let mut versions = Vec::new();
    let path = format!("/v1/audit/streams/product-{sku}?limit=500");
    let mut page = shop.admin.get_after(&path, &positions.join(", ")).await;
    loop {
        let body = page.is(200).json();
        for item in body["data"].as_array().expect("a list") {
            let events = item["events"].as_array().map_or(0, Vec::len);
            if item["command"]["name"] == "receive" && item["actor"]["sub"] == "tester" {
                records.push(item["record"].as_str().expect("an id").to_owned());
            }
            if events > 0 {
                versions.push(item["version"].as_u64().expect("a version"));
            }
        }
        let Some(next) = body["next"].as_str() else { break };
        page = shop.admin.get(&format!("{path}&after={next}")).await;
    }
    let expected: BTreeSet<_> = answers
        .iter()
        .map(|answer| answer.json()["record"].as_str().expect("an id").to_owned())
        .collect();
    // One more: the stock that the product began with.
    assert_eq!(
        records.len(),
        expected.len() + 1,
        "{sku}: a record is lost or doubled"
    );
    let found: BTreeSet<_> = records.into_iter().collect();
    assert!(
        expected.is_subset(&found),
        "{sku}: an acknowledged record is not there"
    );
    let gapless: Vec<_> = (1..).take(versions.len()).collect();
    assert_eq!(versions, gapless, "{sku}: versions without a gap");
}

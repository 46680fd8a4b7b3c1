//! Whether the read models are what the log adds up to: each event was applied once.

use futures_util::StreamExt;
use futures_util::stream;
use serde_json::Value;

use super::check::orders::Checked;
use super::check::{Findings, Kind, Violation};
use super::conduct;
use super::setup::Ground;
use crate::api::{Api, shard_of};

/// So many rows are asked for at once.
const AT_ONCE: usize = 8;
/// How often a row is asked for that is not fresh enough yet.
const ATTEMPTS: usize = 7;

/// A row, and what is to be in it.
struct Row {
    stream: String,
    path: String,
    wanted: Vec<(&'static str, Value)>,
}

/// Compares products, orders and payments with what the checkers made of the log.
pub async fn compare(
    ground: &Ground,
    products: &Findings,
    checkouts: Option<&Checked>,
    ends: &[u64],
    findings: &mut Findings,
) {
    let Some(url) = ground.shared.reads.addresses().pop() else {
        return findings
            .violations
            .push(conduct("no query node is ready".to_owned()));
    };
    let api = Api::new(&url, Some(ground.token.clone()));
    let mut rows: Vec<Row> = products
        .stock
        .iter()
        .map(|(stream, (stock, _))| Row {
            stream: stream.clone(),
            path: format!("/v1/products/{}", stream.trim_start_matches("product-")),
            wanted: vec![("on_hand", Value::from(*stock))],
        })
        .collect();
    if let Some(checkouts) = checkouts {
        let status = |name: &str, key: &String, status: &String| Row {
            stream: format!("{name}-{key}"),
            path: format!("/v1/{name}s/{key}"),
            wanted: vec![("status", Value::from(status.as_str()))],
        };
        rows.extend(
            checkouts
                .orders
                .iter()
                .map(|(key, now)| status("order", key, now)),
        );
        rows.extend(
            checkouts
                .payments
                .iter()
                .map(|(key, now)| status("payment", key, now)),
        );
        rows.extend(checkouts.stock.iter().map(|(sku, (on_hand, reserved))| Row {
            stream: format!("product-{sku}"),
            path: format!("/v1/products/{sku}"),
            wanted: vec![
                ("on_hand", Value::from(*on_hand)),
                ("reserved", Value::from(*reserved)),
            ],
        }));
    }
    let compared = stream::iter(rows)
        .map(|row| differs(&api, row, ends))
        .buffer_unordered(AT_ONCE);
    let wrong: Vec<Option<String>> = compared.collect().await;
    findings
        .violations
        .extend(wrong.into_iter().flatten().map(|what| Violation {
            kind: Kind::ReadModel,
            what,
        }));
}

/// What is wrong with a row that has everything up to the log's end.
async fn differs(api: &Api, row: Row, ends: &[u64]) -> Option<String> {
    let shard = shard_of(&row.stream);
    let end = usize::try_from(shard).ok().and_then(|shard| ends.get(shard));
    let after = format!("{shard}:{}", end.copied().unwrap_or(0).saturating_sub(1));
    let mut answer = api.get_after(&row.path, &after).await;
    for _ in 1..ATTEMPTS {
        if answer.status == 503 {
            answer = api.get_after(&row.path, &after).await;
        }
    }
    let is_right = answer.status == 200 && {
        let data = answer.json()["data"].take();
        row.wanted.iter().all(|(name, wanted)| data[name] == *wanted)
    };
    (!is_right).then(|| {
        format!(
            "{} is {:?} by the log: {} {}",
            row.stream,
            row.wanted,
            answer.status,
            answer.text()
        )
    })
}

//! The checker of checkouts: every order that was placed has ended rightly, and goods, payments and the gateway's own books
//! say the same. Pure; it knows what a checkout is to come to by itself.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;

use super::{Kind, Violation};
use crate::fault::history::{Told, Verdict};

/// Some of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub sku: String,
    /// How many.
    pub quantity: u64,
}

/// An order of a client.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// Its key.
    pub order: String,
    /// Each product once.
    pub lines: Vec<Line>,
    /// Every command that was sent to it and its answer: by key, which begins with the command's name.
    pub answers: Vec<(String, Told)>,
}

/// A product that is ordered.
#[derive(Debug, Clone)]
pub struct Goods {
    /// Which.
    pub sku: String,
    /// How many came in.
    pub stock: u64,
}

/// A record that counts, of a stream of checkouts.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its shard.
    pub shard: u32,
    /// Its offset.
    pub offset: u64,
    /// Its id.
    pub record: String,
    /// The time of the decision, ms since 1970.
    pub time_ms: i64,
    /// Its stream.
    pub stream: String,
    /// The hash of the idempotency key.
    pub key: String,
    /// The version of the first event, or the next one.
    pub version: u64,
    /// Types and data of its events.
    pub events: Vec<(String, Value)>,
    /// The code of its refusal, if it is one.
    pub refusal: Option<String>,
}

/// A payment as the gateway has it: `GET /payments` of the sandbox.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Account {
    /// The order's key.
    pub payment: String,
    /// What became of it.
    pub status: Option<String>,
    /// What is held or was taken.
    pub amount: Option<Value>,
    /// What was given back.
    pub refunded: Option<u64>,
    /// Under how many keys it was asked to hold the money.
    pub authorizations: u32,
    /// To take it.
    pub captures: u32,
    /// To let it go.
    pub voids: u32,
    /// To give it back.
    pub refunds: u32,
}

/// What checkouts came to.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is wrong and stays wrong.
    pub violations: Vec<Violation>,
    /// What is on its way: wrong only if it is still so in the end.
    pub unsettled: Vec<String>,
    /// How many orders have which status, those turned down by why.
    pub statuses: BTreeMap<String, usize>,
    /// Of each order its status.
    pub orders: BTreeMap<String, String>,
    /// Of each payment its status.
    pub payments: BTreeMap<String, String>,
    /// Of each product what is on hand and what is reserved.
    pub stock: BTreeMap<String, (u64, u64)>,
    /// Payments that the gateway holds or has taken.
    pub charged: usize,
    /// How long orders took from `placed` to `confirmed`, ms, in order.
    pub confirmed_ms: Vec<i64>,
}

/// What a stream's events add up to.
#[derive(Debug, Default)]
struct Stream {
    version: u64,
    status: String,
    /// Why an order was turned down.
    reason: String,
    placed_ms: i64,
    /// From then to its confirmation.
    confirmed_ms: Option<i64>,
    total: u64,
    captured: u64,
    refunded: u64,
    on_hand: u64,
    /// By order, and how often each order's were reserved and left.
    reserved: BTreeMap<String, u64>,
    reservations: BTreeMap<String, u32>,
    shipments: BTreeMap<String, u32>,
}

/// Compares what clients were told, the log, and the gateway's books.
#[must_use]
pub fn check(
    ordered: &[Ordered],
    log: &[Entry],
    accounts: &[Account],
    goods: &[Goods],
    hash: impl Fn(&str) -> String,
) -> Checked {
    let mut checked = Checked::default();
    let streams = replay(log, &mut checked);
    answers(ordered, log, hash, &mut checked);
    let accounts: HashMap<&str, &Account> = accounts
        .iter()
        .map(|account| (account.payment.as_str(), account))
        .collect();
    let nothing = Stream::default();
    let lines: HashMap<&str, &[Line]> = ordered
        .iter()
        .map(|ordered| (ordered.order.as_str(), ordered.lines.as_slice()))
        .collect();
    for (name, stream) in &streams {
        let Some(order) = name.strip_prefix("order-") else {
            continue;
        };
        if stream.version == 0 {
            continue;
        }
        let status = match stream.reason.is_empty() {
            true => stream.status.clone(),
            false => format!("{}: {}", stream.status, stream.reason),
        };
        *checked.statuses.entry(status).or_default() += 1;
        checked.orders.insert(order.to_owned(), stream.status.clone());
        checked.confirmed_ms.extend(stream.confirmed_ms);
        let payment = streams.get(&format!("payment-{order}")).unwrap_or(&nothing);
        if !payment.status.is_empty() {
            checked.payments.insert(order.to_owned(), payment.status.clone());
        }
        let account = accounts.get(order).copied().cloned().unwrap_or_default();
        money(order, stream, payment, &account, &mut checked);
        let lines = lines.get(order).copied().unwrap_or_default();
        stock(order, stream, lines, &streams, &mut checked);
    }
    for goods in goods {
        let Some(product) = streams.get(&format!("product-{}", goods.sku)) else {
            let what = format!("{}: no record of its registration", goods.sku);
            checked.found(Kind::Lost, what);
            continue;
        };
        let reserved = product.reserved.values().sum();
        checked
            .stock
            .insert(goods.sku.clone(), (product.on_hand, reserved));
        if reserved > product.on_hand {
            let what = format!("{}: {reserved} are reserved of {}", goods.sku, product.on_hand);
            checked.found(Kind::Wrong, what);
        }
    }
    checked.confirmed_ms.sort_unstable();
    checked.charged = accounts
        .values()
        .filter(|account| matches!(account.status.as_deref(), Some("authorized" | "captured")))
        .count();
    checked
}

impl Checked {
    fn found(&mut self, kind: Kind, what: String) {
        self.violations.push(Violation { kind, what });
    }
}

/// Folds every stream; versions have no gap, and no key has two records.
fn replay(log: &[Entry], checked: &mut Checked) -> BTreeMap<String, Stream> {
    let mut streams: BTreeMap<String, Stream> = BTreeMap::new();
    let mut keys: HashMap<(&str, &str), &Entry> = HashMap::new();
    for entry in log {
        if let Some(first) = keys.insert((&entry.stream, &entry.key), entry) {
            let what = format!(
                "{} has {}:{} and {}:{} for one key",
                entry.stream, first.shard, first.offset, entry.shard, entry.offset
            );
            checked.found(Kind::Doubled, what);
        }
        let stream = streams.entry(entry.stream.clone()).or_default();
        if entry.version != stream.version + 1 {
            let what = format!(
                "{} at {}:{} has version {} behind {}",
                entry.stream, entry.shard, entry.offset, entry.version, stream.version
            );
            checked.found(Kind::Gap, what);
        }
        for (name, data) in &entry.events {
            match name.as_str() {
                "order.placed" => stream.placed_ms = entry.time_ms,
                "order.confirmed" => stream.confirmed_ms = Some(entry.time_ms - stream.placed_ms),
                _ => {}
            }
            stream.version += 1;
            stream.take(name, data);
        }
    }
    streams
}

impl Stream {
    fn take(&mut self, event: &str, data: &Value) {
        let amount = || data["amount"]["amount"].as_u64().unwrap_or(0);
        let quantity = || data["quantity"].as_u64().unwrap_or(0);
        let order = || data["order"].as_str().unwrap_or_default().to_owned();
        match event {
            "product.stock_received" => self.on_hand += quantity(),
            "product.stock_reserved" => {
                self.reserved.insert(order(), quantity());
                *self.reservations.entry(order()).or_default() += 1;
            }
            "product.reservation_released" => {
                self.reserved.remove(&order());
            }
            "product.stock_shipped" => {
                self.reserved.remove(&order());
                self.on_hand = self.on_hand.saturating_sub(quantity());
                *self.shipments.entry(order()).or_default() += 1;
            }
            "order.rejected" => data["reason"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut self.reason),
            "order.placed" => self.total = data["total"].as_u64().unwrap_or(0),
            "payment.requested" => self.total = amount(),
            "payment.captured" => self.captured += amount(),
            "payment.refunded" => self.refunded += amount(),
            _ => {}
        }
        if let Some((_, status)) = event.split_once('.')
            && !event.starts_with("product.")
        {
            status.clone_into(&mut self.status);
        }
    }
}

/// Every answer is a record at its place that says the same.
fn answers(ordered: &[Ordered], log: &[Entry], hash: impl Fn(&str) -> String, checked: &mut Checked) {
    let placed: HashMap<(u32, u64), &Entry> = log
        .iter()
        .map(|entry| ((entry.shard, entry.offset), entry))
        .collect();
    for ordered in ordered {
        for (key, told) in &ordered.answers {
            let says = |entry: &&&Entry| {
                let verdict = match &entry.refusal {
                    Some(code) => Verdict::Rejected { code: code.clone() },
                    None => Verdict::Committed {
                        version: entry.version + u64::try_from(entry.events.len()).unwrap_or(0) - 1,
                    },
                };
                entry.record == told.record
                    && entry.stream == format!("order-{}", ordered.order)
                    && entry.key == hash(key)
                    && verdict == told.what
            };
            let there = placed.get(&(told.shard, told.offset));
            if there.filter(says).is_none() {
                let what = format!(
                    "{key} of {} was told {told:?}, and there stands {there:?}",
                    ordered.order
                );
                checked.found(Kind::Lost, what);
            }
        }
    }
}

/// The order's end, its payment and the gateway agree, and nobody is charged twice.
fn money(order: &str, stream: &Stream, payment: &Stream, account: &Account, checked: &mut Checked) {
    if account.authorizations > 1 || account.captures > 1 || account.refunds > 1 {
        let what = format!("the gateway was asked more than once for {order}: {account:?}");
        checked.found(Kind::Doubled, what);
    }
    let held = account
        .amount
        .as_ref()
        .and_then(|amount| amount["amount"].as_u64());
    let at_gateway = (account.status.as_deref(), held);
    let right = match stream.status.as_str() {
        "confirmed" => {
            payment.status == "authorized" && at_gateway == (Some("authorized"), Some(stream.total))
        }
        "shipped" => payment.status == "captured" && at_gateway == (Some("captured"), Some(stream.total)),
        "rejected" | "cancelled" => match (payment.status.as_str(), account.status.as_deref()) {
            ("", None) | ("declined", Some("declined")) | ("voided", Some("voided")) => true,
            ("refunded", Some("captured")) => {
                account.refunded == held && payment.refunded == payment.captured
            }
            _ => false,
        },
        // Placed, or nothing that an order can be.
        _ => false,
    };
    if !right {
        checked.unsettled.push(format!(
            "order {order} is {}, its payment {:?}, and the gateway has {account:?}",
            stream.status, payment.status
        ));
    }
}

/// What a confirmed order holds is what it ordered; what left the house left once; who was turned down holds nothing.
fn stock(
    order: &str,
    stream: &Stream,
    lines: &[Line],
    streams: &BTreeMap<String, Stream>,
    checked: &mut Checked,
) {
    let wanted: HashMap<String, u64> = lines
        .iter()
        .map(|line| (format!("product-{}", line.sku), line.quantity))
        .collect();
    for (name, product) in streams.iter().filter(|(name, _)| name.starts_with("product-")) {
        let wanted = wanted.get(name).copied();
        let held = product.reserved.get(order).copied();
        let reserved = product.reservations.get(order).copied().unwrap_or(0);
        let shipped = product.shipments.get(order).copied().unwrap_or(0);
        if reserved > 1 || shipped > 1 || (wanted.is_none() && reserved > 0) {
            let what =
                format!("{name} was reserved {reserved} times for order {order}, and left {shipped} times");
            checked.found(Kind::Doubled, what);
        }
        let right = match stream.status.as_str() {
            "confirmed" => held == wanted && shipped == 0,
            "shipped" => held.is_none() && shipped == u32::from(wanted.is_some()),
            _ => held.is_none() && shipped == 0,
        };
        if !right {
            checked.unsettled.push(format!(
                "order {order} is {}, wants {wanted:?} of {name}, holds {held:?}, and {shipped} times it left",
                stream.status
            ));
        }
    }
}

#[cfg(test)]
mod tests;

//! A right checkout of each end, and each promise broken once on purpose.

use serde_json::json;

use super::*;

struct Run {
    ordered: Vec<Ordered>,
    log: Vec<Entry>,
    accounts: Vec<Account>,
    versions: BTreeMap<String, u64>,
}

impl Run {
    fn record(&mut self, stream: &str, key: &str, event: &str, data: Value) -> Told {
        let offset = u64::try_from(self.log.len()).unwrap();
        let version = self.versions.entry(stream.to_owned()).or_default();
        *version += 1;
        let entry = Entry {
            shard: 1,
            offset,
            record: format!("r{offset}"),
            time_ms: 1_000 + i64::try_from(offset).unwrap(),
            stream: stream.to_owned(),
            key: key.to_owned(),
            version: *version,
            events: vec![(event.to_owned(), data)],
            refusal: None,
        };
        self.log.push(entry);
        Told {
            record: format!("r{offset}"),
            shard: 1,
            offset,
            what: Verdict::Committed { version: *version },
        }
    }

    fn place(&mut self, order: &str) {
        let told = self.record(
            &format!("order-{order}"),
            &format!("place-{order}"),
            "order.placed",
            json!({"total": 300}),
        );
        let held = json!({"order": order, "quantity": 3});
        self.record(
            "product-G",
            &format!("reserve-{order}"),
            "product.stock_reserved",
            held,
        );
        let amount = json!({"amount": {"amount": 300, "currency": "USD"}});
        self.pay(order, "requested", amount);
        self.ordered.push(Ordered {
            order: order.to_owned(),
            lines: vec![Line {
                sku: "G".to_owned(),
                quantity: 3,
            }],
            answers: vec![(format!("place-{order}"), told)],
        });
    }

    fn pay(&mut self, order: &str, event: &str, data: Value) {
        let stream = format!("payment-{order}");
        self.record(
            &stream,
            &format!("{event}-{order}"),
            &format!("payment.{event}"),
            data,
        );
    }

    fn end(&mut self, order: &str, event: &str) {
        let stream = format!("order-{order}");
        self.record(
            &stream,
            &format!("{event}-{order}"),
            &format!("order.{event}"),
            json!({}),
        );
    }

    fn account(&mut self, order: &str, status: &str) {
        let is_held = matches!(status, "authorized" | "captured");
        self.accounts.push(Account {
            payment: order.to_owned(),
            status: Some(status.to_owned()),
            amount: is_held.then(|| json!({"amount": 300, "currency": "USD"})),
            authorizations: 1,
            captures: u32::from(status == "captured"),
            ..Account::default()
        });
    }

    /// One order confirmed, one shipped, one turned down.
    fn right() -> Self {
        let mut run = Self {
            ordered: Vec::new(),
            log: Vec::new(),
            accounts: Vec::new(),
            versions: BTreeMap::new(),
        };
        run.record("product-G", "setup", "product.registered", json!({}));
        let received = json!({"quantity": 50, "reference": "delivery"});
        run.record("product-G", "setup-2", "product.stock_received", received);
        for order in ["a", "b", "c"] {
            run.place(order);
        }
        for order in ["a", "b"] {
            run.pay(order, "authorized", json!({}));
            run.end(order, "confirmed");
        }
        run.end("b", "shipped");
        let left = json!({"order": "b", "quantity": 3});
        run.record("product-G", "ship-b", "product.stock_shipped", left);
        run.pay(
            "b",
            "captured",
            json!({"amount": {"amount": 300, "currency": "USD"}}),
        );
        run.end("c", "rejected");
        let released = json!({"order": "c", "quantity": 3});
        run.record("product-G", "release-c", "product.reservation_released", released);
        run.pay("c", "voided", json!({}));
        run.account("a", "authorized");
        run.account("b", "captured");
        run.account("c", "voided");
        run
    }

    fn check(&self) -> Checked {
        let goods = [Goods {
            sku: "G".to_owned(),
            stock: 50,
        }];
        check(&self.ordered, &self.log, &self.accounts, &goods, str::to_owned)
    }

    fn forget(&mut self, event: &str, stream: &str) {
        let at = self
            .log
            .iter()
            .rposition(|entry| entry.stream == stream && entry.events[0].0 == event);
        self.log.remove(at.unwrap());
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.check().violations.iter().map(|found| found.kind).collect();
        kinds.dedup();
        kinds
    }
}

#[test]
fn checkouts_that_ended_rightly_have_no_violation() {
    let checked = Run::right().check();
    assert_eq!(checked.violations, []);
    assert_eq!(checked.unsettled, [""; 0]);
    assert_eq!(checked.stock["G"], (47, 3));
    assert_eq!(checked.charged, 2);
    assert_eq!(checked.confirmed_ms, [9, 10]);
    assert_eq!(checked.statuses["confirmed"], 1);
}

#[test]
fn an_order_that_never_ended_and_one_that_still_holds_goods_are_seen() {
    let mut run = Run::right();
    run.forget("order.confirmed", "order-a");
    assert_eq!(run.check().unsettled.len(), 2, "its end, and its goods");
    let mut run = Run::right();
    run.forget("product.reservation_released", "product-G");
    assert!(run.check().unsettled[0].contains("holds Some(3)"));
    let mut run = Run::right();
    run.forget("product.stock_shipped", "product-G");
    assert!(!run.check().unsettled.is_empty());
}

#[test]
fn money_that_the_gateway_holds_for_nobody_and_money_that_it_does_not_have_are_seen() {
    for (order, status) in [("c", "authorized"), ("a", "voided"), ("b", "authorized")] {
        let mut run = Run::right();
        run.accounts.retain(|account| account.payment != order);
        run.account(order, status);
        assert_eq!(run.check().unsettled.len(), 1, "{order} {status}");
    }
    let mut run = Run::right();
    run.accounts[0].amount = Some(json!({"amount": 301, "currency": "USD"}));
    assert_eq!(run.check().unsettled.len(), 1);
}

#[test]
fn whoever_is_charged_or_reserved_for_twice_is_seen() {
    let mut run = Run::right();
    run.accounts[0].authorizations = 2;
    assert_eq!(run.kinds(), [Kind::Doubled]);
    let mut run = Run::right();
    run.accounts[1].captures = 2;
    assert_eq!(run.kinds(), [Kind::Doubled]);
    let mut run = Run::right();
    let held = json!({"order": "a", "quantity": 3});
    run.record("product-G", "again", "product.stock_reserved", held.clone());
    assert_eq!(run.kinds(), [Kind::Doubled]);
    let mut run = Run::right();
    run.record("product-G", "reserve-a", "product.registered", json!({}));
    assert_eq!(run.kinds(), [Kind::Doubled], "one key, two records");
}

#[test]
fn an_answer_whose_record_is_not_there_is_lost_and_a_gap_is_seen() {
    let mut run = Run::right();
    run.ordered[0].answers[0].1.offset = 1;
    assert_eq!(run.kinds(), [Kind::Lost]);
    let mut run = Run::right();
    run.ordered[0].answers[0].1.what = Verdict::Committed { version: 9 };
    assert_eq!(run.kinds(), [Kind::Lost]);
    let mut run = Run::right();
    run.forget("product.stock_received", "product-G");
    assert!(run.kinds().contains(&Kind::Gap));
}

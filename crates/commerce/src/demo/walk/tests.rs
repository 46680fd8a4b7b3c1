//! A whole demo over HTTP against a shop of a few maps, whose checkouts go on whenever somebody looks: run to its end,
//! killed and run again, and with an order that goes wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use annals_client::{Client, NoToken, Settings};
use axum::extract::{Path, Query as Parameters, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::demo::plan::{Goal, MIN_SCALE};
use crate::demo::{DemoReport, run};

use super::*;

type Table = BTreeMap<String, Value>;

/// The read models by name, and how many commands changed something.
#[derive(Debug, Default)]
struct Tables {
    tables: HashMap<String, Table>,
    changes: u64,
    /// The order whose checkout fails.
    unlucky: Option<Uuid>,
}

impl Tables {
    fn of(&mut self, name: &str) -> &mut Table {
        self.tables.entry(name.to_owned()).or_default()
    }

    /// A command; an error is a rejection's code with its detail, or `""` for 412.
    fn command(
        &mut self,
        what: &str,
        key: &str,
        data: &Value,
        matches: bool,
    ) -> Result<(), (&'static str, Value)> {
        match what {
            "products/register" => self.insert(
                "products",
                key,
                "already_registered",
                || json!({ "sku": key, "on_hand": 0, "reserved": 0, "version": 1 }),
            ),
            "products/receive" => {
                let product = self.of("products").get_mut(key).unwrap();
                if !matches || product["version"] != 1 {
                    return Err(("", Value::Null));
                }
                product["version"] = json!(2);
                product["on_hand"] = data["quantity"].clone();
                Ok(())
            }
            "customers/register" => self.insert(
                "customers",
                key,
                "already_registered",
                || json!({ "customer_id": key, "orders": 0, "lifetime_value": 0 }),
            ),
            "orders/place" => self.place(key, data),
            "orders/ship" => self.step(key, "confirmed", "shipped"),
            "orders/deliver" => self.step(key, "shipped", "delivered"),
            _ => panic!("an unknown command {what}"),
        }
    }

    fn insert(
        &mut self,
        table: &str,
        key: &str,
        else_code: &'static str,
        row: impl FnOnce() -> Value,
    ) -> Result<(), (&'static str, Value)> {
        if self.of(table).contains_key(key) {
            return Err((else_code, Value::Null));
        }
        self.of(table).insert(key.to_owned(), row());
        Ok(())
    }

    fn place(&mut self, key: &str, data: &Value) -> Result<(), (&'static str, Value)> {
        let lines = data["lines"].as_array().unwrap();
        let (mut total, mut units) = (0, 0);
        for line in lines {
            let quantity = line["quantity"].as_i64().unwrap();
            units += quantity;
            total += quantity * line["unit_price"].as_i64().unwrap();
        }
        self.insert("orders", key, "already_placed", || {
            json!({ "order_id": key, "customer_id": data["customer"], "status": "placed", "currency": "USD",
                "total": total, "line_count": lines.len(), "units": units, "ordered_on": data["ordered_on"] })
        })?;
        for (at, line) in lines.iter().enumerate() {
            let mut row = line.clone();
            row["order_id"] = json!(key);
            row["line"] = json!(at + 1);
            row["amount"] = json!(line["quantity"].as_i64().unwrap() * line["unit_price"].as_i64().unwrap());
            self.of("order_lines").insert(format!("{key},{at}"), row);
        }
        Ok(())
    }

    fn step(&mut self, key: &str, from: &str, to: &str) -> Result<(), (&'static str, Value)> {
        let order = self.of("orders").get_mut(key).unwrap();
        if order["status"] != from {
            return Err(("wrong_status", json!({ "status": order["status"] })));
        }
        order["status"] = json!(to);
        if to == "shipped" {
            self.move_stock(key, |product, quantity| {
                add(product, "reserved", -quantity);
                add(product, "on_hand", -quantity);
            });
        }
        Ok(())
    }

    fn move_stock(&mut self, order: &str, change: impl Fn(&mut Value, i64)) {
        let lines: Vec<Value> = self
            .of("order_lines")
            .range(format!("{order},")..format!("{order}-"))
            .map(|(_, line)| line.clone())
            .collect();
        for line in lines {
            let product = self
                .of("products")
                .get_mut(line["sku"].as_str().unwrap())
                .unwrap();
            change(product, line["quantity"].as_i64().unwrap());
        }
    }

    /// What the checkouts do, all at once.
    fn check_out(&mut self) {
        let unlucky = self.unlucky.map(|id| id.to_string());
        let paid: HashSet<String> = self
            .of("payments")
            .iter()
            .filter(|(_, payment)| payment["status"] == "captured")
            .map(|(key, _)| key.clone())
            .collect();
        let due = |key: &str, order: &Value| match order["status"].as_str().unwrap() {
            "placed" => true,
            "delivered" => !paid.contains(key),
            _ => false,
        };
        let orders: Vec<(String, Value)> = self
            .of("orders")
            .iter()
            .filter(|(key, order)| due(key, order))
            .map(|(key, order)| (key.clone(), order.clone()))
            .collect();
        for (key, order) in orders {
            match order["status"].as_str().unwrap() {
                "placed" if unlucky.as_ref() == Some(&key) => {
                    self.of("orders").get_mut(&key).unwrap()["status"] = json!("rejected");
                }
                "placed" => self.confirm(&key, &order),
                "delivered" => {
                    let payment = self.of("payments").get_mut(&key).unwrap();
                    payment["status"] = json!("captured");
                    payment["captured"] = payment["amount"].clone();
                }
                _ => {}
            }
        }
    }

    fn confirm(&mut self, key: &str, order: &Value) {
        self.of("orders").get_mut(key).unwrap()["status"] = json!("confirmed");
        let total = order["total"].as_i64().unwrap();
        let payment =
            json!({ "order_id": key, "status": "authorized", "amount": total, "captured": 0, "refunded": 0 });
        self.of("payments").insert(key.to_owned(), payment);
        self.move_stock(key, |product, quantity| add(product, "reserved", quantity));
        let customer = self
            .of("customers")
            .get_mut(order["customer_id"].as_str().unwrap())
            .unwrap();
        add(customer, "orders", 1);
        add(customer, "lifetime_value", total);
        let day = order["ordered_on"].as_str().unwrap();
        let zero = json!({ "day": day, "currency": "USD", "orders": 0, "units": 0, "revenue": 0 });
        let sales = self.of("daily_sales").entry(day.to_owned()).or_insert(zero);
        add(sales, "orders", 1);
        add(sales, "units", order["units"].as_i64().unwrap());
        add(sales, "revenue", total);
    }
}

fn add(row: &mut Value, column: &str, number: i64) {
    row[column] = json!(row[column].as_i64().unwrap() + number);
}

type Shared = Arc<Mutex<Tables>>;

async fn command(
    State(tables): State<Shared>,
    Path((resource, key, command)): Path<(String, String, String)>,
    headers: HeaderMap,
    Json(data): Json<Value>,
) -> Response {
    assert_eq!(headers["idempotency-key"], format!("tpch-{command}"));
    let matches = headers.get("if-match").is_some_and(|tag| tag == "\"1\"");
    let mut tables = tables.lock().unwrap();
    match tables.command(&format!("{resource}/{command}"), &key, &data, matches) {
        Ok(()) => {
            tables.changes += 1;
            let position = format!("0:{}", tables.changes);
            (StatusCode::CREATED, [("annals-position", position)], "{}").into_response()
        }
        Err(("", _)) => StatusCode::PRECONDITION_FAILED.into_response(),
        Err((code, detail)) => {
            let problem = json!({ "code": "rejected", "rejection": { "code": code, "detail": detail } });
            let kind = [("content-type", "application/problem+json")];
            (StatusCode::CONFLICT, kind, problem.to_string()).into_response()
        }
    }
}

async fn list(
    State(tables): State<Shared>,
    Path(resource): Path<String>,
    Parameters(parameters): Parameters<HashMap<String, String>>,
) -> Response {
    let mut tables = tables.lock().unwrap();
    let table = tables.of(&resource);
    let status = parameters.get("status");
    let kept = |row: &&Value| status.is_none_or(|status| row["status"] == **status);
    let rows: Vec<&Value> = match parameters.get("order_id.in") {
        Some(ids) => ids
            .split(',')
            .filter_map(|id| table.get(id))
            .filter(kept)
            .collect(),
        None => table.values().filter(kept).collect(),
    };
    let number = |name: &str| parameters.get(name).and_then(|text| text.parse::<usize>().ok());
    let (at, limit) = (number("cursor").unwrap_or(0), number("limit").unwrap());
    let page: Vec<&&Value> = rows.iter().skip(at).take(limit).collect();
    let next = (at + limit < rows.len()).then(|| (at + limit).to_string());
    let answer = json!({ "data": page, "next": next });
    // The next look sees what the checkouts have done since this one.
    tables.check_out();
    ([("annals-position", "0:1, 1:7")], Json(answer)).into_response()
}

async fn shop() -> (Client, Shared, JoinSet<()>) {
    let tables = Shared::default();
    let routes = Router::new()
        .route("/v1/{resource}/{key}/{command}", post(command))
        .route("/v1/{resource}", get(list))
        .with_state(Arc::clone(&tables));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let client = Client::new(&url, Arc::new(NoToken), Settings::default()).unwrap();
    (client, tables, server)
}

fn options() -> DemoOptions {
    DemoOptions {
        scale: MIN_SCALE,
        settle: Duration::ZERO,
        ..DemoOptions::default()
    }
}

fn commands_of(plan: &Plan) -> u64 {
    let delivered = plan.orders().iter().filter(|order| order.goal == Goal::Delivered);
    let number =
        plan.products().len() * 2 + plan.customers().len() + plan.orders().len() + delivered.count() * 2;
    number.try_into().unwrap()
}

fn assert_equal(report: &DemoReport) {
    assert!(report.is_equal(), "{report}");
}

#[tokio::test]
async fn goes_to_its_end_with_equal_sums_and_then_has_nothing_to_do() {
    let (client, tables, _server) = shop().await;
    let options = options();
    let most_open = Mutex::new(0);
    let note = |progress: Progress| {
        let mut most = most_open.lock().unwrap();
        *most = progress.open.max(*most);
    };
    let report = run(&client, &options, note).await.unwrap();
    assert_equal(&report);
    let all = commands_of(&Plan::generate(MIN_SCALE).unwrap());
    assert_eq!((report.commands, tables.lock().unwrap().changes), (all, all));
    assert!((1..=500).contains(&*most_open.lock().unwrap()));
    let again = run(&client, &options, |_| {}).await.unwrap();
    assert_equal(&again);
    assert_eq!(again.commands, 0);
}

#[tokio::test]
async fn killed_at_any_time_it_goes_on_with_nothing_lost_and_nothing_twice() {
    let (client, tables, _server) = shop().await;
    let options = options();
    for kill_after in [100, 300, 500, 900, 1_500] {
        let (killed, mut dead) = tokio::sync::watch::channel(false);
        let progress = move |progress: Progress| {
            killed.send_replace(progress.commands >= kill_after);
        };
        tokio::select! {
            _ = dead.wait_for(|dead| *dead) => {}
            report = run(&client, &options, progress) => assert_equal(&report.unwrap()),
        }
    }
    let report = run(&client, &options, |_| {}).await.unwrap();
    assert_equal(&report);
    let all = commands_of(&Plan::generate(MIN_SCALE).unwrap());
    assert_eq!(tables.lock().unwrap().changes, all);
}

#[tokio::test]
async fn an_order_that_ends_otherwise_is_listed() {
    let (client, tables, _server) = shop().await;
    let unlucky = Plan::generate(MIN_SCALE).unwrap().orders()[7].id;
    tables.lock().unwrap().unlucky = Some(unlucky);
    let report = run(&client, &options(), |_| {}).await.unwrap();
    assert!(!report.is_equal());
    let listed = report.comparison.differences.iter();
    assert!(
        listed
            .clone()
            .any(|what| what.contains(&unlucky.to_string()) && what.contains("rejected"))
    );
}

#[tokio::test]
async fn without_news_it_stops_waiting_and_lists_what_is_missing() {
    let (client, _, _server) = shop().await;
    let options = DemoOptions {
        patience: Duration::ZERO,
        // Not waited for: what did not end does not end while sums are compared again.
        settle: Duration::MAX,
        ..options()
    };
    let report = run(&client, &options, |_| {}).await.unwrap();
    assert!(report.comparison.difference_count >= 1_500, "{report}");
}

#[tokio::test]
async fn an_answer_that_is_neither_yes_nor_no_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    let routes = Router::new().fallback(|| async { StatusCode::FORBIDDEN });
    server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let client = Client::new(&url, Arc::new(NoToken), Settings::default()).unwrap();
    let options = options();
    let demo: BoxFuture<'_, _> = Box::pin(run(&client, &options, |_| {}));
    assert!(matches!(demo.await, Err(DemoError::Answer { .. })));
}

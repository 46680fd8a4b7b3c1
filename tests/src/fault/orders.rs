//! Clients that place orders and then cancel them, ship them or leave them alone, with all that a checkout needs: customers,
//! goods of which some run out, a payment gateway. They write down what they were told.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use commerce::gateway::sandbox;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::check::orders::{Account, Goods, Line, Ordered, Then};
use super::client::{AGAIN, Attempt, Clients};
use super::history::Told;
use super::plan::Random;
use crate::api::Api;
use crate::shop::{order_data, usd};
use crate::{unique, uuid};

/// What a thing costs, minor units.
pub const PRICE: u64 = 100;
/// Between two orders of a client.
const THINK: Duration = Duration::from_millis(100);
/// The longest that a client waits before it does something with its order.
const CONSIDERS_MS: usize = 2_000;
/// Customers, and goods of which there is enough and hardly anything.
const CUSTOMERS: usize = 8;
const STOCKS: [u64; 8] = [9_000, 9_000, 9_000, 9_000, 9_000, 9_000, 9_000, 50];
/// What the goods of orders begin with; those of the other load do not.
pub const GOODS: &str = "G";

/// The gateway of a run: real HTTP, in this process.
#[derive(Debug)]
pub struct Gateway {
    /// Where it is.
    pub url: String,
    _task: JoinSet<std::io::Result<()>>,
}

impl Gateway {
    /// Serves on this address.
    ///
    /// # Errors
    /// If nothing can be listened on there.
    pub async fn start(address: Ipv4Addr) -> Result<Self, String> {
        let listener = TcpListener::bind((address, 0))
            .await
            .map_err(|error| error.to_string())?;
        let own = listener.local_addr().map_err(|error| error.to_string())?;
        let mut task = JoinSet::new();
        task.spawn(sandbox::serve(listener, CancellationToken::new()));
        Ok(Self {
            url: format!("http://{own}"),
            _task: task,
        })
    }

    /// What it has in its books.
    ///
    /// # Errors
    /// If it does not say.
    pub async fn accounts(&self) -> Result<Vec<Account>, String> {
        let answer = Api::new(&self.url, None).get("/payments").await;
        let accounts = answer.json()["payments"].take();
        serde_json::from_value(accounts).map_err(|error| format!("the gateway's books: {error}"))
    }
}

/// What orders are made of, and those that were placed.
#[derive(Debug)]
pub struct Shop {
    customers: Vec<String>,
    /// With what was received in the beginning.
    pub goods: Vec<Goods>,
    placed: Mutex<Vec<Ordered>>,
}

impl Shop {
    /// Registers customers and goods.
    ///
    /// # Errors
    /// If one cannot be registered.
    pub async fn open(api: &Api) -> Result<Arc<Self>, String> {
        let send = async |path: String, data: Value| {
            let answer = api.post_for_good(&path, &unique("setup-"), &data).await;
            match answer.status {
                200 | 201 => Ok(()),
                status => Err(format!("{path}: {status} {}", answer.text())),
            }
        };
        let mut customers = Vec::new();
        for _ in 0..CUSTOMERS {
            let customer = uuid();
            let data = json!({"name": "Ada", "email": format!("{customer}@example.com")});
            send(format!("/v1/customers/{customer}/register"), data).await?;
            customers.push(customer);
        }
        let mut goods = Vec::new();
        for stock in STOCKS {
            let sku = unique(GOODS);
            let data = json!({"name": "A thing", "price": usd(PRICE)});
            send(format!("/v1/products/{sku}/register"), data).await?;
            let data = json!({"quantity": stock, "reference": "delivery"});
            send(format!("/v1/products/{sku}/receive"), data).await?;
            goods.push(Goods { sku, stock });
        }
        Ok(Arc::new(Self {
            customers,
            goods,
            placed: Mutex::default(),
        }))
    }

    /// Every order so far.
    #[must_use]
    pub fn orders(&self) -> Vec<Ordered> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the clients.
    pub fn start_load(
        self: &Arc<Self>,
        clients: &Arc<Clients>,
        count: u8,
        seed: u64,
        load: &mut JoinSet<()>,
    ) {
        for client in 0..count {
            let random = Random::new(seed.wrapping_mul(7_919).wrapping_add(client.into()));
            load.spawn(Arc::clone(self).run(Arc::clone(clients), random));
        }
    }

    async fn run(self: Arc<Self>, clients: Arc<Clients>, mut random: Random) {
        while !clients.stop.load(Ordering::Relaxed) {
            let mut ordered = self.draw(&mut random);
            let method = [
                "tok_ok",
                "tok_ok",
                "tok_ok",
                "tok_ok",
                "tok_flaky",
                "tok_declined",
            ];
            let method = method[random.below(method.len())];
            let lines: Vec<_> = ordered
                .lines
                .iter()
                .map(|line| (line.sku.as_str(), line.quantity, PRICE))
                .collect();
            let customer = &self.customers[random.below(self.customers.len())];
            let data = order_data(customer, "2005-01-02", method, &lines);
            ordered.placed = told(&clients, &ordered.order, "place", &data, &mut random).await;
            let considers = Duration::from_millis(u64::try_from(random.below(CONSIDERS_MS)).unwrap_or(0));
            if ordered.then != Then::Nothing {
                tokio::time::sleep(considers).await;
            }
            ordered.answer = match ordered.then {
                Then::Nothing => None,
                Then::Cancel => {
                    let data = json!({"reason": "changed my mind"});
                    told(&clients, &ordered.order, "cancel", &data, &mut random).await
                }
                Then::Ship => {
                    let data = json!({"carrier": "post", "tracking": ordered.order});
                    told(&clients, &ordered.order, "ship", &data, &mut random).await
                }
            };
            self.placed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(ordered);
            tokio::time::sleep(THINK).await;
        }
    }

    /// One to three goods, some of each.
    fn draw(&self, random: &mut Random) -> Ordered {
        let (first, count) = (random.below(self.goods.len()), 1 + random.below(3));
        let lines = (0..count).map(|number| Line {
            sku: self.goods[(first + number) % self.goods.len()].sku.clone(),
            quantity: u64::try_from(1 + random.below(4)).unwrap_or(1),
        });
        Ordered {
            order: uuid(),
            lines: lines.collect(),
            placed: None,
            then: match random.below(4) {
                0 => Then::Cancel,
                1 => Then::Ship,
                _ => Then::Nothing,
            },
            answer: None,
        }
    }
}

/// Sends a command of an order with one key until it is answered for good.
async fn told(
    clients: &Clients,
    order: &str,
    command: &str,
    data: &Value,
    random: &mut Random,
) -> Option<Told> {
    let (path, key) = (
        format!("/v1/orders/{order}/{command}"),
        format!("{command}-{order}"),
    );
    let stream = format!("order-{order}");
    let mut avoid = None;
    loop {
        let url = clients.pick(avoid.as_deref(), random);
        let request = |url: &str| clients.request(url, &path, &stream, &key, data);
        if let Attempt::Told(told) = clients.send(url.as_deref().map(request)).await {
            return Some(told);
        }
        avoid = url;
        tokio::time::sleep(AGAIN).await;
    }
}

//! Clients that place orders and then cancel them, ship them or leave them alone, with all that a checkout needs: customers,
//! goods of which some run out, a payment gateway. They write down what they were told.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use commerce::gateway::sandbox;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::check::orders::{Account, Goods, Line, Ordered};
use super::client::{AGAIN, Attempt, Clients};
use super::history::Verdict;
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
/// How customers pay: most of them with something that works at once.
const METHODS: [&str; 6] = [
    "tok_ok",
    "tok_ok",
    "tok_ok",
    "tok_ok",
    "tok_flaky",
    "tok_declined",
];
/// So often an order is tried to be sent off while it is not confirmed.
const SHIPPED_WITHIN: usize = 12;
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
        let mut to_ship: VecDeque<Ordered> = VecDeque::new();
        while !clients.stop.load(Ordering::Relaxed) {
            let mut ordered = self.draw(&mut random);
            let method = METHODS[random.below(METHODS.len())];
            let lines: Vec<_> = ordered
                .lines
                .iter()
                .map(|line| (line.sku.as_str(), line.quantity, PRICE))
                .collect();
            let customer = &self.customers[random.below(self.customers.len())];
            let data = order_data(customer, "2005-01-02", method, &lines);
            let place = format!("place-{}", ordered.order);
            tell(&clients, &mut ordered, "place", place, &data, &mut random).await;
            match random.below(3) {
                0 => {
                    let considers = random.below(CONSIDERS_MS);
                    tokio::time::sleep(Duration::from_millis(u64::try_from(considers).unwrap_or(0))).await;
                    let (data, key) = (
                        json!({"reason": "changed my mind"}),
                        format!("cancel-{}", ordered.order),
                    );
                    tell(&clients, &mut ordered, "cancel", key, &data, &mut random).await;
                    self.note(ordered);
                }
                1 => to_ship.push_back(ordered),
                _ => self.note(ordered),
            }
            if let Some(mut oldest) = to_ship.pop_front() {
                // Refused while it is not confirmed: then another time.
                let (attempt, order) = (oldest.answers.len(), oldest.order.clone());
                let data = json!({"carrier": "post", "tracking": order});
                let key = format!("ship-{attempt}-{order}");
                tell(&clients, &mut oldest, "ship", key, &data, &mut random).await;
                let last = oldest.answers.last().map(|(_, told)| &told.what);
                match matches!(last, Some(Verdict::Committed { .. })) || attempt == SHIPPED_WITHIN {
                    true => self.note(oldest),
                    false => to_ship.push_back(oldest),
                }
            }
            tokio::time::sleep(THINK).await;
        }
        to_ship.into_iter().for_each(|ordered| self.note(ordered));
    }

    fn note(&self, ordered: Ordered) {
        self.placed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(ordered);
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
            answers: Vec::new(),
        }
    }
}

/// Sends a command of an order with one key until it is answered for good.
async fn tell(
    clients: &Clients,
    ordered: &mut Ordered,
    command: &str,
    key: String,
    data: &Value,
    random: &mut Random,
) {
    let path = format!("/v1/orders/{}/{command}", ordered.order);
    let stream = format!("order-{}", ordered.order);
    let mut avoid = None;
    loop {
        let url = clients.pick(avoid.as_deref(), random);
        let request = |url: &str| clients.request(url, &path, &stream, &key, data);
        if let Attempt::Told(told) = clients.send(url.as_deref().map(request)).await {
            ordered.answers.push((key, told));
            return;
        }
        avoid = url;
        tokio::time::sleep(AGAIN).await;
    }
}

//! The demo's steps over HTTP: skip what is there, send what is left, look at what the checkouts do, compare.

use std::time::Duration;

use annals_client::{Precondition, Query};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::desk::{Desk, Done, Job, Step};
use super::plan::{Plan, Product};
use super::shop::{Answer, Ask, Shop};
use super::sums::{Comparison, CustomerRow, DayRow, LineRow, OrderRow, PaymentRow, ProductRow, Tally};
use super::{DemoError, DemoOptions, Progress, Stage};
use crate::order::Status;

/// The pause between two looks at what the checkouts have done.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The pause between two comparisons, where the first found differences.
const COMPARE_EVERY: Duration = Duration::from_millis(500);

/// A demo under way.
pub(super) struct Demo<'a> {
    pub(super) plan: Plan,
    pub(super) shop: Shop<'a>,
    pub(super) options: &'a DemoOptions,
    pub(super) progress: &'a (dyn Fn(Progress) + Send + Sync),
}

/// What a turn of the orders' loop brought.
enum News {
    Answered(Job, Done),
    Looked(Vec<Seen>),
}

/// An order's id with its status, or its payment's.
#[derive(Debug, Deserialize)]
struct Seen {
    order_id: Uuid,
    status: String,
}

impl Demo<'_> {
    pub(super) fn tell(&self, stage: Stage, done: usize, total: usize, open: usize) {
        (self.progress)(Progress {
            stage,
            done,
            total,
            open,
            commands: self.shop.commands(),
        });
    }

    /// Registers the products that are not there and receives their stock.
    pub(super) async fn products(&self) -> Result<(), DemoError> {
        let products = self.plan.products();
        let mut stocked = vec![false; products.len()];
        let mut registered = stocked.clone();
        let query = Query::default().with("fields", "sku,on_hand,reserved");
        self.shop
            .list("products", query, false, |row: ProductRow| {
                if let Some(index) = self.plan.product_of(&row.sku) {
                    registered[index] = true;
                    stocked[index] = row.on_hand > 0;
                }
            })
            .await?;
        // By number, not by reference: a closure over references would make the whole demo a future that is not `Send`.
        let left: Vec<usize> = (0..products.len()).filter(|index| !stocked[*index]).collect();
        let jobs = left
            .into_iter()
            .map(|index| self.stock_up(index, registered[index]));
        self.all(Stage::Products, products.len(), jobs).await
    }

    async fn stock_up(&self, product: usize, registered: bool) -> Result<(), DemoError> {
        let product = &self.plan.products()[product];
        if !registered {
            let data = product.register();
            let answer = self
                .send_product(product, "register", data, Precondition::None)
                .await?;
            expect(&answer, "already_registered", || {
                format!("products/{}/register", product.sku)
            })?;
        }
        // Only if it is just registered: what was received before is not received again.
        let answer = self
            .send_product(product, "receive", product.receive(), Precondition::Version(1))
            .await?;
        match answer {
            Answer::OtherVersion => Ok(()),
            answer => expect(&answer, "", || format!("products/{}/receive", product.sku)),
        }
    }

    async fn send_product(
        &self,
        product: &Product,
        command: &'static str,
        data: Value,
        precondition: Precondition,
    ) -> Result<Answer, DemoError> {
        let ask = Ask {
            resource: "products",
            key: &product.sku,
            command,
            data,
            precondition,
        };
        self.shop.send(ask).await
    }

    /// Registers the customers that are not there.
    pub(super) async fn customers(&self) -> Result<(), DemoError> {
        #[derive(Deserialize)]
        struct Row {
            customer_id: Uuid,
        }
        let customers = self.plan.customers();
        let mut there = vec![false; customers.len()];
        let query = Query::default().with("fields", "customer_id");
        self.shop
            .list("customers", query, false, |row: Row| {
                if let Some(index) = self.plan.customer_of(row.customer_id) {
                    there[index] = true;
                }
            })
            .await?;
        let left: Vec<usize> = (0..customers.len()).filter(|index| !there[*index]).collect();
        let jobs = left.into_iter().map(|index| self.register(index));
        self.all(Stage::Customers, customers.len(), jobs).await
    }

    async fn register(&self, customer: usize) -> Result<(), DemoError> {
        let customer = &self.plan.customers()[customer];
        let ask = Ask {
            resource: "customers",
            key: &customer.id.to_string(),
            command: "register",
            data: customer.register(),
            precondition: Precondition::None,
        };
        let answer = self.shop.send(ask).await?;
        expect(&answer, "already_registered", || {
            format!("customers/{}/register", customer.id)
        })
    }

    /// Does these jobs, some at a time.
    async fn all<F>(
        &self,
        stage: Stage,
        total: usize,
        jobs: impl ExactSizeIterator<Item = F>,
    ) -> Result<(), DemoError>
    where
        F: Future<Output = Result<(), DemoError>>,
    {
        let mut done = total - jobs.len();
        self.tell(stage, done, total, 0);
        let mut running = stream::iter(jobs).buffer_unordered(self.options.concurrency.max(1));
        while let Some(()) = running.try_next().await? {
            done += 1;
            self.tell(stage, done, total, 0);
        }
        Ok(())
    }

    /// What is known of the orders before the first command.
    async fn read_orders(&self) -> Result<Desk, DemoError> {
        let goals = self.plan.orders().iter().map(|order| order.goal);
        let mut desk = Desk::new(goals, self.options.most_open.max(1));
        let query = || Query::default().with("fields", "order_id,status");
        let mut any = false;
        self.shop
            .list("orders", query(), false, |row: Seen| {
                any |= self.note(&mut desk, &row)
            })
            .await?;
        if any {
            let captured = query().with("status", "captured");
            self.shop
                .list("payments", captured, false, |row: Seen| {
                    self.note(&mut desk, &row);
                })
                .await?;
        }
        Ok(desk)
    }

    /// Takes in an order's status, or its payment's; true if that is news.
    fn note(&self, desk: &mut Desk, row: &Seen) -> bool {
        let Some(order) = self.plan.order_of(row.order_id) else {
            return false;
        };
        if row.status == "captured" {
            return desk.saw_captured(order);
        }
        let status = serde_json::from_value::<Status>(json!(row.status));
        status.is_ok_and(|status| desk.saw(order, status))
    }

    /// Takes every order to its goal, or as far as it goes.
    pub(super) async fn orders(&self) -> Result<Desk, DemoError> {
        let mut desk = self.read_orders().await?;
        let total = self.plan.orders().len();
        let mut running = FuturesUnordered::<BoxFuture<'_, Result<News, DemoError>>>::new();
        let mut looking = false;
        let mut last_news = Instant::now();
        while !desk.is_done() && last_news.elapsed() < self.options.patience {
            self.tell(Stage::Orders, desk.done(), total, desk.open());
            if !looking {
                running.push(Box::pin(self.look(&desk)));
                looking = true;
            }
            while running.len() <= self.options.concurrency.max(1) {
                let Some(job) = desk.next_job() else { break };
                running.push(Box::pin(self.perform(job)));
            }
            match running.next().await.transpose()? {
                Some(News::Answered(job, done)) => {
                    desk.answered(job, &done);
                    last_news = Instant::now();
                }
                Some(News::Looked(rows)) => {
                    looking = false;
                    for row in &rows {
                        if self.note(&mut desk, row) {
                            last_news = Instant::now();
                        }
                    }
                }
                None => {}
            }
        }
        self.tell(Stage::Orders, desk.done(), total, desk.open());
        Ok(desk)
    }

    /// Reads, after a pause, what others were to do: confirm orders, capture payments.
    fn look(&self, desk: &Desk) -> impl Future<Output = Result<News, DemoError>> + Send + use<'_> {
        let ids = |orders: &mut dyn Iterator<Item = usize>| -> Vec<Uuid> {
            orders.map(|order| self.plan.orders()[order].id).collect()
        };
        let unconfirmed = ids(&mut desk.unconfirmed());
        let uncaptured = ids(&mut desk.uncaptured());
        async move {
            tokio::time::sleep(LOOK_EVERY).await;
            let fields = "order_id,status";
            let mut rows = self.shop.of_orders("orders", &unconfirmed, fields).await?;
            rows.extend(
                self.shop
                    .of_orders::<Seen>("payments", &uncaptured, fields)
                    .await?,
            );
            Ok(News::Looked(rows))
        }
    }

    async fn perform(&self, job: Job) -> Result<News, DemoError> {
        let order = &self.plan.orders()[job.order];
        let (command, data) = match job.step {
            Step::Place => ("place", self.plan.place(order)),
            Step::Ship => ("ship", order.ship()),
            Step::Deliver => ("deliver", json!({})),
        };
        let ask = Ask {
            resource: "orders",
            key: &order.id.to_string(),
            command,
            data,
            precondition: Precondition::None,
        };
        let done = match self.shop.send(ask).await? {
            Answer::Accepted => Done::Yes,
            Answer::Rejected {
                status: Some(status), ..
            } => Done::Is(status),
            Answer::Rejected { code, .. } if code == "already_placed" => Done::Yes,
            Answer::Rejected { code, .. } => Done::No(code),
            Answer::OtherVersion => Done::No("version-mismatch".to_owned()),
        };
        Ok(News::Answered(job, done))
    }

    /// Compares, again while the read models may still come closer. (Where an order did not end, they will not.)
    pub(super) async fn compare(&self, desk: &Desk) -> Result<Comparison, DemoError> {
        let began = Instant::now();
        loop {
            self.tell(Stage::Sums, 0, 0, desk.open());
            let comparison = self.read_sums().await?;
            let settled = !desk.is_done() || began.elapsed() >= self.options.settle;
            if comparison.is_equal() || settled {
                return Ok(comparison);
            }
            tokio::time::sleep(COMPARE_EVERY).await;
        }
    }

    async fn read_sums(&self) -> Result<Comparison, DemoError> {
        let fields = |fields: &str| Query::default().with("fields", fields);
        let mut tally = Tally::new(&self.plan);
        let columns = "order_id,customer_id,status,currency,total,line_count,units,ordered_on,reason";
        self.shop
            .list("orders", fields(columns), true, |row: OrderRow| tally.order(&row))
            .await?;
        let columns = "order_id,line,sku,quantity,unit_price,amount";
        self.shop
            .list("order_lines", fields(columns), true, |row: LineRow| {
                tally.line(&row)
            })
            .await?;
        let columns = "order_id,amount,status,captured,refunded";
        self.shop
            .list("payments", fields(columns), true, |row: PaymentRow| {
                tally.payment(&row)
            })
            .await?;
        let (mut products, mut customers, mut days) = (Vec::new(), Vec::new(), Vec::new());
        self.shop
            .list(
                "products",
                fields("sku,on_hand,reserved"),
                true,
                |row: ProductRow| {
                    products.push(row);
                },
            )
            .await?;
        let columns = "customer_id,orders,lifetime_value";
        self.shop
            .list("customers", fields(columns), true, |row: CustomerRow| {
                customers.push(row);
            })
            .await?;
        let columns = "day,currency,orders,units,revenue";
        self.shop
            .list("daily_sales", fields(columns), true, |row: DayRow| days.push(row))
            .await?;
        Ok(tally.finish(&products, &customers, &days))
    }
}

/// Yes, or this rejection, which says that it was done before.
fn expect(answer: &Answer, done_before: &str, what: impl FnOnce() -> String) -> Result<(), DemoError> {
    let summary = match answer {
        Answer::Accepted => return Ok(()),
        Answer::Rejected { code, .. } if code == done_before => return Ok(()),
        Answer::Rejected { code, .. } => format!("rejected: {code}"),
        Answer::OtherVersion => "another version".to_owned(),
    };
    Err(DemoError::Answer {
        what: what(),
        summary,
    })
}

#[cfg(test)]
mod tests;

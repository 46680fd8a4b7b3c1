//! Both sides of every sum: what TPC-H says, and what the read models say, row by row. No I/O.
//!
//! Rows of orders of this demo are compared one by one. The rows that other orders moved too (their days, their
//! customers, their products) are left out of both sides, and the report says how many.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::{CURRENCY, Goal, Plan, RECEIVED, Sales, Stock};
use crate::order::Status;

/// So many differences are told in words; all are counted.
const TOLD: usize = 100;

/// A row of `orders`.
#[derive(Debug, Clone, Deserialize)]
pub struct OrderRow {
    pub(super) order_id: Uuid,
    pub(super) customer_id: Uuid,
    pub(super) status: Status,
    pub(super) currency: String,
    pub(super) total: i64,
    pub(super) line_count: i64,
    pub(super) units: i64,
    pub(super) ordered_on: NaiveDate,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

/// A row of `order_lines`.
#[derive(Debug, Clone, Deserialize)]
pub struct LineRow {
    pub(super) order_id: Uuid,
    pub(super) line: usize,
    pub(super) sku: String,
    pub(super) quantity: i64,
    pub(super) unit_price: i64,
    pub(super) amount: i64,
}

/// A row of `payments`.
#[derive(Debug, Clone, Deserialize)]
pub struct PaymentRow {
    pub(super) order_id: Uuid,
    pub(super) amount: i64,
    pub(super) status: String,
    pub(super) captured: i64,
    pub(super) refunded: i64,
}

/// A row of `products`.
#[derive(Debug, Clone, Deserialize)]
pub struct ProductRow {
    pub(super) sku: String,
    pub(super) on_hand: i64,
    pub(super) reserved: i64,
}

/// A row of `customers`.
#[derive(Debug, Clone, Deserialize)]
pub struct CustomerRow {
    pub(super) customer_id: Uuid,
    pub(super) orders: i64,
    pub(super) lifetime_value: i64,
}

/// A row of `daily_sales`.
#[derive(Debug, Clone, Deserialize)]
pub struct DayRow {
    pub(super) day: NaiveDate,
    pub(super) currency: String,
    pub(super) orders: i64,
    pub(super) units: i64,
    pub(super) revenue: i64,
}

/// A sum, both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// Of what.
    pub of: String,
    /// What TPC-H says.
    pub tpch: i64,
    /// What the read models say.
    pub read: i64,
    /// Whether these are amounts of money, in cents.
    pub is_money: bool,
}

/// What came of the comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Every sum.
    pub sums: Vec<Sum>,
    /// What was not compared, and why.
    pub notes: Vec<String>,
    /// What differs, in words: the first of it.
    pub differences: Vec<String>,
    /// How much differs.
    pub difference_count: usize,
}

impl Comparison {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.difference_count == 0
    }

    /// One more thing that differs.
    pub fn differs(&mut self, what: String) {
        self.difference_count += 1;
        if self.differences.len() < TOLD {
            self.differences.push(what);
        }
    }

    fn sum(&mut self, of: impl Into<String>, tpch: i64, read: i64) {
        self.push(of.into(), tpch, read, false);
    }

    fn money(&mut self, of: impl Into<String>, tpch: i64, read: i64) {
        self.push(of.into(), tpch, read, true);
    }

    /// A sum can only differ where a row does; it is a difference of its own all the same.
    fn push(&mut self, of: String, tpch: i64, read: i64, is_money: bool) {
        if tpch != read {
            self.differs(format!("{of}: {tpch} by TPC-H, {read} read"));
        }
        self.sums.push(Sum {
            of,
            tpch,
            read,
            is_money,
        });
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, of: impl FnOnce() -> String, tpch: &T, read: &T) {
        if tpch != read {
            self.differs(format!("{}: {tpch:?} by TPC-H, {read:?} read", of()));
        }
    }
}

/// The comparison under way. Orders and lines go in before customers, days and products, so that it is known by then
/// which of these others moved.
#[derive(Debug)]
pub struct Tally<'a> {
    plan: &'a Plan,
    out: Comparison,
    statuses: BTreeMap<&'static str, i64>,
    seen_orders: Vec<bool>,
    seen_lines: Vec<u8>,
    own: Sales,
    own_days: BTreeMap<NaiveDate, Sales>,
    lines: i64,
    line_amounts: i64,
    payments: [i64; 3],
    foreign_customers: BTreeSet<Uuid>,
    foreign_days: BTreeSet<NaiveDate>,
    foreign_products: BTreeSet<String>,
}

impl<'a> Tally<'a> {
    /// Nothing read yet.
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            out: Comparison::default(),
            statuses: BTreeMap::new(),
            seen_orders: vec![false; plan.orders().len()],
            seen_lines: vec![0; plan.orders().len()],
            own: Sales::default(),
            own_days: BTreeMap::new(),
            lines: 0,
            line_amounts: 0,
            payments: [0; 3],
            foreign_customers: BTreeSet::new(),
            foreign_days: BTreeSet::new(),
            foreign_products: BTreeSet::new(),
        }
    }

    /// A row of `orders`, of this demo or of others.
    pub fn order(&mut self, row: &OrderRow) {
        let Some(index) = self.plan.order_of(row.order_id) else {
            // A rejected order never counted anywhere, and never will.
            if row.status != Status::Rejected {
                self.foreign_customers.insert(row.customer_id);
                self.foreign_days.insert(row.ordered_on);
            }
            return;
        };
        let order = &self.plan.orders()[index];
        self.seen_orders[index] = true;
        let goal = status_of(order.goal);
        *self.statuses.entry(word(row.status)).or_default() += 1;
        let about = |what: &str| format!("order {} (TPC-H {}), {what}", order.id, order.number);
        let why = row.reason.as_deref().unwrap_or("no reason given");
        let status = || about(&format!("status ({why})"));
        self.out.equal(status, &word(goal), &word(row.status));
        self.out.equal(|| about("total"), &order.total, &row.total);
        self.out.equal(|| about("units"), &order.units, &row.units);
        self.out
            .equal(|| about("currency"), &CURRENCY, &row.currency.as_str());
        self.out
            .equal(|| about("ordered_on"), &order.ordered_on, &row.ordered_on);
        let customer = self.plan.customers()[order.customer].id;
        self.out.equal(|| about("customer"), &customer, &row.customer_id);
        let lines = count(self.plan.lines_of(order).len());
        self.out.equal(|| about("lines"), &lines, &row.line_count);
        let day = self.own_days.entry(row.ordered_on).or_default();
        for sales in [&mut self.own, day] {
            sales.orders += 1;
            sales.units += row.units;
            sales.revenue += row.total;
        }
    }

    /// A row of `order_lines`, of this demo or of others.
    pub fn line(&mut self, row: &LineRow) {
        let Some(index) = self.plan.order_of(row.order_id) else {
            self.foreign_products.insert(row.sku.clone());
            return;
        };
        let order = &self.plan.orders()[index];
        self.seen_lines[index] = self.seen_lines[index].saturating_add(1);
        self.lines += 1;
        self.line_amounts += row.amount;
        let line = row
            .line
            .checked_sub(1)
            .and_then(|at| self.plan.lines_of(order).get(at));
        let tpch = line.map(|line| {
            let product = &self.plan.products()[line.product()];
            let amount = line.quantity() * product.price;
            (product.sku.as_str(), line.quantity(), product.price, amount)
        });
        let read = (row.sku.as_str(), row.quantity, row.unit_price, row.amount);
        let about = || format!("order {} (TPC-H {}), line {}", order.id, order.number, row.line);
        self.out.equal(about, &tpch, &Some(read));
    }

    /// A row of `payments`; others' are left out.
    pub fn payment(&mut self, row: &PaymentRow) {
        let Some(index) = self.plan.order_of(row.order_id) else {
            return;
        };
        let order = &self.plan.orders()[index];
        let (status, captured) = match order.goal {
            Goal::Confirmed => ("authorized", 0),
            Goal::Delivered => ("captured", order.total),
        };
        let about = || format!("payment of order {} (TPC-H {})", order.id, order.number);
        let tpch = (status, order.total, captured, 0);
        let read = (row.status.as_str(), row.amount, row.captured, row.refunded);
        self.out.equal(about, &tpch, &read);
        let [payments, amounts, taken] = &mut self.payments;
        *payments += 1;
        *amounts += row.amount;
        *taken += row.captured - row.refunded;
    }

    /// All rows of `products`, `customers` and `daily_sales`, and the comparison.
    pub fn finish(
        mut self,
        products: &[ProductRow],
        customers: &[CustomerRow],
        days: &[DayRow],
    ) -> Comparison {
        self.finish_orders();
        self.finish_products(products);
        self.finish_customers(customers);
        self.finish_days(days);
        self.out
    }

    fn finish_orders(&mut self) {
        let plan = self.plan;
        for (index, order) in plan.orders().iter().enumerate() {
            if !self.seen_orders[index] {
                let what = format!("order {} (TPC-H {}) is not there", order.id, order.number);
                self.out.differs(what);
            } else if usize::from(self.seen_lines[index]) != plan.lines_of(order).len() {
                let what = format!("order {} (TPC-H {}): lines are missing", order.id, order.number);
                self.out.differs(what);
            }
        }
        let orders = |goal: Goal| count(plan.orders().iter().filter(|order| order.goal == goal).count());
        let all = plan.by_day();
        let total: i64 = plan.orders().iter().map(|order| order.total).sum();
        let (own, statuses) = (self.own, std::mem::take(&mut self.statuses));
        let read = |status| statuses.get(word(status)).copied().unwrap_or(0);
        self.out.sum("orders", count(plan.orders().len()), own.orders);
        for goal in [Goal::Delivered, Goal::Confirmed] {
            let status = status_of(goal);
            let of = format!("orders {}", word(status));
            self.out.sum(of, orders(goal), read(status));
        }
        for (status, number) in &statuses {
            if !["delivered", "confirmed"].contains(status) {
                self.out.sum(format!("orders {status}"), 0, *number);
            }
        }
        self.out.sum("order lines", count(plan.line_count()), self.lines);
        self.out.money("order lines, amounts", total, self.line_amounts);
        self.out.money("revenue, Σ of orders", total, own.revenue);
        let mut days: BTreeSet<NaiveDate> = all.keys().copied().collect();
        days.extend(self.own_days.keys());
        for day in days {
            let tpch = all.get(&day).copied().unwrap_or_default();
            let read = self.own_days.get(&day).copied().unwrap_or_default();
            self.out.equal(|| format!("orders of {day}"), &tpch, &read);
        }
        let captured = plan.orders().iter().filter(|order| order.goal == Goal::Delivered);
        let captured: i64 = captured.map(|order| order.total).sum();
        let [payments, amounts, taken] = self.payments;
        self.out.sum("payments", count(plan.orders().len()), payments);
        self.out.money("payments, amounts", total, amounts);
        self.out.money("payments captured", captured, taken);
    }

    fn finish_products(&mut self, rows: &[ProductRow]) {
        let plan = self.plan;
        let (mut found, mut left_out) = (0, 0);
        let (mut tpch, mut read) = (Stock::default(), Stock::default());
        let stock = plan.stock();
        for row in rows {
            let Some(index) = plan.product_of(&row.sku) else {
                continue;
            };
            found += 1;
            if self.foreign_products.contains(&row.sku) {
                left_out += 1;
                continue;
            }
            let is = Stock {
                shipped: RECEIVED - row.on_hand,
                reserved: row.reserved,
            };
            self.out
                .equal(|| format!("stock of {}", row.sku), &stock[index], &is);
            for (sum, one) in [(&mut tpch, stock[index]), (&mut read, is)] {
                sum.shipped += one.shipped;
                sum.reserved += one.reserved;
            }
        }
        self.out.sum("products", count(plan.products().len()), found);
        self.out
            .sum("stock received less on hand", tpch.shipped, read.shipped);
        self.out.sum("stock reserved", tpch.reserved, read.reserved);
        self.left_out("products", left_out);
    }

    fn finish_customers(&mut self, rows: &[CustomerRow]) {
        let plan = self.plan;
        let sales = plan.by_customer();
        let (mut found, mut left_out) = (0, 0);
        let (mut tpch, mut read) = ((0, 0), (0, 0));
        for row in rows {
            let Some(index) = plan.customer_of(row.customer_id) else {
                continue;
            };
            found += 1;
            if self.foreign_customers.contains(&row.customer_id) {
                left_out += 1;
                continue;
            }
            let must = (sales[index].orders, sales[index].revenue);
            let is = (row.orders, row.lifetime_value);
            self.out.equal(
                || format!("customer {}, orders and value", row.customer_id),
                &must,
                &is,
            );
            tpch = (tpch.0 + must.0, tpch.1 + must.1);
            read = (read.0 + is.0, read.1 + is.1);
        }
        self.out.sum("customers", count(plan.customers().len()), found);
        self.out.sum("customers, their orders", tpch.0, read.0);
        self.out.money("customers, their value", tpch.1, read.1);
        self.left_out("customers", left_out);
    }

    fn finish_days(&mut self, rows: &[DayRow]) {
        let mut must = self.plan.by_day();
        let all = must.len();
        must.retain(|day, _| !self.foreign_days.contains(day));
        let left_out = count(all - must.len());
        let mut is = BTreeMap::new();
        for row in rows {
            if row.currency == CURRENCY && !self.foreign_days.contains(&row.day) {
                let sales = Sales {
                    orders: row.orders,
                    units: row.units,
                    revenue: row.revenue,
                };
                is.insert(row.day, sales);
            }
        }
        let days: BTreeSet<NaiveDate> = must.keys().chain(is.keys()).copied().collect();
        let (mut tpch, mut read) = (Sales::default(), Sales::default());
        for day in days {
            let must = must.get(&day).copied().unwrap_or_default();
            let is = is.get(&day).copied().unwrap_or_default();
            self.out.equal(|| format!("daily_sales of {day}"), &must, &is);
            for (sum, one) in [(&mut tpch, must), (&mut read, is)] {
                sum.orders += one.orders;
                sum.units += one.units;
                sum.revenue += one.revenue;
            }
        }
        self.out
            .sum("daily_sales, days", count(must.len()), count(is.len()));
        self.out.sum("daily_sales, orders", tpch.orders, read.orders);
        self.out.sum("daily_sales, units", tpch.units, read.units);
        self.out.money("daily_sales, revenue", tpch.revenue, read.revenue);
        self.left_out("daily_sales", left_out);
    }

    fn left_out(&mut self, what: &str, rows: i64) {
        if rows > 0 {
            let note = format!("{what}: {rows} rows are not compared, because others' orders moved them too");
            self.out.notes.push(note);
        }
    }
}

fn status_of(goal: Goal) -> Status {
    match goal {
        Goal::Confirmed => Status::Confirmed,
        Goal::Delivered => Status::Delivered,
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Placed => "placed",
        Status::Confirmed => "confirmed",
        Status::Rejected => "rejected",
        Status::Cancelled => "cancelled",
        Status::Shipped => "shipped",
        Status::Delivered => "delivered",
        Status::Returned => "returned",
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).expect("a plan has less than 2^63 rows")
}

#[cfg(test)]
mod tests;

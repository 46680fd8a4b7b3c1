//! What the demo does and what must come of it: TPC-H's parts, customers, orders and lines, as this shop's.
//!
//! Everything follows from the scale: ids, amounts, and the totals that are compared in the end. No I/O.
//!
//! **Source:** TPC-H specification, section 4.2 (population), as crate `tpchgen` makes it. Its prices have two
//! decimals, here cents; `L_EXTENDEDPRICE` is the quantity times the part's retail price.

use std::collections::{BTreeMap, HashMap};

use chrono::NaiveDate;
use serde_json::{Value, json};
use tpchgen::dates::TPCHDate;
use tpchgen::distribution::Distributions;
use tpchgen::generators::{CustomerGenerator, LineItemGenerator, OrderGenerator, OrderStatus, PartGenerator};
use tpchgen::text::TextPool;
use uuid::Uuid;

use super::DemoError;

/// The smallest scale: 200 products, 150 customers, 1,500 orders.
pub const MIN_SCALE: f64 = 0.001;
/// The largest scale: 15,000,000 orders, about 2 GB of plan.
pub const MAX_SCALE: f64 = 10.0;
/// All prices are in it.
pub const CURRENCY: &str = "USD";
/// How many pieces of each product are received: more than any scale sells of one (about 750).
pub const RECEIVED: i64 = 1_000_000;
/// Comments are not used, so the pool that they are cut from is small. (By default it has 300 MB.)
const TEXT_POOL_BYTES: i32 = 64 * 1024;

/// What is to be done, and with which ids.
#[derive(Debug)]
pub struct Plan {
    scale: f64,
    products: Vec<Product>,
    customers: Vec<Customer>,
    orders: Vec<Order>,
    lines: Vec<Line>,
    by_id: HashMap<Uuid, usize>,
    customer_by_id: HashMap<Uuid, usize>,
}

/// A part of TPC-H.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// `P000001`: from the part key.
    pub sku: String,
    name: String,
    /// The retail price in cents.
    pub price: i64,
}

/// A customer of TPC-H.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// From the customer key.
    pub id: Uuid,
    name: String,
    address: String,
}

/// What must become of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// `O` and `P` of TPC-H: it stays confirmed.
    Confirmed,
    /// `F` of TPC-H: it is delivered and paid.
    Delivered,
}

/// An order of TPC-H.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// From scale and order key.
    pub id: Uuid,
    /// TPC-H's `O_ORDERKEY`.
    pub number: i64,
    /// Which customer.
    pub customer: usize,
    /// TPC-H's order date.
    pub ordered_on: NaiveDate,
    /// What must become of it.
    pub goal: Goal,
    /// Σ `L_EXTENDEDPRICE`, in cents.
    pub total: i64,
    /// Σ `L_QUANTITY`.
    pub units: i64,
    first_line: usize,
    line_count: usize,
}

/// A line of an order of TPC-H.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    product: u32,
    quantity: u32,
}

impl Line {
    /// Which product.
    pub fn product(&self) -> usize {
        usize::try_from(self.product).expect("it is an index of this program")
    }
    /// How many pieces.
    pub fn quantity(&self) -> i64 {
        self.quantity.into()
    }
}

/// Orders, pieces and money, of a day or of a customer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sales {
    /// How many orders.
    pub orders: i64,
    /// How many pieces.
    pub units: i64,
    /// How much, in cents.
    pub revenue: i64,
}

impl Sales {
    /// The same and this order.
    pub fn add(&mut self, order: &Order) {
        self.orders += 1;
        self.units += order.units;
        self.revenue += order.total;
    }
}

/// What must be left of a product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stock {
    /// Pieces that left with orders that are delivered.
    pub shipped: i64,
    /// Pieces of orders that stay confirmed.
    pub reserved: i64,
}

impl Plan {
    /// The plan of a scale, from [`MIN_SCALE`] to [`MAX_SCALE`].
    ///
    /// # Errors
    /// [`DemoError::Scale`]; [`DemoError::Tpch`] if the generator breaks TPC-H's rules.
    pub fn generate(scale: f64) -> Result<Self, DemoError> {
        if !(MIN_SCALE..=MAX_SCALE).contains(&scale) {
            return Err(DemoError::Scale(scale));
        }
        let pool = TextPool::new(TEXT_POOL_BYTES, Distributions::static_default());
        let mut plan = Self {
            scale,
            products: products(scale, &pool),
            customers: customers(scale, &pool),
            orders: Vec::new(),
            lines: Vec::new(),
            by_id: HashMap::new(),
            customer_by_id: HashMap::new(),
        };
        plan.add_orders(&pool)?;
        plan.by_id = plan.orders.iter().map(|order| order.id).zip(0..).collect();
        plan.customer_by_id = plan.customers.iter().map(|one| one.id).zip(0..).collect();
        Ok(plan)
    }

    /// Orders and lines come from two generators, both in the order of `O_ORDERKEY`.
    fn add_orders(&mut self, pool: &TextPool) -> Result<(), DemoError> {
        let words = Distributions::static_default();
        let mut lines =
            LineItemGenerator::new_with_distributions_and_text_pool(self.scale, 1, 1, words, pool)
                .into_iter()
                .peekable();
        let orders = OrderGenerator::new_with_distributions_and_text_pool(self.scale, 1, 1, words, pool);
        for tpch in orders {
            let mut order = Order {
                id: order_id(self.scale, tpch.o_orderkey),
                number: tpch.o_orderkey,
                customer: self.index(tpch.o_custkey, self.customers.len(), "O_CUSTKEY")?,
                ordered_on: day(tpch.o_orderdate)?,
                goal: match tpch.o_orderstatus {
                    OrderStatus::Fulfilled => Goal::Delivered,
                    OrderStatus::Open | OrderStatus::Pending => Goal::Confirmed,
                },
                total: 0,
                units: 0,
                first_line: self.lines.len(),
                line_count: 0,
            };
            while let Some(line) = lines.next_if(|line| line.l_orderkey == order.number) {
                let product = self.index(line.l_partkey, self.products.len(), "L_PARTKEY")?;
                if self.products[product].price * line.l_quantity != line.l_extendedprice.0 {
                    return Err(DemoError::Tpch("L_EXTENDEDPRICE"));
                }
                order.total += line.l_extendedprice.0;
                order.units += line.l_quantity;
                order.line_count += 1;
                self.lines.push(Line {
                    product: u32::try_from(product).map_err(|_| DemoError::Tpch("L_PARTKEY"))?,
                    quantity: u32::try_from(line.l_quantity).map_err(|_| DemoError::Tpch("L_QUANTITY"))?,
                });
            }
            self.orders.push(order);
        }
        match lines.next() {
            None => Ok(()),
            Some(_) => Err(DemoError::Tpch("L_ORDERKEY")),
        }
    }

    fn index(&self, key: i64, count: usize, column: &'static str) -> Result<usize, DemoError> {
        let index = usize::try_from(key - 1).ok().filter(|index| *index < count);
        index.ok_or(DemoError::Tpch(column))
    }

    /// The scale.
    pub fn scale(&self) -> f64 {
        self.scale
    }
    /// All products, by part key.
    pub fn products(&self) -> &[Product] {
        &self.products
    }
    /// All customers, by customer key.
    pub fn customers(&self) -> &[Customer] {
        &self.customers
    }
    /// All orders, by order key.
    pub fn orders(&self) -> &[Order] {
        &self.orders
    }
    /// All lines of all orders.
    pub fn line_count(&self) -> usize {
        self.lines.len()
    }
    /// The lines of an order, line 1 first.
    pub fn lines_of(&self, order: &Order) -> &[Line] {
        &self.lines[order.first_line..order.first_line + order.line_count]
    }
    /// Which order has this id; `None`: somebody else's.
    pub fn order_of(&self, id: Uuid) -> Option<usize> {
        self.by_id.get(&id).copied()
    }
    /// Which customer has this id; `None`: not one of this demo.
    pub fn customer_of(&self, id: Uuid) -> Option<usize> {
        self.customer_by_id.get(&id).copied()
    }
    /// Which product has this SKU; `None`: not one of this demo.
    pub fn product_of(&self, sku: &str) -> Option<usize> {
        let number: usize = sku.strip_prefix('P')?.parse().ok()?;
        let index = number.checked_sub(1)?;
        (self.products.get(index)?.sku == sku).then_some(index)
    }

    /// What each day must have sold.
    pub fn by_day(&self) -> BTreeMap<NaiveDate, Sales> {
        let mut days = BTreeMap::<_, Sales>::new();
        for order in &self.orders {
            days.entry(order.ordered_on).or_default().add(order);
        }
        days
    }

    /// What each customer must have bought.
    pub fn by_customer(&self) -> Vec<Sales> {
        let mut sales = vec![Sales::default(); self.customers.len()];
        for order in &self.orders {
            sales[order.customer].add(order);
        }
        sales
    }

    /// What must have become of each product's stock.
    pub fn stock(&self) -> Vec<Stock> {
        let mut stock = vec![Stock::default(); self.products.len()];
        for order in &self.orders {
            for line in self.lines_of(order) {
                let of = &mut stock[line.product()];
                match order.goal {
                    Goal::Delivered => of.shipped += line.quantity(),
                    Goal::Confirmed => of.reserved += line.quantity(),
                }
            }
        }
        stock
    }

    /// The data of `orders/place`.
    pub fn place(&self, order: &Order) -> Value {
        let line = |line: &Line| {
            let product = &self.products[line.product()];
            json!({ "sku": product.sku, "quantity": line.quantity, "unit_price": product.price })
        };
        json!({
            "customer": self.customers[order.customer].id,
            "currency": CURRENCY,
            "ordered_on": order.ordered_on,
            "payment_method": "tok_ok",
            "lines": self.lines_of(order).iter().map(line).collect::<Vec<_>>(),
        })
    }
}

impl Order {
    /// The data of `orders/ship`.
    pub fn ship(&self) -> Value {
        json!({ "carrier": "Demo Parcels", "tracking": format!("DP{:012}", self.number) })
    }
}

impl Product {
    /// The data of `products/register`.
    pub fn register(&self) -> Value {
        json!({ "name": self.name, "price": { "amount": self.price, "currency": CURRENCY } })
    }
    /// The data of `products/receive`.
    pub fn receive(&self) -> Value {
        json!({ "quantity": RECEIVED, "reference": format!("opening stock of {}", self.sku) })
    }
}

impl Customer {
    /// The data of `customers/register`. TPC-H has no e-mail, so that one is made of the name.
    pub fn register(&self) -> Value {
        let email = format!("{}@example.com", self.name.to_lowercase().replace('#', "."));
        json!({ "name": self.name, "email": email, "address": self.address })
    }
}

fn products(scale: f64, pool: &TextPool) -> Vec<Product> {
    let words = Distributions::static_default();
    PartGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, pool)
        .into_iter()
        .map(|part| Product {
            sku: format!("P{:06}", part.p_partkey),
            name: part.p_name.to_string(),
            price: part.p_retailprice.0,
        })
        .collect()
}

fn customers(scale: f64, pool: &TextPool) -> Vec<Customer> {
    let words = Distributions::static_default();
    CustomerGenerator::new_with_distributions_and_text_pool(scale, 1, 1, words, pool)
        .into_iter()
        .map(|customer| Customer {
            id: id(&format!("customers/{}", customer.c_custkey)),
            name: customer.c_name.to_string(),
            address: customer.c_address.to_string(),
        })
        .collect()
}

/// An order of another scale is another order: it has other customers and products.
fn order_id(scale: f64, number: i64) -> Uuid {
    id(&format!("orders/{scale}/{number}"))
}

fn id(name: &str) -> Uuid {
    let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"urn:commerce:demo:tpch");
    Uuid::new_v5(&namespace, name.as_bytes())
}

fn day(date: TPCHDate) -> Result<NaiveDate, DemoError> {
    NaiveDate::from_epoch_days(date.to_unix_epoch()).ok_or(DemoError::Tpch("O_ORDERDATE"))
}

#[cfg(test)]
mod tests;

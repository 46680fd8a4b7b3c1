//! Rows as the plan has them are equal; every planted difference is found, and others' orders are no difference.

use super::*;
use crate::demo::plan::MIN_SCALE;

/// All rows that a demo leaves behind.
#[derive(Clone)]
struct Rows {
    orders: Vec<OrderRow>,
    lines: Vec<LineRow>,
    payments: Vec<PaymentRow>,
    products: Vec<ProductRow>,
    customers: Vec<CustomerRow>,
    days: Vec<DayRow>,
}

impl Rows {
    /// Made from the plan's orders and lines alone, by another way of adding up than the plan's.
    fn of(plan: &Plan) -> Self {
        let mut rows = Self {
            orders: Vec::new(),
            lines: Vec::new(),
            payments: Vec::new(),
            products: Vec::new(),
            customers: Vec::new(),
            days: Vec::new(),
        };
        for product in plan.products() {
            rows.products.push(ProductRow {
                sku: product.sku.clone(),
                on_hand: RECEIVED,
                reserved: 0,
            });
        }
        for customer in plan.customers() {
            rows.customers.push(CustomerRow {
                customer_id: customer.id,
                orders: 0,
                lifetime_value: 0,
            });
        }
        plan.orders().iter().for_each(|order| rows.sell(plan, order));
        rows
    }

    fn sell(&mut self, plan: &Plan, order: &crate::demo::plan::Order) {
        let delivered = order.goal == Goal::Delivered;
        let mut total = 0;
        for (at, line) in plan.lines_of(order).iter().enumerate() {
            let product = &plan.products()[line.product()];
            let amount = product.price * line.quantity();
            total += amount;
            self.lines.push(LineRow {
                order_id: order.id,
                line: at + 1,
                sku: product.sku.clone(),
                quantity: line.quantity(),
                unit_price: product.price,
                amount,
            });
            let stock = &mut self.products[line.product()];
            if delivered {
                stock.on_hand -= line.quantity();
            } else {
                stock.reserved += line.quantity();
            }
        }
        let customer = &mut self.customers[order.customer];
        customer.orders += 1;
        customer.lifetime_value += total;
        let (customer_id, day, units) = (customer.customer_id, order.ordered_on, order.units);
        self.orders.push(OrderRow {
            order_id: order.id,
            customer_id,
            status: status_of(order.goal),
            currency: "USD".to_owned(),
            total,
            line_count: count(plan.lines_of(order).len()),
            units,
            ordered_on: day,
            reason: None,
        });
        self.payments.push(PaymentRow {
            order_id: order.id,
            amount: total,
            status: if delivered { "captured" } else { "authorized" }.to_owned(),
            captured: if delivered { total } else { 0 },
            refunded: 0,
        });
        self.sold(day, units, total);
    }

    fn sold(&mut self, day: NaiveDate, units: i64, total: i64) {
        match self.days.iter_mut().find(|row| row.day == day) {
            Some(row) => {
                row.orders += 1;
                row.units += units;
                row.revenue += total;
            }
            None => self.days.push(DayRow {
                day,
                currency: "USD".to_owned(),
                orders: 1,
                units,
                revenue: total,
            }),
        }
    }

    fn compare(&self, plan: &Plan) -> Comparison {
        let mut tally = Tally::new(plan);
        self.orders.iter().for_each(|row| tally.order(row));
        self.lines.iter().for_each(|row| tally.line(row));
        self.payments.iter().for_each(|row| tally.payment(row));
        tally.finish(&self.products, &self.customers, &self.days)
    }
}

fn plan() -> Plan {
    Plan::generate(MIN_SCALE).unwrap()
}

fn of<'a>(comparison: &'a Comparison, name: &str) -> &'a Sum {
    let sum = comparison.sums.iter().find(|sum| sum.of == name);
    sum.unwrap_or_else(|| panic!("no sum of {name}"))
}

#[test]
fn what_the_demo_leaves_behind_is_equal() {
    let plan = plan();
    let comparison = Rows::of(&plan).compare(&plan);
    assert_eq!(comparison.differences, [""; 0]);
    assert!(comparison.is_equal() && comparison.notes.is_empty());
    assert_eq!(of(&comparison, "orders").read, 1_500);
    let revenue = of(&comparison, "daily_sales, revenue");
    for same in [
        "revenue, Σ of orders",
        "order lines, amounts",
        "customers, their value",
    ] {
        assert_eq!(of(&comparison, same).tpch, revenue.read, "{same}");
    }
}

/// A change of the rows that must be found.
type Plant = fn(&mut Rows);

#[test]
fn every_planted_difference_is_found() {
    let plan = plan();
    let rows = Rows::of(&plan);
    let plants: &[(&str, Plant)] = &[
        ("an order too few", |rows| drop(rows.orders.pop())),
        ("another end", |rows| rows.orders[0].status = Status::Rejected),
        ("another total", |rows| rows.orders[0].total += 1),
        ("other units", |rows| rows.orders[0].units += 1),
        ("another day", |rows| {
            rows.orders[0].ordered_on = rows.orders[1].ordered_on
        }),
        ("another customer", |rows| {
            rows.orders[0].customer_id = Uuid::nil()
        }),
        ("another currency", |rows| {
            rows.orders[0].currency = "EUR".to_owned()
        }),
        ("another count of lines", |rows| rows.orders[0].line_count += 1),
        ("a line too few", |rows| drop(rows.lines.pop())),
        ("a line too many", |rows| {
            let mut line = rows.lines[0].clone();
            line.line = 99;
            rows.lines.push(line);
        }),
        ("a line of another product", |rows| {
            rows.lines[0].sku = "P000001".to_owned()
        }),
        ("another quantity", |rows| rows.lines[0].quantity += 1),
        ("another amount", |rows| rows.lines[0].amount += 1),
        ("a payment too few", |rows| drop(rows.payments.pop())),
        ("a payment refunded", |rows| rows.payments[0].refunded = 1),
        ("a payment not taken", |rows| {
            let taken = rows.payments.iter_mut().find(|row| row.captured > 0).unwrap();
            taken.captured = 0;
            taken.status = "authorized".to_owned();
        }),
        ("a product too few", |rows| drop(rows.products.pop())),
        ("stock short", |rows| rows.products[7].on_hand -= 1),
        ("a reservation left over", |rows| rows.products[7].reserved += 1),
        ("a customer too few", |rows| rows.customers.truncate(149)),
        ("a customer's value", |rows| rows.customers[3].lifetime_value -= 1),
        ("a customer's orders", |rows| rows.customers[3].orders += 1),
        ("a day too few", |rows| drop(rows.days.pop())),
        ("a day too many", |rows| {
            rows.sold("2001-01-01".parse().unwrap(), 1, 1)
        }),
        ("a day's revenue", |rows| rows.days[5].revenue += 1),
        ("a day's orders", |rows| rows.days[5].orders += 1),
        // These add up: only the rows tell.
        ("money of one day on another", |rows| {
            rows.days[5].revenue += 1;
            rows.days[6].revenue -= 1;
        }),
        ("stock of one product from another", |rows| {
            rows.products[5].on_hand += 1;
            rows.products[6].on_hand -= 1;
        }),
        ("value of one customer at another", |rows| {
            rows.customers[5].lifetime_value += 1;
            rows.customers[6].lifetime_value -= 1;
        }),
    ];
    for (name, plant) in plants {
        let mut planted = rows.clone();
        plant(&mut planted);
        assert!(!planted.compare(&plan).is_equal(), "not found: {name}");
    }
}

#[test]
fn others_orders_are_left_out_where_they_moved_something_and_it_says_so() {
    let plan = plan();
    let mut rows = Rows::of(&plan);
    let (day, buyer) = (plan.orders()[0].ordered_on, plan.customers()[0].id);
    rows.orders.push(OrderRow {
        order_id: Uuid::nil(),
        customer_id: buyer,
        status: Status::Confirmed,
        currency: "USD".to_owned(),
        total: 500,
        line_count: 1,
        units: 5,
        ordered_on: day,
        reason: None,
    });
    rows.lines.push(LineRow {
        order_id: Uuid::nil(),
        line: 1,
        sku: "P000007".to_owned(),
        quantity: 5,
        unit_price: 100,
        amount: 500,
    });
    rows.products[6].reserved += 5;
    rows.customers[0].orders += 1;
    rows.customers[0].lifetime_value += 500;
    rows.sold(day, 5, 500);
    let comparison = rows.compare(&plan);
    assert_eq!(comparison.differences, [""; 0]);
    assert_eq!(comparison.notes.len(), 3, "{:?}", comparison.notes);
    assert_eq!(of(&comparison, "orders").read, 1_500);
    // What they did not move is compared as before.
    rows.days.iter_mut().find(|row| row.day != day).unwrap().revenue += 1;
    assert!(!rows.compare(&plan).is_equal());
}

#[test]
fn others_products_customers_and_refused_orders_are_nothing_to_this_demo() {
    let plan = plan();
    let mut rows = Rows::of(&plan);
    rows.products.push(ProductRow {
        sku: "LAMP".to_owned(),
        on_hand: 3,
        reserved: 1,
    });
    rows.customers.push(CustomerRow {
        customer_id: Uuid::nil(),
        orders: 0,
        lifetime_value: 0,
    });
    let mut refused = rows.orders[0].clone();
    refused.order_id = Uuid::nil();
    refused.status = Status::Rejected;
    rows.orders.push(refused);
    let comparison = rows.compare(&plan);
    assert!(comparison.is_equal() && comparison.notes.is_empty());
}

#[test]
fn counts_more_differences_than_it_tells() {
    let plan = plan();
    let mut rows = Rows::of(&plan);
    rows.orders.clear();
    let comparison = rows.compare(&plan);
    assert_eq!(comparison.differences.len(), TOLD);
    assert!(comparison.difference_count > 1_500);
}

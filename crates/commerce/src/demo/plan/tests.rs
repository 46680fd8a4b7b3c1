//! The plan has TPC-H's figures, and its bodies are what the aggregates take.

use std::collections::BTreeSet;

use super::*;

#[test]
fn scale_one_hundredth_has_the_figures_of_the_contract() {
    let plan = Plan::generate(0.01).unwrap();
    let with = |goal| plan.orders().iter().filter(|order| order.goal == goal).count();
    assert_eq!(plan.orders().len(), 15_000);
    assert_eq!(with(Goal::Delivered), 7_304);
    assert_eq!(with(Goal::Confirmed), 7_696);
    assert_eq!(plan.line_count(), 60_175);
    assert_eq!((plan.products().len(), plan.customers().len()), (2_000, 1_500));
    // Two lines of one product: the contract counts 62 such orders.
    let twice = plan.orders().iter().filter(|order| {
        let products: BTreeSet<_> = plan.lines_of(order).iter().map(Line::product).collect();
        products.len() < plan.lines_of(order).len()
    });
    assert_eq!(twice.count(), 62);
    // TPC-H's answers for SF 0.01 begin with these.
    let first = &plan.orders()[0];
    assert_eq!(
        (first.number, first.ordered_on.to_string().as_str()),
        (1, "1996-01-02")
    );
    assert_eq!(plan.products()[0].price, 90_100);
}

#[test]
fn every_total_is_the_sum_of_all_others() {
    let plan = Plan::generate(MIN_SCALE).unwrap();
    let all = |sales: &mut dyn Iterator<Item = Sales>| {
        sales.fold(Sales::default(), |sum, one| Sales {
            orders: sum.orders + one.orders,
            units: sum.units + one.units,
            revenue: sum.revenue + one.revenue,
        })
    };
    let days = all(&mut plan.by_day().into_values());
    assert_eq!(days, all(&mut plan.by_customer().into_iter()));
    assert_eq!(days.orders, 1_500);
    let stock = plan.stock();
    let moved: i64 = stock.iter().map(|one| one.shipped + one.reserved).sum();
    assert_eq!(days.units, moved);
    assert!(
        stock
            .iter()
            .all(|one| one.shipped + one.reserved < RECEIVED / 100)
    );
}

#[test]
fn a_plan_is_the_same_every_time() {
    let (one, two) = (
        Plan::generate(MIN_SCALE).unwrap(),
        Plan::generate(MIN_SCALE).unwrap(),
    );
    assert_eq!(one.orders(), two.orders());
    assert_eq!(one.customers(), two.customers());
    assert_eq!(one.products(), two.products());
    for (index, order) in one.orders().iter().enumerate() {
        assert_eq!(one.order_of(order.id), Some(index));
    }
    // Ids are kept by what is there already: they must not change from release to release.
    assert_eq!(one.orders()[0].id.get_version_num(), 5);
    assert_eq!(
        one.orders()[0].id.to_string(),
        "c5d0dc81-ee31-5b4d-987b-9319ae038346"
    );
    assert_eq!(
        one.customers()[0].id.to_string(),
        "cdabd9e7-55f5-5330-ae76-3fbf03270d98"
    );
    assert_eq!(one.product_of("P000200"), Some(199));
    for other in ["P000201", "P000000", "P1", "P0000001", "Q000001", "P"] {
        assert_eq!(one.product_of(other), None, "{other}");
    }
}

#[test]
fn orders_of_another_scale_are_other_orders() {
    let (one, two) = (Plan::generate(0.001).unwrap(), Plan::generate(0.002).unwrap());
    assert!(two.orders().iter().all(|order| one.order_of(order.id).is_none()));
    assert_eq!(one.products()[..], two.products()[..200]);
    assert_eq!(one.customers()[..], two.customers()[..150]);
}

#[test]
fn the_aggregates_take_every_body() {
    let (plan, catalog) = (
        Plan::generate(MIN_SCALE).unwrap(),
        crate::catalog().build().unwrap(),
    );
    let taken = |resource: &str, key: &str, command: &str, body: Value| {
        let aggregate = catalog.resource(resource).unwrap();
        let key = aggregate.parse_key(key).unwrap();
        let read = aggregate.parse(&key, command, body.to_string().as_bytes());
        read.map(drop)
            .unwrap_or_else(|error| panic!("{resource}/{command} {body}: {error:?}"));
    };
    for product in plan.products() {
        taken("products", &product.sku, "register", product.register());
        taken("products", &product.sku, "receive", product.receive());
    }
    for customer in plan.customers() {
        taken(
            "customers",
            &customer.id.to_string(),
            "register",
            customer.register(),
        );
    }
    for order in plan.orders() {
        taken("orders", &order.id.to_string(), "place", plan.place(order));
        taken("orders", &order.id.to_string(), "ship", order.ship());
    }
}

#[test]
fn refuses_a_scale_outside_its_limits() {
    for scale in [0.0, -1.0, 0.0009, 10.1, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(Plan::generate(scale), Err(DemoError::Scale(_))),
            "{scale}"
        );
    }
}

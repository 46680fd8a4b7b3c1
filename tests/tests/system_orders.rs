//! The life of an order, and every way a checkout can end, through the real program.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use annals_tests::shop::{order_data, usd};
use annals_tests::{Home, Shared, Shop, uuid};
use serde_json::json;

static SERVER: Shared = Shared::new();

#[tokio::test]
async fn an_order_is_placed_confirmed_shipped_delivered_captured_and_returned() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, other, customer) = (
        shop.product(500, 10).await,
        shop.product(70, 10).await,
        shop.customer().await,
    );
    let day = "2001-01-02";

    let placed = shop
        .place(
            &customer,
            day,
            "tok_ok",
            &[(&sku, 3, 500), (&other, 2, 70), (&sku, 1, 500)],
        )
        .await;
    let order = &placed.order;
    let body = placed.answer.json();
    assert_eq!(body["stream"], format!("order-{order}"));
    assert_eq!(body["version"], 1);
    assert_eq!(body["events"][0]["type"], "order.placed");
    assert_eq!(
        placed.answer.header("location"),
        Some(format!("/v1/orders/{order}").as_str())
    );

    let confirmed = shop.order_is(order, "confirmed").await;
    let row = confirmed.data();
    let expected = json!({
        "order_id": order, "customer_id": customer, "status": "confirmed", "currency": "USD", "total": 2140,
        "line_count": 3, "units": 6, "ordered_on": day, "reason": null,
        "placed_at": row["placed_at"], "updated_at": row["updated_at"],
    });
    assert_eq!(row, expected);
    let lines = shop
        .row(&format!("/v1/order_lines?order_id={order}"), &confirmed)
        .await;
    assert_eq!(lines.as_array().unwrap().len(), 3);
    let first = shop.row(&format!("/v1/order_lines/{order},1"), &confirmed).await;
    let line = json!({"order_id": order, "line": 1, "customer_id": customer, "sku": sku, "quantity": 3,
        "unit_price": 500, "amount": 1500, "returned": 0});
    assert_eq!(first, line);
    let product = shop.product_is(&sku, 10, 4).await;
    assert_eq!(product["available"], 6);
    shop.product_is(&other, 10, 2).await;
    let payment = shop.payment_is(&placed, "authorized").await;
    assert_eq!(payment["amount"], 2140);
    assert_eq!(payment["captured"], 0);
    let sales = shop.row(&format!("/v1/daily_sales/{day},USD"), &confirmed).await;
    assert_eq!(
        sales,
        json!({"day": day, "currency": "USD", "orders": 1, "units": 6, "revenue": 2140})
    );
    let who = shop.row(&format!("/v1/customers/{customer}"), &confirmed).await;
    assert_eq!(
        (&who["orders"], &who["lifetime_value"], &who["currency"]),
        (&json!(1), &json!(2140), &json!("USD"))
    );

    shop.done(
        &format!("/v1/orders/{order}/ship"),
        &json!({"carrier": "Owl", "tracking": "1"}),
    )
    .await
    .is(200);
    shop.order_is(order, "shipped").await;
    shop.product_is(&sku, 6, 0).await;
    shop.product_is(&other, 8, 0).await;
    assert_eq!(shop.payment_is(&placed, "captured").await["captured"], 2140);

    shop.done(&format!("/v1/orders/{order}/deliver"), &json!({}))
        .await
        .is(200);
    shop.order_is(order, "delivered").await;
    let part =
        json!({"reason": "too many", "lines": [{"line": 1, "quantity": 2}, {"line": 2, "quantity": 2}]});
    let returned = shop.done(&format!("/v1/orders/{order}/return"), &part).await;
    let row = shop.row(&format!("/v1/orders/{order}"), &returned).await;
    assert_eq!(
        (&row["status"], &row["reason"]),
        (&json!("delivered"), &json!("too many")),
        "a part came back"
    );
    assert_eq!(
        shop.row(&format!("/v1/order_lines/{order},1"), &returned).await["returned"],
        2
    );
    let sales = shop.row(&format!("/v1/daily_sales/{day},USD"), &returned).await;
    assert_eq!(
        sales,
        json!({"day": day, "currency": "USD", "orders": 1, "units": 2, "revenue": 1000})
    );

    let more = json!({"reason": "x", "lines": [{"line": 1, "quantity": 2}]});
    let detail = shop
        .admin
        .post(&format!("/v1/orders/{order}/return"), &more)
        .await
        .rejection("return_exceeds_order");
    assert_eq!(detail["line"], 1);
    let rest =
        json!({"reason": "all of it", "lines": [{"line": 1, "quantity": 1}, {"line": 3, "quantity": 1}]});
    let returned = shop.done(&format!("/v1/orders/{order}/return"), &rest).await;
    let row = shop.row(&format!("/v1/orders/{order}"), &returned).await;
    assert_eq!(
        (&row["status"], &row["reason"]),
        (&json!("returned"), &json!("all of it"))
    );
    let sales = shop.row(&format!("/v1/daily_sales/{day},USD"), &returned).await;
    assert_eq!(
        sales,
        json!({"day": day, "currency": "USD", "orders": 1, "units": 0, "revenue": 0})
    );
    let who = shop.row(&format!("/v1/customers/{customer}"), &returned).await;
    assert_eq!((&who["orders"], &who["lifetime_value"]), (&json!(1), &json!(0)));
    shop.product_is(&sku, 6, 0).await;

    let refund = format!("/v1/payments/{order}/refund");
    shop.done(&refund, &json!({"amount": usd(140)})).await;
    let detail = shop
        .admin
        .post(&refund, &json!({"amount": usd(2001)}))
        .await
        .rejection("exceeds_captured");
    assert_eq!(detail["captured"], usd(2140));
    shop.done(&refund, &json!({"amount": usd(2000)})).await;
    assert_eq!(shop.payment_is(&placed, "refunded").await["refunded"], 2140);
}

#[tokio::test]
async fn an_order_of_more_than_there_is_is_rejected_and_frees_what_was_reserved() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (plenty, scarce, customer) = (
        shop.product(500, 10).await,
        shop.product(70, 1).await,
        shop.customer().await,
    );
    let placed = shop
        .place(
            &customer,
            "2001-01-03",
            "tok_ok",
            &[(&plenty, 3, 500), (&scarce, 2, 70)],
        )
        .await;
    assert_eq!(shop.order_is_rejected(&placed.order).await, "out_of_stock");
    shop.product_is(&plenty, 10, 0).await;
    shop.product_is(&scarce, 1, 0).await;
    let order = shop.order_is(&placed.order, "rejected").await;
    shop.admin
        .get_after("/v1/daily_sales/2001-01-03,USD", order.position())
        .await
        .problem(404, "not-found");
}

#[tokio::test]
async fn an_order_at_yesterdays_price_is_rejected() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    shop.done(
        &format!("/v1/products/{sku}/reprice"),
        &json!({"price": usd(600)}),
    )
    .await;
    let placed = shop
        .place(&customer, "2001-01-04", "tok_ok", &[(&sku, 1, 500)])
        .await;
    assert_eq!(shop.order_is_rejected(&placed.order).await, "price_changed");
    shop.product_is(&sku, 10, 0).await;
}

#[tokio::test]
async fn an_order_of_a_blocked_or_unknown_customer_is_rejected() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    shop.done(
        &format!("/v1/customers/{customer}/block"),
        &json!({"reason": "debts"}),
    )
    .await;
    let placed = shop
        .place(&customer, "2001-01-05", "tok_ok", &[(&sku, 1, 500)])
        .await;
    assert_eq!(shop.order_is_rejected(&placed.order).await, "blocked");
    let placed = shop
        .place(&uuid(), "2001-01-05", "tok_ok", &[(&sku, 1, 500)])
        .await;
    assert_eq!(shop.order_is_rejected(&placed.order).await, "unknown_customer");
    shop.product_is(&sku, 10, 0).await;
}

#[tokio::test]
async fn an_order_of_a_discontinued_or_unknown_product_is_rejected() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    shop.done(
        &format!("/v1/products/{sku}/discontinue"),
        &json!({"reason": "old"}),
    )
    .await;
    let placed = shop
        .place(&customer, "2001-01-06", "tok_ok", &[(&sku, 1, 500)])
        .await;
    assert_eq!(shop.order_is_rejected(&placed.order).await, "discontinued");
    let placed = shop
        .place(&customer, "2001-01-06", "tok_ok", &[("no-such-thing", 1, 500)])
        .await;
    assert_eq!(shop.order_is_rejected(&placed.order).await, "unknown_product");
}

#[tokio::test]
async fn a_declined_payment_rejects_the_order_and_frees_the_stock() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2001-01-07", "tok_declined", &[(&sku, 4, 500)])
        .await;
    assert_eq!(shop.order_is_rejected(&placed.order).await, "payment_declined");
    let payment = shop.payment_is(&placed, "declined").await;
    assert!(payment["reason"].is_string(), "{payment}");
    shop.product_is(&sku, 10, 0).await;
}

#[tokio::test]
async fn a_gateway_that_fails_now_and_then_confirms_the_order_in_the_end() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2001-01-08", "tok_flaky", &[(&sku, 4, 500)])
        .await;
    shop.order_is(&placed.order, "confirmed").await;
    shop.product_is(&sku, 10, 4).await;
}

#[tokio::test]
async fn an_order_cancelled_before_it_is_confirmed_gives_everything_back() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    // A gateway that never answers keeps the order where it is.
    let placed = shop
        .place(&customer, "2001-01-09", "tok_hang", &[(&sku, 4, 500)])
        .await;
    shop.payment_is(&placed, "requested").await;
    shop.product_is(&sku, 10, 4).await;
    let cancelled = shop
        .done(
            &format!("/v1/orders/{}/cancel", placed.order),
            &json!({"reason": "changed my mind"}),
        )
        .await;
    let row = shop
        .row(&format!("/v1/orders/{}", placed.order), &cancelled)
        .await;
    assert_eq!(
        (&row["status"], &row["reason"]),
        (&json!("cancelled"), &json!("changed my mind"))
    );
    shop.payment_is(&placed, "voided").await;
    shop.product_is(&sku, 10, 0).await;
    shop.admin
        .get_after("/v1/daily_sales/2001-01-09,USD", cancelled.position())
        .await
        .problem(404, "not-found");
    let again = shop
        .admin
        .post(
            &format!("/v1/orders/{}/cancel", placed.order),
            &json!({"reason": "x"}),
        )
        .await;
    assert_eq!(again.rejection("wrong_status")["status"], "cancelled");
}

#[tokio::test]
async fn an_order_cancelled_after_it_was_confirmed_is_taken_out_of_all_sums() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2001-01-10", "tok_ok", &[(&sku, 4, 500)])
        .await;
    shop.order_is(&placed.order, "confirmed").await;
    let cancelled = shop
        .done(
            &format!("/v1/orders/{}/cancel", placed.order),
            &json!({"reason": "late"}),
        )
        .await;
    shop.payment_is(&placed, "voided").await;
    shop.product_is(&sku, 10, 0).await;
    let sales = shop.row("/v1/daily_sales/2001-01-10,USD", &cancelled).await;
    assert_eq!(
        (&sales["orders"], &sales["units"], &sales["revenue"]),
        (&json!(0), &json!(0), &json!(0))
    );
    let who = shop.row(&format!("/v1/customers/{customer}"), &cancelled).await;
    assert_eq!((&who["orders"], &who["lifetime_value"]), (&json!(0), &json!(0)));
    let parcel = json!({"carrier": "Owl", "tracking": "1"});
    let late = shop
        .admin
        .post(&format!("/v1/orders/{}/ship", placed.order), &parcel)
        .await;
    assert_eq!(late.rejection("wrong_status")["status"], "cancelled");
}

#[tokio::test]
async fn a_payment_voided_by_finance_cancels_the_order() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2001-01-11", "tok_ok", &[(&sku, 4, 500)])
        .await;
    shop.order_is(&placed.order, "confirmed").await;
    server
        .api("finance")
        .post(&format!("/v1/payments/{}/void", placed.order), &json!({}))
        .await
        .is(200);
    let row = shop.order_is(&placed.order, "cancelled").await.data();
    assert_eq!(row["reason"], "payment_voided");
    shop.product_is(&sku, 10, 0).await;
}

#[tokio::test]
async fn an_order_dated_in_the_future_is_rejected_and_one_that_contradicts_itself_is_invalid() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let path = format!("/v1/orders/{}/place", uuid());
    let future = order_data(&uuid(), "2999-01-01", "tok_ok", &[("a", 1, 1)]);
    shop.admin.post(&path, &future).await.rejection("date_in_future");
    let two_prices = order_data(&uuid(), "2001-01-01", "tok_ok", &[("a", 1, 1), ("a", 1, 2)]);
    let errors = shop.admin.post(&path, &two_prices).await.problem(422, "invalid")["errors"].clone();
    assert!(errors.as_array().is_some_and(|all| !all.is_empty()), "{errors}");
}

#[tokio::test]
async fn an_order_that_nobody_answers_for_is_rejected_when_its_time_is_up() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__COMMERCE__CHECKOUT_TIMEOUT_S", "2");
    let server = home.dev();
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 10).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2001-01-12", "tok_hang", &[(&sku, 4, 500)])
        .await;
    assert_eq!(shop.order_is_rejected(&placed.order).await, "timeout");
    shop.product_is(&sku, 10, 0).await;
    server.stop();
}

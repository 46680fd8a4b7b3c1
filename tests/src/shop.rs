//! What the tests do in the shop: products, customers, orders, and waiting for what comes of them.

use serde_json::{Value, json};

use crate::api::{Answer, Api};
use crate::server::Server;
use crate::{unique, uuid};

/// A shop and somebody who may do everything that people may do in it.
#[derive(Debug, Clone)]
pub struct Shop {
    /// Role `admin`.
    pub admin: Api,
}

/// An order that was placed.
#[derive(Debug, Clone)]
pub struct Placed {
    /// Its key.
    pub order: String,
    /// Whose it is.
    pub customer: String,
    /// The answer to `place`.
    pub answer: Answer,
}

impl Shop {
    /// Of a server.
    #[must_use]
    pub fn of(server: &Server) -> Self {
        Self {
            admin: server.api("admin"),
        }
    }

    /// Registers a product at this price and receives so many; returns its SKU.
    pub async fn product(&self, price: u64, stock: u64) -> String {
        let sku = unique("P");
        let data = json!({"name": format!("Product {sku}"), "price": usd(price)});
        self.admin
            .post(&format!("/v1/products/{sku}/register"), &data)
            .await
            .is(201);
        if stock > 0 {
            let data = json!({"quantity": stock, "reference": "delivery"});
            self.admin
                .post(&format!("/v1/products/{sku}/receive"), &data)
                .await
                .is(200);
        }
        sku
    }

    /// Registers a customer; returns the key.
    pub async fn customer(&self) -> String {
        let customer = uuid();
        let data = json!({"name": "Ada", "email": format!("{customer}@example.com")});
        self.admin
            .post(&format!("/v1/customers/{customer}/register"), &data)
            .await
            .is(201);
        customer
    }

    /// Places an order of these lines (SKU, quantity, unit price), to be paid by this method.
    pub async fn place(&self, customer: &str, day: &str, method: &str, lines: &[(&str, u64, u64)]) -> Placed {
        let order = uuid();
        let data = order_data(customer, day, method, lines);
        let answer = self.admin.post(&format!("/v1/orders/{order}/place"), &data).await;
        answer.is(201);
        Placed {
            order,
            customer: customer.to_owned(),
            answer,
        }
    }

    /// Waits until the order's row has this status; returns the row.
    pub async fn order_is(&self, order: &str, status: &str) -> Answer {
        let (path, stream) = (format!("/v1/orders/{order}"), format!("order-{order}"));
        let answer = self
            .admin
            .wait_until(&path, &stream, |body| body["data"]["status"] == status)
            .await;
        answer.is(200);
        answer
    }

    /// Waits until the order ended without having been confirmed; returns why.
    pub async fn order_is_rejected(&self, order: &str) -> String {
        let row = self.order_is(order, "rejected").await.data();
        row["reason"]
            .as_str()
            .expect("a rejected order has a reason")
            .to_owned()
    }

    /// Waits until the payment of this order has this status; returns its row.
    pub async fn payment_is(&self, placed: &Placed, status: &str) -> Value {
        // The list: a row that is not there yet would be 404.
        let path = format!("/v1/payments?customer_id={}&limit=500", placed.customer);
        let stream = format!("payment-{}", placed.order);
        let of = |body: &Value| {
            let rows = body["data"].as_array().cloned().unwrap_or_default();
            rows.into_iter()
                .find(|row| row["order_id"] == placed.order.as_str())
        };
        let wanted = |body: &Value| of(body).is_some_and(|row| row["status"] == status);
        let answer = self.admin.wait_until(&path, &stream, wanted).await;
        of(&answer.json()).expect("it was there when the wait ended")
    }

    /// Waits until the product's row is so; returns it.
    pub async fn product_is(&self, sku: &str, on_hand: u64, reserved: u64) -> Value {
        let (path, stream) = (format!("/v1/products/{sku}"), format!("product-{sku}"));
        let so = |body: &Value| body["data"]["on_hand"] == on_hand && body["data"]["reserved"] == reserved;
        self.admin.wait_until(&path, &stream, so).await.data()
    }

    /// A row that is at least as fresh as a command's answer or another read.
    pub async fn row(&self, path: &str, after: &Answer) -> Value {
        self.admin.get_after(path, after.position()).await.data()
    }

    /// Sends a command that must be accepted; returns its answer.
    pub async fn done(&self, path: &str, data: &Value) -> Answer {
        let answer = self.admin.post(path, data).await;
        assert!(
            matches!(answer.status, 200 | 201),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        answer
    }
}

/// The data of `place`.
#[must_use]
pub fn order_data(customer: &str, day: &str, method: &str, lines: &[(&str, u64, u64)]) -> Value {
    let line = |(sku, quantity, price): &(&str, u64, u64)| json!({"sku": sku, "quantity": quantity, "unit_price": price});
    json!({
        "customer": customer, "currency": "USD", "ordered_on": day, "payment_method": method,
        "lines": lines.iter().map(line).collect::<Vec<_>>(),
    })
}

/// Dollars, in cents.
#[must_use]
pub fn usd(amount: u64) -> Value {
    json!({"amount": amount, "currency": "USD"})
}

//! The program around the domain: its settings, the way to the gateway, what `dev` starts, what `bench` sends.

mod demo;

use std::sync::Arc;

use annals::{ConfigError, DevService, Load, Request, Settings};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::checkout;
use crate::gateway::{Gateway, http, sandbox as sandbox_gateway};

pub use demo::Demo;

annals::section! {
    /// The shop's own settings.
    pub struct Commerce in "commerce" {
        /// Where the payment gateway answers. `dev` starts a sandbox.
        gateway_url: Option<String> = None,
        /// How long an order may wait for its confirmation, in seconds.
        checkout_timeout_s: u64 = 900,
    }
}

/// The checkout timer of a demo, in seconds: a slow machine must not turn orders down.
const DEMO_TIMEOUT_S: u64 = 86_400;

/// The checkout's settings.
///
/// # Errors
/// A value of the wrong type.
pub fn checkout(settings: &Settings) -> anyhow::Result<checkout::Settings> {
    let commerce: Commerce = settings.section()?;
    Ok(checkout::Settings {
        timeout: std::time::Duration::from_secs(commerce.checkout_timeout_s),
    })
}

/// The way to the gateway.
///
/// # Errors
/// If it is not set, or is no URL.
pub fn gateway(settings: &Settings) -> anyhow::Result<Arc<dyn Gateway>> {
    let commerce: Commerce = settings.section()?;
    let missing =
        || ConfigError("commerce.gateway_url is not set: where the payment gateway answers".to_owned());
    let url = commerce.gateway_url.ok_or_else(missing)?;
    let gateway = http::HttpGateway::new(&url, &http::Settings::default())?;
    Ok(Arc::new(gateway))
}

/// Starts the sandbox gateway on a loopback port; a demo's checkouts may take their time.
///
/// # Errors
/// If there is no port.
pub async fn sandbox(_: Settings, demo: bool) -> anyhow::Result<DevService> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let mut settings = vec![("commerce.gateway_url".to_owned(), url)];
    if demo {
        settings.push((
            "commerce.checkout_timeout_s".to_owned(),
            DEMO_TIMEOUT_S.to_string(),
        ));
    }
    let run = Box::pin(async move {
        if let Err(error) = sandbox_gateway::serve(listener, CancellationToken::new()).await {
            tracing::error!(%error, "the sandbox gateway ended");
        }
    });
    Ok(DevService { settings, run })
}

/// `receive`: stock of a product arrives.
pub const RECEIVE: Load = Load {
    name: "receive",
    prepare: Some(register),
    next: |n| Request::Command {
        resource: "products",
        key: sku(n),
        name: "receive",
        data: json!({"quantity": 1_000, "reference": "bench"}),
    },
};

/// `place`: an order of one line, whose checkout runs to its end.
pub const PLACE: Load = Load {
    name: "place",
    prepare: Some(customer),
    next: |n| {
        let line = json!({"sku": sku(n), "quantity": 1, "unit_price": 1_000});
        Request::Command {
            resource: "orders",
            key: Uuid::now_v7().to_string(),
            name: "place",
            data: json!({"customer": customer_id(n), "currency": "USD", "payment_method": "tok_ok", "lines": [line]}),
        }
    },
};

/// `get`: a product is read.
pub const GET: Load = Load {
    name: "get",
    prepare: Some(register),
    next: |n| Request::Get {
        resource: "products",
        key: sku(n),
    },
};

fn sku(n: u32) -> String {
    format!("BENCH-{n:07}")
}

fn customer_id(n: u32) -> Uuid {
    Uuid::new_v5(
        &Uuid::NAMESPACE_URL,
        format!("urn:annals:bench:customer:{n}").as_bytes(),
    )
}

fn register(n: u32) -> Request {
    Request::Command {
        resource: "products",
        key: sku(n),
        name: "register",
        data: json!({"name": format!("Bench {n}"), "price": {"amount": 1_000, "currency": "USD"}}),
    }
}

fn customer(n: u32) -> Request {
    Request::Command {
        resource: "customers",
        key: customer_id(n).to_string(),
        name: "register",
        data: json!({"name": format!("Bench {n}"), "email": format!("bench{n}@example.com")}),
    }
}

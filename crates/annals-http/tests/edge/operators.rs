//! The operations listener.

use std::sync::{Arc, Mutex};

use annals_http::operations::{Admin, AdminError, Operations, ProjectionAction, Readiness, router};
use futures_util::future::BoxFuture;
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::harness::{Bank, Got, got};

#[derive(Default)]
struct Desk {
    done: Mutex<Vec<String>>,
}

impl Admin for Desk {
    fn projections(&self) -> BoxFuture<'_, Result<Vec<Value>, AdminError>> {
        Box::pin(async {
            Ok(vec![
                json!({"name": "orders", "build": 1}),
                json!({"name": "sales", "build": 2}),
            ])
        })
    }
    fn act<'a>(&'a self, name: &'a str, action: ProjectionAction) -> BoxFuture<'a, Result<(), AdminError>> {
        Box::pin(async move {
            self.done.lock().unwrap().push(format!("{name} {action:?}"));
            match name {
                "orders" => Ok(()),
                "sales" => Err(AdminError::Refused {
                    code: "not_caught_up".to_owned(),
                    text: "It is behind".to_owned(),
                }),
                _ => Err(AdminError::NotFound),
            }
        })
    }
    fn processes(&self) -> BoxFuture<'_, Result<Vec<Value>, AdminError>> {
        Box::pin(async { Err(AdminError::Unavailable) })
    }
    fn resume<'a>(&'a self, name: &'a str, instance: &'a str) -> BoxFuture<'a, Result<(), AdminError>> {
        Box::pin(async move {
            self.done.lock().unwrap().push(format!("{name} {instance}"));
            Ok(())
        })
    }
}

async fn ask(
    bank: &Bank,
    desk: &Arc<Desk>,
    ready: Readiness,
    method: Method,
    path: &str,
    token: &str,
) -> Got {
    let operations = Operations {
        readiness: Arc::new(move || {
            let ready = ready.clone();
            Box::pin(async move { ready })
        }),
        metrics: Arc::new(|| "annals_up 1\n".to_owned()),
        admin: desk.clone(),
    };
    let mut request = Request::new(axum::body::Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    if !token.is_empty() {
        request
            .headers_mut()
            .insert("authorization", token.parse().unwrap());
    }
    got(router(&bank.edge, operations).oneshot(request).await.unwrap()).await
}

#[tokio::test]
async fn probes_and_metrics_are_open() {
    let (bank, desk) = (Bank::new(), Arc::new(Desk::default()));
    let probe = async |path: &str, ready| ask(&bank, &desk, ready, Method::GET, path, "").await;
    assert_eq!(probe("/livez", Readiness::NotReady(Vec::new())).await.status, 200);
    assert_eq!(probe("/readyz", Readiness::Ready).await.status, 200);
    let metrics = probe("/metrics", Readiness::Ready).await;
    assert_eq!(
        (metrics.status.as_u16(), &metrics.bytes[..]),
        (200, &b"annals_up 1\n"[..])
    );
    let not = probe(
        "/readyz",
        Readiness::NotReady(vec!["shard 3 has no owner".to_owned()]),
    )
    .await;
    assert_eq!(not.status, 503);
    assert!(not.json()["detail"].as_str().unwrap().contains("shard 3"));
    assert_eq!(
        probe("/nothing", Readiness::Ready).await.problem(),
        (404, "unknown-resource".to_owned())
    );
    assert_eq!(
        probe("/admin/projections", Readiness::Ready).await.problem(),
        (401, "unauthenticated".to_owned())
    );
}

#[tokio::test]
async fn operators_alone_may_act() {
    let (bank, desk) = (Bank::new(), Arc::new(Desk::default()));
    let operator = bank.token("olga", "operator");
    let act = async |method, path: &str| ask(&bank, &desk, Readiness::Ready, method, path, &operator).await;
    let teller = bank.token("ada", "teller");
    let other = ask(
        &bank,
        &desk,
        Readiness::Ready,
        Method::POST,
        "/admin/projections/orders/rebuild",
        &teller,
    )
    .await;
    assert_eq!(other.problem(), (403, "forbidden".to_owned()));
    assert!(desk.done.lock().unwrap().is_empty());

    let all = act(Method::GET, "/admin/projections").await;
    assert_eq!(all.json()["data"].as_array().unwrap().len(), 2);
    let rebuild = act(Method::POST, "/admin/projections/orders/rebuild").await;
    assert_eq!(
        (rebuild.status.as_u16(), rebuild.header("location")),
        (202, "/admin/projections/orders")
    );
    let status = act(Method::GET, rebuild.json()["status"].as_str().unwrap()).await;
    assert_eq!(status.json()["data"], json!([{"name": "orders", "build": 1}]));
    assert_eq!(
        act(Method::POST, "/admin/processes/checkout/0192/resume")
            .await
            .status,
        202
    );
    assert_eq!(*desk.done.lock().unwrap(), ["orders Rebuild", "checkout 0192"]);

    let refused = act(Method::POST, "/admin/projections/sales/switch").await;
    assert_eq!(
        (refused.problem(), &refused.json()["rejection"]["code"]),
        ((409, "rejected".to_owned()), &json!("not_caught_up"))
    );
    assert_eq!(
        act(Method::POST, "/admin/projections/none/resume")
            .await
            .problem(),
        (404, "not-found".to_owned())
    );
    assert_eq!(
        act(Method::POST, "/admin/projections/orders/drop").await.status,
        404
    );
    assert_eq!(
        act(Method::GET, "/admin/projections/orders/rollback")
            .await
            .header("allow"),
        "POST"
    );
    assert_eq!(
        act(Method::GET, "/admin/processes").await.problem(),
        (503, "log-unavailable".to_owned())
    );
}

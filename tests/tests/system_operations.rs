//! What operators and developers of clients see: health, metrics, administration, the description of the interface.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::collections::BTreeSet;

use annals_tests::{Home, Shared, Shop, unique};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

#[tokio::test]
async fn a_running_server_is_live_and_ready_for_everyone() {
    let Some(server) = SERVER.get() else { return };
    let ops = server.operations(None);
    ops.get("/livez").await.is(200);
    ops.get("/readyz").await.is(200);
    server
        .api("admin")
        .get("/livez")
        .await
        .problem(404, "unknown-resource");
    server
        .api("admin")
        .get("/metrics")
        .await
        .problem(404, "unknown-resource");
}

#[tokio::test]
async fn metrics_count_the_invariants_and_name_no_stream_and_no_caller() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 5).await;
    shop.product_is(&sku, 5, 0).await;
    // Until the answer that the read model has by now was kept: then it is given without a statement.
    let hits = |text: &str| -> f64 {
        let of_products = "annals_query_cache_hits_total{resource=\"products\"} ";
        let line = text.lines().find_map(|line| line.strip_prefix(of_products));
        line.map_or(0.0, |count| count.parse().unwrap())
    };
    let mut text = String::new();
    for _ in 0..1_000 {
        shop.admin.get(&format!("/v1/products/{sku}")).await.is(200);
        text = server.operations(None).get("/metrics").await.is(200).text();
        if hits(&text) > 0.0 {
            break;
        }
    }
    for name in [
        "annals_log_invariants_broken_total",
        "annals_log_appended_total",
        "annals_http_requests_total",
        // What is counted when a node starts counts too.
        "annals_query_cache_hits_total{resource=\"products\"}",
        "annals_shard_owner{shard=\"0\"} 1",
        "annals_shard_claim_seconds_count",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
    for line in text
        .lines()
        .filter(|line| line.starts_with("annals_log_invariants_broken_total"))
    {
        assert!(line.ends_with(" 0"), "an invariant is broken: {line}");
    }
    for id in [sku.as_str(), "tester", "product-"] {
        assert!(!text.contains(id), "{id} is in a label:\n{text}");
    }
    // One line a sample: name, labels, number.
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let value = line.rsplit(' ').next().unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn administration_is_for_operators() {
    let Some(server) = SERVER.get() else { return };
    for path in ["/admin/projections", "/admin/processes"] {
        server
            .operations(None)
            .get(path)
            .await
            .problem(401, "unauthenticated");
        server
            .operations(Some("clerk"))
            .get(path)
            .await
            .problem(403, "forbidden");
        server
            .operations(Some("auditor"))
            .get(path)
            .await
            .problem(403, "forbidden");
    }
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 5).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2009-01-02", "tok_ok", &[(&sku, 1, 500)])
        .await;
    shop.order_is(&placed.order, "confirmed").await;
    let operator = server.operations(Some("operator"));
    let projections = operator.get("/admin/projections").await.data();
    let names: BTreeSet<_> = projections
        .as_array()
        .unwrap()
        .iter()
        .map(|status| status["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from([
            "customers",
            "daily_sales",
            "order_lines",
            "orders",
            "payments",
            "products"
        ])
    );
    let processes = operator.get("/admin/processes").await;
    assert!(
        processes.is(200).text().contains("checkout"),
        "{}",
        processes.text()
    );
    let resume = operator
        .call("POST", "/admin/processes/checkout/nobody/resume")
        .send()
        .await;
    resume.problem(404, "not-found");
    operator
        .call("DELETE", "/admin/projections")
        .send()
        .await
        .problem(405, "method-not-allowed");
}

/// Every `$ref` of a document, and every object under `schemas` or `schema`.
fn walk<'a>(value: &'a Value, refs: &mut Vec<&'a str>, schemas: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), member) {
                    ("$ref", Value::String(target)) => refs.push(target),
                    ("schema", Value::Object(_)) => schemas.push(member),
                    ("schemas", Value::Object(named)) => schemas.extend(named.values()),
                    _ => {}
                }
                walk(member, refs, schemas);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, refs, schemas)),
        _ => {}
    }
}

#[tokio::test]
async fn the_openapi_document_is_one_of_3_1_and_describes_what_is_served() {
    let Some(server) = SERVER.get() else { return };
    let document = server.nobody().get("/v1/openapi.json").await.is(200).json();
    assert!(
        document["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1.")),
        "{}",
        document["openapi"]
    );
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let (mut refs, mut schemas) = (Vec::new(), Vec::new());
    walk(&document, &mut refs, &mut schemas);
    assert!(
        !refs.is_empty() && schemas.len() > 20,
        "{} refs, {} schemas",
        refs.len(),
        schemas.len()
    );
    for target in refs {
        let pointer = target
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("a reference to the outside: {target}"));
        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
    }
    for schema in schemas {
        if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
            panic!("no JSON Schema of 2020-12: {error}: {schema}");
        }
    }
    let mut operations = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let shared = item["parameters"].as_array().cloned().unwrap_or_default();
        for (method, operation) in item.as_object().unwrap() {
            if !["get", "post", "put", "delete", "patch", "head", "options"].contains(&method.as_str()) {
                continue;
            }
            let responses = operation["responses"]
                .as_object()
                .unwrap_or_else(|| panic!("{method} {path}: no responses"));
            assert!(
                responses
                    .values()
                    .all(|response| response["description"].is_string() || response["$ref"].is_string())
            );
            let own = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named: BTreeSet<String> = shared
                .iter()
                .chain(&own)
                .map(|parameter| {
                    let target = parameter["$ref"]
                        .as_str()
                        .and_then(|target| document.pointer(target.trim_start_matches('#')));
                    target.unwrap_or(parameter)["name"].as_str().unwrap().to_owned()
                })
                .collect();
            for name in path
                .split('/')
                .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            {
                assert!(
                    named.contains(name),
                    "{method} {path}: parameter {name} is not described"
                );
            }
            if let Some(id) = operation["operationId"].as_str() {
                assert!(ids.insert(id.to_owned()), "operationId {id} twice");
            }
            operations.insert((method.clone(), path.clone()));
        }
    }
    let has = |method: &str, path: &str| operations.iter().any(|(m, p)| m == method && p == path);
    for (method, path) in [
        ("post", "/v1/orders/{key}/place"),
        ("post", "/v1/orders/place"),
        ("post", "/v1/products/{key}/register"),
        ("post", "/v1/batch"),
        ("get", "/v1/orders"),
        ("get", "/v1/orders/{key}"),
        ("get", "/v1/daily_sales"),
        ("get", "/v1/audit/records"),
        ("get", "/v1/audit/streams/{stream}"),
    ] {
        assert!(
            has(method, path),
            "{method} {path} is not described: {operations:?}"
        );
    }
    assert!(!has("post", "/v1/products/register"), "a form that is not served");

    // Each described operation is there: whatever else it answers, neither 404 for its path nor 405.
    let admin = server.api("admin");
    for (method, path) in operations {
        let filled = path
            .replace("{stream}", "product-x")
            .replace("{id}", "0")
            .replace("{key}", "x")
            .replace("{code}", "malformed");
        let call = admin
            .call(&method.to_uppercase(), &filled)
            .header("accept", "application/json");
        let answer = call.send().await;
        let code = serde_json::from_slice::<Value>(&answer.body)
            .ok()
            .and_then(|body| body["code"].as_str().map(str::to_owned));
        let code = code.unwrap_or_default();
        assert!(
            ![
                "unknown-resource",
                "unknown-command",
                "method-not-allowed",
                "internal"
            ]
            .contains(&code.as_str()),
            "{method} {path} is described and answers {code}"
        );
    }
}

/// A reference in a page at `path`; RFC 3986, section 5.2, as far as a page of our own goes.
fn resolved(path: &str, reference: &str) -> String {
    if reference.starts_with('/') {
        return reference.to_owned();
    }
    let base = path.rsplit_once('/').map_or("", |(base, _)| base);
    format!("{base}/{}", reference.trim_start_matches("./"))
}

#[tokio::test]
async fn the_docs_load_without_any_other_address() {
    let Some(server) = SERVER.get() else { return };
    let nobody = server.nobody();
    let mut path = "/docs".to_owned();
    let mut page = nobody.get(&path).await;
    while let (301..=308, Some(location)) = (page.status, page.header("location")) {
        path = resolved(&path, location);
        page = nobody.get(&path).await;
    }
    page.is(200);
    let html = page.text();
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let mut loaded = 0;
    for attribute in ["src=\"", "href=\""] {
        for part in html.split(attribute).skip(1) {
            let target = part.split('"').next().unwrap();
            assert!(!target.contains("//"), "an outside address: {target}");
            let target = resolved(&path, target);
            let asset = nobody.get(&target).await;
            asset.is(200);
            loaded += 1;
            if target.ends_with("initializer.js") {
                assert!(asset.text().contains("/v1/openapi.json"), "{}", asset.text());
                assert!(!asset.text().contains("https://"), "{}", asset.text());
            }
        }
    }
    assert!(loaded >= 2, "{html}");
}

#[tokio::test]
async fn every_answer_has_headers_that_browsers_and_caches_respect() {
    let Some(server) = SERVER.get() else { return };
    let answer = server
        .api("admin")
        .call("GET", "/v1/orders")
        .header("origin", "https://evil.example")
        .send()
        .await;
    assert_eq!(
        answer.is(200).header("access-control-allow-origin"),
        None,
        "CORS is off"
    );
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("cache-control").unwrap().contains("private"));
    assert!(answer.header("correlation-id").is_some());
}

#[tokio::test]
async fn security_events_and_errors_are_one_json_object_a_line() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__TELEMETRY__LOG_FORMAT", "json");
    let server = home.dev();
    let correlation = unique("c");
    let call = server
        .api("clerk")
        .call("POST", "/v1/products/x/receive")
        .key("k")
        .header("correlation-id", &correlation);
    call.json(&json!({})).send().await.problem(403, "forbidden");
    let log = server.log();
    let line = log.lines().find(|line| line.contains(&correlation));
    let line = line.unwrap_or_else(|| panic!("the 403 is a security event with its correlation id:\n{log}"));
    let event: Value = serde_json::from_str(line).unwrap();
    assert!(event.to_string().contains("tester"), "who it was: {event}");
    server.stop();
}

//! `/v1/openapi.json`, walked: each operation is called, and what comes back is in it.

use annals_http::Code;
use annals_http::ports::Read;
use annals_query::{ListAnswer, Meta, RowAnswer};
use http::Method;
use serde_json::Value;

use crate::harness::{Ask, Bank, ID};

async fn description(bank: &Bank) -> Value {
    let got = bank.get(Ask::new(Method::GET, "/v1/openapi.json")).await;
    assert_eq!(
        (got.status.as_u16(), got.header("content-type")),
        (200, "application/json")
    );
    got.json()
}

/// Follows `#/…`.
fn follow<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(target) => document.pointer(target.strip_prefix('#').unwrap()).expect(target),
        None => value,
    }
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (name, member) in map {
                match (name.as_str(), member) {
                    ("$ref", Value::String(target)) => found.push(target),
                    _ => references(member, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let bank = Bank::new();
    let document = description(&bank).await;
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for target in found {
        let pointer = target
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{target} leads outside"));
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
    assert_eq!(document["openapi"], "3.1.1");
}

#[tokio::test]
async fn each_operation_is_served_as_described() {
    let bank = Bank::new();
    let meta = Meta {
        positions: Vec::new().into(),
        lag_ms: 0,
        parked: 0,
        etag: "W/\"e\"".to_owned(),
    };
    bank.reads(move |request, _| {
        let meta = meta.clone();
        Ok(match request.key {
            Some(_) => Read::Row(RowAnswer {
                data: "{}".into(),
                version: None,
                meta,
            }),
            None => Read::List(ListAnswer {
                data: "[]".into(),
                next: None,
                count: None,
                meta,
            }),
        })
    });
    let document = description(&bank).await;
    let mut called = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let key = if path.contains("/coins/") { "c" } else { ID };
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path
                .replace("{key}", key)
                .replace("{stream}", &format!("account-{ID}"))
                .replace("{id}", ID);
            let role = if path.starts_with("/v1/audit") {
                "auditor"
            } else {
                "teller"
            };
            let mut ask = Ask::new(method, &path).with("authorization", &bank.token("ada", role));
            for parameter in operation["parameters"].as_array().unwrap() {
                let parameter = follow(&document, parameter);
                if parameter["name"] == "Idempotency-Key" {
                    assert_eq!(parameter["required"], true);
                    ask = ask.with("idempotency-key", "k");
                }
            }
            if let Some(content) = operation["requestBody"]["content"].as_object() {
                let (form, media) = content.iter().next().unwrap();
                let schema = follow(&document, &media["schema"]);
                let required: Vec<_> = schema["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let body = match required[..] {
                    ["owner"] => r#"{"owner":"ada"}"#,
                    ["amount"] => r#"{"amount":5}"#,
                    [] => "{}",
                    ["resource", "command", "idempotency_key"] => "",
                    _ => panic!("{path} needs {required:?}"),
                };
                let form: &'static str = if form.contains("ndjson") {
                    "application/x-ndjson"
                } else {
                    "application/json"
                };
                ask = ask.with("content-type", form).body(body);
            }
            let got = bank.get(ask).await;
            let responses = operation["responses"].as_object().unwrap();
            let response = responses
                .get(got.status.as_str())
                .unwrap_or_else(|| panic!("{path}: {}", got.status));
            assert!(got.status.is_success(), "{path}: {} {}", got.status, got.json());
            let response = follow(&document, response);
            let form = got.header("content-type");
            assert!(response["content"].get(form).is_some(), "{path}: {form}");
            for name in [
                "etag",
                "annals-position",
                "annals-lag-ms",
                "location",
                "correlation-id",
            ] {
                let described = response["headers"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .any(|k| k.eq_ignore_ascii_case(name));
                assert!(
                    described || got.header(name).is_empty(),
                    "{path}: header {name} is not described"
                );
            }
            for status in responses.keys().filter(|status| status.as_str() >= "400") {
                assert!(
                    Code::ALL
                        .iter()
                        .any(|code| code.entry().status.to_string() == *status),
                    "{path}: {status}"
                );
            }
            called += 1;
        }
    }
    // 4 commands with a key, 1 without, the batch, 2 resources with list and row, 6 of auditors.
    assert_eq!(called, 16);
}

#[tokio::test]
async fn every_code_is_described_and_has_its_page() {
    let bank = Bank::new();
    let document = description(&bank).await;
    for code in Code::ALL {
        let entry = code.entry();
        let response = &document["components"]["responses"][entry.status.to_string()];
        assert!(
            response.to_string().contains(&format!("\"{}\"", entry.name)),
            "{}",
            entry.name
        );
        let got = bank
            .get(Ask::new(Method::GET, &format!("/problems/{}", entry.name)))
            .await;
        assert_eq!(got.status, 200);
        assert!(String::from_utf8_lossy(&got.bytes).contains(entry.title));
        assert_eq!(got.header("content-type"), "text/html; charset=utf-8");
    }
    let rejected = &document["paths"][format!("/v1/accounts/{}/close", "{key}")]["post"]["responses"]["409"];
    assert!(rejected.to_string().contains("overdrawn"));
}

#[tokio::test]
async fn the_readable_pages_need_nothing_from_elsewhere() {
    let bank = Bank::new();
    let index = bank.get(Ask::new(Method::GET, "/docs")).await;
    assert_eq!((index.status.as_u16(), index.header("location")), (308, "docs/"));
    let index = bank.get(Ask::new(Method::GET, "/docs/")).await;
    assert_eq!(index.status, 200);
    let text = String::from_utf8_lossy(&index.bytes).into_owned();
    for file in text
        .split(['"', '\''])
        .filter(|part| part.ends_with(".js") || part.ends_with(".css"))
    {
        assert!(!file.contains("//"), "{file} lies elsewhere");
        let got = bank
            .get(Ask::new(
                Method::GET,
                &format!("/docs/{}", file.trim_start_matches("./")),
            ))
            .await;
        assert_eq!(got.status, 200, "{file}");
    }
    let start = bank
        .get(Ask::new(Method::GET, "/docs/swagger-initializer.js"))
        .await;
    assert!(String::from_utf8_lossy(&start.bytes).contains("/v1/openapi.json"));
    assert_eq!(bank.get(Ask::new(Method::GET, "/docs/none.js")).await.status, 404);
}

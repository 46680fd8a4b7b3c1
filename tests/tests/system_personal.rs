//! Personal data: nowhere as plain text but where they are meant to be read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use annals_tests::scan;
use annals_tests::{Home, Shop, unique, uuid};
use serde_json::{Value, json};

#[tokio::test]
async fn a_name_an_email_and_an_address_are_nowhere_in_the_log_in_snapshots_or_in_logs() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__COMMAND__SNAPSHOT_EVERY", "2");
    home.set("ANNALS__TELEMETRY__ACCESS_LOG", "true");
    home.set("ANNALS_LOG", "debug");
    let server = home.dev();
    let shop = Shop::of(&server);
    let customer = uuid();
    let (name, email) = (unique("Zebulon Quick "), format!("{}@example.com", unique("zq")));
    let address = unique("Fifth Street ");
    let person = json!({"name": name, "email": email, "address": address});
    let path = format!("/v1/customers/{customer}");
    let registered = shop.admin.post(&format!("{path}/register"), &person).await;
    assert!(!registered.is(201).text().contains(&name));
    // A refusal holds the command's data too.
    shop.admin
        .post(&format!("{path}/register"), &person)
        .await
        .rejection("already_registered");
    let mut last = registered;
    for _ in 0..12 {
        last = shop.admin.post(&format!("{path}/change-contact"), &person).await;
        last.is(200);
    }
    // What is wrong with personal data is said without them, and not logged.
    let long = json!({"name": name, "email": email, "address": address.repeat(50)});
    let invalid = shop.admin.post(&format!("{path}/change-contact"), &long).await;
    assert!(!invalid.problem(422, "invalid").to_string().contains(&address));
    let line = json!({"resource": "customers", "key": customer, "command": "change-contact",
        "idempotency_key": unique("k"), "data": person});
    let call = shop
        .admin
        .call("POST", "/v1/batch")
        .header("content-type", "application/x-ndjson");
    call.body(line.to_string()).send().await.is(200);

    // They are where they are meant to be: for a clerk and their owner.
    let after = last.position();
    let clerk = server.api("clerk").get_after(&path, after).await.data();
    assert_eq!((&clerk["name"], &clerk["email"]), (&json!(name), &json!(email)));
    let own = server
        .api_as("customer", &customer)
        .get_after(&path, after)
        .await
        .data();
    assert_eq!(own["name"], name.as_str());
    let auditor = server.api("auditor").get_after(&path, after).await.data();
    assert_eq!(
        (&auditor["name"], &auditor["email"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(auditor["customer_id"], customer.as_str());

    // An auditor reads what is stored: ciphertext.
    let stream = format!("/v1/audit/streams/customer-{customer}");
    let history = server.api("auditor").get_after(&stream, after).await;
    let state = server.api("auditor").get(&format!("{stream}/state")).await;
    let records = server
        .api("auditor")
        .get_after("/v1/audit/records?category=customer", after)
        .await;
    for secret in [&name, &email, &address] {
        for answer in [&history, &state, &records] {
            assert!(
                !answer.is(200).text().contains(secret.as_str()),
                "{}: {secret}",
                answer.path
            );
        }
    }
    let pool = home.database().pool().await;
    let snapshots: i64 =
        sqlx::query_scalar("SELECT count(*) FROM annals.snapshot WHERE stream LIKE 'customer-%'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(snapshots > 0, "the test looks into a snapshot");
    for (what, secret) in [("name", &name), ("email", &email), ("address", &address)] {
        let stored = scan::tables(&pool, "annals", secret).await;
        assert!(stored.is_empty(), "{what}: {stored:?}");
        let anywhere = scan::tables(&pool, "%", secret).await;
        let allowed =
            |place: &String| place.starts_with("customers_b") && place.contains(&format!(".{what} ("));
        assert!(anywhere.iter().all(allowed), "{what}: {anywhere:?}");
        assert_eq!(anywhere.is_empty(), what == "address", "{what}: {anywhere:?}");
    }
    // The search itself finds what is there.
    assert!(
        !scan::tables(&pool, "annals", &format!("customer-{customer}"))
            .await
            .is_empty()
    );
    pool.close().await;
    let log = server.log();
    assert!(
        log.contains("/v1/{resource}/{key}/{command}"),
        "requests are logged in this test"
    );
    server.stop();
    for secret in [&name, &email, &address] {
        assert!(!log.contains(secret.as_str()), "in the program's log");
        let written = scan::files(home.dir(), secret);
        assert!(written.is_empty(), "{written:?}");
    }
}

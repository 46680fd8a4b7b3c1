//! TPC-H as real commands, killed in the middle and started again: it finishes with equal sums.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::process::Stdio;

use annals_tests::program::Ran;
use annals_tests::{Home, Shop};

const SCALE: &str = "0.001";

#[tokio::test]
async fn the_demo_killed_with_its_server_in_the_middle_goes_on_to_equal_sums() {
    let Some(home) = Home::with_database() else { return };
    home.set("ANNALS__COMMERCE__CHECKOUT_TIMEOUT_S", "86400");
    let server = home.dev();
    let mut demo = home.command(&["demo", "--scale", SCALE, "--url", &server.url]);
    let mut demo = demo.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let shop = Shop::of(&server);
    // In the middle: some of the 1,500 orders are placed, most are not.
    let counted = |body: &serde_json::Value| body["count"].as_u64().is_some_and(|count| count >= 300);
    let mut after = String::new();
    let count = loop {
        let mut call = shop
            .admin
            .call("GET", "/v1/orders?limit=1")
            .header("prefer", "count=exact, wait=5");
        if !after.is_empty() {
            call = call.header("annals-after", &after);
        }
        let answer = call.send().await;
        if answer.status == 503 {
            continue;
        }
        let body = answer.is(200).json();
        if counted(&body) {
            break body["count"].as_u64().unwrap();
        }
        // The next record of some shard wakes the next look.
        let busiest = answer
            .position()
            .split(", ")
            .filter_map(|position| position.split_once(':'));
        let busiest = busiest
            .max_by_key(|(_, offset)| offset.parse::<u64>().unwrap())
            .unwrap();
        after = format!("{}:{}", busiest.0, busiest.1.parse::<u64>().unwrap() + 1);
    };
    assert!(count < 1_500, "killed in the middle: {count} orders");
    server.kill();
    let _ = demo.kill();
    demo.wait().unwrap();

    let server = home.dev();
    let words = ["demo", "--scale", SCALE, "--url", &server.url];
    let output = home.command(&words).stdin(Stdio::null()).output().unwrap();
    let ran = Ran::of("commerce demo".to_owned(), &output);
    if ran.code != Some(0) {
        server.show_log();
    }
    ran.exits(0);
    // A third run finds all of it done.
    let again = home.run(&["demo", "--scale", SCALE, "--url", &server.url]);
    again.exits(0);
    server.stop();
}

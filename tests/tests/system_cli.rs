//! The program's own commands, against a running server and without one, with their exit statuses: 0 done, 1 no,
//! 2 wrong usage or configuration, 3 could not be done.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::io::BufRead;
use std::process::Stdio;

use annals_tests::program::Ran;
use annals_tests::{Home, Server, Shared, Shop, unique, uuid};
use serde_json::{Value, json};

static SERVER: Shared = Shared::new();

/// Runs a command as a client of this server.
fn client(server: &Server, words: &[&str]) -> Ran {
    let mut all = words.to_vec();
    all.extend(["--url", &server.url]);
    server.home.run(&all)
}

#[tokio::test]
async fn send_prints_the_answer_and_its_exit_status_says_what_it_was() {
    let Some(server) = SERVER.get() else { return };
    let sku = unique("P");
    let register = json!({"name": "A thing", "price": {"amount": 5, "currency": "USD"}}).to_string();
    let sent = client(
        &server,
        &["send", "products", &sku, "register", "--data", &register],
    )
    .json();
    assert_eq!(
        (&sent["stream"], &sent["version"]),
        (&json!(format!("product-{sku}")), &json!(1))
    );
    let no = client(
        &server,
        &["send", "products", &sku, "register", "--data", &register],
    );
    let problem: Value = serde_json::from_str(no.exits(1)).unwrap();
    assert_eq!(problem["rejection"]["code"], "already_registered");
    assert!(no.stderr.contains("already_registered"), "{}", no.stderr);
    let receive = r#"{"quantity": 2, "reference": "delivery"}"#;
    let words = [
        "send",
        "products",
        &sku,
        "receive",
        "--data",
        receive,
        "--idempotency-key",
        "once",
        "--if-match",
        "1",
    ];
    let first = client(&server, &words).json();
    assert_eq!(
        client(&server, &words).json(),
        first,
        "the same key, the same answer"
    );
    client(
        &server,
        &[
            "send",
            "products",
            &sku,
            "receive",
            "--data",
            receive,
            "--if-match",
            "1",
        ],
    )
    .exits(1);
    client(&server, &["send", "products", &sku, "receive", "--data", "{}"]).exits(2);
    client(
        &server,
        &["send", "products", &sku, "receive", "--data", "@/no/such/file"],
    )
    .exits(2);
    let file = server.home.dir().join("receive.json");
    std::fs::write(&file, receive).unwrap();
    let from_file = format!("@{}", file.display());
    assert_eq!(
        client(
            &server,
            &["send", "products", &sku, "receive", "--data", &from_file]
        )
        .json()["version"],
        3
    );
    let words = [
        "send",
        "products",
        &sku,
        "receive",
        "--data",
        "-",
        "--url",
        &server.url,
    ];
    assert_eq!(server.home.run_with_input(&words, receive).json()["version"], 4);
}

#[tokio::test]
async fn get_prints_rows_as_table_json_or_ndjson() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, other) = (shop.product(500, 5).await, shop.product(500, 6).await);
    shop.product_is(&sku, 5, 0).await;
    shop.product_is(&other, 6, 0).await;
    let row = client(&server, &["get", "products", &sku, "--output", "json"]).json();
    assert_eq!(row["data"]["on_hand"], 5);
    let table = client(&server, &["get", "products", &sku]);
    assert!(
        table.exits(0).contains("on_hand") && table.stdout.contains(&sku),
        "{}",
        table.stdout
    );
    let name = format!("name.in=Product {sku},Product {other}");
    let lines = client(
        &server,
        &[
            "get",
            "products",
            "--filter",
            &name,
            "--filter",
            "sort=name",
            "--output",
            "ndjson",
        ],
    );
    let rows: Vec<Value> = lines
        .exits(0)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let found: Vec<_> = rows.iter().map(|row| row["sku"].as_str().unwrap()).collect();
    assert_eq!(found, [&sku, &other]);
    let position = shop
        .admin
        .get(&format!("/v1/products/{sku}"))
        .await
        .position()
        .to_owned();
    client(
        &server,
        &[
            "get",
            "products",
            &sku,
            "--after",
            position.split(',').next().unwrap(),
        ],
    )
    .exits(0);
    client(&server, &["get", "products", &unique("P")]).exits(1);
    client(&server, &["get", "products", "--filter", "colour=red"]).exits(2);
    client(&server, &["get", "products", "--filter", "colour"]).exits(2);
}

#[tokio::test]
async fn import_sends_a_file_and_says_what_became_of_it() {
    let Some(server) = SERVER.get() else { return };
    let sku = unique("P");
    let line = |command: &str, data: Value| json!({"resource": "products", "key": sku, "command": command, "idempotency_key": unique("k"), "data": data});
    let mut lines = vec![line(
        "register",
        json!({"name": "A thing", "price": {"amount": 5, "currency": "USD"}}),
    )];
    lines.extend((0..50).map(|_| line("receive", json!({"quantity": 1, "reference": "delivery"}))));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let file = server.home.dir().join(format!("{sku}.ndjson"));
    std::fs::write(&file, &text).unwrap();
    let file = file.display().to_string();
    let done = client(
        &server,
        &["import", &file, "--concurrency", "8", "--output", "json"],
    )
    .json();
    assert_eq!(
        (&done["lines"], &done["accepted"]),
        (&json!(51), &json!(51)),
        "{done}"
    );
    let again = client(&server, &["import", &file, "--output", "json"]).json();
    assert_eq!(again["replayed"], 51, "{again}");
    let refused = format!(
        "{}\n",
        line(
            "register",
            json!({"name": "A thing", "price": {"amount": 5, "currency": "USD"}})
        )
    );
    let words = ["import", "-", "--output", "json", "--url", &server.url];
    let refused = server.home.run_with_input(&words, &refused);
    let summary: Value = serde_json::from_str(refused.exits(1)).unwrap();
    assert_eq!(summary["by_code"]["already_registered"], 1, "{summary}");
    client(&server, &["import", "/no/such/file"]).exits(2);
}

#[tokio::test]
async fn tail_and_audit_show_records_readably_and_follow_them() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let sku = shop.product(500, 5).await;
    let stream = format!("product-{sku}");
    let shown = client(&server, &["tail", "--stream", &stream]);
    let lines: Vec<_> = shown.exits(0).lines().collect();
    assert_eq!(lines.len(), 2, "{}", shown.stdout);
    assert!(
        lines[0].contains("register") && lines[1].contains("product.stock_received"),
        "{}",
        shown.stdout
    );
    let history = client(&server, &["audit", "history", &stream, "--output", "ndjson"]);
    assert_eq!(history.exits(0).lines().count(), 2);
    let state = client(
        &server,
        &["audit", "state", &stream, "--version", "1", "--output", "json"],
    )
    .json();
    assert_eq!((&state["version"], &state["stream"]), (&json!(1), &json!(stream)));
    client(
        &server,
        &["audit", "history", &format!("product-{}", unique("P"))],
    )
    .exits(1);

    let mut follow = server
        .home
        .command(&["tail", "--stream", &stream, "--follow", "--url", &server.url]);
    let mut follow = follow
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(follow.stdout.take().unwrap()).lines();
    lines.by_ref().take(2).for_each(drop);
    shop.done(
        &format!("/v1/products/{sku}/adjust"),
        &json!({"delta": 1, "reason": "found"}),
    )
    .await;
    let next = tokio::task::spawn_blocking(move || lines.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(next.contains("adjust"), "{next}");
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[tokio::test]
async fn the_log_is_described_and_found_whole() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    shop.product(500, 5).await;
    let described = server.home.run(&["log", "describe", "--output", "json"]);
    let text = described.exits(0);
    assert!(text.contains("postgres") && text.contains("16"), "{text}");
    server.home.run(&["log", "check"]).exits(0);
    let report = server.home.run(&["log", "check", "--output", "json"]);
    assert!(
        serde_json::from_str::<Value>(report.exits(0)).is_ok(),
        "{}",
        report.stdout
    );
}

/// Some file under a folder.
fn first_file(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files
        .into_iter()
        .next()
        .or_else(|| folders.iter().find_map(|folder| first_file(folder)))
}

#[tokio::test]
async fn projections_processes_migrations_and_schemas_say_how_they_stand() {
    let Some(server) = SERVER.get() else { return };
    let shop = Shop::of(&server);
    let (sku, customer) = (shop.product(500, 5).await, shop.customer().await);
    let placed = shop
        .place(&customer, "2007-01-02", "tok_hang", &[(&sku, 1, 500)])
        .await;
    shop.payment_is(&placed, "requested").await;
    let home = &server.home;
    let listed = home.run(&["projections", "list"]);
    for name in [
        "orders",
        "products",
        "customers",
        "daily_sales",
        "payments",
        "order_lines",
    ] {
        assert!(listed.exits(0).contains(name), "{}", listed.stdout);
    }
    let status = home.run(&["projections", "status", "--output", "json"]).json();
    assert_eq!(status.as_array().unwrap().len(), 6);
    let processes = home.run(&["processes", "list", "--output", "json"]);
    assert!(processes.exits(0).contains("checkout"), "{}", processes.stdout);
    let shown = home.run(&["processes", "show", "checkout", &placed.order]);
    assert!(shown.exits(0).contains(&placed.order), "{}", shown.stdout);
    home.run(&["processes", "show", "checkout", &uuid()]).exits(1);
    home.run(&["migrate", "status"]).exits(0);
    let dir = home.dir().join("schemas").display().to_string();
    home.run(&["schemas", "write", "--dir", &dir]).exits(0);
    home.run(&["schemas", "check", "--dir", &dir]).exits(0);
    let file = first_file(std::path::Path::new(&dir)).expect("schemas were written");
    std::fs::write(file, "{}\n").unwrap();
    home.run(&["schemas", "check", "--dir", &dir]).exits(1);
}

#[tokio::test]
async fn the_committed_projections_pass_their_own_tests() {
    let Some(home) = Home::with_database() else { return };
    home.run(&["projections", "check"]).exits(2);
    home.run(&["migrate", "up"]).exits(0);
    let checked = home.run(&["projections", "check"]);
    assert!(checked.exits(0).contains("daily_sales: ok"), "{}", checked.stdout);
}

#[test]
fn settings_are_explained_and_wrong_ones_refused_with_the_nearest_known_name() {
    let home = Home::private();
    let effective = home.run(&["config"]);
    assert!(
        effective.exits(0).contains("snapshot_every"),
        "{}",
        effective.stdout
    );
    home.set("ANNALS__HTTP__BODY_BYTES", "128 KiB");
    home.set("ANNALS_DATABASE_URL", "postgres://ada:open-sesame@localhost/shop");
    let explained = home.run(&["config", "--explain"]);
    assert!(
        explained.exits(0).contains("ANNALS__HTTP__BODY_BYTES"),
        "{}",
        explained.stdout
    );
    assert!(
        !explained.stdout.contains("open-sesame"),
        "secrets print as stars: {}",
        explained.stdout
    );
    home.set("ANNALS__HTTP__BODY_BITES", "1");
    let wrong = home.run(&["config"]);
    wrong.exits(2);
    assert!(wrong.stderr.contains("body_bytes"), "{}", wrong.stderr);
}

#[test]
fn wrong_usage_is_2_and_a_server_that_is_not_there_is_3() {
    let home = Home::private();
    home.run(&["fly"]).exits(2);
    home.run(&["send", "products"]).exits(2);
    home.run(&["token"]).exits(2);
    home.run(&["get", "orders", "--url", "http://127.0.0.1:9"])
        .exits(2);
    let _ = home.token("clerk", "somebody");
    let nobody = home.run(&["get", "orders", "--url", "http://127.0.0.1:9"]);
    nobody.exits(3);
    assert!(
        nobody.stderr.contains("127.0.0.1:9"),
        "says what was tried: {}",
        nobody.stderr
    );
    let help = home.run(&["--help"]);
    for command in [
        "dev",
        "serve",
        "send",
        "import",
        "get",
        "tail",
        "token",
        "projections",
        "audit",
        "bench",
    ] {
        assert!(help.exits(0).contains(command), "{}", help.stdout);
    }
    let serve = home.run(&["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]);
    serve.exits(2);
    assert!(!serve.stderr.is_empty(), "says which setting is missing");
}

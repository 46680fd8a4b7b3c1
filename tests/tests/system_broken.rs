//! A journal that somebody changed behind the program's back: the shard halts, the stream is refused, all others go on.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::net::TcpListener;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_tests::api::shard_of;
use annals_tests::{Api, Home, Shop};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

/// How long a condition may take to come true; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

fn receive() -> Value {
    json!({"quantity": 1, "reference": "delivery"})
}

/// A `dev` that never says that it is ready.
struct Unready {
    child: Child,
    url: String,
    ops: String,
}

impl Unready {
    fn start(home: &Arc<Home>) -> Self {
        let free = || {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .to_string()
        };
        let (listen, ops) = (free(), free());
        let mut command = home.command(&["dev", "--listen", &listen, "--ops-listen", &ops]);
        let log = std::fs::File::create(home.dir().join("unready.log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        Self {
            child,
            url: format!("http://{listen}"),
            ops: format!("http://{ops}"),
        }
    }

    /// Waits until readiness says all of this; its whole text.
    async fn says(&mut self, what: &[String]) -> String {
        let (ops, until) = (Api::new(&self.ops, None), Instant::now() + PATIENCE);
        let mut last = String::new();
        loop {
            assert!(self.child.try_wait().unwrap().is_none(), "it goes on");
            assert!(Instant::now() < until, "never {what:?}: {last}");
            if let Ok(answer) = ops.call("GET", "/readyz").try_send().await {
                last = answer.text();
                let no_owner = last.contains("has no owner yet");
                if answer.status == 503 && !no_owner && what.iter().all(|what| last.contains(what)) {
                    return last;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Unready {
    fn drop(&mut self) {
        // The shell's own: a minimal system has no program of this name.
        let word = format!("kill -s TERM {}", self.child.id());
        let _ = Command::new("sh").args(["-c", &word]).status();
        let _ = self.child.wait();
    }
}

/// As a superuser who knows what he does.
async fn tamper(url: &str, statement: &'static str, values: (String, i32)) {
    let mut database = PgConnection::connect(url).await.unwrap();
    database
        .execute("ALTER TABLE annals.journal DISABLE TRIGGER journal_append_only")
        .await
        .unwrap();
    let done = sqlx::query(statement)
        .bind(values.0)
        .bind(values.1)
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(done.rows_affected(), 1, "{statement}");
    database
        .execute("ALTER TABLE annals.journal ENABLE ALWAYS TRIGGER journal_append_only")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_shard_whose_journal_was_changed_halts_a_stream_with_a_gap_is_refused_and_all_else_goes_on() {
    let Some(home) = Home::with_database() else { return };
    let server = home.dev();
    let shop = Shop::of(&server);
    // Three products in three shards.
    let mut skus: Vec<(u32, String)> = Vec::new();
    while skus.len() < 3 {
        let sku = shop.product(100, 5).await;
        let shard = shard_of(&format!("product-{sku}"));
        if skus.iter().all(|(other, _)| *other != shard) {
            skus.push((shard, sku));
        }
    }
    let path = |sku: &str| format!("/v1/products/{sku}/receive");
    for (_, sku) in &skus {
        shop.done(&path(sku), &receive()).await;
        shop.product_is(sku, 6, 0).await;
    }
    server.stop();
    let [(halted, changed), (_, gap), (_, whole)] = skus.try_into().unwrap();

    let url = home.database().url();
    // The last record of a shard is another one now; of a stream in another shard one in the middle is away.
    tamper(
        &url,
        "UPDATE annals.journal SET value = value || ' '::bytea WHERE $1 = 'value' AND shard = $2
         AND log_offset = (SELECT next_offset - 1 FROM annals.log_head WHERE shard = $2)",
        ("value".to_owned(), i32::try_from(halted).unwrap()),
    )
    .await;
    tamper(
        &url,
        "DELETE FROM annals.journal WHERE stream = $1 AND version = $2",
        (format!("product-{gap}"), 2),
    )
    .await;

    let mut server = Unready::start(&home);
    let said = server.says(&[format!("shard {halted} is halted")]).await;
    assert_eq!(said.matches("is halted").count(), 1, "only that one: {said}");
    let api = Api::new(&server.url, Some(home.token("admin", "tester")));

    let refused = api.post(&path(&changed), &receive()).await;
    let problem = refused.problem(503, "shard-halted");
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert_eq!(problem["type"], "/problems/shard-halted");
    assert!(problem["correlation_id"].is_string(), "{problem}");
    api.get(&format!("/v1/products/{changed}")).await.is(200);

    let failed = api.post(&path(&gap), &receive()).await;
    let problem = failed.problem(500, "internal");
    let words = problem.to_string();
    assert!(
        !words.contains(&gap.to_lowercase()) && !words.contains("gap") && !words.contains("version"),
        "no internals: {words}"
    );
    assert!(problem["correlation_id"].is_string(), "{problem}");

    let done = api.post_for_good(&path(&whole), "behind-it", &receive()).await;
    assert_eq!(done.is(200).json()["version"], 4);

    let metrics = Api::new(&server.ops, None).get("/metrics").await.is(200).text();
    let has = |line: &str| metrics.lines().any(|found| found == line);
    assert!(
        has(&format!("annals_shard_halted{{shard=\"{halted}\"}} 1")),
        "{metrics}"
    );
    assert!(
        has("annals_log_invariants_broken_total{id=\"L2\"} 1"),
        "{metrics}"
    );
}

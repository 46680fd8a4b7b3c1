//! Node roles in separate processes that share a database, each with logins that may do its own work only.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::fmt::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_tests::api::shard_of;
use annals_tests::follow::Follower;
use annals_tests::shop::order_data;
use annals_tests::{Api, Home, Server, Shop, unique, uuid};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The database roles of nodes: the setting's name, which is also the end of the group's.
const LOGINS: [&str; 6] = ["command", "indexer", "projector", "process", "query", "audit"];

/// Login roles of one test, each in one group; dropped with it.
struct Logins {
    prefix: String,
    pool: PgPool,
}

impl Logins {
    async fn make(home: &Home) -> Self {
        let logins = Self {
            prefix: unique("annals_test_"),
            pool: home.database().pool().await,
        };
        for role in LOGINS {
            let sql = format!("CREATE ROLE {}_{role} LOGIN IN ROLE annals_{role}", logins.prefix);
            sqlx::query(AssertSqlSafe(sql))
                .execute(&logins.pool)
                .await
                .unwrap();
        }
        logins
    }

    /// The database's URL with this login.
    fn url(&self, home: &Home, role: &str) -> String {
        let url = home.database().url();
        let (_, rest) = url.split_once("://").unwrap();
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("postgres://{}_{role}@{host}", self.prefix)
    }

    async fn drop(self) {
        for role in LOGINS {
            let sql = format!("DROP ROLE {}_{role}", self.prefix);
            sqlx::query(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
        }
        self.pool.close().await;
    }
}

/// 32 bytes that nobody else may read.
fn key_file(home: &Home, name: &str) -> String {
    let path = home.dir().join(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    std::io::Write::write_all(&mut file, &annals_tests::key()).unwrap();
    path.display().to_string()
}

/// The file of settings that all nodes share; each is told its roles by a flag.
fn settings(home: &Home, logins: &Logins, gateway: &str) -> String {
    let mut text = String::from("[database]\n");
    for role in LOGINS {
        writeln!(text, "{role} = \"{}\"", logins.url(home, role)).unwrap();
    }
    let [node, cursor, subject] = ["node.key", "cursor.key", "subject.key"].map(|name| key_file(home, name));
    let jwks = home.data_dir().join("issuer.jwks");
    write!(
        text,
        "[node]\nkey_file = \"{node}\"\n[http]\ncursor_key_file = \"{cursor}\"\n\
         [auth]\nsubject_key_file = \"{subject}\"\njwks_file = \"{}\"\n\
         [commerce]\ngateway_url = \"{gateway}\"\n",
        jwks.display()
    )
    .unwrap();
    let path = home.dir().join("annals.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

struct Cluster {
    home: Arc<Home>,
    logins: Logins,
    config: String,
    stop_gateway: CancellationToken,
    gateways: JoinSet<std::io::Result<()>>,
}

impl Cluster {
    /// Tables, a log, logins, a gateway; no node yet.
    async fn prepare() -> Option<Self> {
        let home = Home::with_database()?;
        home.run(&["migrate", "up"]).exits(0);
        home.run(&["log", "create"]).exits(0);
        let _ = home.token("admin", "tester");
        let logins = Logins::make(&home).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = format!("http://{}", listener.local_addr().unwrap());
        let stop_gateway = CancellationToken::new();
        let mut gateways = JoinSet::new();
        gateways.spawn(commerce::gateway::sandbox::serve(listener, stop_gateway.clone()));
        let config = settings(&home, &logins, &gateway);
        // From here on nothing runs as the server's superuser.
        home.unset("ANNALS_DATABASE_URL");
        Some(Self {
            home,
            logins,
            config,
            stop_gateway,
            gateways,
        })
    }

    fn node(&self, roles: &str) -> Server {
        let words = [
            "serve",
            "--roles",
            roles,
            "--config",
            &self.config,
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
        ];
        Server::start(&self.home, &words)
    }

    async fn end(self) {
        self.stop_gateway.cancel();
        for served in self.gateways.join_all().await {
            served.unwrap();
        }
        self.logins.drop().await;
    }
}

/// Commands to one address, queries to another, as a load balancer would.
async fn order_lives(commands: &Api, reads: &Shop, day: &str) {
    let (sku, customer, order) = (unique("P"), uuid(), uuid());
    let register = json!({"name": "A thing", "price": {"amount": 500, "currency": "USD"}});
    commands
        .post(&format!("/v1/products/{sku}/register"), &register)
        .await
        .is(201);
    let receive = json!({"quantity": 10, "reference": "delivery"});
    commands
        .post(&format!("/v1/products/{sku}/receive"), &receive)
        .await
        .is(200);
    let person = json!({"name": "Ada", "email": "ada@example.com"});
    commands
        .post(&format!("/v1/customers/{customer}/register"), &person)
        .await
        .is(201);
    let place = order_data(&customer, day, "tok_ok", &[(&sku, 3, 500)]);
    commands
        .post(&format!("/v1/orders/{order}/place"), &place)
        .await
        .is(201);
    let confirmed = reads.order_is(&order, "confirmed").await;
    let sales = reads.row(&format!("/v1/daily_sales/{day},USD"), &confirmed).await;
    assert_eq!(sales["revenue"], 1500);
    let who = reads.row(&format!("/v1/customers/{customer}"), &confirmed).await;
    assert_eq!(
        who["name"], "Ada",
        "decrypted by another process than the one that encrypted it"
    );
    commands
        .post(
            &format!("/v1/orders/{order}/ship"),
            &json!({"carrier": "Owl", "tracking": "1"}),
        )
        .await
        .is(200);
    reads.order_is(&order, "shipped").await;
    reads.product_is(&sku, 7, 0).await;
    let delivered = commands
        .post(&format!("/v1/orders/{order}/deliver"), &json!({}))
        .await;
    assert_eq!(
        reads.row(&format!("/v1/orders/{order}"), &delivered).await["status"],
        "delivered"
    );
}

#[tokio::test]
async fn an_order_lives_across_nodes_with_different_roles_and_each_answers_421_for_the_others() {
    let Some(cluster) = Cluster::prepare().await else {
        return;
    };
    let commands = cluster.node("command,process");
    let reads = cluster.node("projector,query,audit");
    let (command, query) = (commands.api("admin"), Shop::of(&reads));
    order_lives(&command, &query, "2008-01-02").await;

    let misdirected = command.get("/v1/orders").await;
    assert_eq!(misdirected.problem(421, "misdirected")["role"], "query");
    let misdirected = command.get("/v1/audit/shards").await;
    assert_eq!(misdirected.problem(421, "misdirected")["role"], "audit");
    let misdirected = query
        .admin
        .post(&format!("/v1/orders/{}/cancel", uuid()), &json!({"reason": "x"}))
        .await;
    assert_eq!(misdirected.problem(421, "misdirected")["role"], "command");
    assert_eq!(
        query
            .admin
            .get("/v1/audit/shards")
            .await
            .data()
            .as_array()
            .unwrap()
            .len(),
        16
    );
    for node in [&commands, &reads] {
        node.operations(None).get("/readyz").await.is(200);
    }
    commands.stop();
    reads.stop();
    cluster.end().await;
}

#[tokio::test]
async fn commands_may_be_sent_to_any_command_node_and_one_that_stops_hands_its_shards_over() {
    let Some(cluster) = Cluster::prepare().await else {
        return;
    };
    let first = cluster.node("command,process");
    let second = cluster.node("command");
    let reads = cluster.node("projector,query,audit");
    let (one, two) = (first.api("admin"), second.api("admin"));
    // One stream in each shard, so that whoever owns what, both ways of asking are met.
    let mut skus: Vec<Option<String>> = vec![None; 16];
    while skus.iter().any(Option::is_none) {
        let sku = unique("P");
        let shard = usize::try_from(shard_of(&format!("product-{sku}"))).unwrap();
        skus[shard].get_or_insert(sku);
    }
    let receive = json!({"quantity": 1, "reference": "delivery"});
    for sku in skus.iter().flatten() {
        let register = json!({"name": "A thing", "price": {"amount": 500, "currency": "USD"}});
        one.post_for_good(&format!("/v1/products/{sku}/register"), &unique("k"), &register)
            .await
            .is(201);
        let (path, key) = (format!("/v1/products/{sku}/receive"), unique("k"));
        let there = two.post_for_good(&path, &key, &receive).await;
        let here = one.post_for_good(&path, &key, &receive).await;
        assert_eq!(
            there.is(200).text(),
            here.is(200).text(),
            "the same key at another node is the same command"
        );
    }
    order_lives(&two, &Shop::of(&reads), "2008-01-03").await;
    second.stop();
    for sku in skus.iter().flatten() {
        let answer = one
            .post_for_good(&format!("/v1/products/{sku}/receive"), &unique("k"), &receive)
            .await;
        assert_eq!(
            answer.is(200).json()["version"],
            3,
            "every shard has an owner again"
        );
    }
    first.stop();
    reads.stop();
    cluster.end().await;
}

#[tokio::test]
async fn outside_dev_a_login_that_may_do_too_much_is_refused() {
    let Some(cluster) = Cluster::prepare().await else {
        return;
    };
    let superuser = cluster.home.database().url();
    cluster.home.set("ANNALS__DATABASE__COMMAND", &superuser);
    let words = [
        "serve",
        "--roles",
        "command",
        "--config",
        &cluster.config,
        "--listen",
        "127.0.0.1:0",
        "--ops-listen",
        "127.0.0.1:0",
    ];
    let refused = cluster.home.run(&words);
    refused.exits(2);
    assert!(
        refused.stderr.contains("database.command"),
        "says which setting: {}",
        refused.stderr
    );
    cluster.end().await;
}

/// Three query nodes, a client that asks them in turn. With its token it always sees its own write; without, it is
/// told how stale the answer may be.
#[tokio::test]
async fn a_client_with_a_token_sees_its_own_write_on_three_query_nodes() {
    let Some(cluster) = Cluster::prepare().await else {
        return;
    };
    let writes = cluster.node("command,process,projector");
    let queries = [(); 3].map(|()| cluster.node("query"));
    let commands = writes.api("admin");
    let reads = [0, 1, 2].map(|n: usize| queries[n].api("admin"));
    let sku = unique("P");
    let register = json!({"name": "A thing", "price": {"amount": 500, "currency": "USD"}});
    let path = format!("/v1/products/{sku}");
    let registered = commands.post(&format!("{path}/register"), &register).await;
    reads[0].get_after(&path, registered.is(201).position()).await.is(200);
    let mut live = Follower::begin(&reads[1], &path, None).await;
    live.until(|held| held.len() == 1).await;
    let receive = json!({"quantity": 1, "reference": "delivery"});
    let (mut stale, mut asked, mut worst) = (0, 0, Duration::ZERO);
    for number in 1..=60 {
        let written = commands.post(&format!("{path}/receive"), &receive).await;
        let position = written.is(200).position().to_owned();
        let since = Instant::now();
        // Without the token: at once, and as old as it happens to be; never from the future, and it says its position.
        let reader = &reads[number % 3];
        let now = reader.get(&path).await;
        let shown = now.data()["on_hand"].as_u64().unwrap();
        assert!(shown <= number as u64);
        assert!(now.header("annals-lag-ms").unwrap().parse::<u64>().is_ok());
        let (shard, offset) = position.split_once(':').unwrap();
        let (shard, offset): (u32, u64) = (shard.parse().unwrap(), offset.parse().unwrap());
        let folded = now.position_in(shard).unwrap();
        assert_eq!(shown == number as u64, folded >= offset, "rows and positions are of one moment");
        asked += 1;
        stale += u32::from(folded < offset);
        // With it: on every node, whichever is asked first.
        for turn in 0..3 {
            let reader = &reads[(number + turn) % 3];
            let list = "/v1/products?name=A%20thing&fields=sku,on_hand";
            for path in [path.as_str(), list] {
                let answer = reader.get_after(path, &position).await;
                assert!(answer.position_in(shard).unwrap() >= offset);
                let data = answer.data();
                let row = data.as_array().map_or(&data, |rows| &rows[0]);
                assert_eq!(row["on_hand"], number, "own write not seen on node {turn}");
            }
            if turn == 0 {
                worst = worst.max(since.elapsed());
            }
        }
    }
    eprintln!("without a token {stale} of {asked} answers were stale; with it the own write was seen within {worst:?}");
    live.until(|held| held[&sku]["data"]["on_hand"] == 60).await;
    assert_eq!((live.snapshots, live.repeats), (1, 0));
    // The node that served it goes; another one goes on behind the last event.
    let [first, second, third] = queries;
    second.stop();
    live.to_the_end().await;
    commands.post(&format!("{path}/receive"), &receive).await.is(200);
    let mut live = Follower::begin(&reads[2], &path, Some(&live)).await;
    live.until(|held| held[&sku]["data"]["on_hand"] == 61).await;
    assert_eq!((live.snapshots, live.repeats), (1, 0));
    drop(live);
    for node in [first, third, writes] {
        node.stop();
    }
    cluster.end().await;
}

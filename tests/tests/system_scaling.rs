//! Command nodes come and go under load: shards are balanced, handed over and taken over, and clients see no more than
//! 503s that may be repeated. The figures are printed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use annals_record::KeyHash;
use annals_tests::fault::client::Clients;
use annals_tests::fault::history::At;
use annals_tests::fault::plan::Kind;
use annals_tests::fault::setup::Ground;
use annals_tests::fault::{Options, SHARDS, answered, check, log, shard_count, start_load};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

/// How long shards may take to find their nodes; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A ground with a load on it.
struct Loaded {
    ground: Ground,
    clients: Arc<Clients>,
    load: JoinSet<()>,
}

impl Loaded {
    async fn start(options: &Options) -> Self {
        // No fault is made by a plan here; the kind only must be one that needs nothing.
        let (ground, _) = Ground::prepare(options, vec![Kind::Kill]).await.unwrap();
        let clients = Clients::of(&ground, options);
        let streams = ground.register().await.unwrap();
        let load = start_load(&clients, &streams, 1);
        let loaded = Self {
            ground,
            clients,
            load,
        };
        loaded.all_answer().await;
        loaded
    }

    /// Waits until every shard has answered something that was asked after this call.
    async fn all_answer(&self) {
        let since = self.clients.now();
        let until = Instant::now() + PATIENCE;
        while !self.clients.all_answered_since(since) {
            let silent = self.clients.silent_since(since);
            assert!(Instant::now() < until, "shards {silent:?} do not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the nodes own all shards, each some; how many each.
    async fn balanced(&self) -> Vec<usize> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut owned = Vec::new();
            for node in self.ground.commands.iter().filter(|node| node.is_running()) {
                owned.push(node.owned().await);
            }
            let all = usize::try_from(SHARDS).unwrap();
            if owned.iter().sum::<usize>() == all && !owned.contains(&0) {
                return owned;
            }
            assert!(Instant::now() < until, "{owned:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the load and checks every promise.
    async fn checked(mut self) -> BTreeMap<String, u64> {
        self.clients.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.load.join_next().await {
            ended.unwrap();
        }
        self.clients.resolve(tokio::time::Instant::now() + PATIENCE).await;
        let contents = log::read(&self.ground.log, shard_count()).await.unwrap();
        let sent = self.clients.history();
        let mut findings = check::check(&sent, &contents.kept, |key| KeyHash::of(key).to_string());
        self.ground.end(&mut findings, false).await;
        assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
        eprintln!("{} commands, every promise kept", sent.len());
        self.clients.counts()
    }

    /// The longest silence of a shard from `from` to `to`.
    fn longest(&self, from: At, to: At) -> Duration {
        let silence = |times: &Vec<At>| {
            let first = times.partition_point(|at| *at < from).saturating_sub(1);
            let last = (times.partition_point(|at| *at <= to) + 1).min(times.len());
            let pairs = times[first..last].windows(2);
            pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        let answered = answered(&self.clients.history());
        answered.values().map(silence).max().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_one_node_to_four_and_back_clients_see_no_more_than_503s_that_may_be_repeated() {
    let options = Options {
        nodes: 1,
        lease_ms: 10_000,
        // Long, so that a busy machine alone makes no 504.
        deadline_ms: 30_000,
        ..Options::default()
    };
    let mut loaded = Loaded::start(&options).await;
    for nodes in 2..=4 {
        let began = loaded.clients.now();
        loaded.ground.add_command_node().await.unwrap();
        let owned = loaded.balanced().await;
        loaded.all_answer().await;
        let now = loaded.clients.now();
        eprintln!(
            "{nodes} nodes: {owned:?} shards after {:.2} s, longest silence of a shard {:.2} s",
            (now - began).as_secs_f64(),
            loaded.longest(began, now).as_secs_f64()
        );
    }
    for nodes in (1..=3).rev() {
        let began = loaded.clients.now();
        let took = loaded.ground.commands[nodes].term().await.unwrap();
        let owned = loaded.balanced().await;
        loaded.all_answer().await;
        let now = loaded.clients.now();
        eprintln!(
            "{nodes} nodes: {owned:?} shards, SIGTERM to exit {:.2} s, longest silence of a shard {:.2} s",
            took.as_secs_f64(),
            loaded.longest(began, now).as_secs_f64()
        );
        assert!(took < Duration::from_secs(10));
    }
    let counts = loaded.checked().await;
    eprintln!("{counts:#?}");
    let fine = [
        "200 ",
        "409 rejected",
        "412 version-mismatch",
        "503 shard-unavailable",
        "first answer given again",
        // Nothing was sent: a load balancer takes another node.
        "no connection",
    ];
    for (what, count) in &counts {
        assert!(
            fine.iter().any(|fine| fine.trim() == what),
            "{count} times `{what}`: clients must see answers and 503s that may be repeated"
        );
    }
}

/// What the takeover of a dead node's shards consists of, from the moment at which the last of its leases ended.
struct Takeover {
    /// From the kill to that moment.
    lease: Duration,
    /// Until the survivor had the leases.
    taken: Duration,
    /// Until its claims counted: the first, the last.
    claimed: (Duration, Duration),
    /// Until each of the shards had answered a command.
    answered: Duration,
}

/// The moment, by the database's clock, at which the last of a node's leases ends or ended, and its shards.
async fn leases_end(database: &mut PgConnection, node: &str) -> (DateTime<Utc>, Vec<u32>) {
    let rows: Vec<(String, i32, DateTime<Utc>)> = sqlx::query_as(
        "SELECT kind, shard, expires_at FROM annals.lease WHERE node = $1 AND kind IN ('node', 'command')",
    )
    .bind(node)
    .fetch_all(database)
    .await
    .unwrap();
    let shards = rows.iter().filter(|row| row.0 == "command");
    let shards = shards.map(|row| u32::try_from(row.1).unwrap()).collect();
    (rows.iter().map(|row| row.2).max().unwrap(), shards)
}

/// When a node wrote the lines that begin with this.
fn written_at(text: &str, what: &str) -> Vec<DateTime<Utc>> {
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = lines.filter(|line| {
        line["message"]
            .as_str()
            .is_some_and(|said| said.starts_with(what))
    });
    ours.map(|line| line["timestamp"].as_str().unwrap().parse().unwrap())
        .collect()
}

impl fmt::Display for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.claimed;
        write!(
            f,
            "leases ended {:.2?} after the kill; after that they were taken within {:.0?}, claims counted within {first:.0?} \
             to {last:.0?}, every shard had answered within {:.0?}",
            self.lease, self.taken, self.answered
        )
    }
}

impl Loaded {
    /// Kills the second node and waits until its shards answer.
    async fn take_over(&mut self) -> Takeover {
        let url = self.ground.postgres.url();
        let mut database = PgConnection::connect(&url).await.unwrap();
        let dead = self.ground.commands[1].id();
        let (killed, wall) = (self.clients.now(), Utc::now());
        self.ground.commands[1].kill().await;
        // A renewal that was on its way when the node died has arrived by then; none has been taken over yet.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (ends, shards) = leases_end(&mut database, &dead).await;
        let since = |time: DateTime<Utc>| (time - ends).to_std().unwrap_or_default();
        let lease = (ends - wall).to_std().unwrap();
        self.all_answer().await;
        let ended = killed + lease;
        let history = answered(&self.clients.history());
        let answered = shards.iter().map(|shard| {
            let times = &history[shard];
            times[times.partition_point(|at| *at < ended)] - ended
        });
        let text = self.ground.commands[0].written(&self.ground.shared);
        let taken = written_at(&text, "leases of shards are taken");
        let mut owner = written_at(&text, "owner");
        owner.retain(|time| *time > ends);
        Takeover {
            lease,
            taken: since(taken.last().copied().unwrap()),
            claimed: (since(owner[0]), since(*owner.last().unwrap())),
            answered: answered.max().unwrap(),
        }
    }

    /// Waits until so many commands were answered as `ANNALS_TEST_LOG_RECORDS` (0) says: for measuring on longer logs.
    async fn grown(&self) {
        let wanted = std::env::var("ANNALS_TEST_LOG_RECORDS").ok();
        let wanted = wanted.map_or(0, |text| text.parse().unwrap());
        while self.clients.history().len() < wanted {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        eprintln!("the log has {} records of clients", self.clients.history().len());
    }

    /// How long a command took in the middle, of those that were answered since.
    fn round_trip(&self, since: At) -> Duration {
        let mut took: Vec<Duration> = self
            .clients
            .history()
            .iter()
            .filter(|sent| sent.began >= since)
            .map(|sent| sent.ended - sent.began)
            .collect();
        took.sort();
        took[took.len() / 2]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_nodes_shards_answer_within_a_second_of_the_end_of_its_leases() {
    let options = Options {
        nodes: 2,
        lease_ms: 3_000,
        ..Options::default()
    };
    let mut loaded = Loaded::start(&options).await;
    loaded.balanced().await;
    loaded.grown().await;
    // What this machine makes of a round trip now.
    let calm = loaded.clients.now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let round_trip = loaded.round_trip(calm);
    let takeover = loaded.take_over().await;
    eprintln!("a command takes {round_trip:.0?} in the middle; {takeover}");
    assert!(
        takeover.lease <= options.lease(),
        "a dead node's leases end by then"
    );
    // Nine round trips lead from the end of a lease to an answer; a machine on which they take longer cannot do it.
    let limit = Duration::from_secs(1).max(10 * round_trip);
    assert!(
        takeover.answered <= limit,
        "{takeover}, and {limit:?} is the limit"
    );
    loaded.checked().await;
}

//! Command nodes come and go under load: shards are balanced, handed over and taken over, and clients see no more than
//! 503s that may be repeated. The figures are printed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a test is its own composition root")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use annals_record::KeyHash;
use annals_tests::fault::client::Clients;
use annals_tests::fault::history::At;
use annals_tests::fault::plan::Kind;
use annals_tests::fault::setup::Ground;
use annals_tests::fault::{Options, SHARDS, answered, check, log, shard_count, start_load};
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
        let (ground, _, _) = Ground::prepare(options, vec![Kind::Kill]).await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_nodes_shards_are_taken_over_within_the_lease_and_a_second() {
    let options = Options {
        nodes: 2,
        lease_ms: 4_000,
        ..Options::default()
    };
    let mut loaded = Loaded::start(&options).await;
    let owned = loaded.balanced().await;
    // What this machine makes of a second now: nothing else of the load is a matter of the takeover.
    let calm = loaded.clients.now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = loaded.longest(calm, loaded.clients.now());
    let began = loaded.clients.now();
    loaded.ground.commands[1].kill().await;
    loaded.all_answer().await;
    let longest = loaded.longest(began, loaded.clients.now());
    let limit = options.lease() + Duration::from_secs(1);
    eprintln!(
        "kill -9 of the owner of {} of {SHARDS} shards: longest silence of a shard {:.2} s (lease {:.0} s + 1 s); \
         without a kill {:.2} s",
        owned[1],
        longest.as_secs_f64(),
        options.lease().as_secs_f64(),
        busy.as_secs_f64()
    );
    // Nine steps lead from an expired lease to an answer, each as slow as the machine is.
    assert!(
        longest <= limit + 9 * busy,
        "{longest:?}, with {busy:?} for a command"
    );
    loaded.checked().await;
}

//! The ground that a run stands on: server, log, logins, settings, nodes, products.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::check::{Findings, Kind as Promise, Violation};
use super::cluster::{Balancer, Node, Shared};
use super::log::Which;
use super::plan::Kind;
use super::postgres::Postgres;
use super::{Options, SHARDS, STREAMS, conduct};
use crate::api::{Api, shard_of};
use crate::server::Home;
use crate::unique;

/// Everything that runs.
#[derive(Debug)]
pub struct Ground {
    /// What nodes share.
    pub shared: Shared,
    /// Command nodes.
    pub commands: Vec<Node>,
    /// Projector and query nodes.
    pub readers: Vec<Node>,
    /// The server.
    pub postgres: Postgres,
    /// Where the log is.
    pub log: Which,
    /// A token that may do everything.
    pub token: String,
    kept: Option<PathBuf>,
}

impl Ground {
    /// Starts everything; which faults can be made here, and why the others cannot.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn prepare(
        options: &Options,
        kinds: Vec<Kind>,
    ) -> Result<(Self, Vec<Kind>, Vec<String>), String> {
        let home = Home::private();
        let (postgres, small) =
            Postgres::start(&home.dir().join("server"), kinds.contains(&Kind::Disk)).await;
        let mut skipped = Vec::new();
        let mut kinds = kinds;
        if let Err(why) = small {
            kinds.retain(|kind| *kind != Kind::Disk);
            skipped.push(format!("Disk: {why}"));
        }
        if kinds.is_empty() {
            return Err(format!("no fault can be made here: {}", skipped.join("; ")));
        }
        home.set("ANNALS_DATABASE_URL", &postgres.url());
        home.set("ANNALS__LOG__KIND", &options.log);
        let log = match (options.log.as_str(), &options.brokers) {
            ("postgres", _) => Which::Postgres(postgres.url()),
            ("kafka", Some(brokers)) => {
                let topic = unique("faults.");
                home.set("ANNALS_KAFKA_BROKERS", brokers);
                home.set("ANNALS__LOG__TOPIC", &topic);
                let brokers = brokers.clone();
                if !brokers.contains(',') {
                    home.set("ANNALS__LOG__ALLOW_SINGLE_REPLICA", "true");
                }
                Which::Kafka { brokers, topic }
            }
            ("kafka", None) => return Err("--log kafka needs --brokers".to_owned()),
            (other, _) => return Err(format!("--log is postgres or kafka, not {other}")),
        };
        home.run(&["migrate", "up"]).exits(0);
        let alone = options
            .brokers
            .as_ref()
            .is_some_and(|brokers| !brokers.contains(','));
        let create: &[&str] = match alone {
            true => &["log", "create", "--replication", "1"],
            false => &["log", "create"],
        };
        home.run(create).exits(0);
        let token = home.token("admin", "tester");
        postgres.make_logins().await;
        home.unset("ANNALS_DATABASE_URL");
        let shared = Shared {
            config: settings(&home, options),
            home,
            commands: Balancer::default(),
            reads: Balancer::default(),
        };
        let mut ground = Self {
            commands: Vec::new(),
            readers: Vec::new(),
            shared,
            postgres,
            log,
            token,
            kept: None,
        };
        for number in 1..=options.nodes {
            let node = Node::new(
                &ground.shared,
                &ground.postgres,
                format!("command-{number}"),
                "command",
            )
            .await;
            ground.commands.push(node);
        }
        for (name, roles) in [("projector", "projector"), ("query", "query,audit")] {
            let node = Node::new(&ground.shared, &ground.postgres, name.to_owned(), roles).await;
            ground.readers.push(node);
        }
        for node in ground.commands.iter_mut().chain(&mut ground.readers) {
            node.start(&ground.shared);
        }
        let mut ready = Ok(());
        for node in ground.commands.iter_mut().chain(&mut ground.readers) {
            ready = ready.and(node.ready().await);
        }
        if let Err(what) = ready {
            ground.keep_logs();
            return Err(format!("{what}; what the nodes wrote: {:?}", ground.kept));
        }
        Ok((ground, kinds, skipped))
    }

    /// Registers the products, some of each shard.
    ///
    /// # Errors
    /// If one cannot be registered.
    pub async fn register(&self) -> Result<BTreeMap<u32, Vec<String>>, String> {
        let mut streams: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let shards = usize::try_from(SHARDS).expect("a small number");
        while streams.values().map(Vec::len).sum::<usize>() < shards * STREAMS {
            let stream = format!("product-{}", unique("P"));
            let of_shard = streams.entry(shard_of(&stream)).or_default();
            if of_shard.len() < STREAMS {
                of_shard.push(stream);
            }
        }
        let url = self
            .shared
            .commands
            .addresses()
            .pop()
            .ok_or("no command node is ready")?;
        let api = Api::new(&url, Some(self.token.clone()));
        let product = json!({"name": "A thing", "price": {"amount": 100, "currency": "USD"}});
        for stream in streams.values().flatten() {
            let path = format!("/v1/products/{}/register", stream.trim_start_matches("product-"));
            let answer = api.post_for_good(&path, &unique("setup-"), &product).await;
            if answer.status != 201 {
                return Err(format!("{path}: {} {}", answer.status, answer.text()));
            }
        }
        Ok(streams)
    }

    /// One more command node; it is ready when this returns.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn add_command_node(&mut self) -> Result<(), String> {
        let name = format!("command-{}", self.commands.len() + 1);
        let mut node = Node::new(&self.shared, &self.postgres, name, "command").await;
        node.start(&self.shared);
        let ready = node.ready().await;
        self.commands.push(node);
        ready
    }

    /// The nodes that ended although nobody told them to.
    pub fn died(&mut self) -> Vec<String> {
        let all = self.commands.iter_mut().chain(&mut self.readers);
        all.filter_map(Node::died).collect()
    }

    /// Starts what does not run, so that the next fault meets a whole cluster.
    pub async fn start_missing(&mut self, findings: &mut Findings) {
        let mut started = Vec::new();
        for node in self.commands.iter_mut().chain(&mut self.readers) {
            if node.died().is_some() {
                node.kill().await;
            }
            if !node.is_running() {
                node.start(&self.shared);
                started.push(node);
            }
        }
        for node in started {
            if let Err(what) = node.ready().await {
                findings.violations.push(conduct(what));
            }
        }
    }

    /// Every product's row is what the log adds up to: each event was applied once.
    pub async fn compare_read_model(&self, checked: &Findings, ends: &[u64], findings: &mut Findings) {
        let Some(url) = self.shared.reads.addresses().pop() else {
            return findings
                .violations
                .push(conduct("no query node is ready".to_owned()));
        };
        let api = Api::new(&url, Some(self.token.clone()));
        let mut wrong = |what: String| {
            findings.violations.push(Violation {
                kind: Promise::ReadModel,
                what,
            });
        };
        for (stream, (stock, _)) in &checked.stock {
            let shard = shard_of(stream);
            let end = usize::try_from(shard)
                .ok()
                .and_then(|shard| ends.get(shard))
                .copied()
                .unwrap_or(0);
            let path = format!("/v1/products/{}", stream.trim_start_matches("product-"));
            let after = format!("{shard}:{}", end.saturating_sub(1));
            let mut answer = api.get_after(&path, &after).await;
            for _ in 0..6 {
                if answer.status == 503 {
                    answer = api.get_after(&path, &after).await;
                }
            }
            match answer.status {
                200 if answer.json()["data"]["on_hand"].as_i64() == Some(*stock) => {}
                _ => wrong(format!(
                    "{stream} has {stock} by the log: {} {}",
                    answer.status,
                    answer.text()
                )),
            }
        }
    }

    /// Ends every node as an operator would, and looks for panics in what they wrote.
    pub async fn end(&mut self, findings: &mut Findings, keep: bool) {
        for node in self.readers.iter_mut().chain(&mut self.commands) {
            if node.is_running()
                && let Err(what) = node.term().await
            {
                findings.violations.push(conduct(what));
            }
        }
        for (path, text) in self.logs() {
            if let Some(line) = text.lines().find(|line| line.contains("panicked")) {
                findings
                    .violations
                    .push(conduct(format!("{}: {line}", path.display())));
            }
        }
        if keep || !findings.violations.is_empty() {
            self.keep_logs();
        }
    }

    fn logs(&self) -> Vec<(PathBuf, String)> {
        let entries = std::fs::read_dir(self.shared.home.dir())
            .into_iter()
            .flatten()
            .flatten();
        let paths = entries.map(|entry| entry.path());
        let logs = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| {
            let text = std::fs::read(&path).unwrap_or_default();
            (path, String::from_utf8_lossy(&text).into_owned())
        })
        .collect()
    }

    /// What nodes wrote outlives the run.
    fn keep_logs(&mut self) {
        let folder = std::env::temp_dir().join(unique("annals-faults-"));
        if std::fs::create_dir_all(&folder).is_ok() {
            for (path, text) in self.logs() {
                let name = path.file_name().unwrap_or_default().to_owned();
                let _ = std::fs::write(folder.join(name), text);
            }
            self.kept = Some(folder);
        }
    }

    /// Where the nodes' logs are, if they were kept.
    #[must_use]
    pub fn logs_kept(&self) -> Option<PathBuf> {
        self.kept.clone()
    }
}

/// The file of settings that all nodes share.
fn settings(home: &Arc<Home>, options: &Options) -> String {
    let keys = ["node.key", "cursor.key", "subject.key"].map(|name| {
        let path = home.dir().join(name);
        let mut file = std::fs::OpenOptions::new();
        let file = file.write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(&crate::key()));
        written.expect("a key file can be written");
        path.display().to_string()
    });
    let [node, cursor, subject] = keys;
    let jwks = home.data_dir().join("issuer.jwks");
    let mut text = String::new();
    write!(
        text,
        "[node]\nkey_file = \"{node}\"\n[http]\ncursor_key_file = \"{cursor}\"\n\
         [auth]\nsubject_key_file = \"{subject}\"\njwks_file = \"{}\"\n\
         [lease]\nttl_ms = {}\n[command]\ndeadline_ms = {}\nrefusal_burst = 4000000\n\
         [log]\nshards = {SHARDS}\n[commerce]\ngateway_url = \"http://127.0.0.1:9\"\n",
        jwks.display(),
        options.lease_ms,
        options.deadline_ms
    )
    .expect("memory can be written");
    let path = home.dir().join("annals.toml");
    std::fs::write(&path, text).expect("the settings can be written");
    path.display().to_string()
}

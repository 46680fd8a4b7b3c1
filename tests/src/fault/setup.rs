//! The ground that a run stands on: server, log, logins, settings, nodes, products.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::brokers::Brokers;
use super::check::Findings;
use super::cluster::{Balancer, Node, Shared};
use super::log::Which;
use super::net::Net;
use super::orders::Gateway;
use super::plan::{Kind, Kinds};
use super::postgres::Postgres;
use super::{Options, SHARDS, STREAMS, conduct};
use crate::api::{Api, shard_of};
use crate::server::Home;
use crate::unique;

/// How long an order may wait for its confirmation, s: longer than most outages, shorter than a run.
pub const CHECKOUT_S: u64 = 60;

/// Nodes that run checkouts.
const PROCESSES: usize = 2;

/// Everything that runs.
#[derive(Debug)]
pub struct Ground {
    /// What nodes share.
    pub shared: Shared,
    /// Command nodes.
    pub commands: Vec<Node>,
    /// Nodes that run the checkouts.
    pub processes: Vec<Node>,
    /// Projector and query nodes.
    pub readers: Vec<Node>,
    /// What the checkouts ask for money, if there are any.
    pub gateway: Option<Gateway>,
    /// The server.
    pub postgres: Postgres,
    /// Where the log is.
    pub log: Which,
    /// A token that may do everything.
    pub token: String,
    /// The same for several callers, each with a budget of refusals of its own.
    pub tokens: Vec<String>,
    /// Brokers of the run's own, behind everything that uses them.
    pub brokers: Option<Brokers>,
    /// Namespaces of nodes and brokers, behind everything that runs in them.
    pub net: Option<Net>,
    kept: Option<PathBuf>,
}

impl Ground {
    /// Starts everything; which faults can be made here, and why the others cannot.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn prepare(options: &Options, kinds: Vec<Kind>) -> Result<(Self, Kinds), String> {
        let mut kinds = Kinds {
            made: kinds,
            skipped: Vec::new(),
        };
        let home = Home::private();
        let own_brokers = options.log == "kafka" && options.brokers.is_none();
        if !own_brokers {
            kinds.skip(Kind::is_of_brokers, "needs --log kafka, and no --brokers");
        }
        if options.orders == 0 {
            kinds.skip(Kind::is_of_processes, "needs --orders");
        }
        let mut net = network(&mut kinds);
        let small = kinds.any(|kind| kind == Kind::Disk);
        let (postgres, small) = Postgres::start(&home.dir().join("server"), small).await;
        if let Err(why) = small {
            kinds.skip(|kind| kind == Kind::Disk, &why);
        }
        if kinds.made.is_empty() {
            return Err(format!("no fault can be made here: {}", kinds.skipped.join("; ")));
        }
        home.set("ANNALS_DATABASE_URL", &postgres.url());
        home.set("ANNALS__LOG__KIND", &options.log);
        home.set("ANNALS__COMMAND__QUEUE_MS", &options.queue_ms.to_string());
        let (log, brokers) = log(&home, options, &postgres, net.as_mut())?;
        let tokens = ["tester", "tester-2", "tester-3", "tester-4"].map(|name| home.token("admin", name));
        postgres.make_logins().await;
        home.unset("ANNALS_DATABASE_URL");
        let at = net.as_ref().map_or(Ipv4Addr::LOCALHOST, Net::gateway);
        let gateway = match options.orders {
            0 => None,
            _ => Some(Gateway::start(at).await?),
        };
        let shared = Shared {
            config: settings(&home, options, gateway.as_ref()),
            home,
            commands: Balancer::default(),
            reads: Balancer::default(),
        };
        let mut ground = Self {
            commands: Vec::new(),
            processes: Vec::new(),
            readers: Vec::new(),
            gateway,
            shared,
            postgres,
            log,
            token: tokens[0].clone(),
            tokens: tokens.to_vec(),
            brokers,
            net,
            kept: None,
        };
        for number in 1..=options.nodes {
            let name = format!("command-{number}");
            let net = ground.net.as_mut();
            let node = Node::new(&ground.shared, &ground.postgres, name, "command", net).await?;
            ground.commands.push(node);
        }
        for (name, roles) in [("projector", "projector"), ("query", "query,audit")] {
            let node = Node::new(&ground.shared, &ground.postgres, name.to_owned(), roles, None).await?;
            ground.readers.push(node);
        }
        for number in 1..=ground.gateway.as_ref().map_or(0, |_| PROCESSES) {
            let name = format!("process-{number}");
            let node = Node::new(&ground.shared, &ground.postgres, name, "process", None).await?;
            ground.processes.push(node);
        }
        for node in all(&mut ground.commands, &mut ground.processes, &mut ground.readers) {
            node.start(&ground.shared);
        }
        let mut ready = Ok(());
        for node in all(&mut ground.commands, &mut ground.processes, &mut ground.readers) {
            ready = ready.and(node.ready(&ground.shared).await);
        }
        if let Err(what) = ready {
            ground.keep_logs();
            return Err(format!("{what}; what the nodes wrote: {:?}", ground.kept));
        }
        Ok((ground, kinds))
    }

    /// A command node, for somebody who may do everything.
    ///
    /// # Errors
    /// If none is ready.
    pub fn api(&self) -> Result<Api, String> {
        let url = self.shared.commands.addresses().pop();
        let url = url.ok_or("no command node is ready")?;
        Ok(Api::new(&url, Some(self.token.clone())))
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
        let api = self.api()?;
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
        let net = self.net.as_mut();
        let mut node = Node::new(&self.shared, &self.postgres, name, "command", net).await?;
        node.start(&self.shared);
        let ready = node.ready(&self.shared).await;
        self.commands.push(node);
        ready
    }

    /// The nodes that ended although nobody told them to.
    pub fn died(&mut self) -> Vec<String> {
        all(&mut self.commands, &mut self.processes, &mut self.readers)
            .filter_map(Node::died)
            .collect()
    }

    /// Starts what does not run, so that the next fault meets a whole cluster.
    pub async fn start_missing(&mut self, findings: &mut Findings) {
        let mut started = Vec::new();
        for node in all(&mut self.commands, &mut self.processes, &mut self.readers) {
            if node.died().is_some() {
                node.kill().await;
            }
            if !node.is_running() {
                node.start(&self.shared);
                started.push(node);
            }
        }
        for node in started {
            if let Err(what) = node.ready(&self.shared).await {
                findings.violations.push(conduct(what));
            }
        }
    }

    /// Ends every node as an operator would, and looks for panics in what they wrote.
    pub async fn end(&mut self, findings: &mut Findings, keep: bool) {
        for node in all(&mut self.readers, &mut self.processes, &mut self.commands) {
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

fn all<'a>(
    first: &'a mut [Node],
    second: &'a mut [Node],
    third: &'a mut [Node],
) -> impl Iterator<Item = &'a mut Node> {
    first.iter_mut().chain(second).chain(third)
}

/// A network of namespaces, if a fault needs one and it may be made.
fn network(kinds: &mut Kinds) -> Option<Net> {
    if !kinds.any(Kind::is_of_network) {
        return None;
    }
    match Net::make() {
        Ok(net) => Some(net),
        Err(why) => {
            kinds.skip(Kind::is_of_network, &why);
            None
        }
    }
}

/// Makes the log, and the brokers that it is on if they are to be the run's own.
fn log(
    home: &Home,
    options: &Options,
    postgres: &Postgres,
    net: Option<&mut Net>,
) -> Result<(Which, Option<Brokers>), String> {
    let mut own = None;
    let mut create = vec!["log", "create"];
    let log = match options.log.as_str() {
        "postgres" => Which::Postgres(postgres.url()),
        "kafka" => {
            let brokers = match &options.brokers {
                Some(brokers) => brokers.clone(),
                None => {
                    let started = tokio::task::block_in_place(|| Brokers::start(net))?;
                    own.insert(started).addresses().to_owned()
                }
            };
            let topic = unique("faults.");
            home.set("ANNALS_KAFKA_BROKERS", &brokers);
            home.set("ANNALS__LOG__TOPIC", &topic);
            if !brokers.contains(',') {
                home.set("ANNALS__LOG__ALLOW_SINGLE_REPLICA", "true");
                create.extend(["--replication", "1"]);
            }
            Which::Kafka { brokers, topic }
        }
        other => return Err(format!("--log is postgres or kafka, not {other}")),
    };
    home.run(&["migrate", "up"]).exits(0);
    home.run(&create).exits(0);
    if let (Some(brokers), Which::Kafka { topic, .. }) = (&mut own, &log) {
        brokers.watch(topic);
    }
    Ok((log, own))
}

/// The file of settings that all nodes share.
fn settings(home: &Arc<Home>, options: &Options, gateway: Option<&Gateway>) -> String {
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
         [lease]\nttl_ms = {}\n[command]\ndeadline_ms = {}\n\
         [log]\nshards = {SHARDS}\n[commerce]\ngateway_url = \"{}\"\ncheckout_timeout_s = {CHECKOUT_S}\n",
        jwks.display(),
        options.lease_ms,
        options.deadline_ms,
        gateway.map_or("http://127.0.0.1:9", |gateway| gateway.url.as_str())
    )
    .expect("memory can be written");
    let path = home.dir().join("annals.toml");
    std::fs::write(&path, text).expect("the settings can be written");
    path.display().to_string()
}

//! The nodes of a run: real processes, each with its own way to Postgres, behind a load balancer's health checks.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::net::{Net, Place};
use super::postgres::{LOGINS, Postgres};
use super::proxy::Proxy;
use crate::server::Home;

/// How often a node is asked whether it is ready, and how long it may take to say so.
const HEALTH: Duration = Duration::from_millis(100);
/// A node must end so long after SIGTERM.
const END: Duration = Duration::from_secs(10);
/// A node must become ready within this time, the machine being busy.
const START: Duration = Duration::from_secs(90);

/// One process, or the place where it will be again.
#[derive(Debug)]
pub struct Node {
    /// Its name, for the report.
    pub name: String,
    roles: &'static str,
    /// Between it and Postgres.
    pub proxy: Proxy,
    /// The network namespace that it runs in.
    pub place: Option<Place>,
    child: Option<Child>,
    slot: Arc<Slot>,
    tasks: JoinSet<()>,
    starts: u32,
}

/// Where a node answers now, as everybody else sees it.
#[derive(Debug, Default)]
struct Slot {
    addresses: Mutex<Option<(String, String)>>,
    ready: RwLock<bool>,
    /// It has said that it is ending: nobody goes there any more.
    ending: AtomicBool,
}

/// The addresses that clients may use: a load balancer.
#[derive(Debug, Clone, Default)]
pub struct Balancer(Arc<Mutex<Vec<Arc<Slot>>>>);

impl Balancer {
    /// Addresses of nodes that are ready; of all that run, if none is.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let slots = lock(&self.0).clone();
        let of = |slot: &Arc<Slot>| {
            let addresses = lock(&slot.addresses);
            let taken = addresses
                .as_ref()
                .filter(|_| !slot.ending.load(Ordering::Relaxed));
            taken.map(|(url, _)| url.clone())
        };
        let ready: Vec<String> = slots
            .iter()
            .filter(|slot| slot.is_ready())
            .filter_map(of)
            .collect();
        match ready.is_empty() {
            true => slots.iter().filter_map(of).collect(),
            false => ready,
        }
    }

    fn add(&self, slot: &Arc<Slot>) {
        lock(&self.0).push(Arc::clone(slot));
    }
}

impl Slot {
    fn is_ready(&self) -> bool {
        *self.ready.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_ready(&self, ready: bool) {
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = ready;
    }
}

/// What all nodes share.
#[derive(Debug)]
pub struct Shared {
    /// Folder, tokens, environment.
    pub home: Arc<Home>,
    /// The file of settings.
    pub config: String,
    /// For clients of commands.
    pub commands: Balancer,
    /// For readers.
    pub reads: Balancer,
}

impl Node {
    /// A node that does not run yet; with a network, it gets a namespace of its own.
    ///
    /// # Errors
    /// If there is no such namespace to be had.
    pub async fn new(
        shared: &Shared,
        postgres: &Postgres,
        name: String,
        roles: &'static str,
        net: Option<&mut Net>,
    ) -> Result<Self, String> {
        let from = net.as_ref().map_or(Ipv4Addr::LOCALHOST, |net| net.postgres());
        let place = net.map(Net::place).transpose()?;
        let slot = Arc::<Slot>::default();
        if roles.contains("command") {
            shared.commands.add(&slot);
        }
        if roles.contains("query") {
            shared.reads.add(&slot);
        }
        Ok(Self {
            name,
            roles,
            proxy: Proxy::to(postgres.socket(), from).await,
            place,
            child: None,
            slot,
            tasks: JoinSet::new(),
            starts: 0,
        })
    }

    /// Starts its process; [`Node::ready`] waits for it.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start(&mut self, shared: &Shared) {
        self.starts += 1;
        let own = self
            .place
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST, |place| place.address);
        let any = format!("{own}:0");
        let words = [
            "serve",
            "--roles",
            self.roles,
            "--config",
            &shared.config,
            "--listen",
            &any,
            "--ops-listen",
            &any,
        ];
        let log = File::create(self.log(shared)).expect("a log file can be made");
        let mut command = shared.home.command(&words);
        // Unique, as every start of a node is another one; and known, so that its leases can be told apart.
        command.env("ANNALS__NODE__ID", self.id());
        command.env("ANNALS__NODE__INTERNAL_LISTEN", &any);
        for role in LOGINS {
            let url = Postgres::url_through(role, self.proxy.address);
            command.env(format!("ANNALS__DATABASE__{}", role.to_uppercase()), url);
        }
        if let Some(place) = &self.place {
            command = place.within(&command);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("standard output is a pipe");
        self.child = Some(child);
        let slot = Arc::clone(&self.slot);
        self.tasks.spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let addresses = line
                    .strip_prefix("ready ")
                    .and_then(|line| line.split_once(" ops "));
                if let Some((url, ops)) = addresses {
                    *lock(&slot.addresses) = Some((url.to_owned(), ops.to_owned()));
                    slot.set_ready(true);
                    watch_health(&slot, ops).await;
                }
            }
        });
    }

    /// What it is called in the table of leases since it was started last. Shards are hashed over these names: with
    /// these, the first starts of two to four nodes get some each.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.name, self.starts)
    }

    /// What it has written since it was started last.
    #[must_use]
    pub fn written(&self, shared: &Shared) -> String {
        let bytes = std::fs::read(self.log(shared)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn log(&self, shared: &Shared) -> PathBuf {
        shared
            .home
            .dir()
            .join(format!("{}-{}.log", self.name, self.starts))
    }

    /// Waits until it says that it is ready.
    ///
    /// One that gives up before, since the database did not answer in time, is started again, as a supervisor would.
    ///
    /// # Errors
    /// If it takes too long.
    pub async fn ready(&mut self, shared: &Shared) -> Result<(), String> {
        let until = Instant::now() + START;
        let mut gave_up = String::new();
        while lock(&self.slot.addresses).is_none() {
            if let Some(died) = self.died() {
                gave_up = format!("; {died}");
                self.kill().await;
                self.start(shared);
            }
            if Instant::now() > until {
                return Err(format!(
                    "{} did not become ready within {START:?}{gave_up}",
                    self.name
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Where it listens for clients and for operators, once it is ready.
    #[must_use]
    pub fn addresses(&self) -> Option<(String, String)> {
        lock(&self.slot.addresses).clone()
    }

    /// How many shards it says that it owns.
    pub async fn owned(&self) -> usize {
        let Some((_, ops)) = self.addresses() else {
            return 0;
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client can be made");
        let Ok(answer) = client.get(format!("{ops}/metrics")).send().await else {
            return 0;
        };
        let text = answer.text().await.unwrap_or_default();
        let owned = |line: &&str| line.starts_with("annals_shard_owner{") && line.ends_with(" 1");
        text.lines().filter(owned).count()
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// How it ended, if it ended by itself.
    pub fn died(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        Some(format!(
            "{} (start {}) ended by itself: {status}",
            self.name, self.starts
        ))
    }

    /// Kills it.
    pub async fn kill(&mut self) {
        self.gone();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
    }

    /// Stops it where it stands, or lets it go on.
    pub fn pause(&self, paused: bool) {
        self.signal(if paused { "STOP" } else { "CONT" });
    }

    /// Ends it as an operator would; how long that took.
    ///
    /// # Errors
    /// If it does not end in time, or not with status 0.
    pub async fn term(&mut self) -> Result<Duration, String> {
        let began = Instant::now();
        self.signal("TERM");
        let Some(mut child) = self.child.take() else {
            return Err(format!("{} does not run", self.name));
        };
        let ended = tokio::time::timeout(END + Duration::from_secs(2), child.wait()).await;
        self.gone();
        match ended {
            Ok(Ok(status)) if status.success() => Ok(began.elapsed()),
            Ok(status) => Err(format!("{} ended with {status:?} after SIGTERM", self.name)),
            Err(_) => Err(format!("{} did not end within {END:?} of SIGTERM", self.name)),
        }
    }

    /// Whether a process of it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn gone(&mut self) {
        self.tasks.abort_all();
        self.slot.set_ready(false);
        *lock(&self.slot.addresses) = None;
        self.slot.ending.store(false, Ordering::Relaxed);
    }

    fn signal(&self, name: &str) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            // The shell's own: a minimal system has no program of this name.
            let _ = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("kill -s {name} {pid}"))
                .status();
        }
    }
}

/// Asks again and again whether a node is ready, as a load balancer does.
async fn watch_health(slot: &Slot, ops: &str) {
    let client = reqwest::Client::builder().no_proxy().timeout(3 * HEALTH).build();
    let Ok(client) = client else { return };
    loop {
        let answer = client.get(format!("{ops}/readyz")).send().await;
        slot.set_ready(answer.as_ref().is_ok_and(|answer| answer.status() == 200));
        if let Ok(answer) = answer
            && answer.status() == 503
            && answer.text().await.is_ok_and(|why| why.contains("shutting down"))
        {
            slot.ending.store(true, Ordering::Relaxed);
        }
        tokio::time::sleep(HEALTH).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

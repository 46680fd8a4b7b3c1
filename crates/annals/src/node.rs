//! A node: which parts it has, how they are put together, and how it ends.
//!
//! In reading order: [`role`] (what a node does), [`tasks`] (who runs, and what a panic means), [`databases`] (a pool
//! for each database role), [`log`], then a module for each node role, [`readiness`], [`edge`] (the listeners), [`admin`].

pub(crate) mod admin;
pub(crate) mod audit;
pub(crate) mod command;
pub(crate) mod databases;
pub(crate) mod edge;
pub(crate) mod indexing;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod process;
pub(crate) mod projector;
pub(crate) mod query;
pub(crate) mod readiness;
pub(crate) mod role;
pub(crate) mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annals_command::Standing;
use annals_domain::{Ambient, Catalog};
use annals_projection::Projections;
use annals_store::lease::{self, Leases, NodeId, PgLeases};
use annals_store::notify::Notifier;
use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::app::App;
use crate::config::{ConfigError, Settings};
use crate::exit::Answer;
use crate::node::databases::Databases;
use crate::node::keys::Keys;
use crate::node::log::OpenLog;
use crate::node::role::Role;
use crate::node::tasks::{Ended, Phase, Tasks};
use crate::telemetry;

/// How long everything has to end after a signal.
const END_WITHIN: Duration = Duration::from_millis(9_500);
/// How much of that others may take to claim this node's shards.
const HAND_OVER: Duration = Duration::from_secs(4);

/// What every part is built from.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) catalog: Catalog,
    pub(crate) ambient: Ambient,
    pub(crate) databases: Databases,
    pub(crate) keys: Keys,
    pub(crate) log: OpenLog,
    pub(crate) projections: Projections,
    pub(crate) roles: Vec<Role>,
    pub(crate) id: NodeId,
    /// Where other nodes reach this one.
    pub(crate) internal_url: String,
    pub(crate) notifier: Notifier,
    /// Whether it offers to take commands.
    pub(crate) standing: Standing,
}

impl Parts {
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Leases as one database role may hold them.
    pub(crate) fn leases(&self, pool: sqlx::PgPool) -> Arc<dyn Leases> {
        let ttl = Duration::from_millis(self.settings.lease.ttl_ms);
        Arc::new(PgLeases::new(pool, self.id.clone(), &self.internal_url, ttl))
    }
}

/// What differs between `dev` and `serve`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    /// One URL with all rights, keys that are made where they are missing, unsafe settings only warned of.
    pub(crate) dev: Option<DevShape>,
}

/// What `dev` knows.
#[derive(Debug, Clone)]
pub(crate) struct DevShape {
    pub(crate) data_dir: std::path::PathBuf,
    /// The same at every start, so that leases that a killed `dev` left behind are its own.
    pub(crate) node: String,
}

/// A node that runs.
pub(crate) struct Running {
    pub(crate) public: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) ready: readiness::Ready,
    ending: Ending,
    tasks: Tasks,
}

/// How a node takes its leave.
struct Ending {
    /// Of a node that takes commands.
    standing: Option<Standing>,
    /// How long it answers on after it said that it is not ready, if others can answer.
    linger: Duration,
}

impl Ending {
    /// Hands the shards over while everything still runs, so that clients notice nothing: others claim, and what comes
    /// here until a load balancer has understood is forwarded to them.
    async fn hand_over(&self) {
        let Some(standing) = &self.standing else { return };
        let began = tokio::time::Instant::now();
        standing.withdraw();
        match tokio::time::timeout(HAND_OVER, standing.handed_over()).await {
            Ok(true) => {
                tracing::info!(ms = began.elapsed().as_millis(), "the shards are handed over");
                tokio::time::sleep_until(began + self.linger).await;
            }
            Ok(false) => tracing::info!("no other node takes commands: the shards wait for one"),
            Err(_) => tracing::warn!(
                "not every shard was handed over within {} s; others take them when they are free",
                HAND_OVER.as_secs()
            ),
        }
    }
}

/// `serve`: starts a node and runs it until a signal.
pub(crate) async fn serve(app: Arc<App>, settings: Settings) -> anyhow::Result<Answer> {
    let mut running = start(&app, settings, Shape::default()).await?;
    tokio::select! {
        ended = running.tasks.first_end() => return running.fail(ended).await,
        () = signalled() => {}
        () = running.ready.wait() => {
            announce(&running)?;
            tokio::select! {
                ended = running.tasks.first_end() => return running.fail(ended).await,
                () = signalled() => {}
            }
        }
    }
    running.stop().await;
    Ok(Answer::Done)
}

/// The one line that says that it is ready.
pub(crate) fn announce(running: &Running) -> anyhow::Result<()> {
    crate::cli::output::text(&format!(
        "ready http://{} ops http://{}",
        running.public, running.ops
    ))
}

/// Ends at SIGINT or SIGTERM.
pub(crate) async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be heard; SIGINT can");
            tokio::signal::ctrl_c().await.ok();
        }
    }
}

/// Builds every part of a node and starts it.
pub(crate) async fn start(app: &App, settings: Settings, shape: Shape) -> anyhow::Result<Running> {
    // Before any part counts something: what was counted earlier would be nobody's.
    telemetry::recorder()?;
    let roles = role::parse(&settings.node.roles)?;
    let catalog = app.catalog()?;
    let ambient = crate::ambient::system();
    let projections = Projections::load(&settings.projection.dir, &catalog)
        .map_err(|error| ConfigError(format!("projection.dir: {error}")))?;
    let public = bind("http.listen", &settings.http.listen).await?;
    let ops = bind("http.ops_listen", &settings.http.ops_listen).await?;
    let internal = bind("node.internal_listen", &settings.node.internal_listen).await?;
    let internal_url = format!("http://{}", internal.local_addr()?);
    let id = node_id(&settings, &shape, &ambient);

    let databases = Databases::new(settings.database.clone(), shape.dev.is_none());
    let first = roles[0].database();
    databases.check_migrated(first).await?;
    let keys = Keys::open(&settings, shape.dev.as_ref(), &ambient)?;
    let mut tasks = Tasks::default();
    let (notifier, sending) = Notifier::new(
        &databases.settings(first, "notifier", 1)?,
        annals_store::notify::Limits::default(),
    )?;
    tasks.spawn(Phase::Log, "notifier", sending.run());
    let log = log::open(
        &catalog, &settings, &databases, first, &notifier, &shape, &mut tasks,
    )
    .await?;
    let parts = Parts {
        settings,
        catalog,
        ambient,
        databases,
        keys,
        log,
        projections,
        roles,
        id,
        internal_url,
        notifier,
        // Not before its listeners serve: others hand shards over to those who offer to take them.
        standing: Standing::new(false),
    };
    keep_node(&parts, first, &mut tasks).await?;

    let commands = match parts.has(Role::Command) {
        true => Some(command::start(&parts, &mut tasks).await?),
        false => None,
    };
    if parts.has(Role::Projector) {
        projector::start(&parts, &mut tasks).await?;
    }
    let reads = match parts.has(Role::Query) {
        true => Some(query::start(&parts, &mut tasks).await?),
        false => None,
    };
    let audits = match parts.has(Role::Audit) {
        true => Some(audit::start(&parts, &mut tasks).await?),
        false => None,
    };
    if parts.has(Role::Process) {
        process::start(app, &parts, &mut tasks).await?;
    }
    let listeners = edge::Listeners {
        public,
        ops,
        internal,
    };
    let ending = Ending {
        standing: parts.has(Role::Command).then(|| parts.standing.clone()),
        linger: Duration::from_millis(parts.settings.node.drain_ms),
    };
    let started = edge::start(
        &parts,
        edge::Served {
            commands,
            reads,
            audits,
        },
        listeners,
        &mut tasks,
    )
    .await?;
    parts.standing.serve();
    Ok(Running {
        public: started.public,
        ops: started.ops,
        ready: started.ready,
        ending,
        tasks,
    })
}

async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| {
        format!("{key}: {address} cannot be listened on; take another, or port 0 for a free one")
    })
}

fn node_id(settings: &Settings, shape: &Shape, ambient: &Ambient) -> NodeId {
    if let Some(id) = &settings.node.id {
        return NodeId::new(id.clone());
    }
    if let Some(dev) = &shape.dev {
        return NodeId::new(dev.node.clone());
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "node",
        host => host,
    };
    let random: String = ambient
        .random::<4>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    NodeId::new(format!("{host}-{random}"))
}

/// Keeps this node's own row, so that others know its roles and its address.
async fn keep_node(
    parts: &Parts,
    role: annals_store::roles::DatabaseRole,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let pool = parts.databases.pool(role, "node", 1, None).await?;
    let leases = parts.leases(pool);
    let standing = parts.standing.clone();
    let all: Vec<String> = parts.roles.iter().map(|role| role.name().to_owned()).collect();
    let roles = move || -> Vec<String> {
        let offered = |name: &&String| *name != Role::Command.name() || standing.offers();
        all.iter().filter(offered).cloned().collect()
    };
    leases
        .keep_node(&roles())
        .await
        .context("this node's own lease")?;
    let (stop, notifier) = (tasks.token(Phase::Work), parts.notifier.clone());
    let mut changes = parts.standing.changes();
    tasks.spawn(Phase::Work, "node", async move {
        let third = (leases.ttl() / 3).max(Duration::from_millis(100));
        // Its connection may be dead without saying so.
        let patience = (2 * leases.ttl()).max(Duration::from_secs(10));
        let mut round = tokio::time::interval(third);
        let mut said = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = round.tick() => {}
                _ = changes.changed() => {}
            }
            let now = roles();
            match tokio::time::timeout(patience, leases.keep_node(&now)).await {
                Ok(Ok(())) if said == now => {}
                // Others balance over what nodes offer.
                Ok(Ok(())) => {
                    said = now;
                    if let Err(error) = notifier.notify(lease::CHANNEL, "node", "") {
                        tracing::warn!(%error, "other nodes learn of this one by polling only");
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "this node's own lease cannot be renewed"),
                Err(_) => {
                    tracing::warn!("this node's own lease cannot be renewed: the database does not answer")
                }
            }
        }
        if let Err(error) = leases.drop_node().await {
            tracing::warn!(%error, "this node's own lease could not be given back; it expires");
        }
    });
    Ok(())
}

impl Running {
    /// Ends in order: no new requests, what is in flight is finished, leases are handed over.
    pub(crate) async fn stop(self) {
        tracing::info!("ending");
        let until = tokio::time::Instant::now() + END_WITHIN;
        self.ready.drain();
        self.ending.hand_over().await;
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        if !self.tasks.stop(left).await {
            tracing::warn!("not everything ended within {} s", END_WITHIN.as_secs_f32());
        }
    }

    /// The first task that ended although nobody told it to.
    pub(crate) async fn first_end(&mut self) -> Ended {
        self.tasks.first_end().await
    }

    /// Ends in order because a task ended.
    pub(crate) async fn fail(self, ended: Ended) -> anyhow::Result<Answer> {
        tracing::error!(
            task = ended.name,
            why = ended.why,
            "a task ended: the process ends"
        );
        self.stop().await;
        anyhow::bail!("task `{}` ended: {}", ended.name, ended.why)
    }
}

//! An engine over a log, as a node with the role `command` has it, but without HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_command::engine::Claimant;
use annals_command::{Commands, EngineSettings, Outcome, Ownership, Parts, Place, Standing, start};
use annals_domain::{Ambient, AmbientSource, Catalog, CommandRequest};
use annals_log::writer::WriterSettings;
use annals_log::{
    JournalHead, KafkaLog, KafkaSettings, Log, PgStreamStore, PostgresLog, PostgresSettings, Wakes,
};
use annals_record::{AppName, Generation, ShardCount};
use annals_store::lease::{Leases, NodeId, PgLeases};
use anyhow::{Context, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::products;

/// As many shards as a log has if nothing is said.
pub const SHARDS: u32 = 16;

const DEADLINE: Duration = Duration::from_secs(30);
/// Nobody renews the node's own row: it has to outlive every run.
const LEASE: Duration = Duration::from_secs(3_600);

/// The machine's clock and random bytes.
pub struct System;

impl AmbientSource for System {
    fn now_ms(&self) -> i64 {
        chrono::Utc::now().timestamp_millis()
    }
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).expect("the system gives random bytes");
    }
}

/// A node that has every shard.
pub struct Node {
    /// Its engine.
    pub commands: Commands,
    /// What it knows.
    pub catalog: Catalog,
    /// From the start of the engine until it owned every shard.
    pub took_over: Duration,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    kafka: Option<Arc<KafkaLog>>,
    leases: Arc<PgLeases>,
}

/// How many shards, as the log counts them.
///
/// # Panics
/// Never.
#[must_use]
pub fn shard_count() -> ShardCount {
    ShardCount::try_from(SHARDS).expect("16 shards are allowed")
}

impl Node {
    /// A node over the Postgres log of this database, which is made if it is not there.
    ///
    /// # Errors
    /// Of the database.
    pub async fn on_postgres(database: &Database, name: &str) -> anyhow::Result<Self> {
        Self::with_settings(database, name, EngineSettings::default()).await
    }

    /// The same with settings of the engine.
    ///
    /// # Errors
    /// Of the database.
    pub async fn with_settings(
        database: &Database,
        name: &str,
        settings: EngineSettings,
    ) -> anyhow::Result<Self> {
        Self::of_catalog(database, name, settings, products::catalog()?).await
    }

    /// The same with other aggregates.
    ///
    /// # Errors
    /// Of the database.
    pub async fn of_catalog(
        database: &Database,
        name: &str,
        settings: EngineSettings,
        catalog: Catalog,
    ) -> anyhow::Result<Self> {
        let pool = database.pool(6).await?;
        PostgresLog::create(&pool, catalog.app(), shard_count()).await?;
        let app = catalog.app().clone();
        let opened = PostgresLog::open(
            pool.clone(),
            &app,
            None,
            PostgresSettings::default(),
            Wakes::default(),
        );
        let (log, task) = opened.await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        let store = PgStreamStore::new(pool.clone(), app, shard_count(), JournalHead::LogHead);
        let leases = PgLeases::new(pool, NodeId::new(name), format!("http://{name}"), LEASE);
        Self::start(Arc::new(log), Arc::new(store), leases, catalog, settings, tasks).await
    }

    /// A node over a new Kafka log of the app `app`. No indexer runs beside it: what is accepted stays in the tail.
    ///
    /// # Errors
    /// Of the brokers or the database.
    pub async fn on_kafka(brokers: &str, app: &AppName, database: &Database) -> anyhow::Result<Self> {
        let catalog = products::catalog()?;
        let settings = KafkaSettings {
            allow_single_replica: true,
            ..KafkaSettings::new(brokers)
        };
        KafkaLog::create(&settings, app, shard_count(), 1).await?;
        let log = KafkaLog::open(settings, app.clone(), shard_count(), Generation::FIRST).await?;
        let log = Arc::new(log);
        let pool = database.pool(6).await?;
        let store = PgStreamStore::new(pool.clone(), app.clone(), shard_count(), JournalHead::Indexer);
        let leases = PgLeases::new(pool, NodeId::new("kafka"), "http://kafka", LEASE);
        let engine = EngineSettings {
            tail_bytes: 1 << 30,
            // A full machine is what is measured here: senders wait, and do not come again.
            queue_ms: 60_000,
            writer: WriterSettings::KAFKA,
            ..EngineSettings::default()
        };
        let as_log: Arc<dyn Log> = Arc::clone(&log) as _;
        let mut node = Self::start(as_log, Arc::new(store), leases, catalog, engine, JoinSet::new()).await?;
        node.kafka = Some(log);
        Ok(node)
    }

    async fn start(
        log: Arc<dyn Log>,
        store: Arc<PgStreamStore>,
        leases: PgLeases,
        catalog: Catalog,
        settings: EngineSettings,
        mut tasks: JoinSet<()>,
    ) -> anyhow::Result<Self> {
        leases.keep_node(&["command".to_owned()]).await?;
        let ambient = Ambient::new(System);
        let leases = Arc::new(leases);
        let claimant = Claimant {
            node: leases.node().as_str().to_owned(),
            url: "http://localhost".to_owned(),
            generation: Generation::FIRST,
            shards: shard_count(),
        };
        let parts = Parts {
            log,
            store,
            catalog: catalog.clone(),
            ambient: ambient.clone(),
            settings,
            claimant,
            tasks: 1,
        };
        let began = Instant::now();
        let (asks, asked) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let commands = start(&parts, asks, &stop, &mut tasks);
        let ownership = Ownership {
            leases: Arc::clone(&leases) as _,
            commands: commands.clone(),
            shards: shard_count(),
            asks: asked,
            clock: None,
            ambient,
            standing: Standing::new(true),
            notifier: None,
            listener: None,
        };
        tasks.spawn(ownership.run(stop.clone()));
        let owned = |place: &Place| matches!(place, Place::Here { owner: true });
        while !commands.places().iter().all(|(_, place)| owned(place)) {
            if began.elapsed() > DEADLINE {
                bail!("the node did not become owner of every shard");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took_over = began.elapsed();
        Ok(Self {
            commands,
            catalog,
            took_over,
            stop,
            tasks,
            kafka: None,
            leases,
        })
    }

    /// Registers the first products.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn register(&self, products: u64) -> anyhow::Result<()> {
        let one = |n| {
            let body = products::registration(n);
            products::request(
                &self.catalog,
                &products::sku(n),
                "register",
                &format!("register-{n}"),
                &body,
            )
        };
        let requests: Vec<_> = (0..products).map(one).collect::<Result<_, _>>()?;
        self.send(requests, 256).await.map(|_| ())
    }

    /// Sends all of them, so many at a time, and gives the commands a second.
    ///
    /// # Errors
    /// If one gets another answer than a commit.
    pub async fn send(&self, requests: Vec<CommandRequest>, senders: usize) -> anyhow::Result<f64> {
        self.send_all(requests.into_iter().map(Ok), senders).await
    }

    /// The same of requests that are made while others are under way.
    ///
    /// # Errors
    /// If one cannot be made, or gets another answer than a commit.
    pub async fn send_all(
        &self,
        mut requests: impl Iterator<Item = anyhow::Result<CommandRequest>>,
        senders: usize,
    ) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut count = 0_u64;
        let mut open = FuturesUnordered::new();
        let send = |request| self.commands.send(request, DEADLINE);
        for request in requests.by_ref().take(senders) {
            open.push(send(request?));
        }
        while let Some(answer) = open.next().await {
            match answer.context("a command got no answer")?.outcome {
                Outcome::Committed(_) => count += 1,
                other => bail!("a command was not committed: {other:?}"),
            }
            if let Some(request) = requests.next() {
                open.push(send(request?));
            }
        }
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }

    /// Gives the shards back and ends every task.
    ///
    /// # Errors
    /// If a task panicked.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        drop(self.commands);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        self.leases.drop_node().await?;
        if let Some(kafka) = self.kafka.and_then(Arc::into_inner) {
            kafka.close().await;
        }
        Ok(())
    }
}

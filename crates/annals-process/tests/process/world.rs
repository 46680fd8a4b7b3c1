//! A log in memory with an engine, a database, and runners that can be killed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use annals_command::{Commands, SendError};
use annals_domain::{Ambient, AmbientSource, Caller, Catalog, CommandRequest, Permission, Precondition};
use annals_log::{Checkpoint, Log, MemoryLog, Plays, ReaderSettings};
use annals_process::erased::AnyProcess;
use annals_process::{
    Admin, CommandSender, EffectSettings, Effects, Outgoing, ProcessRunner, ProcessSettings, Sent, erased,
};
use annals_record::record::Record;
use annals_record::{Fingerprint, Fold, KeyHash, Shard, ShardCount, StreamId, hash};
use annals_store::testing::TestDatabase;
use async_trait::async_trait;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::below::{AllMine, Gated, engine};
use crate::domain::{self, Begin, Work};

/// SplitMix64 (Steele, Lea, Flood 2014).
pub fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The real time, since timers go by the database's; random bytes that differ within the test process.
struct Real(AtomicU64);

impl AmbientSource for Real {
    fn now_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    }
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut state = self.0.fetch_add(1, Ordering::Relaxed);
            chunk.copy_from_slice(&draw(&mut state).to_be_bytes()[..chunk.len()]);
        }
    }
}

pub fn ambient() -> Ambient {
    static SEED: AtomicU64 = AtomicU64::new(1);
    Ambient::new(Real(AtomicU64::new(SEED.fetch_add(1 << 32, Ordering::Relaxed))))
}

/// What becomes of one attempt to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    Send,
    /// It happens, and nobody is told.
    LoseAnswer,
    /// It does not happen, and nobody is told.
    Drop,
    Later,
    Never,
    /// It hangs on its way for ever.
    Hang,
}

type Choose = dyn Fn(&Outgoing, usize) -> Way + Send + Sync;

/// Straight to the engine, by the ways that a test chooses: given the command and how often it was sent before.
pub struct Sender {
    commands: Commands,
    catalog: Catalog,
    pub choose: Mutex<Arc<Choose>>,
    /// How often each key was sent.
    pub sent: Mutex<BTreeMap<String, usize>>,
    /// Every attempt, in order.
    pub attempts: Mutex<Vec<Outgoing>>,
}

#[async_trait]
impl CommandSender for Sender {
    async fn send(&self, command: Outgoing) -> Sent {
        let before = {
            let mut sent = self.sent.lock().unwrap();
            let count = sent.entry(command.idempotency_key.clone()).or_default();
            *count += 1;
            *count - 1
        };
        self.attempts.lock().unwrap().push(command.clone());
        let choose = Arc::clone(&self.choose.lock().unwrap());
        match choose(&command, before) {
            Way::Drop => Sent::Unknown,
            Way::Hang => std::future::pending().await,
            Way::Later => Sent::Later { after: None },
            Way::Never => Sent::Never {
                why: "forbidden".to_owned(),
            },
            way => {
                let sent = self.to_engine(command).await;
                if way == Way::LoseAnswer {
                    Sent::Unknown
                } else {
                    sent
                }
            }
        }
    }
}

impl Sender {
    async fn to_engine(&self, command: Outgoing) -> Sent {
        let category = self
            .catalog
            .aggregates()
            .find(|a| a.resource() == command.resource);
        let stream = format!("{}-{}", category.unwrap().category(), command.key);
        let sub = format!("process:{}", command.process);
        let request = request(
            &self.catalog,
            &stream,
            &command.command,
            command.data.get(),
            &sub,
            &command.idempotency_key,
        );
        match self.commands.send(request, command.deadline).await {
            Ok(_) => Sent::OnRecord,
            Err(SendError::OutcomeUnknown | SendError::Internal) => Sent::Unknown,
            Err(error @ (SendError::Forbidden | SendError::KeyReused | SendError::TooLarge { .. })) => {
                Sent::Never {
                    why: error.to_string(),
                }
            }
            Err(_) => Sent::Later { after: None },
        }
    }
}

fn request(
    catalog: &Catalog,
    stream: &str,
    command: &str,
    body: &str,
    sub: &str,
    key: &str,
) -> CommandRequest {
    let stream = StreamId::try_from(stream).unwrap();
    let aggregate = catalog.category(stream.category()).unwrap();
    let of = aggregate.parse_key(stream.key()).unwrap();
    let parsed = aggregate.parse(&of, command, body.as_bytes()).unwrap();
    let data = parsed.canonical().unwrap();
    let print = [sub.as_bytes(), b"\0", command.as_bytes(), b"\0", &data].concat();
    let role = if sub.starts_with("process:") {
        Caller::SYSTEM
    } else {
        "clerk"
    };
    CommandRequest {
        stream,
        command: parsed,
        data: serde_json::from_slice(&data).unwrap(),
        fingerprint: Fingerprint::new(hash::sha256(&print)),
        idempotency_key: KeyHash::of(key),
        precondition: Precondition::None,
        caller: Caller {
            sub: sub.into(),
            roles: Arc::from([Arc::from(role)]),
            owner: None,
        },
        permission: Permission::Allow,
        correlation: "c".to_owned(),
        causation: None,
        traceparent: None,
        metadata: None,
    }
}

pub struct World {
    pub memory: Arc<MemoryLog>,
    pub log: Arc<Gated>,
    pub shards: ShardCount,
    pub catalog: Catalog,
    pub sender: Arc<Sender>,
    pub pool: PgPool,
    pub admin: Admin,
    pub settings: ProcessSettings,
    pub process: AnyProcess,
    /// How often runners renewed their lease.
    pub renewed: Arc<AtomicU64>,
    _engine: JoinSet<()>,
    _database: TestDatabase,
}

/// A runner; dropped, it is dead.
pub struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
    pub async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}

pub fn settings() -> ProcessSettings {
    ProcessSettings {
        retry_max_s: 1,
        deadline: Duration::from_millis(50),
        tick: Duration::from_millis(10),
        ..ProcessSettings::default()
    }
}

impl World {
    /// `None` if there is no Postgres for tests.
    pub async fn new(shards: u32) -> Option<Self> {
        let database = TestDatabase::create().await?;
        let shards = ShardCount::try_from(shards).unwrap();
        let catalog = domain::catalog();
        let memory = Arc::new(MemoryLog::new(catalog.app().clone(), shards, Plays::Postgres));
        let (commands, engine) = engine(&memory, &catalog, shards);
        let sender = Arc::new(Sender {
            commands,
            catalog: catalog.clone(),
            choose: Mutex::new(Arc::new(|_, _| Way::Send)),
            sent: Mutex::default(),
            attempts: Mutex::default(),
        });
        let log = Arc::new(Gated::new(&memory));
        let pool = database.pool().await;
        let admin = Admin::new(pool.clone());
        let (settings, _engine, _database) = (settings(), engine, database);
        Some(Self {
            memory,
            log,
            shards,
            catalog,
            sender,
            pool,
            admin,
            settings,
            process: erased::process::<Work>(()),
            renewed: Arc::default(),
            _engine,
            _database,
        })
    }

    pub fn runner(&self) -> Running {
        self.runner_with(Effects::new([], EffectSettings::default()))
    }

    pub fn runner_with(&self, effects: Effects) -> Running {
        let mut reader = ReaderSettings::default();
        reader.limits.wait = Duration::from_millis(20);
        let runner = ProcessRunner {
            process: self.process.clone(),
            effects,
            sender: self.sender.clone(),
            log: self.log.clone(),
            catalog: self.catalog.clone(),
            pool: self.pool.clone(),
            leases: Arc::new(AllMine::new(&self.renewed)),
            shards: self.shards,
            ambient: ambient(),
            reader,
            settings: self.settings.clone(),
        };
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(runner.run(stop.clone()));
        Running { stop, tasks }
    }

    pub fn choose(&self, choose: impl Fn(&Outgoing, usize) -> Way + Send + Sync + 'static) {
        *self.sender.choose.lock().unwrap() = Arc::new(choose);
    }

    /// Somebody sends a command; each is new.
    pub async fn ask(&self, stream: &str, command: &str, body: &str) {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let key = format!("k{}", KEYS.fetch_add(1, Ordering::Relaxed));
        loop {
            let request = request(&self.catalog, stream, command, body, "ada", &key);
            match self.sender.commands.send(request, Duration::from_secs(20)).await {
                Ok(_) => return,
                Err(SendError::ShardUnavailable | SendError::Overloaded) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{stream} {command}: {error}"),
            }
        }
    }

    pub async fn begin(&self, job: &str, account: &str, takes: &[i64], wait_ms: u64, ask: &str) {
        let (account, ask) = (account.to_owned(), ask.to_owned());
        let begin = Begin {
            account,
            takes: takes.to_vec(),
            wait_ms,
            ask,
        };
        self.ask(
            &format!("job-{job}"),
            "begin",
            &serde_json::to_string(&begin).unwrap(),
        )
        .await;
    }

    pub fn shard(&self, stream: &str) -> Shard {
        self.shards.shard_of(&StreamId::try_from(stream).unwrap())
    }

    pub async fn state(&self, job: &str) -> Option<Work> {
        let detail = self.admin.show("work", job).await.unwrap()?;
        Some(serde_json::from_str(detail.state.get()).unwrap())
    }

    /// Waits until a job's process is as asked; gives it.
    pub async fn until(&self, job: &str, what: impl Fn(&Work) -> bool) -> Work {
        for _ in 0..12_000 {
            if let Some(state) = self.state(job).await
                && what(&state)
            {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!(
            "{job} never came so far: {:?}, {:#?}",
            self.state(job).await,
            self.admin.show("work", job).await
        )
    }

    pub async fn over(&self, job: &str) -> Work {
        self.until(job, |work| !work.over.is_empty()).await
    }

    /// Waits until the runner has taken in all that the log holds now.
    pub async fn read_to_the_end(&self) {
        let mut ends = BTreeMap::new();
        for shard in self.shards.shards() {
            ends.insert(shard, self.memory.end(shard).await.unwrap());
        }
        self.wait("the end to be read", || async {
            let read: BTreeMap<_, _> = Checkpoint::load_all(&self.pool, "process/work")
                .await
                .unwrap()
                .into_iter()
                .collect();
            ends.iter()
                .all(|(shard, end)| end.get() == 0 || read.get(shard).is_some_and(|at| at.head.next >= *end))
        })
        .await;
    }

    /// A name whose stream of a category lies in a shard, the `n`th.
    pub fn name_in(&self, shard: Shard, category: &str, n: usize) -> String {
        let names = (0..).map(|i| format!("x{i}"));
        names
            .filter(|name| self.shard(&format!("{category}-{name}")) == shard)
            .nth(n)
            .unwrap()
    }

    /// Waits for anything.
    pub async fn wait<F: Future<Output = bool>>(&self, what: &str, mut is: impl FnMut() -> F) {
        for _ in 0..12_000 {
            if is().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("never came: {what}")
    }

    /// One number of the tables, by SQL.
    pub async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// The accepted commits and refusals of every shard.
    pub fn accepted(&self) -> Vec<Record> {
        let mut accepted = Vec::new();
        for shard in self.shards.shards() {
            let mut fold = Fold::from_genesis(hash::genesis(self.catalog.app(), shard, self.shards));
            for placed in self.memory.placed(shard) {
                if fold.step(&placed.slot, placed.hash).is_accept() {
                    accepted.push(placed.slot.known().unwrap().clone());
                }
            }
        }
        accepted
            .into_iter()
            .filter(|record| record.stream.is_some())
            .collect()
    }

    /// How many records each key of the process has; every key that was sent must have one.
    pub fn assert_each_command_once(&self) {
        let mut records = BTreeMap::<KeyHash, usize>::new();
        for record in self.accepted() {
            *records
                .entry(record.entry().unwrap().idempotency_key)
                .or_default() += 1;
        }
        for key in self.sender.sent.lock().unwrap().keys() {
            assert_eq!(
                records.get(&KeyHash::of(key)),
                Some(&1),
                "records with the key {key}"
            );
        }
    }

    /// The amounts that were asked of an account, in the order of its stream.
    pub fn takes_of(&self, account: &str) -> Vec<i64> {
        let stream = StreamId::try_from(format!("account-{account}").as_str()).unwrap();
        let of_account = self
            .accepted()
            .into_iter()
            .filter(|record| record.stream.as_ref() == Some(&stream));
        let amount = |record: Record| {
            let value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
            value["command"]["data"]["amount"].as_i64().unwrap()
        };
        of_account.map(amount).collect()
    }
}

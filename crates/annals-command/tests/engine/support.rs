//! A counter with a cap, leases in memory, and nodes over one log in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_command::engine::Claimant;
use annals_command::{Answer, Commands, EngineSettings, Ownership, Parts, SendError, Standing, start};
use annals_domain::{
    Aggregate, Ambient, Caller, Catalog, Command, CommandRequest, Context, Event, Owner, Permission,
    Precondition, Rejection, ensure, text_key,
};
use annals_log::{Log, MemoryLog, MemoryStore, Plays};
use annals_record::{AppName, Fingerprint, Generation, KeyHash, ShardCount, StreamId, hash};
use annals_store::lease::{Lease, LeaseKey, LeaseKind, Leases, Node as LeaseNode, NodeId};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

text_key!(
    /// A counter's name.
    pub struct CounterKey(max = 64);
);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Add {
    pub by: i64,
    #[serde(default)]
    pub note: String,
}

#[derive(Clone, Debug, Command)]
pub enum CounterCommand {
    /// Adds to the counter, up to its cap.
    Add(Add),
    /// Only its owner may.
    Own,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    by: i64,
    note: String,
}

#[derive(Clone, Debug, Event)]
#[event(category = "counter")]
pub enum CounterEvent {
    /// Something was added.
    Added(Added),
}

#[derive(Clone, Debug, Rejection)]
pub enum CounterRejection {
    Full { room: i64 },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counter {
    sum: i64,
}

pub const CAP: i64 = 1_000_000;

impl Aggregate for Counter {
    const CATEGORY: &'static str = "counter";
    const RESOURCE: &'static str = "counters";
    const REVISION: u32 = 1;
    type Key = CounterKey;
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Rejection = CounterRejection;

    fn decide(
        &self,
        command: &CounterCommand,
        _: &Context<'_, Self>,
    ) -> Result<Vec<CounterEvent>, CounterRejection> {
        match command {
            CounterCommand::Add(Add { by: 0, .. }) | CounterCommand::Own => Ok(vec![]),
            CounterCommand::Add(add) => {
                let room = CAP - self.sum;
                ensure(add.by <= room, CounterRejection::Full { room })?;
                Ok(vec![CounterEvent::Added(Added {
                    by: add.by,
                    note: add.note.clone(),
                })])
            }
        }
    }

    fn evolve(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Added(added) => self.sum += added.by,
        }
    }

    fn owner(&self, key: &CounterKey, _: &CounterCommand) -> Option<Owner> {
        Some(Owner::new(annals_domain::AggregateKey::to_key(key).as_str()))
    }
}

pub fn catalog() -> Catalog {
    let app = AppName::try_from("test").unwrap();
    Catalog::builder(app).aggregate::<Counter>().build().unwrap()
}

/// One command as the edge would make it.
pub struct Ask {
    pub stream: String,
    pub key: String,
    pub body: String,
    pub command: &'static str,
    pub precondition: Precondition,
    pub caller: &'static str,
    pub permission: Permission,
}

pub fn add(stream: &str, key: impl ToString, by: i64) -> Ask {
    Ask {
        stream: stream.to_owned(),
        key: key.to_string(),
        body: format!("{{\"by\":{by}}}"),
        command: "add",
        precondition: Precondition::None,
        caller: "ada",
        permission: Permission::Allow,
    }
}

impl Ask {
    pub fn request(self, catalog: &Catalog) -> CommandRequest {
        let stream = StreamId::try_from(self.stream.as_str()).unwrap();
        let aggregate = catalog.category(stream.category()).unwrap();
        let key = aggregate.parse_key(stream.key()).unwrap();
        let command = aggregate.parse(&key, self.command, self.body.as_bytes()).unwrap();
        let data = command.canonical().unwrap();
        let print = [self.caller.as_bytes(), self.command.as_bytes(), &data].concat();
        let print = [print, self.precondition.canonical().into_bytes()].concat();
        CommandRequest {
            stream,
            command,
            data: serde_json::from_slice(&data).unwrap(),
            fingerprint: Fingerprint::new(hash::sha256(&print)),
            idempotency_key: KeyHash::of(&self.key),
            precondition: self.precondition,
            caller: Caller {
                sub: self.caller.into(),
                roles: Arc::from([]),
                owner: Some(self.caller.into()),
            },
            permission: self.permission,
            correlation: "c".to_owned(),
            causation: None,
            traceparent: None,
            metadata: None,
        }
    }
}

/// Who has which lease; tests give and take them.
#[derive(Default)]
pub struct Table {
    owners: Mutex<BTreeMap<u32, NodeId>>,
    pub asked: tokio::sync::Notify,
}

pub struct TestLeases {
    node: NodeId,
    table: Arc<Table>,
}

impl Table {
    /// Gives every shard to a node.
    pub fn give_all(&self, node: &str, shards: u32) {
        let mut owners = self.owners.lock().unwrap();
        *owners = (0..shards).map(|shard| (shard, NodeId::new(node))).collect();
    }
}

#[async_trait]
impl Leases for TestLeases {
    fn node(&self) -> &NodeId {
        &self.node
    }
    fn ttl(&self) -> Duration {
        Duration::from_millis(300)
    }
    async fn keep_node(&self, _: &[String]) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn drop_node(&self) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn nodes(&self) -> Result<Vec<LeaseNode>, annals_store::Error> {
        Ok(vec![])
    }
    async fn list(&self, kind: LeaseKind, name: &str) -> Result<Vec<Lease>, annals_store::Error> {
        self.table.asked.notify_waiters();
        let owners = self.table.owners.lock().unwrap();
        let leases = owners.iter().map(|(shard, node)| Lease {
            key: LeaseKey::new(kind, name, *shard),
            node: node.clone(),
            url: format!("http://{node}"),
            epoch_hint: 0,
            expires_at: None,
            live: true,
            remaining: Duration::from_millis(300),
        });
        Ok(leases.collect())
    }
    async fn acquire(&self, _: &[LeaseKey]) -> Result<Vec<LeaseKey>, annals_store::Error> {
        Ok(vec![])
    }
    async fn renew(&self, keys: &[LeaseKey]) -> Result<Vec<LeaseKey>, annals_store::Error> {
        Ok(keys.to_vec())
    }
    async fn release(&self, _: &[LeaseKey]) -> Result<(), annals_store::Error> {
        Ok(())
    }
    async fn hint_epoch(&self, _: &LeaseKey, _: u64) -> Result<bool, annals_store::Error> {
        Ok(true)
    }
}

/// A log with its store and leases, for any number of nodes.
pub struct World {
    pub log: Arc<MemoryLog>,
    pub store: Arc<MemoryStore>,
    pub table: Arc<Table>,
    pub catalog: Catalog,
    pub shards: ShardCount,
}

pub struct Node {
    pub commands: Commands,
    pub clock: Arc<annals_domain::Fixed>,
    catalog: Catalog,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl World {
    pub fn new(plays: Plays, shards: u32) -> Self {
        let shards = ShardCount::try_from(shards).unwrap();
        let catalog = catalog();
        let log = Arc::new(MemoryLog::new(catalog.app().clone(), shards, plays));
        let store = Arc::new(MemoryStore::new(Arc::clone(&log)));
        Self {
            log,
            store,
            table: Arc::default(),
            catalog,
            shards,
        }
    }

    pub fn node(&self, name: &str, settings: EngineSettings) -> Node {
        let log: Arc<dyn Log> = self.log.clone();
        self.node_on(name, settings, log)
    }

    pub fn node_on(&self, name: &str, settings: EngineSettings, log: Arc<dyn Log>) -> Node {
        let (ambient, clock) = Ambient::fixed(1_790_000_000_000, u64::from(name.as_bytes()[0]));
        let claimant = Claimant {
            node: name.to_owned(),
            url: format!("http://{name}"),
            generation: Generation::default(),
            shards: self.shards,
        };
        let store = Arc::clone(&self.store);
        let catalog = self.catalog.clone();
        let parts = Parts {
            log,
            store,
            catalog,
            ambient: ambient.clone(),
            settings,
            claimant,
            tasks: 1,
        };
        let (asks, asked) = tokio::sync::mpsc::unbounded_channel();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let commands = start(&parts, asks, &stop, &mut tasks);
        let ownership = Ownership {
            leases: Arc::new(TestLeases {
                node: NodeId::new(name),
                table: Arc::clone(&self.table),
            }),
            commands: commands.clone(),
            shards: self.shards,
            asks: asked,
            clock: None,
            ambient,
            standing: Standing::new(true),
            notifier: None,
            listener: None,
        };
        tasks.spawn(ownership.run(stop.clone()));
        Node {
            commands,
            clock,
            catalog: self.catalog.clone(),
            stop,
            tasks,
        }
    }

    /// One node that gets every shard.
    pub fn only_node(&self, settings: EngineSettings) -> Node {
        self.table
            .give_all("a", self.shards.shards().len().try_into().unwrap());
        self.node("a", settings)
    }

    /// The accepted records of every shard, from the log itself.
    pub fn accepted(&self) -> Vec<annals_record::Record> {
        let mut accepted = Vec::new();
        for shard in self.shards.shards() {
            let mut fold =
                annals_record::Fold::from_genesis(hash::genesis(self.catalog.app(), shard, self.shards));
            for placed in self.log.placed(shard) {
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
}

impl Node {
    /// Sends once the node is owner: what says that nothing happened is sent again.
    pub async fn send(&self, ask: Ask) -> Result<Answer, SendError> {
        let Ask {
            stream,
            key,
            body,
            command,
            precondition,
            caller,
            permission,
        } = ask;
        for _ in 0..200 {
            let ask = Ask {
                stream: stream.clone(),
                key: key.clone(),
                body: body.clone(),
                command,
                precondition,
                caller,
                permission,
            };
            let result = self
                .commands
                .send(ask.request(&self.catalog), Duration::from_secs(20))
                .await;
            match result {
                Err(
                    SendError::ShardUnavailable
                    | SendError::LogUnavailable
                    | SendError::Overloaded
                    | SendError::OutcomeUnknown,
                ) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                other => return other,
            }
        }
        panic!("the shard never became available")
    }

    /// Sends once and gives what came of it.
    pub async fn ask_once(&self, ask: Ask, within: Duration) -> Result<Answer, SendError> {
        self.commands.send(ask.request(&self.catalog), within).await
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no task panics");
        }
    }

    /// Goes away without a word.
    pub fn kill(mut self) {
        self.tasks.abort_all();
    }
}

pub fn committed(answer: &Answer) -> usize {
    match &answer.outcome {
        annals_command::Outcome::Committed(events) => events.len(),
        other => panic!("not committed: {other:?}"),
    }
}

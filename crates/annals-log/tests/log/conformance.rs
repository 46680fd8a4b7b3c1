//! The one suite of promises on memory, in both of its parts, and on Postgres.

use std::sync::{Arc, Mutex};

use annals_log::conformance::{self, Subject};
use annals_log::{Log, MemoryLog, Plays};
use annals_record::{AppName, ShardCount};
use async_trait::async_trait;

use super::postgres::Fixture;

fn shards() -> ShardCount {
    let promises = u32::try_from(conformance::promises().len()).unwrap();
    ShardCount::try_from(promises).unwrap()
}

async fn all_are_kept(subject: &dyn Subject) {
    let kept = conformance::run(subject).await.unwrap();
    assert_eq!(kept.len(), conformance::promises().len());
    let broken: Vec<_> = kept.iter().filter(|(_, kept)| kept.is_err()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

struct InMemory(Arc<MemoryLog>, Plays);

#[async_trait]
impl Subject for InMemory {
    fn log(&self) -> Arc<dyn Log> {
        self.0.clone()
    }
    async fn another(&self) -> Arc<dyn Log> {
        self.0.clone()
    }
    fn compares(&self) -> bool {
        self.1 == Plays::Postgres
    }
}

#[tokio::test]
async fn memory_keeps_the_promises_as_kafka_and_as_postgres() {
    for plays in [Plays::Kafka, Plays::Postgres] {
        let app = AppName::try_from("example").unwrap();
        all_are_kept(&InMemory(Arc::new(MemoryLog::new(app, shards(), plays)), plays)).await;
    }
}

struct InPostgres(Arc<dyn Log>, Mutex<Fixture>);

#[async_trait]
impl Subject for InPostgres {
    fn log(&self) -> Arc<dyn Log> {
        self.0.clone()
    }
    async fn another(&self) -> Arc<dyn Log> {
        let opening = self.1.lock().unwrap().opening();
        let (log, task) = opening.await;
        self.1.lock().unwrap().tasks.spawn(task.run());
        log
    }
    fn compares(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_promises() {
    let Some(mut fixture) = Fixture::create(shards()).await else {
        return;
    };
    let log = fixture.open().await;
    all_are_kept(&InPostgres(log, Mutex::new(fixture))).await;
}

//! A folder to change, a log to write, rows to look at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_domain::Catalog;
use annals_log::testing::Chained;
use annals_log::{Checkpoint, Log, MemoryLog, Plays, ReaderSettings, ShardReader};
use annals_projection::{Closed, Delivery, Limits, Manifest, Projector, Source};
use annals_record::fold::Head;
use annals_record::{Shard, ShardCount};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::catalog::commerce;

pub fn projections() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../projections")
}

/// A copy of commerce's folders that may be changed.
pub struct Folders(tempfile::TempDir);

impl Folders {
    pub fn copy() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&projections(), folder.path());
        Self(folder)
    }
    pub fn path(&self) -> &Path {
        self.0.path()
    }
    pub fn manifest(&self, name: &str) -> Arc<Manifest> {
        Arc::new(Manifest::load(&self.path().join(name)).unwrap())
    }
    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path().join(file), text).unwrap();
    }
    pub fn change(&self, file: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        self.write(file, &text.replacen(from, to, 1));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

pub async fn projector(pool: &PgPool, manifest: Arc<Manifest>) -> Projector {
    Projector::open(pool.clone(), manifest, Arc::new(Closed), Limits::default())
        .await
        .unwrap()
}

/// A log in memory with two shards, claimed, and the writers of both.
pub struct TestLog {
    pub log: Arc<MemoryLog>,
    pub catalog: Catalog,
    count: ShardCount,
    writers: Vec<Chained>,
}

pub const SHARDS: u32 = 2;

impl TestLog {
    pub async fn new() -> Self {
        Self::with_shards(SHARDS).await
    }

    pub async fn with_shards(shards: u32) -> Self {
        let catalog = commerce();
        let (app, count) = (catalog.app().clone(), ShardCount::try_from(shards).unwrap());
        let log = Arc::new(MemoryLog::new(app.clone(), count, Plays::Postgres));
        let mut writers: Vec<Chained> = count
            .shards()
            .map(|shard| Chained::new(app.clone(), shard, count))
            .collect();
        for writer in &mut writers {
            let (at, claim) = (writer.head(), writer.claim());
            log.append(writer.shard(), at, vec![claim]).await;
        }
        Self {
            log,
            catalog,
            count,
            writers,
        }
    }

    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        self.count.shards()
    }

    /// What builds are folded from.
    pub fn source(&self) -> Source {
        Source {
            log: self.log.clone(),
            catalog: self.catalog.clone(),
            opener: Arc::new(Closed),
            limits: Limits::default(),
        }
    }

    /// Writes one event as a record of its own, on the shard of its stream.
    pub async fn write(&mut self, stream: &str, version: u64, event: &str, data: &Value) -> Shard {
        let shard = self.count.shard_of(&stream.parse().unwrap());
        let writer = self
            .writers
            .iter_mut()
            .find(|writer| writer.shard() == shard)
            .unwrap();
        let at = writer.head();
        let record = writer.commit_of(stream, version, &[(event, 1, &data.to_string())]);
        let appended = self.log.append(shard, at, vec![record]).await;
        assert!(
            matches!(appended, annals_log::Appended::Landed(_)),
            "{appended:?}"
        );
        shard
    }

    pub fn genesis(&self, shard: Shard) -> Checkpoint {
        Checkpoint::genesis(Head::genesis(self.catalog.app(), shard, self.count))
    }

    /// Everything behind a checkpoint of a shard.
    pub async fn read(&self, shard: Shard, at: Checkpoint) -> Delivery {
        let (log, catalog) = (self.log.clone(), self.catalog.clone());
        let mut reader = ShardReader::open(log, catalog, shard, at, ReaderSettings::default())
            .await
            .unwrap();
        let mut delivery: Option<Delivery> = None;
        while reader.checkpoint().head.next < self.log.end(shard).await.unwrap() {
            let batch = Delivery::of(&reader.next().await.unwrap().unwrap());
            match &mut delivery {
                Some(all) => all.extend(batch),
                None => delivery = Some(batch),
            }
        }
        delivery.unwrap()
    }

    /// Everything of all shards from the beginning.
    pub async fn read_all(&self) -> Vec<Delivery> {
        let mut all = Vec::new();
        for shard in self.shards() {
            all.push(self.read(shard, self.genesis(shard)).await);
        }
        all
    }
}

pub fn order(n: u32) -> String {
    format!("order-0192f000-0001-7000-8000-{n:012x}")
}

pub fn placed(customer: &str, total: i64) -> Value {
    serde_json::json!({
        "customer": customer, "currency": "USD", "ordered_on": "2026-01-02", "payment_method": "tok_ok",
        "total": total, "units": 1,
        "lines": [{"line": 1, "sku": "P1", "quantity": 1, "unit_price": total, "amount": total}]
    })
}

pub const CUSTOMER: &str = "0192f000-0002-7000-8000-000000000001";

/// One column of a query, as text, in its order.
pub async fn column(pool: &PgPool, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_all(pool)
        .await
        .unwrap()
}

/// Waits until a query's only value is this one.
pub async fn becomes(pool: &PgPool, sql: &str, wanted: &str) {
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let found = column(pool, sql).await;
        if found == [wanted] {
            return;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "{sql}: {found:?} and not {wanted}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

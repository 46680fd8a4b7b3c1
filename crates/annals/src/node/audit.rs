//! The role `audit`: the search table, and what auditors ask.

use std::sync::Arc;

use annals_audit::{Audit, AuditIndexer, RoundSettings};
use annals_log::{JournalHead, LogKind, PgStreamStore, ReaderSettings};
use annals_store::roles::DatabaseRole;

use crate::node::Parts;
use crate::node::tasks::{Phase, Tasks};

/// Starts it.
pub(crate) async fn start(parts: &Parts, tasks: &mut Tasks) -> anyhow::Result<Arc<Audit>> {
    let pool = parts
        .databases
        .pool(DatabaseRole::Audit, "audit", 8, None)
        .await?;
    let indexer = AuditIndexer {
        log: Arc::clone(&parts.log.log),
        catalog: parts.catalog.clone(),
        leases: parts.leases(pool.clone()),
        pool: pool.clone(),
        shards: parts.log.shards,
        reader: ReaderSettings::default(),
        rounds: RoundSettings::default(),
    };
    tasks.spawn(Phase::Work, "audit", indexer.run(tasks.token(Phase::Work)));
    let head = match parts.log.kind {
        LogKind::Kafka => JournalHead::Indexer,
        LogKind::Postgres | LogKind::Memory => JournalHead::LogHead,
    };
    let (app, shards) = (parts.catalog.app().clone(), parts.log.shards);
    let journal = PgStreamStore::new(pool.clone(), app, shards, head);
    Ok(Arc::new(Audit::new(
        pool.clone(),
        journal,
        parts.leases(pool),
        parts.catalog.clone(),
        shards,
        parts.log.generation,
    )))
}

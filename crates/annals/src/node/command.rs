//! The role `command`: the engine, its leases, its sealer, and with Kafka the indexer.

use std::sync::Arc;
use std::time::Duration;

use annals_auth::CommandSealer;
use annals_command::engine::Claimant;
use annals_command::{ClockProbe, Commands, EngineSettings, Ownership, Place};
use annals_log::writer::WriterSettings;
use annals_log::{Checkpoint, JournalHead, LogKind, PgStreamStore, StreamStore};
use annals_record::Shard;
use annals_store::clock::clock_offset;
use annals_store::lease;
use annals_store::notify::Listener;
use annals_store::roles::DatabaseRole;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, Settings};
use crate::node::tasks::{Phase, Tasks};
use crate::node::{Parts, indexing};

/// A node whose clock is further off the database's neither claims nor decides. Source: 3-log.md, "Time".
const CLOCK_LIMIT: Duration = Duration::from_secs(5);
/// How often the engine learns how far the journal goes, so that it can let go of its tail.
const JOURNAL_EVERY: Duration = Duration::from_secs(1);
/// How often the chains of all readers' checkpoints are compared with the owners' own (L4).
const READERS_EVERY: Duration = Duration::from_secs(2);

/// What the edge needs of it.
pub(crate) struct CommandPart {
    pub(crate) commands: Commands,
    pub(crate) sealer: Arc<CommandSealer>,
}

/// Starts it.
pub(crate) async fn start(parts: &Parts, tasks: &mut Tasks) -> anyhow::Result<CommandPart> {
    let pool = parts
        .databases
        .pool(DatabaseRole::Command, "command", 8, None)
        .await?;
    let sealer = Arc::new(CommandSealer::open(parts.keys.subjects(pool.clone())?).await?);
    let app = parts.catalog.app().clone();
    let head = match parts.log.kind {
        LogKind::Kafka => JournalHead::Indexer,
        LogKind::Postgres | LogKind::Memory => JournalHead::LogHead,
    };
    let store: Arc<dyn StreamStore> = Arc::new(PgStreamStore::new(pool.clone(), app, parts.log.shards, head));
    let engine = annals_command::Parts {
        log: Arc::clone(&parts.log.log),
        store: Arc::clone(&store),
        catalog: parts.catalog.clone(),
        ambient: parts.ambient.clone(),
        settings: engine_settings(&parts.settings, parts.log.kind)?,
        claimant: Claimant {
            node: parts.id.to_string(),
            url: parts.internal_url.clone(),
            generation: parts.log.generation,
            shards: parts.log.shards,
        },
        tasks: engine_tasks(),
    };
    let (asks_sender, asks) = mpsc::unbounded_channel();
    let engine_stop = tasks.token(Phase::Engine);
    let commands = annals_command::start(&engine, asks_sender, &engine_stop, tasks.set(Phase::Engine));
    // Of their own: renewals must not wait behind cold loads.
    let own = parts
        .databases
        .pool(DatabaseRole::Command, "leases", 2, None)
        .await?;
    let settings = parts
        .databases
        .settings(DatabaseRole::Command, "lease-listener", 1)?;
    let ownership = Ownership {
        leases: parts.leases(own.clone()),
        commands: commands.clone(),
        shards: parts.log.shards,
        asks,
        clock: Some(clock_probe(parts, own)),
        ambient: parts.ambient.clone(),
        standing: parts.standing.clone(),
        notifier: Some(parts.notifier.clone()),
        listener: Some(Listener::connect(&settings, &[lease::CHANNEL]).await?),
    };
    let stop = tasks.token(Phase::Work);
    if parts.log.kind == LogKind::Kafka {
        indexing::start(parts, tasks).await?;
    }
    tasks.spawn(
        Phase::Work,
        "journal",
        follow_journal(store, commands.clone(), stop.clone()),
    );
    tasks.spawn(
        Phase::Work,
        "readers",
        compare_readers(pool, commands.clone(), stop.clone()),
    );
    // Leases go back when the engine has nothing to do any more.
    tasks.spawn(Phase::Engine, "ownership", ownership.run(engine_stop));
    Ok(CommandPart { commands, sealer })
}

/// One task is enough on two cores; more where there are more.
fn engine_tasks() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 4).clamp(1, 4)
}

fn engine_settings(settings: &Settings, kind: LogKind) -> Result<EngineSettings, ConfigError> {
    let (command, log) = (&settings.command, &settings.log);
    let engine = EngineSettings {
        mailbox: command.mailbox,
        queue_ms: command.queue_ms,
        inflight_bytes: command.inflight_bytes.usize(),
        tail_bytes: command.tail_bytes.usize(),
        stall_ms: command.stall_ms,
        cache_bytes: command.cache_bytes.usize(),
        snapshot_every: command.snapshot_every,
        key_lifetime_s: command.key_lifetime_s,
        keys_per_stream: command.keys_per_stream,
        refusals_per_minute: command.refusals_per_minute,
        refusal_burst: command.refusal_burst,
        record_bytes: log.record_bytes.usize(),
        // Kafka's journal is filled behind the log; until it has a record, only the writer does.
        writer: match kind {
            LogKind::Kafka => WriterSettings {
                appends_in_flight: log.appends_in_flight,
                ..WriterSettings::KAFKA
            },
            LogKind::Postgres | LogKind::Memory => WriterSettings::POSTGRES,
        },
        ..EngineSettings::default()
    };
    engine.validate().map_err(ConfigError)?;
    Ok(engine)
}

fn clock_probe(parts: &Parts, pool: PgPool) -> ClockProbe {
    let ambient = parts.ambient.clone();
    Arc::new(move || {
        let (ambient, pool) = (ambient.clone(), pool.clone());
        Box::pin(async move {
            let clock = move || ambient.now_ms();
            Ok(!clock_offset(&pool, &clock).await?.exceeds(CLOCK_LIMIT))
        })
    })
}

/// Shows the owner of each shard where every reader stands: the two must have folded the same history.
async fn compare_readers(pool: PgPool, commands: Commands, stop: CancellationToken) {
    let mut round = tokio::time::interval(READERS_EVERY);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = round.tick() => {}
        }
        match Checkpoint::load_readers(&pool).await {
            Ok(readers) => {
                for (reader, shard, checkpoint) in readers {
                    commands.compare(shard, reader, checkpoint.head).await;
                }
            }
            Err(error) => tracing::warn!(%error, "the readers' checkpoints cannot be read"),
        }
    }
}

/// Tells the engine how far the journal goes, for the shards that are decided here.
async fn follow_journal(store: Arc<dyn StreamStore>, commands: Commands, stop: CancellationToken) {
    let mut round = tokio::time::interval(JOURNAL_EVERY);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = round.tick() => {}
        }
        let own = |place: &Place| matches!(place, Place::Here { owner: true });
        let places = commands.places().into_iter();
        let shards: Vec<Shard> = places
            .filter(|(_, place)| own(place))
            .map(|(shard, _)| shard)
            .collect();
        if shards.is_empty() {
            continue;
        }
        match store.checkpoints(&shards).await {
            Ok(checkpoints) => {
                for (shard, at) in shards.into_iter().zip(checkpoints) {
                    commands.indexed(shard, at.head.next).await;
                }
            }
            Err(error) => tracing::warn!(%error, "how far the journal goes cannot be read"),
        }
    }
}

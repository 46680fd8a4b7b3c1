//! `log copy`: from one place to another, proven, with what does not follow from the log alone.
//!
//! The target is a database of its own: what follows from the log is made anew there, what does not (keys of data
//! subjects, process managers) is carried in the transaction that makes the copy a log. Until then no node opens it, and
//! the same command goes on where it was cut short. The source stays as it is, closed.

mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_log::copy::{self, Carried, CloseDraft, CopyError, CopySettings, Of, Proof, ShardCopy};
use annals_log::{
    Checkpoint, Indexer, IndexerSettings, KafkaError, KafkaLog, Log, LogIdentity, LogKind, PostgresLog,
};
use annals_record::value::ClaimValue;
use annals_record::{Generation, Offset, Shard, hash};
use annals_store::lease::{Leases, NodeId, PgLeases};
use annals_store::roles::DatabaseRole;
use anyhow::Context as _;
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::cli::args::CopyArgs;
use crate::cli::output::{Output, Progress};
use crate::config::{ConfigError, Layers, Settings, load};
use crate::exit::{Answer, Usage};
use crate::node::databases::Databases;
use crate::node::log::{self as node_log, OpenLog};
use crate::node::tasks::{Phase, Tasks};
use report::Report;

/// Shards that are copied at once.
const AT_ONCE: usize = 4;
/// How long nodes that were killed may still look alive: their leases have to run out.
const NODES_GONE_WITHIN: Duration = Duration::from_secs(30);

/// One of the two.
struct Side {
    file: String,
    settings: Settings,
    databases: Databases,
    pool: PgPool,
}

impl Side {
    async fn open(app: &App, file: &Path) -> anyhow::Result<Self> {
        let layers = Layers {
            file: Layers::of_process(Some(file))?.file,
            ..Layers::default()
        };
        let settings = load(&layers, &app.sections())?;
        let databases = Databases::new(settings.database.clone(), false);
        databases.check_migrated(DatabaseRole::Migrator).await?;
        let pool = databases.pool(DatabaseRole::Migrator, "copy", 8, None).await?;
        Ok(Self {
            file: file.display().to_string(),
            settings,
            databases,
            pool,
        })
    }
}

/// Copies.
pub(super) async fn run(app: &App, args: &CopyArgs, output: Output) -> anyhow::Result<Answer> {
    let until = cuts(args)?;
    let name = app.app_name()?;
    let (from, to) = (
        Side::open(app, &args.from).await?,
        Side::open(app, &args.to).await?,
    );
    let mut tasks = Tasks::default();
    let source = node_log::look(&name, &from.settings, from.pool.clone(), &mut tasks).await?;
    let identity = LogIdentity {
        app: name,
        shards: source.shards,
        generation: source.generation.next(),
        kind: node_log::kind(&to.settings.log)?,
    };
    check_target(&from, &to, &identity).await?;
    if let Some(shard) = until.keys().find(|shard| !source.shards.contains(**shard)) {
        let what = format!(
            "--until {shard}:…: the log has {} shards, counted from 0",
            source.shards
        );
        return Err(Usage(what).into());
    }
    nodes_are_gone(&from).await?;
    let target = open_target(&to, &identity, args.replication, &mut tasks).await?;

    close_all(&source, &identity, &until).await?;
    let copies = copy_all(&source, target.as_ref(), &identity, &until).await?;
    drop(target);

    // Opened anew, so that nothing of what this process remembers is part of the proof.
    let target = open_target(&to, &identity, args.replication, &mut tasks).await?;
    let readers = Checkpoint::load_readers(&from.pool).await?;
    let accepted = copies
        .iter()
        .map(|(shard, copy)| (*shard, copy.head.accepted))
        .collect();
    let carried = copy::readers_to_carry(readers.clone(), &accepted);
    let proofs = prove_all(target.as_ref(), &identity, &copies, &carried).await?;
    if identity.kind == LogKind::Kafka {
        fill_journal(app, &to, &target, &proofs).await?;
    }
    let again = Checkpoint::load_readers(&from.pool).await?;
    anyhow::ensure!(
        again == readers,
        "a reader of the source has moved meanwhile: stop every node, then run it again"
    );
    let (subject_keys, processes) = finish(&from, &to, &identity, &carried, &proofs).await?;
    let report = Report::of(
        identity.generation,
        &copies,
        &proofs,
        &carried,
        subject_keys,
        processes,
    );
    report.print(output)?;
    Ok(Answer::Done)
}

fn cuts(args: &CopyArgs) -> anyhow::Result<BTreeMap<Shard, Offset>> {
    let mut until = BTreeMap::new();
    for cut in &args.until {
        if cut.generation != Generation::FIRST {
            return Err(Usage(format!(
                "--until {cut}: a place in the source itself, SHARD:OFFSET"
            ))
            .into());
        }
        if until.insert(cut.shard, cut.offset).is_some() {
            return Err(Usage(format!("--until names shard {} twice", cut.shard)).into());
        }
    }
    Ok(until)
}

/// Another database, empty or begun by this command; the same number of shards.
async fn check_target(from: &Side, to: &Side, identity: &LogIdentity) -> anyhow::Result<()> {
    let shards = node_log::shard_count(&to.settings.log)?;
    if shards != identity.shards {
        return Err(ConfigError(format!(
            "{}: log.shards is {shards}, and the log has {}: a copy has as many",
            to.file, identity.shards
        ))
        .into());
    }
    match LogIdentity::load_any(&to.pool).await? {
        None => Ok(()),
        Some((found, true)) if found == *identity => {
            eprintln!("{}: going on with a copy that was begun", to.file);
            Ok(())
        }
        Some((found, _)) => Err(ConfigError(format!(
            "{}: its database holds a log already (generation {} of `{}`); {} is copied to a database of its own: make an \
             empty one and run `migrate up` on it",
            to.file, found.generation, found.app, from.file
        ))
        .into()),
    }
}

async fn nodes_are_gone(from: &Side) -> anyhow::Result<()> {
    let ttl = Duration::from_millis(from.settings.lease.ttl_ms);
    let leases = PgLeases::new(from.pool.clone(), NodeId::new("log-copy"), "", ttl);
    let until = tokio::time::Instant::now() + NODES_GONE_WITHIN.max(ttl);
    let mut said = false;
    loop {
        let nodes = leases.nodes().await?;
        if nodes.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = nodes
            .iter()
            .map(|node| format!("{} ({})", node.id.as_str(), node.url))
            .collect();
        anyhow::ensure!(
            tokio::time::Instant::now() < until,
            "nodes are running on the source: {}; stop them all, then run this again",
            list.join(", ")
        );
        if !said {
            eprintln!("waiting for the leases of {} to run out", list.join(", "));
            said = true;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn open_target(
    to: &Side,
    identity: &LogIdentity,
    replication: u16,
    tasks: &mut Tasks,
) -> anyhow::Result<Arc<dyn Log>> {
    let fresh = LogIdentity::load_any(&to.pool).await?.is_none();
    if identity.kind == LogKind::Kafka {
        let settings = node_log::kafka(&to.settings)?;
        match KafkaLog::create(&settings, &identity.app, identity.shards, replication).await {
            Ok(()) => {}
            Err(KafkaError::Exists { .. }) if !fresh => {}
            Err(KafkaError::Exists { .. }) => {
                node_log::be_empty(&identity.app, &to.settings, identity.shards).await?;
            }
            Err(error) => return Err(error).with_context(|| to.file.clone()),
        }
    }
    identity.begin_copy(&to.pool).await?;
    if identity.kind == LogKind::Kafka {
        let settings = node_log::kafka(&to.settings)?;
        let (app, shards) = (identity.app.clone(), identity.shards);
        let log = KafkaLog::open(settings, app, shards, identity.generation).await;
        return Ok(Arc::new(log.with_context(|| to.file.clone())?));
    }
    let own = node_log::postgres(&to.settings);
    let pool = to
        .databases
        .pool(DatabaseRole::Migrator, "copy-log", 6, None)
        .await?;
    let (log, task) = PostgresLog::open_copy(pool, identity.clone(), own).await?;
    tasks.spawn(Phase::Log, "log", task.run());
    Ok(Arc::new(log))
}

fn of<'a>(log: &'a dyn Log, identity: &LogIdentity, shard: Shard) -> Of<'a> {
    let genesis = hash::genesis(&identity.app, shard, identity.shards);
    Of { log, shard, genesis }
}

/// From here on no node goes on with the source, whatever comes of the rest.
async fn close_all(
    source: &OpenLog,
    identity: &LogIdentity,
    until: &BTreeMap<Shard, Offset>,
) -> anyhow::Result<()> {
    let ambient = crate::ambient::system();
    let mut progress = Progress::new("closing shards", u64::from(source.shards.get()));
    for shard in source.shards.shards() {
        let value = ClaimValue {
            app: identity.app.clone(),
            shard,
            shards: identity.shards,
            generation: source.generation,
            node: "log-copy".to_owned(),
            url: String::new(),
        };
        let draft = || CloseDraft {
            id: ambient.record_id(),
            time_ms: ambient.now_ms(),
            value: value.to_bytes(),
        };
        let closed = copy::close(
            of(source.log.as_ref(), identity, shard),
            &CopySettings::default(),
            draft,
        )
        .await;
        match closed {
            Ok(_) => {}
            // No node passes that place: it needs no close, and none would count.
            Err(error @ CopyError::Halted(_)) if until.contains_key(&shard) => {
                eprintln!("shard {shard} is not closed: {error}");
            }
            Err(error) => return Err(error.into()),
        }
        progress.add(1);
    }
    progress.finish();
    Ok(())
}

async fn copy_all(
    source: &OpenLog,
    target: &dyn Log,
    identity: &LogIdentity,
    until: &BTreeMap<Shard, Offset>,
) -> anyhow::Result<BTreeMap<Shard, ShardCopy>> {
    let mut total = 0;
    for shard in source.shards.shards() {
        total += source.log.end(shard).await?.get();
    }
    let progress = Mutex::new(Progress::new("log copy", total));
    let (settings, heard) = (CopySettings::default(), &progress);
    let copies = stream::iter(source.shards.shards())
        .map(|shard| {
            let (from, cut) = (
                of(source.log.as_ref(), identity, shard),
                until.get(&shard).copied(),
            );
            let settings = &settings;
            async move {
                let hear = |count| heard.lock().unwrap_or_else(PoisonError::into_inner).add(count);
                let copied = copy::shard(from, target, cut, settings, hear).await?;
                Ok::<_, CopyError>((shard, copied))
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    progress
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .finish();
    Ok(copies)
}

async fn prove_all(
    target: &dyn Log,
    identity: &LogIdentity,
    copies: &BTreeMap<Shard, ShardCopy>,
    carried: &[Carried],
) -> anyhow::Result<BTreeMap<Shard, Proof>> {
    let total = copies.values().map(|copy| copy.head.accepted).sum();
    let mut progress = Progress::new("proving the copy", total);
    let mut proofs = BTreeMap::new();
    for (shard, copied) in copies {
        let counts: Vec<u64> = carried
            .iter()
            .filter(|carried| carried.shard == *shard)
            .map(|carried| carried.accepted)
            .collect();
        let shard_of_target = of(target, identity, *shard);
        let proof = copy::prove(shard_of_target, &copied.head, &counts, &CopySettings::default()).await?;
        proofs.insert(*shard, proof);
        progress.add(copied.head.accepted);
    }
    progress.finish();
    Ok(proofs)
}

/// Nodes that start on the copy find their journal there, and need not read the whole log first.
async fn fill_journal(
    app: &App,
    to: &Side,
    target: &Arc<dyn Log>,
    proofs: &BTreeMap<Shard, Proof>,
) -> anyhow::Result<()> {
    let shards: BTreeSet<Shard> = proofs.keys().copied().collect();
    let indexer = Indexer::new(
        Arc::clone(target),
        to.pool.clone(),
        app.catalog()?,
        IndexerSettings::default(),
    );
    let mut indexed = indexer.progress();
    let (_wanted, wants) = watch::channel(shards);
    let stop = CancellationToken::new();
    let mut progress = Progress::new(
        "filling the journal",
        proofs.values().map(|p| p.head.next.get()).sum(),
    );
    let filling = async {
        loop {
            let (mut all, mut done) = (true, 0);
            for (shard, proof) in proofs {
                let known = indexed.borrow_and_update().get(shard).cloned();
                let next = known.as_ref().map_or(Offset::new(0), |known| known.next);
                if let Some(why) = known.and_then(|known| known.stopped) {
                    anyhow::bail!("shard {shard}: {why}");
                }
                all &= next >= proof.head.next;
                done += next.get();
            }
            progress.add(done.saturating_sub(progress.done()));
            if all {
                return Ok(());
            }
            indexed.changed().await.context("the indexer has ended")?;
        }
    };
    tokio::select! {
        filled = filling => filled?,
        () = indexer.run(wants, stop.clone()) => anyhow::bail!("the indexer has ended"),
    }
    progress.finish();
    Ok(())
}

/// One transaction makes the copy a log, with all that it needs.
async fn finish(
    from: &Side,
    to: &Side,
    identity: &LogIdentity,
    carried: &[Carried],
    proofs: &BTreeMap<Shard, Proof>,
) -> anyhow::Result<(u64, annals_process::Carried)> {
    let mut source = from.pool.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *source)
        .await?;
    let mut target = to.pool.begin().await?;
    let keys = annals_auth::subject::carry(&mut source, &mut target).await?;
    let ends = proofs
        .iter()
        .map(|(shard, proof)| (*shard, proof.head.next))
        .collect();
    let processes = annals_process::carry(&mut source, &mut target, &ends).await?;
    copy::carry_checkpoints(&mut target, carried, proofs).await?;
    identity.end_copy(&mut target).await?;
    target.commit().await?;
    Ok((keys, processes))
}

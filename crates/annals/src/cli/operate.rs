//! `migrate` and `log`: work on the database and the log themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_log::{Log, LogIdentity, LogKind, ReadLimits};
use annals_record::fold::{Fold, Verdict};
use annals_record::{Offset, Shard, hash};
use annals_store::migrate::{self, State};
use annals_store::notify::{Limits, Notifier};
use annals_store::roles::DatabaseRole;
use serde::Serialize;

use crate::app::App;
use crate::cli::args::{Log as LogCommand, Migrate};
use crate::cli::output::{self, Output, Progress};
use crate::config::Settings;
use crate::exit::Answer;
use crate::node::databases::Databases;
use crate::node::tasks::Tasks;
use crate::node::{DevShape, Shape, log as node_log};

/// `migrate`.
pub(crate) async fn migrate(settings: &Settings, what: &Migrate, output: Output) -> anyhow::Result<Answer> {
    let databases = Databases::new(settings.database.clone(), false);
    let pool = databases.pool(DatabaseRole::Migrator, "migrate", 2, None).await?;
    match what {
        Migrate::Up => migrate::up(&pool).await?,
        Migrate::Down { to: Some(version) } => migrate::down_to(&pool, *version).await?,
        Migrate::Down { to: None } => match migrate::down(&pool).await? {
            Some(version) => output::text(&format!("{version:04} taken back"))?,
            None => output::text("nothing is applied")?,
        },
        Migrate::Status => {}
    }
    #[derive(Serialize)]
    struct Row {
        version: i64,
        name: String,
        state: String,
    }
    let statuses = migrate::status(&pool).await?;
    let complete = statuses
        .iter()
        .all(|status| matches!(status.state, State::Applied(_)));
    let rows = statuses.into_iter().map(|status| Row {
        version: status.version,
        name: status.name,
        state: match status.state {
            State::Pending => "not applied".to_owned(),
            State::Applied(at) => format!("applied {}", at.format("%Y-%m-%dT%H:%M:%SZ")),
            State::Changed(_) => "applied, and the file reads differently now".to_owned(),
            State::Unknown(_) => "applied by a newer release".to_owned(),
        },
    });
    output.print_all(&rows.collect::<Vec<_>>())?;
    Ok(if complete || matches!(what, Migrate::Down { .. }) {
        Answer::Done
    } else {
        Answer::No
    })
}

/// `log`.
pub(crate) async fn log(
    app: &App,
    settings: &Settings,
    what: &LogCommand,
    output: Output,
) -> anyhow::Result<Answer> {
    let databases = Databases::new(settings.database.clone(), false);
    if let LogCommand::Create { replication } = what {
        databases.check_migrated(DatabaseRole::Migrator).await?;
        let identity = node_log::create(&app.app_name()?, settings, &databases, *replication).await?;
        output.print(&Identity::of(&identity))?;
        return Ok(Answer::Done);
    }
    let mut tasks = Tasks::default();
    let catalog = app.catalog()?;
    let role = DatabaseRole::Migrator;
    let (notifier, _) = Notifier::new(&databases.settings(role, "notifier", 1)?, Limits::default())?;
    // Whoever looks at an unsafe log must be able to.
    let shape = Shape {
        dev: Some(DevShape {
            data_dir: "".into(),
            node: String::new(),
        }),
    };
    let open = node_log::open(
        &catalog, settings, &databases, role, &notifier, &shape, &mut tasks,
    )
    .await?;
    let description = open.log.describe().await?;
    if matches!(what, LogCommand::Describe) {
        match output {
            Output::Table => {
                output::text(&format!(
                    "log of `{}`: {:?}, {} shards, generation {}, durability {:?}",
                    description.app,
                    description.kind,
                    description.shards,
                    description.generation,
                    description.durability
                ))?;
                output.print_all(&description.settings)?;
            }
            other => other.print(&description)?,
        }
        return Ok(Answer::Done);
    }
    let mut reports = Vec::new();
    let mut progress = Progress::new("log check", total(open.log.as_ref(), &open).await?);
    for shard in open.shards.shards() {
        let genesis = hash::genesis(catalog.app(), shard, open.shards);
        reports.push(check(&open.log, shard, Fold::from_genesis(genesis), &mut progress).await?);
    }
    progress.finish();
    output.print_all(&reports)?;
    let sound = reports
        .iter()
        .all(|report| report.halt.is_none() && report.alarming == 0);
    Ok(if sound { Answer::Done } else { Answer::No })
}

#[derive(Debug, Serialize)]
struct Identity {
    app: String,
    kind: LogKind,
    shards: u32,
    generation: String,
}

impl Identity {
    fn of(identity: &LogIdentity) -> Self {
        Self {
            app: identity.app.to_string(),
            kind: identity.kind,
            shards: identity.shards.get(),
            generation: identity.generation.to_string(),
        }
    }
}

/// What `log check` found in a shard.
#[derive(Debug, Serialize)]
struct ShardReport {
    shard: Shard,
    records: u64,
    accepted: u64,
    ghosts: String,
    /// Ghosts that should not be: foreign and unchained ones.
    alarming: u64,
    epoch: String,
    chain: String,
    halt: Option<String>,
}

async fn total(log: &dyn Log, open: &node_log::OpenLog) -> anyhow::Result<u64> {
    let mut total = 0;
    for shard in open.shards.shards() {
        total += log.end(shard).await?.get();
    }
    Ok(total)
}

async fn check(
    log: &Arc<dyn Log>,
    shard: Shard,
    mut fold: Fold,
    progress: &mut Progress,
) -> anyhow::Result<ShardReport> {
    let end = log.end(shard).await?;
    let limits = ReadLimits {
        wait: Duration::from_secs(5),
        ..ReadLimits::default()
    };
    let (mut accepted, mut alarming) = (0, 0);
    let mut ghosts: BTreeMap<String, u64> = BTreeMap::new();
    let mut halt = None;
    let mut next = Offset::new(0);
    'read: while next < end {
        for placed in log.read(shard, next, limits).await? {
            match fold.step(&placed.slot, placed.hash) {
                Verdict::Accept => accepted += 1,
                Verdict::Ghost(why) => {
                    let why = format!("{why:?}");
                    alarming += u64::from(why == "Foreign" || why == "Unchained");
                    *ghosts.entry(why).or_default() += 1;
                }
                Verdict::Halt(why) => {
                    let hash = placed.hash;
                    halt = Some(format!(
                        "at offset {}: {why:?}; record {hash}, chain {}",
                        placed.offset,
                        fold.head().chain
                    ));
                    break 'read;
                }
            }
            next = placed.offset.next();
            progress.add(1);
        }
    }
    let head = fold.head();
    let ghosts: Vec<String> = ghosts
        .iter()
        .map(|(why, count)| format!("{why} {count}"))
        .collect();
    Ok(ShardReport {
        shard,
        records: next.get(),
        accepted,
        ghosts: ghosts.join(", "),
        alarming,
        epoch: head.epoch.to_string(),
        chain: head.chain.to_string(),
        halt,
    })
}

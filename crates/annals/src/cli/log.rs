//! `log`: create, describe, check and copy a log.

mod check;
mod copy;

use annals_log::{KafkaLog, LogIdentity, LogKind};
use annals_store::roles::DatabaseRole;
use serde::Serialize;

use crate::app::App;
use crate::cli::args::{Common, Log as LogCommand};
use crate::cli::output::{self, Output};
use crate::exit::Answer;
use crate::node::databases::Databases;
use crate::node::log as node_log;
use crate::node::tasks::Tasks;

/// Runs one of them.
pub(crate) async fn run(
    app: &App,
    common: &Common,
    what: LogCommand,
    output: Output,
) -> anyhow::Result<Answer> {
    let settings = match &what {
        // It reads two files of its own.
        LogCommand::Copy(args) => {
            crate::telemetry::client();
            return copy::run(app, args, output).await;
        }
        LogCommand::Create { .. } | LogCommand::Describe | LogCommand::Check { .. } => {
            super::settings(app, common)?
        }
    };
    if let LogCommand::Check {
        broker: true,
        replication,
    } = what
    {
        return brokers(node_log::kafka(&settings)?, replication, output).await;
    }
    let databases = Databases::new(settings.database.clone(), false);
    if let LogCommand::Create { replication } = what {
        databases.check_migrated(DatabaseRole::Migrator).await?;
        let identity = node_log::create(&app.app_name()?, &settings, &databases, replication).await?;
        output.print(&Identity::of(&identity))?;
        return Ok(Answer::Done);
    }
    let mut tasks = Tasks::default();
    let pool = databases.pool(DatabaseRole::Migrator, "log", 6, None).await?;
    let open = node_log::look(&app.app_name()?, &settings, pool.clone(), &mut tasks).await?;
    if matches!(what, LogCommand::Check { .. }) {
        return check::run(&open, &pool, output).await;
    }
    let description = open.log.describe().await?;
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
    Ok(Answer::Done)
}

/// Whether these brokers keep the promises of a log.
async fn brokers(
    settings: annals_log::KafkaSettings,
    replication: u16,
    output: Output,
) -> anyhow::Result<Answer> {
    #[derive(Serialize)]
    struct Promise {
        promise: &'static str,
        kept: bool,
        why: Option<String>,
    }
    let random = crate::ambient::system().uuid().simple().to_string();
    let name = format!("conformance-{random}");
    eprintln!("topic {name}.log: made for this check, and deleted behind it");
    let kept = KafkaLog::keeps_promises(settings, &name.parse()?, replication).await?;
    let promises: Vec<Promise> = kept
        .into_iter()
        .map(|(promise, kept)| Promise {
            promise,
            kept: kept.is_ok(),
            why: kept.err().map(|broken| broken.to_string()),
        })
        .collect();
    output.print_all(&promises)?;
    let all = promises.iter().all(|promise| promise.kept);
    Ok(if all { Answer::Done } else { Answer::No })
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

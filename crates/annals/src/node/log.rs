//! The log of the settings: made, opened, checked.

use std::sync::Arc;

use annals_domain::Catalog;
use annals_log::{
    Description, KafkaError, KafkaLog, KafkaSettings, Log, LogIdentity, LogKind, PostgresLog,
    PostgresSettings, Sasl, ScramMechanism, SettingCheck, Tls, Wakes, postgres,
};
use annals_record::{AppName, Generation, ShardCount};
use annals_store::notify::{Listener, Notifier};
use annals_store::roles::DatabaseRole;
use anyhow::Context as _;
use sqlx::PgPool;

use crate::config::{ConfigError, Settings, sections};
use crate::node::Shape;
use crate::node::databases::Databases;
use crate::node::tasks::{Phase, Tasks};

/// A log that is open.
#[derive(Clone)]
pub(crate) struct OpenLog {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) kind: LogKind,
    pub(crate) shards: ShardCount,
    pub(crate) generation: Generation,
}

/// Opens the log as this node's first role sees it; its own tasks begin.
pub(crate) async fn open(
    catalog: &Catalog,
    settings: &Settings,
    databases: &Databases,
    role: DatabaseRole,
    notifier: &Notifier,
    shape: &Shape,
    tasks: &mut Tasks,
) -> anyhow::Result<OpenLog> {
    let app = catalog.app();
    let shards = shard_count(&settings.log)?;
    let pool = databases.pool(role, "log", 6, None).await?;
    let open = match kind(&settings.log)? {
        LogKind::Kafka => {
            let identity = LogIdentity::load(&pool).await?;
            let identity =
                identity.ok_or_else(|| ConfigError("there is no log yet: run `log create`".to_owned()))?;
            let wanted = LogIdentity {
                app: app.clone(),
                shards,
                generation: identity.generation,
                kind: LogKind::Kafka,
            };
            if identity != wanted {
                return Err(other_log(&identity, &wanted).into());
            }
            let log = KafkaLog::open(kafka(settings)?, app.clone(), shards, identity.generation).await?;
            log.warm_up();
            OpenLog {
                log: Arc::new(log),
                kind: LogKind::Kafka,
                shards,
                generation: identity.generation,
            }
        }
        LogKind::Postgres | LogKind::Memory => {
            let listener = Listener::connect(
                &databases.settings(role, "log-listener", 1)?,
                &[postgres::CHANNEL],
            )
            .await?;
            let wakes = Wakes {
                notifier: Some(notifier.clone()),
                listener: Some(listener),
            };
            let own = postgres(settings);
            let opened = PostgresLog::open(pool, app, Some(shards), own, wakes).await;
            let (log, task) =
                opened.context("the log cannot be opened; `log create` makes one in an empty database")?;
            let generation = log.identity().generation;
            tasks.spawn(Phase::Log, "log", task.run());
            OpenLog {
                log: Arc::new(log),
                kind: LogKind::Postgres,
                shards,
                generation,
            }
        }
    };
    check(&open.log.describe().await?, settings, shape)?;
    Ok(open)
}

/// Opens the log of a database to look at it or to copy it: whatever its settings, without a node's own tasks.
pub(crate) async fn look(
    app: &AppName,
    settings: &Settings,
    pool: PgPool,
    tasks: &mut Tasks,
) -> anyhow::Result<OpenLog> {
    let identity = LogIdentity::load(&pool).await?;
    let identity = identity
        .ok_or_else(|| ConfigError("this database holds no log: `log create` makes one".to_owned()))?;
    let wanted = LogIdentity {
        app: app.clone(),
        kind: kind(&settings.log)?,
        ..identity.clone()
    };
    if identity != wanted {
        return Err(other_log(&identity, &wanted).into());
    }
    let log: Arc<dyn Log> = match identity.kind {
        LogKind::Kafka => Arc::new(KafkaLog::inspect(
            kafka(settings)?,
            identity.app,
            identity.shards,
            identity.generation,
        )?),
        LogKind::Postgres | LogKind::Memory => {
            let own = postgres(settings);
            let (log, task) = PostgresLog::open(pool, app, None, own, Wakes::default()).await?;
            tasks.spawn(Phase::Log, "log", task.run());
            Arc::new(log)
        }
    };
    Ok(OpenLog {
        log,
        kind: identity.kind,
        shards: identity.shards,
        generation: identity.generation,
    })
}

/// The settings of the Postgres log.
pub(crate) fn postgres(settings: &Settings) -> PostgresSettings {
    PostgresSettings {
        record_bytes: settings.log.record_bytes.usize(),
        ..PostgresSettings::default()
    }
}

/// Unsafe settings end the start, unless they were insisted on; in `dev` they are warned of.
fn check(description: &Description, settings: &Settings, shape: &Shape) -> Result<(), ConfigError> {
    let insisted = |check: &&SettingCheck| {
        let standby = settings.log.allow_async_standby && check.name == "synchronous_standby_names";
        !check.ok && !standby
    };
    for wrong in description.settings.iter().filter(insisted) {
        let what = format!("{} is `{}`: it must be {}", wrong.name, wrong.value, wrong.wanted);
        if shape.dev.is_none() {
            let hint = match wrong.name.as_str() {
                "synchronous_standby_names" => " (--allow-async-standby insists)",
                _ => "",
            };
            return Err(ConfigError(format!("the log is not safe: {what}{hint}")));
        }
        tracing::warn!("the log is not safe: {what}");
    }
    Ok(())
}

/// Makes the log of the settings; nothing changes if it is there already.
pub(crate) async fn create(
    app: &AppName,
    settings: &Settings,
    databases: &Databases,
    replication: u16,
) -> anyhow::Result<LogIdentity> {
    let shards = shard_count(&settings.log)?;
    let kind = kind(&settings.log)?;
    let pool = databases.pool(DatabaseRole::Migrator, "create", 1, None).await?;
    let wanted = LogIdentity {
        app: app.clone(),
        shards,
        generation: Generation::FIRST,
        kind,
    };
    if let Some(identity) = LogIdentity::load(&pool).await? {
        // A copy is a later generation, and as much a log.
        let wanted = LogIdentity {
            generation: identity.generation,
            ..wanted
        };
        return match identity == wanted {
            true => Ok(identity),
            false => Err(other_log(&identity, &wanted).into()),
        };
    }
    if kind == LogKind::Kafka {
        match KafkaLog::create(&kafka(settings)?, app, shards, replication).await {
            Ok(()) => {}
            // A creation that was cut short goes on.
            Err(KafkaError::Exists { .. }) => be_empty(app, settings, shards).await?,
            Err(error) => return Err(error.into()),
        }
    }
    wanted.create(&pool).await?;
    Ok(wanted)
}

/// A topic with records belongs to another database, whose keys of data subjects it needs.
pub(crate) async fn be_empty(app: &AppName, settings: &Settings, shards: ShardCount) -> anyhow::Result<()> {
    let log = KafkaLog::open(kafka(settings)?, app.clone(), shards, Generation::FIRST).await?;
    for shard in shards.shards() {
        let end = log.end(shard).await?;
        if end.get() > 0 {
            return Err(ConfigError(format!(
                "topic {} holds records already, and this database knows no log: take the database that belongs to it, \
                 or another log.topic",
                log.topic()
            ))
            .into());
        }
    }
    log.close().await;
    Ok(())
}

fn other_log(found: &LogIdentity, wanted: &LogIdentity) -> ConfigError {
    let words = |identity: &LogIdentity| {
        format!(
            "`{}`, {} shards, {:?}",
            identity.app, identity.shards, identity.kind
        )
    };
    ConfigError(format!(
        "this database belongs to the log {}, and the settings say {}",
        words(found),
        words(wanted)
    ))
}

/// How many shards.
pub(crate) fn shard_count(settings: &sections::Log) -> Result<ShardCount, ConfigError> {
    ShardCount::try_from(settings.shards)
        .map_err(|error| ConfigError(format!("log.shards is {}: {error}", settings.shards)))
}

/// Where the log is.
pub(crate) fn kind(settings: &sections::Log) -> Result<LogKind, ConfigError> {
    match settings.kind.as_str() {
        "postgres" => Ok(LogKind::Postgres),
        "kafka" => Ok(LogKind::Kafka),
        other => Err(ConfigError(format!("log.kind is `{other}`: postgres or kafka"))),
    }
}

/// The settings of the Kafka log.
pub(crate) fn kafka(settings: &Settings) -> Result<KafkaSettings, ConfigError> {
    let log = &settings.log;
    let brokers = log.brokers.clone().ok_or_else(|| {
        ConfigError(
            "log.brokers is not set (ANNALS_KAFKA_BROKERS): host:port, several with commas".to_owned(),
        )
    })?;
    let mut kafka = KafkaSettings::new(brokers);
    kafka.topic.clone_from(&log.topic);
    kafka.producers = log.producers;
    kafka.producers_max = log.producers_max;
    kafka.record_bytes = log.record_bytes.usize();
    kafka.allow_single_replica = log.allow_single_replica;
    kafka.tls = log.tls.then(|| Tls {
        ca_file: log.tls_ca_file.clone(),
        certificate_file: log.tls_certificate_file.clone(),
        key_file: log.tls_key_file.clone(),
        key_password: log
            .tls_key_password
            .clone()
            .map(crate::config::Secret::into_inner),
    });
    kafka.sasl = sasl(log)?;
    Ok(kafka)
}

fn sasl(log: &sections::Log) -> Result<Option<Sasl>, ConfigError> {
    let Some(mechanism) = &log.sasl_mechanism else {
        return Ok(None);
    };
    let mechanism = match mechanism.as_str() {
        "SCRAM-SHA-256" => ScramMechanism::Sha256,
        "SCRAM-SHA-512" => ScramMechanism::Sha512,
        // What cannot be looked at cannot be found safe.
        "OAUTHBEARER" => {
            let what = "log.sasl_mechanism is OAUTHBEARER, which does not work yet: the Kafka client never asks for a token \
                        where it reads a topic's settings; take SCRAM-SHA-512 or a client certificate";
            return Err(ConfigError(what.to_owned()));
        }
        other => {
            let what = format!("log.sasl_mechanism is `{other}`: SCRAM-SHA-256 or SCRAM-SHA-512");
            return Err(ConfigError(what));
        }
    };
    match (&log.sasl_username, &log.sasl_password) {
        (Some(username), Some(password)) => Ok(Some(Sasl::Scram {
            mechanism,
            username: username.clone(),
            password: password.clone().into_inner(),
        })),
        _ => Err(ConfigError(
            "log.sasl_mechanism needs log.sasl_username and log.sasl_password".to_owned(),
        )),
    }
}

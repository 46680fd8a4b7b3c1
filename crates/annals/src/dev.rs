//! `dev`: everything in one process, on a private PostgreSQL, with keys and an issuer of its own.
//!
//! What it needs it makes, and finds again after a kill: the cluster, the broker, the keys, the leases of its own.
//! A lock on the data dir keeps a second one out.

mod kafka;
mod place;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_auth::DevIssuer;
use annals_domain::Ambient;
use annals_store::cluster::Cluster;
use annals_store::migrate;
use annals_store::roles::DatabaseRole;
use anyhow::Context as _;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::cli::args::{Common, DevArgs};
use crate::cli::session::Context;
use crate::config::{Layers, Settings, load};
use crate::exit::{Answer, Usage};
use crate::node::databases::Databases;
use crate::node::{self, DevShape, Running, Shape, log};
use crate::telemetry;
use place::Place;

/// The audience of tokens in `dev`.
pub(crate) const AUDIENCE: &str = "annals";

/// The settings that a `dev` runs with, for commands that work on its database.
pub(crate) fn settings_file(data_dir: &Path) -> PathBuf {
    data_dir.join("dev.toml")
}

/// What was started outside of this process, to be stopped again.
#[derive(Default)]
struct Outside {
    cluster: Option<Cluster>,
    broker: Option<kafka::Broker>,
}

/// Runs it until a signal.
pub(crate) async fn run(app: Arc<App>, common: &Common, args: DevArgs) -> anyhow::Result<Answer> {
    let place = Place::take(&common.data_dir)?;
    let layers = layers(common, &args, &place)?;
    let settings = load(&layers, &app.sections())?;
    telemetry::server(&settings.telemetry)?;
    let mut outside = Outside::default();
    let outcome = inside(&app, common, &args, &place, layers, &mut outside).await;
    std::fs::remove_file(settings_file(place.dir())).ok();
    if let Some(broker) = outside.broker {
        broker.stop().await;
    }
    if let Some(cluster) = outside.cluster
        && let Err(error) = cluster.stop().await
    {
        tracing::warn!(%error, "the private PostgreSQL did not stop; the next start finds it");
    }
    outcome
}

/// Other defaults than a server's, and the flags.
fn layers(common: &Common, args: &DevArgs, place: &Place) -> anyhow::Result<Layers> {
    let jwks = place.dir().join(annals_auth::issuer::JWKS_FILE);
    Ok(Layers::of_process(common.config.as_deref())?
        .base("telemetry.log_format", "dev", "pretty")
        .base("auth.audience", "dev", AUDIENCE)
        .base("auth.jwks_file", "dev", jwks.display())
        .base("log.allow_single_replica", "dev", true)
        .flag("http.listen", "--listen", args.listen.as_ref())
        .flag("http.ops_listen", "--ops-listen", args.ops_listen.as_ref())
        .flag("log.kind", "--log", args.log.as_ref())
        .flag("log.brokers", "--brokers", args.brokers.as_ref()))
}

async fn inside(
    app: &Arc<App>,
    common: &Common,
    args: &DevArgs,
    place: &Place,
    mut layers: Layers,
    outside: &mut Outside,
) -> anyhow::Result<Answer> {
    let sections = app.sections();
    let settings = load(&layers, &sections)?;
    let database = database_name(app.name());
    if settings.database.url.is_none() {
        let cluster = Cluster::start(place.dir()).await?;
        let url = cluster.database(&database).await;
        outside.cluster = Some(cluster);
        layers = layers.base("database.url", "dev", url?.reveal());
    }
    if log::kind(&settings.log)? == annals_log::LogKind::Kafka && settings.log.brokers.is_none() {
        let broker = kafka::Broker::start(&place.dir().join("kafka")).await?;
        layers = layers.base("log.brokers", "dev", &broker.address);
        outside.broker = Some(broker);
    }
    let mut service = None;
    if let Some(start) = app.dev_hook() {
        let started = start(load(&layers, &sections)?, args.demo).await?;
        for (key, value) in &started.settings {
            layers = layers.base(key, "dev", value);
        }
        // It lives beside the node, and ends with this function.
        service = Some(AbortOnDrop(tokio::spawn(started.run)));
    }
    let settings = load(&layers, &sections)?;
    let ambient = crate::ambient::system();
    prepare(app, place, &settings, &ambient).await?;
    let shape = Shape {
        dev: Some(DevShape {
            data_dir: place.dir().to_owned(),
            node: place.node(),
        }),
    };
    let running = node::start(app, settings, shape).await?;
    let outcome = until_the_end(app, common, args, place, running).await;
    drop(service);
    outcome
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tables, log, issuer, and the settings for other commands.
async fn prepare(app: &App, place: &Place, settings: &Settings, ambient: &Ambient) -> anyhow::Result<()> {
    let databases = Databases::new(settings.database.clone(), false);
    let pool = databases.pool(DatabaseRole::Migrator, "migrate", 2, None).await?;
    migrate::up(&pool).await?;
    pool.close().await;
    log::create(&app.app_name()?, settings, &databases, 1).await?;
    DevIssuer::open_or_create(place.dir(), &settings.auth.audience, ambient.clone())?;
    place.write_settings(&settings_file(place.dir()), settings)
}

/// PostgreSQL's names want no hyphen.
fn database_name(app: &str) -> String {
    app.replace('-', "_")
}

async fn until_the_end(
    app: &Arc<App>,
    common: &Common,
    args: &DevArgs,
    place: &Place,
    mut running: Running,
) -> anyhow::Result<Answer> {
    let mut demo = Demo::None;
    let mut announced = false;
    let ready = running.ready.clone();
    loop {
        tokio::select! {
            ended = running.first_end() => return running.fail(ended).await,
            () = node::signalled() => break,
            () = ready.wait(), if !announced => {
                announced = true;
                node::announce(&running)?;
                hints(app, place, &running)?;
                if args.demo {
                    demo = Demo::Running(tokio::spawn(run_demo(Arc::clone(app), common.clone(), place.dir().to_owned(), running.public)));
                }
            }
            answer = demo.ended(), if demo.is_running() => {
                if let Err(error) = &answer {
                    eprintln!("demo: {error:#}");
                }
                demo = Demo::Ended(answer.unwrap_or(Answer::No));
            }
        }
    }
    let answer = match demo {
        Demo::Ended(answer) => answer,
        Demo::Running(task) => {
            task.abort();
            Answer::Done
        }
        Demo::None => Answer::Done,
    };
    running.stop().await;
    Ok(answer)
}

enum Demo {
    None,
    Running(JoinHandle<anyhow::Result<Answer>>),
    Ended(Answer),
}

impl Demo {
    fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    async fn ended(&mut self) -> anyhow::Result<Answer> {
        match self {
            Self::Running(task) => task.await.context("the demo panicked")?,
            Self::None | Self::Ended(_) => std::future::pending().await,
        }
    }
}

/// Runs the subcommand `demo` as a client of this process.
async fn run_demo(
    app: Arc<App>,
    common: Common,
    data_dir: PathBuf,
    public: std::net::SocketAddr,
) -> anyhow::Result<Answer> {
    let demo = app.subcommands().find(|sub| sub.name() == "demo");
    let demo = demo.ok_or_else(|| Usage("this app has no demo".to_owned()))?;
    let url = format!("http://{public}");
    let matches = demo.command().try_get_matches_from(["demo", "--url", &url])?;
    let common = Common { data_dir, ..common };
    demo.run(
        Context {
            app: Arc::clone(&app),
            common,
            in_dev: true,
        },
        &matches,
    )
    .await
}

/// What to type next, as it can be pasted.
fn hints(app: &App, place: &Place, running: &Running) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("where this program is")?;
    let token = format!(
        "{} token --role admin --data-dir {}",
        quoted(&program),
        quoted(place.dir())
    );
    let resource = app
        .catalog()?
        .aggregates()
        .next()
        .map_or("openapi.json", |first| first.resource());
    eprintln!("token:  {token}");
    eprintln!(
        "query:  curl -s -H \"Authorization: Bearer $({token})\" 'http://{}/v1/{resource}?limit=3'",
        running.public
    );
    eprintln!("docs:   http://{}/docs", running.public);
    Ok(())
}

/// Quoted for a shell where it needs to be.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

//! What a program says of itself: its aggregates, processes, effects, settings, own subcommands.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::process::ExitCode;

use annals_domain::{Aggregate, Catalog, Effect, Process, catalog};
use annals_process::{AnyEffect, AnyProcess, erased};
use annals_record::AppName;
use futures_util::future::BoxFuture;

use crate::cli::session::Context;
use crate::config::{Section, SectionInfo, Settings};
use crate::exit::{Answer, Usage};

/// A program: everything that is the domain's own. [`App::run`] makes a command line of it.
pub struct App {
    name: &'static str,
    about: String,
    aggregates: Vec<fn(catalog::Builder) -> catalog::Builder>,
    sections: Vec<SectionInfo>,
    subcommands: Vec<Box<dyn AnySubcommand>>,
    processes: Vec<Make<AnyProcess>>,
    effects: Vec<Make<AnyEffect>>,
    loads: Vec<Load>,
    dev: Option<DevHook>,
}

/// Makes something of the settings.
type Make<T> = Box<dyn Fn(&Settings) -> anyhow::Result<T> + Send + Sync>;

/// A kind of load for `bench`.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Its name in `--mix`.
    pub name: &'static str,
    /// What has to be there first, for each stream of `--streams`.
    pub prepare: Option<fn(u32) -> Request>,
    /// A request about a stream.
    pub next: fn(u32) -> Request,
}

/// A request of `bench`.
#[derive(Debug, Clone)]
pub enum Request {
    /// A command; its idempotency key is made.
    Command {
        /// The plural name of the aggregate.
        resource: &'static str,
        /// The stream's key.
        key: String,
        /// The command's name.
        name: &'static str,
        /// Its data.
        data: serde_json::Value,
    },
    /// A row of a read model.
    Get {
        /// The read model.
        resource: &'static str,
        /// The row's key.
        key: String,
    },
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What `dev` starts beside the node: a stand-in for something of the outside world.
pub struct DevService {
    /// Settings that follow from it: `commerce.gateway_url`. They count as defaults: whoever set them otherwise wins.
    pub settings: Vec<(String, String)>,
    /// The service itself, until the program ends.
    pub run: BoxFuture<'static, ()>,
}

/// Starts it; the second argument says whether the demo will run.
type DevHook = Box<dyn Fn(Settings, bool) -> BoxFuture<'static, anyhow::Result<DevService>> + Send + Sync>;

/// A subcommand of the domain's own. One that is called `demo` is what `dev --demo` runs.
pub trait Subcommand: clap::Args + Send + Sync + 'static {
    /// Its name on the command line.
    const NAME: &'static str;

    /// Runs it. It is a client like others: see [`Context::client`].
    fn run(self, cx: Context) -> impl Future<Output = anyhow::Result<Answer>> + Send;
}

pub(crate) trait AnySubcommand: Send + Sync {
    fn name(&self) -> &'static str;
    fn command(&self) -> clap::Command;
    fn run<'a>(&'a self, cx: Context, matches: &'a clap::ArgMatches)
    -> BoxFuture<'a, anyhow::Result<Answer>>;
}

struct Typed<S>(PhantomData<fn() -> S>);

impl<S: Subcommand> AnySubcommand for Typed<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn command(&self) -> clap::Command {
        S::augment_args(clap::Command::new(S::NAME))
    }

    fn run<'a>(
        &'a self,
        cx: Context,
        matches: &'a clap::ArgMatches,
    ) -> BoxFuture<'a, anyhow::Result<Answer>> {
        Box::pin(async move {
            let parsed = S::from_arg_matches(matches).map_err(|error| Usage(error.to_string()))?;
            parsed.run(cx).await
        })
    }
}

impl App {
    /// A program without anything yet. The name is that of its log, once and for all: `[a-z][a-z0-9_-]*`.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            about: format!("{name}, an event-sourced backend"),
            aggregates: Vec::new(),
            sections: Vec::new(),
            subcommands: Vec::new(),
            processes: Vec::new(),
            effects: Vec::new(),
            loads: Vec::new(),
            dev: None,
        }
    }

    /// What `--help` says first.
    #[must_use]
    pub fn about_text(mut self, about: impl Into<String>) -> Self {
        self.about = about.into();
        self
    }

    /// Adds an aggregate.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.aggregates.push(catalog::Builder::aggregate::<A>);
        self
    }

    /// Adds a section of settings of the domain's own, made by [`section!`](crate::section).
    #[must_use]
    pub fn section<S: Section>(mut self) -> Self {
        self.sections.push(SectionInfo::of::<S>());
        self
    }

    /// Adds a subcommand.
    #[must_use]
    pub fn subcommand<S: Subcommand>(mut self) -> Self {
        self.subcommands.push(Box::new(Typed::<S>(PhantomData)));
        self
    }

    /// Adds a process manager, and how its settings follow from those of the program.
    #[must_use]
    pub fn process<P: Process>(
        mut self,
        settings: impl Fn(&Settings) -> anyhow::Result<P::Settings> + Send + Sync + 'static,
    ) -> Self {
        self.processes
            .push(Box::new(move |all| Ok(erased::process::<P>(settings(all)?))));
        self
    }

    /// Adds an effect.
    #[must_use]
    pub fn effect<E: Effect>(
        mut self,
        make: impl Fn(&Settings) -> anyhow::Result<E> + Send + Sync + 'static,
    ) -> Self {
        self.effects
            .push(Box::new(move |all| Ok(erased::effect(make(all)?))));
        self
    }

    /// Adds a kind of load for `bench`.
    #[must_use]
    pub fn load(mut self, load: Load) -> Self {
        self.loads.push(load);
        self
    }

    /// What `dev` starts first, given the settings so far and whether the demo will run.
    #[must_use]
    pub fn in_dev<F>(mut self, start: impl Fn(Settings, bool) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<DevService>> + Send + 'static,
    {
        self.dev = Some(Box::new(move |settings, demo| {
            let starting: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(start(settings, demo));
            starting
        }));
        self
    }

    /// Parses the command line and does what it says.
    #[must_use]
    pub fn run(self) -> ExitCode {
        crate::cli::run(self)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn about(&self) -> String {
        self.about.clone()
    }

    pub(crate) fn app_name(&self) -> anyhow::Result<AppName> {
        let name: Result<AppName, _> = self.name.try_into();
        name.map_err(|_| anyhow::anyhow!("`{}` is no name of an app", self.name))
    }

    /// Every aggregate, checked.
    ///
    /// # Errors
    /// The first name that is wrong or taken, in words.
    pub fn catalog(&self) -> anyhow::Result<Catalog> {
        let mut builder = Catalog::builder(self.app_name()?);
        for add in &self.aggregates {
            builder = add(builder);
        }
        Ok(builder.build()?)
    }

    pub(crate) fn sections(&self) -> Vec<SectionInfo> {
        self.sections.clone()
    }

    pub(crate) fn subcommands(&self) -> impl Iterator<Item = &dyn AnySubcommand> {
        self.subcommands.iter().map(AsRef::as_ref)
    }

    pub(crate) fn processes(&self, settings: &Settings) -> anyhow::Result<Vec<AnyProcess>> {
        self.processes.iter().map(|make| make(settings)).collect()
    }

    pub(crate) fn effects(&self, settings: &Settings) -> anyhow::Result<Vec<AnyEffect>> {
        self.effects.iter().map(|make| make(settings)).collect()
    }

    pub(crate) fn loads(&self) -> &[Load] {
        &self.loads
    }

    pub(crate) fn dev_hook(&self) -> Option<&DevHook> {
        self.dev.as_ref()
    }
}

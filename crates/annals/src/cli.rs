//! The command line: what can be typed, and where it goes.
//!
//! In reading order: [`args`] (commands and options), [`output`] (tables, JSON, progress), [`session`] (clients of a
//! server), then one module for each kind of work.

pub mod args;
mod attest;
mod audit;
mod bench;
mod builds;
mod get;
mod import;
mod log;
pub mod operate;
pub mod output;
mod processes;
mod projections;
mod refold;
mod schemas;
mod send;
pub mod session;
mod tail;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};

use crate::app::App;
use crate::cli::args::{Cli, Command, Common};
use crate::cli::output::Output;
use crate::config::{Layers, Settings, explain, load};
use crate::exit::{self, Answer, Usage};
use crate::{dev, node, telemetry};

/// Runs the program: parses the command line, does what it says, gives the exit status.
pub(crate) fn run(app: App) -> ExitCode {
    let name = app.name();
    let mut command = Cli::command().name(name).bin_name(name).about(app.about());
    for sub in app.subcommands() {
        command = command.subcommand(sub.command());
    }
    let matches = match command.try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            // Help goes to standard output with status 0, mistakes to standard error with status 2.
            let code = error.exit_code();
            if error.print().is_err() {
                return ExitCode::from(3);
            }
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    // One provider of cryptography; a second one in the tree would make TLS panic.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return exit::code(&Err(anyhow::Error::new(error).context("the runtime cannot start"))),
    };
    let outcome = runtime.block_on(dispatch(Arc::new(app), &matches));
    // Whatever blocks a thread still (a resolver, a file) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    exit::code(&outcome)
}

async fn dispatch(app: Arc<App>, matches: &clap::ArgMatches) -> anyhow::Result<Answer> {
    let common = Common::from_arg_matches(matches).map_err(|error| Usage(error.to_string()))?;
    if let Some((name, matches)) = matches.subcommand()
        && let Some(sub) = app.subcommands().find(|sub| sub.name() == name)
    {
        telemetry::client();
        let cx = session::Context {
            app: Arc::clone(&app),
            common: common.clone(),
            in_dev: false,
        };
        return sub.run(cx, matches).await;
    }
    let cli = Cli::from_arg_matches(matches).map_err(|error| Usage(error.to_string()))?;
    let output = common.output;
    match cli.command {
        Command::Dev(args) => dev::run(app, &common, args).await,
        Command::Serve(args) => {
            let layers = Layers::of_process(common.config.as_deref())?;
            let settings = load(&args.layers(layers), &app.sections())?;
            telemetry::server(&settings.telemetry)?;
            node::serve(app, settings).await
        }
        Command::Migrate { what } => operate::migrate(&settings(&app, &common)?, &what, output).await,
        Command::Log { what } => log::run(&app, &common, what, output).await,
        Command::Projections { what } => {
            projections::run(&app, &settings(&app, &common)?, &common, &what, output).await
        }
        Command::Processes { what } => processes::run(&settings(&app, &common)?, &what, output).await,
        Command::Schemas { what } => schemas::run(&app, &what, output),
        Command::Send(args) => send::run(&common, args).await,
        Command::Import(args) => import::run(&common, args).await,
        Command::Get(args) => get::run(&common, args).await,
        Command::Tail(args) => tail::run(&common, args).await,
        Command::Audit {
            what: args::Audit::Attest { name, build },
        } => attest::run(&app, &settings(&app, &common)?, &common, &name, build).await,
        Command::Audit { what } => audit::run(&common, what).await,
        Command::Bench(args) => bench::run(&app, &common, args).await,
        Command::Token(args) => session::token(&common, &args),
        Command::Config { explain, example } => config(&app, &common, explain, example),
    }
}

/// The settings of commands that work on the database themselves: those of a `dev` under the data dir, unless others
/// are given.
fn settings(app: &App, common: &Common) -> anyhow::Result<Settings> {
    telemetry::client();
    let mut layers = Layers::of_process(common.config.as_deref())?;
    let dev = dev::settings_file(&common.data_dir);
    if layers.file.is_none() && common.config.is_none() && dev.exists() {
        layers = Layers {
            file: Layers::of_process(Some(&dev))?.file,
            ..layers
        };
    }
    Ok(load(&layers, &app.sections())?)
}

fn config(app: &App, common: &Common, with_source: bool, example: bool) -> anyhow::Result<Answer> {
    if example {
        let mut sections = load::machinery();
        sections.extend(app.sections());
        output::text(explain::example(&sections).trim_end())?;
        return Ok(Answer::Done);
    }
    let layers = Layers::of_process(common.config.as_deref())?;
    let effective = load(&layers, &app.sections())?.effective;
    match (common.output, with_source) {
        (Output::Table, false) => {
            for setting in effective {
                output::text(&format!("{} = {}", setting.key, setting.value))?;
            }
        }
        (Output::Table, true) => {
            let rows = effective
                .into_iter()
                .map(|setting| [setting.key, setting.value, setting.source]);
            output::table(&["setting", "value", "source"], rows)?;
        }
        (output, _) => output.print_all(&effective)?,
    }
    Ok(Answer::Done)
}

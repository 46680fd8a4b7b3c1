//! `projections list|check|status`; what is done to builds is in [`super::builds`].

use annals_projection::{Projections, check, status};
use annals_store::cluster::Cluster;
use annals_store::migrate;
use annals_store::roles::DatabaseRole;
use serde::Serialize;

use crate::app::App;
use crate::cli::args::{Common, Projections as What};
use crate::cli::builds;
use crate::cli::output::{self, Output};
use crate::cli::refold::Desk;
use crate::config::{ConfigError, Secret, Settings};
use crate::exit::Answer;
use crate::node::databases::Databases;

pub(crate) async fn run(
    app: &App,
    settings: &Settings,
    common: &Common,
    what: &What,
    output: Output,
) -> anyhow::Result<Answer> {
    match what {
        What::List => list(app, settings, output),
        What::Check { name } => checked(app, settings, common, name.as_deref(), output).await,
        What::Status => show_status(app, settings, output).await,
        other => builds::run(app, settings, common, other, output).await,
    }
}

fn list(app: &App, settings: &Settings, output: Output) -> anyhow::Result<Answer> {
    #[derive(Serialize)]
    struct Row {
        name: String,
        build: i32,
        rows: String,
        tables: String,
        resources: String,
        doc: String,
    }
    let catalog = app.catalog()?;
    let projections = Projections::load(&settings.projection.dir, &catalog)
        .map_err(|error| ConfigError(format!("projection.dir: {error}")))?;
    let join = |names: Vec<&str>| names.join(", ");
    let rows = projections.iter().map(|manifest| Row {
        name: manifest.id.name.to_string(),
        build: manifest.id.build.get(),
        rows: format!("{:?}", manifest.rows).to_lowercase(),
        tables: join(manifest.tables.iter().map(|table| table.name.as_str()).collect()),
        resources: join(
            manifest
                .resources
                .iter()
                .map(|resource| resource.name.as_str())
                .collect(),
        ),
        doc: manifest.doc.clone(),
    });
    output.print_all(&rows.collect::<Vec<_>>())?;
    Ok(Answer::Done)
}

async fn checked(
    app: &App,
    settings: &Settings,
    common: &Common,
    name: Option<&str>,
    output: Output,
) -> anyhow::Result<Answer> {
    let mut database = settings.database.clone();
    let mut cluster = None;
    if database.migrator.is_none() && database.url.is_none() {
        // A cluster of its own, so that a `dev` on the same data dir is not in the way.
        let dir = std::path::absolute(common.data_dir.join("check"))?;
        std::fs::create_dir_all(&dir)?;
        let started = Cluster::start(&dir).await?;
        database.url = Some(Secret::from(started.database("check").await?.reveal().to_owned()));
        cluster = Some(started);
    }
    let own = cluster.is_some();
    let report = async {
        let databases = Databases::new(database, false);
        let pool = databases.pool(DatabaseRole::Migrator, "check", 4, None).await?;
        match own {
            true => migrate::up(&pool).await?,
            false => databases.check_migrated(DatabaseRole::Migrator).await?,
        }
        Ok::<_, anyhow::Error>(check::check(&pool, &settings.projection.dir, &app.catalog()?, name).await?)
    };
    let report = report.await;
    if let Some(cluster) = cluster {
        cluster.stop().await?;
    }
    let report = report?;
    if output != Output::Table {
        output.print(&report)?;
    } else {
        print_report(&report)?;
    }
    Ok(if report.passed() { Answer::Done } else { Answer::No })
}

fn print_report(report: &check::Report) -> anyhow::Result<()> {
    for projection in &report.projections {
        let failed = projection
            .tests
            .iter()
            .filter(|test| !test.failures.is_empty())
            .count();
        let word = if projection.passed() { "ok" } else { "FAILED" };
        output::text(&format!(
            "{}: {word}, {} tests, {failed} failed",
            projection.name,
            projection.tests.len()
        ))?;
        for finding in &projection.findings {
            output::text(&format!("  {finding}"))?;
        }
        for test in projection.tests.iter().filter(|test| !test.failures.is_empty()) {
            output::text(&format!("  {} ({})", test.name, test.file.display()))?;
            for failure in &test.failures {
                let error = failure.error.as_deref().unwrap_or("rows differ");
                output::text(&format!("    {}: {error}", failure.run))?;
                for difference in &failure.differences {
                    output::text(&format!("      {}", serde_json::to_string(difference)?))?;
                }
            }
        }
        if !projection.untested.is_empty() {
            output::text(&format!("  in no test: {}", projection.untested.join(", ")))?;
        }
    }
    Ok(())
}

async fn show_status(app: &App, settings: &Settings, output: Output) -> anyhow::Result<Answer> {
    let desk = Desk::open(app, settings, DatabaseRole::Query).await?;
    let now_ms = crate::ambient::system().now_ms();
    let builds = status::status(&desk.pool, desk.log.log.as_ref(), now_ms).await?;
    if output != Output::Table {
        output.print_all(&builds)?;
        return Ok(Answer::Done);
    }
    let rows = builds.iter().map(|build| {
        [
            build.name.clone(),
            build.build.to_string(),
            if build.live {
                "live".to_owned()
            } else {
                build.state.clone()
            },
            build.lag_records.to_string(),
            build.lag_ms.to_string(),
            build.parked_streams.to_string(),
            progress(build),
        ]
    });
    output::table(
        &[
            "projection",
            "build",
            "state",
            "behind",
            "behind ms",
            "parked",
            "",
        ],
        rows,
    )?;
    for build in builds {
        for parked in &build.parked {
            output::text(&format!(
                "  {}/{}: {} is parked at {}:{} ({}), {} events wait: {}",
                build.name,
                build.build,
                parked.stream,
                parked.shard,
                parked.log_offset,
                parked.event_type,
                parked.events,
                parked.error.as_deref().unwrap_or_default()
            ))?;
        }
    }
    Ok(Answer::Done)
}

/// Rate and time left of a build that is being built; until when a former one is fed; why one failed.
fn progress(build: &status::BuildStatus) -> String {
    match (build.records_per_s, build.left_s, build.fed_until, &build.error) {
        (Some(rate), Some(left), ..) if build.lag_records > 0 => format!("{rate}/s, {left} s left"),
        (Some(rate), ..) => format!("{rate}/s"),
        (_, _, Some(until), _) => format!("until {}", until.format("%Y-%m-%dT%H:%M:%SZ")),
        (.., Some(error)) => error.clone(),
        _ => String::new(),
    }
}

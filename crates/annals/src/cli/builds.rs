//! `projections rebuild|switch|rollback|explain|resume|drop`: what is done to builds.
//!
//! Most of it is only asked for here, as the projectors' database role; the projectors do it.

use std::sync::Arc;
use std::time::Duration;

use annals_projection::compare::Comparison;
use annals_projection::diff::{Diff, diff};
use annals_projection::lifecycle::{self, BuildRow, Direction, LifecycleError, State, Switched};
use annals_projection::lineage::{self, Question};
use annals_projection::{Build, BuildId, Manifest, Name, Projections, parking, status};
use annals_store::roles::DatabaseRole;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::cli::args::{Common, Projections as What};
use crate::cli::output::{self, Output, Progress};
use crate::cli::refold::Desk;
use crate::config::{ConfigError, Settings};
use crate::exit::{Answer, Usage};

/// Between two looks at what was asked for.
const LOOK: Duration = Duration::from_millis(250);
/// After this it is said that no projector has taken up what was asked for.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(
    app: &App,
    settings: &Settings,
    common: &Common,
    what: &What,
    output: Output,
) -> anyhow::Result<Answer> {
    let desk = Desk::open(app, settings, DatabaseRole::Projector).await?;
    let work = Work {
        app,
        settings,
        common,
        output,
        desk,
    };
    let done = match what {
        What::Rebuild { name, diff, detach } => work.rebuild(name, *diff, *detach).await,
        What::Switch { name, build, diff } => work.switch(name, *build, *diff).await,
        What::Rollback { name } => work.go_live(&named(name)?, Direction::Back).await,
        What::Explain { resource, key } => work.explain(resource, key).await,
        What::Resume { name, build, stream } => work.resume(name, *build, stream.as_deref()).await,
        What::Drop { name, build } => work.drop_build(name, *build).await,
        What::List | What::Check { .. } | What::Status => Ok(Answer::Done),
    };
    match done {
        Err(error) => match error.downcast_ref::<LifecycleError>() {
            Some(LifecycleError::Refused(refusal)) => {
                eprintln!("{}: {refusal}", refusal.code);
                Ok(Answer::No)
            }
            Some(LifecycleError::NotFound(_)) => Err(Usage(error.to_string()).into()),
            _ => Err(error),
        },
        done => done,
    }
}

/// The folder of a projection.
pub(crate) fn folder(app: &App, settings: &Settings, name: &str) -> anyhow::Result<Arc<Manifest>> {
    let dir = &settings.projection.dir;
    let all = Projections::load(dir, &app.catalog()?)
        .map_err(|error| ConfigError(format!("projection.dir: {error}")))?;
    let found = all.get(name).cloned();
    found.ok_or_else(|| Usage(format!("{} has no projection `{name}`", dir.display())).into())
}

fn named(name: &str) -> anyhow::Result<Name> {
    Name::parse(name).ok_or_else(|| Usage(format!("`{name}` is no projection's name")).into())
}

fn numbered(build: i32) -> anyhow::Result<Build> {
    Build::new(build).ok_or_else(|| Usage(format!("--build {build}: builds count from 1")).into())
}

struct Work<'a> {
    app: &'a App,
    settings: &'a Settings,
    common: &'a Common,
    output: Output,
    desk: Desk,
}

impl Work<'_> {
    async fn rebuild(&self, name: &str, with_diff: bool, detach: bool) -> anyhow::Result<Answer> {
        let folder = folder(self.app, self.settings, name)?;
        let id = lifecycle::ask_rebuild(&self.desk.pool, &folder).await?;
        eprintln!("build {id} was asked for");
        if detach {
            self.print(&json!({"name": name, "build": id.build.get(), "state": "asked"}))?;
            return Ok(Answer::Done);
        }
        let began = Instant::now();
        let Some(records) = self.caught_up(&id).await? else {
            return Ok(Answer::No);
        };
        let seconds = began.elapsed().as_secs_f64();
        let done = json!({
            "name": name, "build": id.build.get(), "state": "caught_up", "records": records, "seconds": seconds,
        });
        // One document: the comparison names the build too.
        if !with_diff || self.output == Output::Table {
            self.print(&done)?;
        }
        match with_diff {
            true => self.compare(&id).await,
            false => Ok(Answer::Done),
        }
    }

    /// Waits until a build is where the live one was when it was looked at; none if it failed.
    async fn caught_up(&self, id: &BuildId) -> anyhow::Result<Option<u64>> {
        let mut progress: Option<Progress> = None;
        let began = Instant::now();
        let mut said = false;
        loop {
            let now_ms = crate::ambient::system().now_ms();
            let all = status::status(&self.desk.pool, self.desk.log.log.as_ref(), now_ms).await?;
            let of_name = || all.iter().filter(|status| status.name == id.name.as_str());
            let Some(status) = of_name().find(|status| status.build == id.build.get()) else {
                eprintln!("build {id} was dropped");
                return Ok(None);
            };
            if let Some(error) = status.error.as_ref().filter(|_| status.state == "failed") {
                eprintln!("build {id} could not be made: {error}");
                return Ok(None);
            }
            if status.state == "asked" && !said && began.elapsed() > TAKEN_UP_WITHIN {
                said = true;
                eprintln!("no projector has taken it up yet: is a node with the role `projector` running?");
            }
            if status.state == "building" || status.live {
                let total = status.folded_records + status.lag_records;
                let progress = progress.get_or_insert_with(|| Progress::new(format!("build {id}"), total));
                progress.expect(total);
                progress.add(status.folded_records.saturating_sub(progress.done()));
            }
            let live = of_name().find(|status| status.live);
            let is_there = status.live
                || live.is_some_and(|live| {
                    status.state == "building"
                        && live.shards.iter().all(|shard| {
                            let mine = status.shards.iter().find(|mine| mine.shard == shard.shard);
                            mine.is_some_and(|mine| mine.next >= shard.next)
                        })
                });
            if is_there {
                if let Some(progress) = progress {
                    progress.finish();
                }
                return Ok(Some(status.folded_records));
            }
            sleep(LOOK).await;
        }
    }

    async fn compare(&self, id: &BuildId) -> anyhow::Result<Answer> {
        let found = self.differences(id).await?;
        let equal = found.comparison.equal();
        match self.output {
            Output::Table => {
                output::text(&format!(
                    "builds {} and {} at equal checkpoints: {}; the live one stood still for {} ms",
                    found.live,
                    found.other,
                    if equal { "equal" } else { "they differ" },
                    found.stood_still_ms
                ))?;
                show_differences(&found.comparison)?;
            }
            other => other.print(&found)?,
        }
        Ok(if equal { Answer::Done } else { Answer::No })
    }

    async fn differences(&self, id: &BuildId) -> anyhow::Result<Diff> {
        let rows = self.desk.builds(&id.name).await?;
        let live = rows.iter().find(|row| row.live);
        let live = live.ok_or_else(|| Usage(format!("no build of `{}` is live yet", id.name)))?;
        if live.id == *id {
            return Err(Usage(format!(
                "build {id} is the live one: there is nothing to compare it with"
            ))
            .into());
        }
        let folder = folder(self.app, self.settings, id.name.as_str())?;
        let live = self.desk.manifest(&live.id, &folder).await?;
        let other = Arc::new(self.desk.manifest(id, &folder).await?);
        let source = self.desk.source(self.settings, self.common, &other)?;
        Ok(diff(&self.desk.pool, &source, &live, other).await?)
    }

    async fn switch(&self, name: &str, build: Option<i32>, with_diff: bool) -> anyhow::Result<Answer> {
        let name = named(name)?;
        let build = build.map(numbered).transpose()?;
        if with_diff {
            let rows = self.desk.builds(&name).await?;
            let newest = |row: &&BuildRow| row.state == State::Building && !row.live;
            let newest = rows.iter().filter(newest).map(|row| row.id.build).max();
            let Some(build) = build.or(newest) else {
                eprintln!("not_built: no new build is there: ask for one with `projections rebuild`");
                return Ok(Answer::No);
            };
            let id = BuildId {
                name: name.clone(),
                build,
            };
            if self.compare(&id).await? == Answer::No {
                eprintln!("the builds differ: not switched");
                return Ok(Answer::No);
            }
        }
        self.go_live(&name, build.map_or(Direction::Forward, Direction::To))
            .await
    }

    async fn go_live(&self, name: &Name, direction: Direction) -> anyhow::Result<Answer> {
        let grace = Duration::from_secs(self.settings.projection.grace_s);
        let Switched {
            from,
            to,
            stood_still,
        } = lifecycle::switch(&self.desk.pool, name, direction, grace).await?;
        self.print(&json!({
            "name": name.as_str(), "live": to.build.get(), "former": from.build.get(),
            "former_fed_s": grace.as_secs(), "stood_still_ms": u64::try_from(stood_still.as_millis())?,
        }))?;
        Ok(Answer::Done)
    }

    async fn drop_build(&self, name: &str, build: i32) -> anyhow::Result<Answer> {
        let id = BuildId {
            name: named(name)?,
            build: numbered(build)?,
        };
        // What no folder has any more is nobody's to switch from.
        let catalog = self.app.catalog()?;
        let folders = Projections::load(&self.settings.projection.dir, &catalog)
            .map_err(|error| ConfigError(format!("projection.dir: {error}")))?;
        let even_live = folders.get(name).is_none();
        lifecycle::ask_drop(&self.desk.pool, &id, even_live).await?;
        let gone = |rows: &[BuildRow]| !rows.iter().any(|row| row.id == id);
        self.taken_up(&id.name, gone).await?;
        self.print(&json!({"name": name, "build": build, "state": "dropped"}))?;
        Ok(Answer::Done)
    }

    async fn resume(&self, name: &str, build: Option<i32>, stream: Option<&str>) -> anyhow::Result<Answer> {
        let name = named(name)?;
        let build = build.map(numbered).transpose()?;
        let stream = stream
            .map(str::parse)
            .transpose()
            .map_err(|_| Usage("--stream is no stream's id".to_owned()))?;
        let asked = lifecycle::ask_resume(&self.desk.pool, &name, build, stream.as_ref()).await?;
        let done = |rows: &[BuildRow]| {
            let open = |row: &&BuildRow| asked.contains(&row.id) && row.resume_asked_at.is_some();
            rows.iter().find(open).is_none()
        };
        self.taken_up(&name, done).await?;
        let mut parked = Vec::new();
        for id in &asked {
            for stream in parking::list(&self.desk.pool, id, 100).await? {
                let mut shown = serde_json::to_value(&stream)?;
                shown["build"] = id.build.get().into();
                parked.push(shown);
            }
        }
        match (self.output, parked.is_empty()) {
            (Output::Table, true) => output::text("nothing is parked")?,
            (output, _) => output.print_all(&parked)?,
        }
        Ok(if parked.is_empty() {
            Answer::Done
        } else {
            Answer::No
        })
    }

    /// Waits until the projectors have done what was asked for.
    async fn taken_up(&self, name: &Name, done: impl Fn(&[BuildRow]) -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + TAKEN_UP_WITHIN;
        while !done(&self.desk.builds(name).await?) {
            if Instant::now() > until {
                anyhow::bail!(
                    "no projector did it within {} s; it stays asked for: is a node with the role `projector` running?",
                    TAKEN_UP_WITHIN.as_secs()
                );
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn explain(&self, resource: &str, key: &str) -> anyhow::Result<Answer> {
        let dir = &self.settings.projection.dir;
        let all = Projections::load(dir, &self.app.catalog()?)
            .map_err(|error| ConfigError(format!("projection.dir: {error}")))?;
        let (folder, table) = all
            .resource(resource)
            .map(|(folder, resource)| (Arc::clone(folder), resource.table.clone()))
            .ok_or_else(|| Usage(format!("{} has no resource `{resource}`", dir.display())))?;
        let rows = self.desk.builds(&folder.id.name).await?;
        let live = rows.iter().find(|row| row.live);
        let live = live.ok_or_else(|| Usage(format!("no build of `{}` is live yet", folder.id.name)))?;
        let manifest = self.desk.manifest(&live.id, &folder).await?;
        let source = self.desk.source(self.settings, self.common, &manifest)?;
        let question = Question {
            manifest: &manifest,
            table: &table,
            key,
        };
        let found = lineage::explain(&self.desk.pool, &source, &self.desk.journal(), question).await?;
        let Some(found) = found else {
            eprintln!("`{resource}` has no row `{key}`");
            return Ok(Answer::No);
        };
        let matches = found.matches;
        if self.output != Output::Table {
            self.output.print(&found)?;
        } else {
            let steps = found.steps.iter().map(|step| {
                let changes = step
                    .changes
                    .iter()
                    .map(|(column, (was, is))| format!("{column}: {was} → {is}"));
                [
                    step.position.clone(),
                    step.time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
                    format!("{}@{}", step.stream, step.version),
                    step.event.clone(),
                    step.actor.clone(),
                    changes.collect::<Vec<_>>().join(", "),
                ]
            });
            output::table(
                &["position", "time", "stream", "event", "actor", "changes"],
                steps,
            )?;
            if found.parked_events > 0 {
                output::text(&format!(
                    "{} events of these streams are parked",
                    found.parked_events
                ))?;
            }
            for difference in &found.differences {
                output::text(&format!("the table differs: {difference}"))?;
            }
        }
        Ok(if matches { Answer::Done } else { Answer::No })
    }

    fn print(&self, value: &serde_json::Value) -> anyhow::Result<()> {
        self.output.print(value)
    }
}

/// What differs, table by table and row by row.
pub(crate) fn show_differences(comparison: &Comparison) -> anyhow::Result<()> {
    for table in &comparison.tables {
        output::text(&format!(
            "  {}: {} rows expected, {} found, {} differ",
            table.table, table.expected_rows, table.actual_rows, table.differing_rows
        ))?;
        for shape in &table.shape {
            output::text(&format!("    {shape}"))?;
        }
    }
    for difference in &comparison.differences {
        output::text(&format!("    {difference}"))?;
    }
    Ok(())
}

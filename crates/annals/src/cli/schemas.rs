//! `schemas write|check`: JSON Schema files of every command and event.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde::Serialize;

use crate::app::App;
use crate::cli::args::Schemas;
use crate::cli::output::{self, Output};
use crate::exit::{Answer, Usage};

#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    what: &'static str,
}

pub(crate) fn run(app: &App, what: &Schemas, output: Output) -> anyhow::Result<Answer> {
    let wanted = wanted(app)?;
    match what {
        Schemas::Write { dir } => write(dir, &wanted),
        Schemas::Check { dir, against } => {
            let mut findings = check(dir, &wanted)?;
            if let Some(revision) = against {
                findings.extend(compare(app, dir, revision, &wanted)?);
            }
            if findings.is_empty() {
                output::text(&format!("{} schemas are as the files have them", wanted.len()))?;
                return Ok(Answer::Done);
            }
            output.print_all(&findings)?;
            eprintln!(
                "what is meant to change is written by: schemas write --dir {}",
                dir.display()
            );
            Ok(Answer::No)
        }
    }
}

/// Every file with its text, by path.
fn wanted(app: &App) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let files = app.catalog()?.schemas().into_iter().map(|(path, schema)| {
        let text = format!("{}\n", serde_json::to_string_pretty(&schema)?);
        Ok((PathBuf::from(path), text))
    });
    files.collect()
}

fn write(dir: &Path, wanted: &BTreeMap<PathBuf, String>) -> anyhow::Result<Answer> {
    let mut written = 0;
    for (path, text) in wanted {
        let file = dir.join(path);
        if std::fs::read_to_string(&file).ok().as_ref() == Some(text) {
            continue;
        }
        let folder = file.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        std::fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
        written += 1;
    }
    output::text(&format!(
        "{written} of {} schemas written to {}",
        wanted.len(),
        dir.display()
    ))?;
    Ok(Answer::Done)
}

fn check(dir: &Path, wanted: &BTreeMap<PathBuf, String>) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, text) in wanted {
        let what = match std::fs::read_to_string(dir.join(path)) {
            Ok(found) if found == *text => continue,
            Ok(_) => "differs",
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "missing",
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        findings.push(Finding {
            file: path.display().to_string(),
            what,
        });
    }
    Ok(findings)
}

/// A release may write only what the one before it can read: a schema of `revision` may neither change nor go, and
/// an event's newest schema is new only if `revision` could read it already.
fn compare(
    app: &App,
    dir: &Path,
    revision: &str,
    wanted: &BTreeMap<PathBuf, String>,
) -> anyhow::Result<Vec<Finding>> {
    let git = |arguments: &[&str]| -> anyhow::Result<String> {
        let run = Command::new("git")
            .args(arguments)
            .output()
            .context("git cannot be run")?;
        if !run.status.success() {
            let said = String::from_utf8_lossy(&run.stderr).trim().to_owned();
            return Err(Usage(format!("git {}: {said}", arguments.join(" "))).into());
        }
        Ok(String::from_utf8_lossy(&run.stdout).into_owned())
    };
    let events = dir.join("events");
    let listed = git(&[
        "ls-tree",
        "-r",
        "--name-only",
        revision,
        "--",
        &events.display().to_string(),
    ])?;
    let mut findings = Vec::new();
    for name in listed.lines() {
        let path = Path::new(name);
        let relative = path.strip_prefix(dir).unwrap_or(path);
        let before = git(&["show", &format!("{revision}:./{name}")])?;
        let what = match wanted.get(relative) {
            Some(now) if *now == before => continue,
            Some(_) => "changed since then: events with this schema are in logs; make a new schema",
            None => "gone since then: events with this schema are in logs",
        };
        findings.push(Finding {
            file: relative.display().to_string(),
            what,
        });
    }
    let listed: Vec<&Path> = listed
        .lines()
        .map(|name| Path::new(name).strip_prefix(dir).unwrap_or(Path::new(name)))
        .collect();
    for event in app.catalog()?.events() {
        let file = |number: u32| PathBuf::from(format!("events/{}/{number}.json", event.name));
        let known = listed
            .iter()
            .any(|path| path.starts_with(format!("events/{}", event.name)));
        if known && !listed.contains(&file(event.newest()).as_path()) {
            let file = file(event.newest()).display().to_string();
            let what = "written now, and the release of that revision cannot read it: ship it readable first";
            findings.push(Finding { file, what });
        }
    }
    Ok(findings)
}

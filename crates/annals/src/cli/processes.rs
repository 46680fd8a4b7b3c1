//! `processes list|show|resume`.

use annals_process::Admin;
use annals_store::roles::DatabaseRole;

use crate::cli::args::Processes;
use crate::cli::output::{self, Output};
use crate::config::Settings;
use crate::exit::Answer;
use crate::node::databases::Databases;

pub(crate) async fn run(settings: &Settings, what: &Processes, output: Output) -> anyhow::Result<Answer> {
    let databases = Databases::new(settings.database.clone(), false);
    let admin = Admin::new(
        databases
            .pool(DatabaseRole::Process, "processes", 2, None)
            .await?,
    );
    match what {
        Processes::List => list(&admin, output).await,
        Processes::Show { process, instance } => match admin.show(process, instance).await? {
            Some(detail) => {
                let value = serde_json::to_value(&detail)?;
                match output {
                    // Nested lists read better as they are.
                    Output::Table | Output::Json => output::text(&serde_json::to_string_pretty(&value)?)?,
                    Output::Ndjson => output.print(&value)?,
                }
                Ok(Answer::Done)
            }
            None => none(process, instance),
        },
        Processes::Resume { process, instance } => {
            if !admin.resume(process, instance).await? {
                return none(process, instance);
            }
            output::text(&format!("{process} {instance} goes on"))?;
            Ok(Answer::Done)
        }
    }
}

fn none(process: &str, instance: &str) -> anyhow::Result<Answer> {
    eprintln!(
        "process `{process}` has no instance `{instance}` of that kind; `processes list` lists those that are stuck"
    );
    Ok(Answer::No)
}

async fn list(admin: &Admin, output: Output) -> anyhow::Result<Answer> {
    let processes = admin.list().await?;
    if output != Output::Table {
        output.print_all(&processes)?;
        return Ok(Answer::Done);
    }
    let rows = processes.iter().flat_map(|process| {
        let steps = process
            .steps
            .iter()
            .map(|(step, count)| format!("{step}: {count}"));
        let first = [
            process.process.clone(),
            steps.collect::<Vec<_>>().join(", "),
            process.open_commands.to_string(),
            process.open_effects.to_string(),
        ];
        let stuck = process.stuck.iter().map(|instance| {
            let why = instance
                .stuck
                .clone()
                .or_else(|| instance.error.clone())
                .unwrap_or_default();
            [
                format!("  {}", instance.instance),
                format!("stuck at {}: {why}", instance.step),
                String::new(),
                String::new(),
            ]
        });
        std::iter::once(first).chain(stuck).collect::<Vec<_>>()
    });
    output::table(&["process", "instances", "commands open", "effects open"], rows)?;
    Ok(Answer::Done)
}

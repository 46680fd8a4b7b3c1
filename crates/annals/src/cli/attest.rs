//! `audit attest`: proof that a read model's tables equal the log, or the list of rows that do not.

use annals_projection::attest::{Attestation, attest};
use annals_projection::compare::TableComparison;
use annals_store::roles::DatabaseRole;

use crate::app::App;
use crate::cli::args::Common;
use crate::cli::builds::{folder, show_differences};
use crate::cli::output::{self, Output, Progress};
use crate::cli::refold::Desk;
use crate::config::Settings;
use crate::exit::{Answer, Usage};

pub(crate) async fn run(
    app: &App,
    settings: &Settings,
    common: &Common,
    name: &str,
    build: Option<i32>,
) -> anyhow::Result<Answer> {
    let folder = folder(app, settings, name)?;
    let desk = Desk::open(app, settings, DatabaseRole::Audit).await?;
    let rows = desk.builds(&folder.id.name).await?;
    let found = rows
        .iter()
        .find(|row| build.map_or(row.live, |build| row.id.build.get() == build));
    let found = found.ok_or_else(|| {
        let which = build.map_or("live".to_owned(), |build| build.to_string());
        Usage(format!(
            "projection `{name}` has no build {which}; `projections status` lists what there is"
        ))
    })?;
    let manifest = desk.manifest(&found.id, &folder).await?;
    let source = desk.source(settings, common, &manifest)?;
    let mut progress: Option<Progress> = None;
    let mut tell = |done: u64, total: u64| {
        let progress = progress.get_or_insert_with(|| Progress::new(format!("attest {name}"), total));
        progress.expect(total);
        progress.add(done.saturating_sub(progress.done()));
    };
    let found = attest(&desk.pool, &source, &manifest, &mut tell).await?;
    if let Some(progress) = progress {
        progress.finish();
    }
    match common.output {
        Output::Table => show(&found)?,
        other => other.print(&found)?,
    }
    Ok(if found.attested { Answer::Done } else { Answer::No })
}

fn show(found: &Attestation) -> anyhow::Result<()> {
    let Attestation { name, build, .. } = found;
    let rows: i64 = found
        .comparison
        .tables
        .iter()
        .map(|table| table.actual_rows)
        .sum();
    let verdict = match found.attested {
        true => "attested: the tables are the fold of the log",
        false => "NOT attested",
    };
    output::text(&format!(
        "{name}/{build}: {verdict}; {} records, {rows} rows, {} parked events left out",
        found.records, found.parked_events
    ))?;
    for wrong in &found.checkpoints {
        output::text(&format!(
            "  checkpoint of shard {}, {}: expected {}, found {}",
            wrong.shard, wrong.field, wrong.expected, wrong.actual
        ))?;
    }
    for event in &found.unapplied {
        output::text(&format!(
            "  {} event {} of {}: cannot be applied and is not parked: {}",
            event.position, event.index, event.stream, event.error
        ))?;
    }
    let differ = |table: &TableComparison| table.differing_rows > 0 || !table.shape.is_empty();
    if found.comparison.tables.iter().any(differ) {
        show_differences(&found.comparison)?;
    }
    Ok(())
}

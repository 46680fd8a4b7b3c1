//! `migrate`: work on the database itself.

use annals_store::migrate::{self, State};
use annals_store::roles::DatabaseRole;
use serde::Serialize;

use crate::cli::args::Migrate;
use crate::cli::output::{self, Output};
use crate::config::Settings;
use crate::exit::Answer;
use crate::node::databases::Databases;

/// `migrate`.
pub(crate) async fn migrate(settings: &Settings, what: &Migrate, output: Output) -> anyhow::Result<Answer> {
    let databases = Databases::new(settings.database.clone(), false);
    let pool = databases.pool(DatabaseRole::Migrator, "migrate", 2, None).await?;
    match what {
        Migrate::Up => migrate::up(&pool).await?,
        Migrate::Down { to: Some(version) } => migrate::down_to(&pool, *version).await?,
        Migrate::Down { to: None } => match migrate::down(&pool).await? {
            Some(version) => output::text(&format!("{version:04} taken back"))?,
            None => output::text("nothing is applied")?,
        },
        Migrate::Status => {}
    }
    #[derive(Serialize)]
    struct Row {
        version: i64,
        name: String,
        state: String,
    }
    let statuses = migrate::status(&pool).await?;
    let complete = statuses
        .iter()
        .all(|status| matches!(status.state, State::Applied(_)));
    let rows = statuses.into_iter().map(|status| Row {
        version: status.version,
        name: status.name,
        state: match status.state {
            State::Pending => "not applied".to_owned(),
            State::Applied(at) => format!("applied {}", at.format("%Y-%m-%dT%H:%M:%SZ")),
            State::Changed(_) => "applied, and the file reads differently now".to_owned(),
            State::Unknown(_) => "applied by a newer release".to_owned(),
        },
    });
    output.print_all(&rows.collect::<Vec<_>>())?;
    Ok(if complete || matches!(what, Migrate::Down { .. }) {
        Answer::Done
    } else {
        Answer::No
    })
}

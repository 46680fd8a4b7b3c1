//! Which of the server's settings an acknowledged append rests on, and what it survives.

use sqlx::{PgPool, Row};

use super::log_error;
use crate::{Durability, LogError, SettingCheck};

/// Settings and standbys, of one moment.
const SETTINGS: &str = "SELECT current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_standby_names') AS standby_names,
    (SELECT count(*) FROM pg_stat_replication) AS standbys";

/// What the server's settings promise. The appender itself sets `synchronous_commit` on its connection.
pub(super) async fn describe(pool: &PgPool) -> Result<(Durability, Vec<SettingCheck>), LogError> {
    let read = async {
        let row = sqlx::query(SETTINGS).fetch_one(pool).await?;
        let text = |column| row.try_get::<String, _>(column);
        let standbys: i64 = row.try_get("standbys")?;
        Ok((
            text("fsync")?,
            text("full_page_writes")?,
            text("standby_names")?,
            standbys,
        ))
    };
    let (fsync, full_page_writes, names, standbys) =
        read.await.map_err(|error: sqlx::Error| log_error(&error))?;
    let replicated = !names.is_empty();
    let checks = vec![
        check(
            "fsync",
            &fsync,
            "on, or a power failure loses what was acknowledged",
            fsync == "on",
        ),
        check(
            "full_page_writes",
            &full_page_writes,
            "on, or a power failure can tear pages",
            full_page_writes == "on",
        ),
        check("synchronous_commit", "on", "on", true),
        check(
            "synchronous_standby_names",
            &names,
            "set as soon as there is a standby, or losing the server loses what was acknowledged",
            replicated || standbys == 0,
        ),
    ];
    let durability = if replicated {
        Durability::Replicated
    } else {
        Durability::OneServer
    };
    Ok((durability, checks))
}

fn check(name: &str, value: &str, wanted: &str, ok: bool) -> SettingCheck {
    SettingCheck {
        name: name.to_owned(),
        value: value.to_owned(),
        wanted: wanted.to_owned(),
        ok,
    }
}

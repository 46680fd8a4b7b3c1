//! What operators see of processes, and the one thing that they do: resume an instance.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{PgPool, Row};

/// Instances of a process in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStatus {
    /// The process.
    pub process: String,
    /// Instances by step.
    pub steps: Vec<(String, i64)>,
    /// Commands that wait or are on their way.
    pub open_commands: i64,
    /// Effects that wait or are on their way.
    pub open_effects: i64,
    /// The instances that cannot go on by themselves, at most 100.
    pub stuck: Vec<InstanceStatus>,
}

/// One instance in short.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceStatus {
    /// Its id.
    pub instance: String,
    /// Where it stands.
    pub step: String,
    /// Why it cannot go on by itself.
    pub stuck: Option<String>,
    /// Its last error.
    pub error: Option<String>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// One instance in full.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceDetail {
    /// The short form.
    #[serde(flatten)]
    pub status: InstanceStatus,
    /// Its state.
    pub state: Box<RawValue>,
    /// What it sent, in order: number, what, where, state, attempts, last error.
    pub outbox: Vec<OutboxLine>,
}

/// One line of an instance's outbox.
#[derive(Debug, Clone, Serialize)]
pub struct OutboxLine {
    /// Its number.
    pub seq: i64,
    /// `command` or `effect`.
    pub kind: String,
    /// The command's or effect's name.
    pub name: String,
    /// The stream of a command.
    pub stream: Option<String>,
    /// `pending`, `sent`, `done`, `parked`, `withdrawn`.
    pub state: String,
    /// How often it was sent.
    pub attempts: i32,
    /// The last error.
    pub last_error: Option<String>,
}

/// The operators' view.
#[derive(Debug, Clone)]
pub struct Admin {
    pool: PgPool,
}

impl Admin {
    /// Over the process role's database.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Every process that has instances.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(&self) -> Result<Vec<ProcessStatus>, sqlx::Error> {
        let mut all: Vec<ProcessStatus> = Vec::new();
        let steps = sqlx::query(
            "SELECT process, step, count(*) AS n FROM annals.process_instance GROUP BY 1, 2 ORDER BY 1, 2",
        );
        for row in steps.fetch_all(&self.pool).await? {
            let process: String = row.try_get("process")?;
            if all.last().is_none_or(|last| last.process != process) {
                all.push(self.empty(process).await?);
            }
            if let Some(last) = all.last_mut() {
                last.steps.push((row.try_get("step")?, row.try_get("n")?));
            }
        }
        Ok(all)
    }

    async fn empty(&self, process: String) -> Result<ProcessStatus, sqlx::Error> {
        let open = sqlx::query(
            "SELECT count(*) FILTER (WHERE kind = 'command') AS commands,
                    count(*) FILTER (WHERE kind = 'effect') AS effects
             FROM annals.process_outbox WHERE process = $1 AND state IN ('pending', 'sent')",
        )
        .bind(&process)
        .fetch_one(&self.pool)
        .await?;
        let stuck = sqlx::query(
            "SELECT instance, step, stuck, error, updated_at FROM annals.process_instance
             WHERE process = $1 AND stuck IS NOT NULL ORDER BY instance LIMIT 100",
        )
        .bind(&process)
        .fetch_all(&self.pool)
        .await?;
        Ok(ProcessStatus {
            process,
            steps: Vec::new(),
            open_commands: open.try_get("commands")?,
            open_effects: open.try_get("effects")?,
            stuck: stuck.iter().map(status).collect::<Result<_, _>>()?,
        })
    }

    /// One instance; `None` if there is none.
    ///
    /// # Errors
    /// Postgres.
    pub async fn show(&self, process: &str, instance: &str) -> Result<Option<InstanceDetail>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT instance, step, stuck, error, updated_at, state FROM annals.process_instance
             WHERE process = $1 AND instance = $2",
        )
        .bind(process)
        .bind(instance)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let bytes: &[u8] = row.try_get("state")?;
        // One that is no JSON is shown as a text: it is what somebody has to look at.
        let state = serde_json::from_slice(bytes)
            .or_else(|_| serde_json::value::to_raw_value(&String::from_utf8_lossy(bytes)));
        let lines = sqlx::query(
            "SELECT seq, kind, COALESCE(command, effect) AS name, stream, state, attempts, last_error
             FROM annals.process_outbox WHERE process = $1 AND instance = $2 ORDER BY seq LIMIT 1000",
        )
        .bind(process)
        .bind(instance)
        .fetch_all(&self.pool)
        .await?;
        let outbox = lines.iter().map(|row| {
            Ok(OutboxLine {
                seq: row.try_get("seq")?,
                kind: row.try_get("kind")?,
                name: row.try_get("name")?,
                stream: row.try_get("stream")?,
                state: row.try_get("state")?,
                attempts: row.try_get("attempts")?,
                last_error: row.try_get("last_error")?,
            })
        });
        Ok(Some(InstanceDetail {
            status: status(&row)?,
            state: state.map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            outbox: outbox.collect::<Result<_, sqlx::Error>>()?,
        }))
    }

    /// Lets a stuck instance go on: what is parked of it is tried again. `false` if there is none such.
    ///
    /// # Errors
    /// Postgres.
    pub async fn resume(&self, process: &str, instance: &str) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // A parked command counts as sent and late: it is sent again once its shard has been read to the end.
        sqlx::query(
            "UPDATE annals.process_outbox
             SET state = CASE kind WHEN 'command' THEN 'sent' ELSE 'pending' END, due_at = now(), deadline_at = now()
             WHERE process = $1 AND instance = $2 AND state = 'parked'",
        )
        .bind(process)
        .bind(instance)
        .execute(&mut *transaction)
        .await?;
        let found = sqlx::query(
            "UPDATE annals.process_instance SET stuck = NULL, updated_at = now()
             WHERE process = $1 AND instance = $2 AND stuck IS NOT NULL",
        )
        .bind(process)
        .bind(instance)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(found.rows_affected() == 1)
    }
}

fn status(row: &sqlx::postgres::PgRow) -> Result<InstanceStatus, sqlx::Error> {
    Ok(InstanceStatus {
        instance: row.try_get("instance")?,
        step: row.try_get("step")?,
        stuck: row.try_get("stuck")?,
        error: row.try_get("error")?,
        updated_at: row.try_get("updated_at")?,
    })
}

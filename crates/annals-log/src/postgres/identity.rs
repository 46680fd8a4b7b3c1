//! What a log is, for ever: the one row of `log_meta`, and the heads that a Postgres log begins with.

use annals_record::fold::Head;
use annals_record::{AppName, Generation, ShardCount};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, PgPool, Row};

use super::log_error;
use crate::checkpoint::{decoded, encoded, signed_shard};
use crate::{LogError, LogKind};

/// Which log a database belongs to. Written once, when the log is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    /// Whose log.
    pub app: AppName,
    /// How many shards.
    pub shards: ShardCount,
    /// 1, and one more after each copy.
    pub generation: Generation,
    /// Where the log itself is; with Kafka the database holds the journal only.
    pub kind: LogKind,
}

impl LogIdentity {
    /// Reads what the database says it is; `None` if no log was created yet.
    ///
    /// # Errors
    /// [`LogError`]; `Refused` if it is the target of a copy that has not come to its end.
    pub async fn load(executor: impl PgExecutor<'_>) -> Result<Option<Self>, LogError> {
        match Self::load_any(executor).await? {
            Some((identity, false)) => Ok(Some(identity)),
            Some((_, true)) => Err(LogError::Refused(
                "this database is the target of a `log copy` that has not come to its end: run it again"
                    .to_owned(),
            )),
            None => Ok(None),
        }
    }

    /// The same, with whether it is the target of a copy that has not come to its end.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn load_any(executor: impl PgExecutor<'_>) -> Result<Option<(Self, bool)>, LogError> {
        let row = sqlx::query("SELECT app, shards, generation, kind FROM annals.log_meta")
            .fetch_optional(executor)
            .await
            .map_err(|error| log_error(&error))?;
        row.as_ref()
            .map(Self::from_row)
            .transpose()
            .map_err(|error| LogError::Refused(format!("log_meta does not read: {error}")))
    }

    /// Makes an empty database the target of a copy: no node opens its log before [`Self::end_copy`]. Nothing changes
    /// if it is that already.
    ///
    /// # Errors
    /// [`LogError::Refused`] if it is a log's home; [`LogError::Unavailable`].
    pub async fn begin_copy(&self, pool: &PgPool) -> Result<(), LogError> {
        let begun = async {
            let mut transaction = pool.begin().await?;
            self.write(&mut transaction, &format!("{UNFINISHED}{}", kind_name(self.kind)))
                .await?;
            transaction.commit().await
        };
        begun.await.map_err(|error| log_error(&error))?;
        match Self::load_any(pool).await? {
            Some((identity, true)) if identity == *self => Ok(()),
            Some((identity, _)) => Err(identity.refused()),
            None => Err(LogError::Refused("log_meta lost its row".to_owned())),
        }
    }

    /// The copy is proven: from now on nodes may open it. In the caller's transaction, beside what else was carried.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn end_copy(&self, connection: &mut PgConnection) -> Result<(), LogError> {
        let kind = kind_name(self.kind);
        let ended = sqlx::query("UPDATE annals.log_meta SET kind = $1 WHERE kind = $2")
            .bind(kind)
            .bind(format!("{UNFINISHED}{kind}"))
            .execute(connection)
            .await
            .map_err(|error| log_error(&error))?;
        match ended.rows_affected() {
            1 => Ok(()),
            _ => Err(LogError::Refused(
                "this database is not the target of a copy".to_owned(),
            )),
        }
    }

    /// Makes the database the home of this log: its identity, and for a Postgres log the head of every shard.
    /// Nothing changes if it is that already.
    ///
    /// # Errors
    /// [`LogError::Refused`] if it is another log's home; [`LogError::Unavailable`].
    pub async fn create(&self, pool: &PgPool) -> Result<(), LogError> {
        let created = async {
            let mut transaction = pool.begin().await?;
            self.write(&mut transaction, kind_name(self.kind)).await?;
            transaction.commit().await
        };
        created.await.map_err(|error| log_error(&error))?;
        match Self::load(pool).await? {
            Some(identity) if identity == *self => Ok(()),
            Some(identity) => Err(identity.refused()),
            None => Err(LogError::Refused("log_meta lost its row".to_owned())),
        }
    }

    /// The error that this is the identity, and not the one that was wanted.
    pub(super) fn refused(&self) -> LogError {
        let kind = kind_name(self.kind);
        let Self {
            app,
            shards,
            generation,
            ..
        } = self;
        LogError::Refused(format!(
            "this database holds the {kind} log of app `{app}` with {shards} shards, generation {generation}"
        ))
    }

    async fn write(&self, connection: &mut PgConnection, kind: &str) -> Result<(), sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO annals.log_meta (app, shards, generation, kind) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
        )
        .bind(self.app.as_str())
        .bind(encoded(i32::try_from(self.shards.get()))?)
        .bind(encoded(i32::try_from(self.generation.get()))?)
        .bind(kind)
        .execute(&mut *connection)
        .await?;
        if inserted.rows_affected() == 0 || self.kind != LogKind::Postgres {
            return Ok(());
        }
        let (mut shards, mut chains) = (Vec::new(), Vec::new());
        for shard in self.shards.shards() {
            shards.push(signed_shard(shard)?);
            let head = Head::genesis(&self.app, shard, self.shards);
            chains.push(<[u8; 32]>::from(head.chain).to_vec());
        }
        sqlx::query(
            "INSERT INTO annals.log_head (shard, next_offset, accepted, epoch, chain, time_ms, closed)
             SELECT shard, 0, 0, 0, chain, 0, false FROM UNNEST($1::int[], $2::bytea[]) AS h(shard, chain)",
        )
        .bind(shards)
        .bind(chains)
        .execute(connection)
        .await?;
        Ok(())
    }

    fn from_row(row: &PgRow) -> Result<(Self, bool), sqlx::Error> {
        let number = |column| decoded(u32::try_from(row.try_get::<i32, _>(column)?));
        let said: &str = row.try_get("kind")?;
        let unfinished = said.strip_prefix(UNFINISHED);
        let kind = match unfinished.unwrap_or(said) {
            "postgres" => LogKind::Postgres,
            "kafka" => LogKind::Kafka,
            "memory" => LogKind::Memory,
            other => return Err(sqlx::Error::Decode(format!("kind `{other}`").into())),
        };
        let identity = Self {
            app: decoded(row.try_get::<&str, _>("app")?.parse())?,
            shards: decoded(number("shards")?.try_into())?,
            generation: decoded(number("generation")?.try_into())?,
            kind,
        };
        Ok((identity, unfinished.is_some()))
    }
}

/// In front of the kind while a copy has not come to its end: no release before takes such a database for a log.
const UNFINISHED: &str = "unfinished copy to ";

/// As the column `kind` says it.
fn kind_name(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Memory => "memory",
        LogKind::Postgres => "postgres",
        LogKind::Kafka => "kafka",
    }
}

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
    /// [`LogError`].
    pub async fn load(executor: impl PgExecutor<'_>) -> Result<Option<Self>, LogError> {
        let row = sqlx::query("SELECT app, shards, generation, kind FROM annals.log_meta")
            .fetch_optional(executor)
            .await
            .map_err(|error| log_error(&error))?;
        row.as_ref()
            .map(Self::from_row)
            .transpose()
            .map_err(|error| LogError::Refused(format!("log_meta does not read: {error}")))
    }

    /// Makes the database the home of this log: its identity, and for a Postgres log the head of every shard.
    /// Nothing changes if it is that already.
    ///
    /// # Errors
    /// [`LogError::Refused`] if it is another log's home; [`LogError::Unavailable`].
    pub async fn create(&self, pool: &PgPool) -> Result<(), LogError> {
        let created = async {
            let mut transaction = pool.begin().await?;
            self.write(&mut transaction).await?;
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

    async fn write(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO annals.log_meta (app, shards, generation, kind) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
        )
        .bind(self.app.as_str())
        .bind(encoded(i32::try_from(self.shards.get()))?)
        .bind(encoded(i32::try_from(self.generation.get()))?)
        .bind(kind_name(self.kind))
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

    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let number = |column| decoded(u32::try_from(row.try_get::<i32, _>(column)?));
        let kind = match row.try_get("kind")? {
            "postgres" => LogKind::Postgres,
            "kafka" => LogKind::Kafka,
            "memory" => LogKind::Memory,
            other => return Err(sqlx::Error::Decode(format!("kind `{other}`").into())),
        };
        Ok(Self {
            app: decoded(row.try_get::<&str, _>("app")?.parse())?,
            shards: decoded(number("shards")?.try_into())?,
            generation: decoded(number("generation")?.try_into())?,
            kind,
        })
    }
}

/// As the column `kind` says it.
fn kind_name(kind: LogKind) -> &'static str {
    match kind {
        LogKind::Memory => "memory",
        LogKind::Postgres => "postgres",
        LogKind::Kafka => "kafka",
    }
}

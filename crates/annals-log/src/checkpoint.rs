//! A reader's checkpoint: the head of the fold, and enough of the last record to notice a replaced log.

use annals_record::fold::Head;
use annals_record::{Hash32, Shard};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};

use crate::metrics::Invariant;

/// Up to where something has been folded. Moves only forward and only with what it stands for (L8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The head of the fold.
    pub head: Head,
    /// The hash of the record before `head.next`; zeros at offset 0.
    pub last_hash: Hash32,
    /// Whether that record was a ghost.
    pub last_ghost: bool,
}

/// Why a checkpoint could not be moved.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another reader of this name moved it: this one is a zombie and must stop.
    #[error(
        "the checkpoint of `{reader}` for shard {shard} is not where this reader left it: another one moved it"
    )]
    Moved {
        /// The reader's name.
        reader: String,
        /// The shard.
        shard: Shard,
    },
    /// It was asked to move back, which no reader may (L8).
    #[error("the checkpoint of `{reader}` for shard {shard} would move back")]
    Backwards {
        /// The reader's name.
        reader: String,
        /// The shard.
        shard: Shard,
    },
    /// Postgres.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

const SELECT: &str =
    "SELECT shard, next_offset, accepted, epoch, chain, time_ms, closed, last_hash, last_ghost
     FROM annals.checkpoint WHERE reader = $1 AND ($2::int IS NULL OR shard = $2) ORDER BY shard";

const SELECT_ALL: &str =
    "SELECT reader, shard, next_offset, accepted, epoch, chain, time_ms, closed, last_hash, last_ghost
     FROM annals.checkpoint ORDER BY reader, shard";

/// A function, so that it is not planned anew each time (migration 12).
const ADVANCE: &str =
    "SELECT annals.advance_checkpoints($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
                                                         $15, $16, $17, $18)";

impl Checkpoint {
    /// Before the first record.
    pub fn genesis(head: Head) -> Self {
        Self {
            head,
            last_hash: Hash32::from([0; 32]),
            last_ghost: false,
        }
    }

    /// Where `reader` is on `shard`; `None` if it has not begun.
    ///
    /// # Errors
    /// Postgres, or a row that this program cannot have written.
    pub async fn load(
        executor: impl PgExecutor<'_>,
        reader: &str,
        shard: Shard,
    ) -> Result<Option<Self>, CheckpointError> {
        let row = sqlx::query(SELECT)
            .bind(reader)
            .bind(Some(signed_shard(shard)?))
            .fetch_optional(executor)
            .await?;
        Ok(row.as_ref().map(Self::from_row).transpose()?)
    }

    /// Where `reader` is on every shard that it has begun, in the order of the shards.
    ///
    /// # Errors
    /// Postgres, or a row that this program cannot have written.
    pub async fn load_all(
        executor: impl PgExecutor<'_>,
        reader: &str,
    ) -> Result<Vec<(Shard, Self)>, CheckpointError> {
        let rows = sqlx::query(SELECT)
            .bind(reader)
            .bind(None::<i32>)
            .fetch_all(executor)
            .await?;
        let all = rows
            .iter()
            .map(|row| Ok((shard_of(row)?, Self::from_row(row)?)))
            .collect::<Result<_, sqlx::Error>>()?;
        Ok(all)
    }

    /// Where every reader is, by name and shard: whoever folded the log himself can compare (L4).
    ///
    /// # Errors
    /// Postgres, or a row that this program cannot have written.
    pub async fn load_readers(
        executor: impl PgExecutor<'_>,
    ) -> Result<Vec<(String, Shard, Self)>, CheckpointError> {
        let rows = sqlx::query(SELECT_ALL).fetch_all(executor).await?;
        let all = rows
            .iter()
            .map(|row| Ok((row.try_get("reader")?, shard_of(row)?, Self::from_row(row)?)))
            .collect::<Result<_, sqlx::Error>>()?;
        Ok(all)
    }

    /// Moves the checkpoint of `reader` on `shard` from `from` to `to`, in the caller's transaction: beside what
    /// follows from the records between them. A reader that begins at offset 0 makes its row.
    ///
    /// # Errors
    /// [`CheckpointError::Moved`] if the row is not wholly as `from` says; the caller must roll back and stop.
    pub async fn advance(
        connection: &mut PgConnection,
        reader: &str,
        shard: Shard,
        from: &Self,
        to: &Self,
    ) -> Result<(), CheckpointError> {
        Self::advance_all(connection, reader, &[(shard, from, to)]).await
    }

    /// As [`Checkpoint::advance`] for several shards with one statement; no shard may occur twice.
    ///
    /// # Errors
    /// [`CheckpointError::Moved`] with the first shard that was not where its reader left it. Others may have been
    /// moved in this transaction, so the caller must roll back.
    pub async fn advance_all(
        connection: &mut PgConnection,
        reader: &str,
        moves: &[(Shard, &Self, &Self)],
    ) -> Result<(), CheckpointError> {
        if moves.is_empty() {
            return Ok(());
        }
        let mut moves = moves.to_vec();
        // Rows are locked in one order by all: two readers of a name fail, they do not block each other.
        moves.sort_by_key(|(shard, ..)| *shard);
        if let Some((shard, ..)) = moves.iter().find(|(_, from, to)| to.head.next < from.head.next) {
            Invariant::L8.broken();
            return Err(CheckpointError::Backwards {
                reader: reader.to_owned(),
                shard: *shard,
            });
        }
        let shards = signed(moves.iter().map(|(shard, ..)| i32::try_from(*shard)))?;
        let from = Columns::of(moves.iter().map(|(_, from, _)| *from))?;
        let to = Columns::of(moves.iter().map(|(.., to)| *to))?;
        let query = sqlx::query_scalar(ADVANCE).bind(reader).bind(&shards);
        let mut moved = to.bind(from.bind(query)).fetch_one(connection).await?;
        moved.sort_unstable();
        match moves
            .iter()
            .zip(&shards)
            .find(|(_, n)| moved.binary_search(n).is_err())
        {
            None => Ok(()),
            Some(((shard, ..), _)) => Err(CheckpointError::Moved {
                reader: reader.to_owned(),
                shard: *shard,
            }),
        }
    }

    /// Forgets every checkpoint of `reader`, in the caller's transaction: what it had folded is being thrown away.
    /// Returns how many there were.
    ///
    /// # Errors
    /// Postgres.
    pub async fn forget(connection: &mut PgConnection, reader: &str) -> Result<u64, CheckpointError> {
        let done = sqlx::query("DELETE FROM annals.checkpoint WHERE reader = $1")
            .bind(reader)
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }

    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (head, last_hash) = head_of_row(row)?;
        Ok(Self {
            head,
            last_hash,
            last_ghost: row.try_get("last_ghost")?,
        })
    }

    /// What a column `last_hash` holds: null before the first record.
    pub(crate) fn stored_hash(&self) -> Option<&[u8]> {
        (self.head.next.get() > 0).then(|| self.last_hash.as_ref())
    }
}

type Scalar<'q> = sqlx::query::QueryScalar<'q, sqlx::Postgres, Vec<i32>, sqlx::postgres::PgArguments>;

/// Checkpoints by column, as the function takes them.
#[derive(Default)]
struct Columns<'a> {
    next: Vec<i64>,
    accepted: Vec<i64>,
    epoch: Vec<i64>,
    chain: Vec<&'a [u8]>,
    time: Vec<i64>,
    closed: Vec<bool>,
    hash: Vec<Option<&'a [u8]>>,
    ghost: Vec<bool>,
}

impl<'a> Columns<'a> {
    fn of(checkpoints: impl Iterator<Item = &'a Checkpoint>) -> Result<Self, sqlx::Error> {
        let mut columns = Self::default();
        for checkpoint in checkpoints {
            let head = &checkpoint.head;
            columns.next.push(encoded(i64::try_from(head.next))?);
            columns.accepted.push(encoded(i64::try_from(head.accepted))?);
            columns.epoch.push(encoded(i64::try_from(head.epoch))?);
            columns.chain.push(head.chain.as_ref());
            columns.time.push(head.time_ms);
            columns.closed.push(head.closed);
            columns.hash.push(checkpoint.stored_hash());
            columns.ghost.push(checkpoint.last_ghost);
        }
        Ok(columns)
    }

    fn bind(self, query: Scalar<'a>) -> Scalar<'a> {
        query
            .bind(self.next)
            .bind(self.accepted)
            .bind(self.epoch)
            .bind(self.chain)
            .bind(self.time)
            .bind(self.closed)
            .bind(self.hash)
            .bind(self.ghost)
    }
}

/// The head, and the hash of the record before it, from the columns that `checkpoint` and `log_head` share.
pub(crate) fn head_of_row(row: &PgRow) -> Result<(Head, Hash32), sqlx::Error> {
    let head = Head {
        next: decoded(row.try_get::<i64, _>("next_offset")?.try_into())?,
        accepted: decoded(row.try_get::<i64, _>("accepted")?.try_into())?,
        epoch: decoded(row.try_get::<i64, _>("epoch")?.try_into())?,
        chain: decoded(row.try_get::<&[u8], _>("chain")?.try_into())?,
        time_ms: row.try_get("time_ms")?,
        closed: row.try_get("closed")?,
    };
    let last_hash = match row.try_get::<Option<&[u8]>, _>("last_hash")? {
        Some(hash) => decoded(hash.try_into())?,
        None => Hash32::from([0; 32]),
    };
    Ok((head, last_hash))
}

pub(crate) fn shard_of(row: &PgRow) -> Result<Shard, sqlx::Error> {
    decoded(row.try_get::<i32, _>("shard")?.try_into())
}

/// A shard as the tables have it.
pub(crate) fn signed_shard(shard: Shard) -> Result<i32, sqlx::Error> {
    encoded(i32::try_from(shard))
}

fn signed<T, E>(values: impl Iterator<Item = Result<T, E>>) -> Result<Vec<T>, sqlx::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    encoded(values.collect())
}

pub(crate) fn encoded<T, E>(value: Result<T, E>) -> Result<T, sqlx::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    value.map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

pub(crate) fn decoded<T, E>(value: Result<T, E>) -> Result<T, sqlx::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    value.map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

//! Parking: an event that cannot be applied stops its own stream and nothing else, where an operator sees it.
//!
//! *Invariant:* the events of a parked stream are applied in order or not at all: later ones park behind the
//! first, and [`resume`] replays them from it. A batch and a resume of one build exclude each other (`gate`).

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_domain::Catalog;
use annals_log::{Entry, Log, ReadLimits};
use annals_record::{Offset, Shard, StreamId};
use async_trait::async_trait;
use sqlx::{Acquire, PgConnection};

use crate::apply::{ApplyError, Event, ParkedStreams, Prepared, Projector, Trouble};
use crate::manifest::BuildId;

/// Reads records again by their place.
#[async_trait]
pub trait FetchEntry: Send + Sync {
    /// The commit at this place, its events upcast; `None` if there is none.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch(&self, shard: Shard, offset: Offset) -> Result<Option<Arc<Entry>>, FetchError>;
}

/// A record could not be read again.
#[derive(Debug, thiserror::Error)]
#[error("the record cannot be read again: {0}")]
pub struct FetchError(pub String);

/// The log as the source of records.
#[derive(Clone)]
pub struct FromLog {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Brings events up to their newest schemas.
    pub catalog: Catalog,
}

#[async_trait]
impl FetchEntry for FromLog {
    async fn fetch(&self, shard: Shard, offset: Offset) -> Result<Option<Arc<Entry>>, FetchError> {
        let one = ReadLimits {
            records: 1,
            ..ReadLimits::default()
        };
        let read = self.log.read(shard, offset, one).await;
        let placed = read.map_err(|error| FetchError(error.to_string()))?;
        let Some(record) = placed
            .first()
            .filter(|placed| placed.offset == offset)
            .and_then(|placed| placed.slot.known())
        else {
            return Ok(None);
        };
        let entry = annals_log::reader::decode(&self.catalog, record);
        Ok(entry
            .map_err(|error| FetchError(error.to_string()))?
            .map(Arc::new))
    }
}

/// Why parked streams could not be resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// Postgres, or the machinery.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The log.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl From<sqlx::Error> for ResumeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Apply(ApplyError::of(error))
    }
}

/// What became of one parked stream.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Resumed {
    /// The stream.
    pub stream: String,
    /// How many of its events were applied now.
    pub replayed: usize,
    /// Why it is parked still; none if it goes on.
    pub error: Option<String>,
}

/// A parked stream.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, sqlx::FromRow)]
pub struct ParkedStream {
    /// The stream.
    pub stream: String,
    /// Its shard.
    pub shard: i32,
    /// The offset of the record that it stopped at.
    pub log_offset: i64,
    /// The type of the event that it stopped at.
    #[sqlx(rename = "type")]
    #[serde(rename = "type")]
    pub event_type: String,
    /// Why.
    pub error: Option<String>,
    /// How many of its events wait.
    pub events: i64,
}

/// The parked streams of a build, oldest first, at most `limit`.
///
/// # Errors
/// Postgres.
pub async fn list(
    executor: impl sqlx::PgExecutor<'_>,
    id: &BuildId,
    limit: u32,
) -> Result<Vec<ParkedStream>, annals_store::Error> {
    let rows = sqlx::query_as(
        "SELECT DISTINCT ON (parked_first, stream) stream, shard, log_offset, type, error, events
         FROM (SELECT *, min(parked_at) OVER w AS parked_first, count(*) OVER w AS events
               FROM annals.parked WHERE projection = $1 AND build = $2 WINDOW w AS (PARTITION BY stream)) AS p
         ORDER BY parked_first, stream, log_offset, event_index LIMIT $3",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .bind(i64::from(limit))
    .fetch_all(executor)
    .await?;
    Ok(rows)
}

/// How many streams of a build are parked.
///
/// # Errors
/// Postgres.
pub async fn count(executor: impl sqlx::PgExecutor<'_>, id: &BuildId) -> Result<u64, annals_store::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT stream) FROM annals.parked WHERE projection = $1 AND build = $2",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .fetch_one(executor)
    .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// How many streams are parked, by build as `orders/3`; builds without any are left out.
///
/// # Errors
/// Postgres.
pub(crate) async fn counts(
    executor: impl sqlx::PgExecutor<'_>,
) -> Result<BTreeMap<String, i64>, annals_store::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT projection || '/' || build, count(DISTINCT stream) FROM annals.parked GROUP BY projection, build",
    )
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().collect())
}

/// The places of all parked events of a build, in order.
pub(crate) async fn places(
    executor: impl sqlx::PgExecutor<'_>,
    id: &BuildId,
) -> Result<Vec<Place>, sqlx::Error> {
    sqlx::query_as(
        "SELECT shard, log_offset, event_index FROM annals.parked WHERE projection = $1 AND build = $2
         ORDER BY shard, log_offset, event_index",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .fetch_all(executor)
    .await
}

/// Replays a build's parked streams, or one of them, in order, each in its own transaction, as far as it goes.
///
/// # Errors
/// [`ResumeError`]; streams before the failing one stay resumed.
pub async fn resume(
    projector: &Projector,
    source: &dyn FetchEntry,
    stream: Option<&StreamId>,
) -> Result<Vec<Resumed>, ResumeError> {
    let id = projector.id();
    let streams: Vec<String> = sqlx::query_scalar(
        "SELECT stream FROM annals.parked WHERE projection = $1 AND build = $2 AND ($3::text IS NULL OR stream = $3)
         GROUP BY stream ORDER BY min(parked_at), stream",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .bind(stream.map(StreamId::as_str))
    .fetch_all(&projector.pool)
    .await?;
    let mut resumed = Vec::new();
    for stream in streams {
        resumed.push(resume_stream(projector, source, stream).await?);
    }
    Ok(resumed)
}

async fn resume_stream(
    projector: &Projector,
    source: &dyn FetchEntry,
    stream: String,
) -> Result<Resumed, ResumeError> {
    let id = projector.id();
    let mut tx = projector.begin_alone().await?;
    let places: Vec<(i32, i64, i32)> = sqlx::query_as(
        "SELECT shard, log_offset, event_index FROM annals.parked
         WHERE projection = $1 AND build = $2 AND stream = $3 ORDER BY log_offset, event_index",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .bind(&stream)
    .fetch_all(&mut *tx)
    .await?;
    let mut done = Resumed {
        stream,
        replayed: 0,
        error: None,
    };
    for place in places {
        let event = event_at(source, place).await?;
        let prepared = projector.prepare(vec![event]).await?;
        let tried = attempt(projector, &mut tx, &prepared, &[0]).await?;
        let sql = match &tried {
            None => {
                "DELETE FROM annals.parked WHERE projection = $1 AND build = $2 AND shard = $3
                     AND log_offset = $4 AND event_index = $5 AND $6::text IS NULL"
            }
            Some(_) => {
                "UPDATE annals.parked SET error = $6 WHERE projection = $1 AND build = $2 AND shard = $3
                        AND log_offset = $4 AND event_index = $5"
            }
        };
        done.error = tried.map(|trouble| projector.shown(&trouble));
        sqlx::query(sql)
            .bind(id.name.as_str())
            .bind(id.build.get())
            .bind(place.0)
            .bind(place.1)
            .bind(place.2)
            .bind(&done.error)
            .execute(&mut *tx)
            .await?;
        if done.error.is_some() {
            break;
        }
        done.replayed += 1;
    }
    tx.commit().await?;
    Ok(done)
}

/// Shard, offset, and index within the record.
pub(crate) type Place = (i32, i64, i32);

/// The event at a place as the table has it.
pub(crate) async fn event_at(source: &dyn FetchEntry, place: Place) -> Result<Event, FetchError> {
    let lost = || {
        FetchError(format!(
            "there is no event {} at {}:{}",
            place.2, place.0, place.1
        ))
    };
    let shard = Shard::try_from(place.0).map_err(|_| lost())?;
    let offset = Offset::try_from(place.1).map_err(|_| lost())?;
    let entry = source.fetch(shard, offset).await?.ok_or_else(lost)?;
    let event = Event {
        entry,
        index: usize::try_from(place.2).map_err(|_| lost())?,
        shard,
        offset,
    };
    event.decoded().is_some().then_some(event).ok_or_else(lost)
}

/// What [`isolate`] did.
#[derive(Default)]
pub(crate) struct Isolated {
    pub(crate) applied: usize,
    pub(crate) culprits: usize,
    /// Events behind a culprit of their stream.
    pub(crate) behind: Vec<usize>,
}

/// Applies events under savepoints, halving a set that cannot be applied until the culprit is alone and parked.
/// `parked` learns the culprits' streams.
pub(crate) async fn isolate(
    projector: &Projector,
    connection: &mut PgConnection,
    prepared: &Prepared,
    events: Vec<usize>,
    parked: &mut ParkedStreams,
) -> Result<Isolated, ApplyError> {
    let mut done = Isolated::default();
    let mut sets = vec![events];
    while let Some(set) = sets.pop() {
        let (mut set, late): (Vec<usize>, Vec<usize>) = set
            .into_iter()
            .partition(|&at| !parked.contains(prepared.stream(at)));
        done.behind.extend(late);
        if set.is_empty() {
            continue;
        }
        match attempt(projector, connection, prepared, &set).await? {
            None => done.applied += set.len(),
            Some(trouble) if set.len() == 1 => {
                done.culprits += 1;
                for &at in &set {
                    tracing::warn!(build = %projector.id(), stream = prepared.stream(at), %trouble, "parked a stream");
                    parked.insert(prepared.stream(at).into());
                }
                park(
                    connection,
                    projector.id(),
                    prepared,
                    &set,
                    Some(&projector.shown(&trouble)),
                )
                .await?;
            }
            Some(_) => {
                let later = set.split_off(set.len() / 2);
                sets.push(later);
                sets.push(set); // taken first: a stream's earlier events come before its later ones
            }
        }
    }
    Ok(done)
}

/// Applies events under a savepoint. `Some` if they cannot be applied, and then nothing of it was.
pub(crate) async fn attempt(
    projector: &Projector,
    connection: &mut PgConnection,
    prepared: &Prepared,
    events: &[usize],
) -> Result<Option<Trouble>, ApplyError> {
    let mut savepoint = connection.begin().await.map_err(ApplyError::of)?;
    let mut applied = projector.apply_set(&mut savepoint, prepared, events).await;
    if applied.is_ok() {
        // A deferred constraint would else speak at the commit, when it cannot be said whose fault it was.
        let checked = sqlx::query("SET CONSTRAINTS ALL IMMEDIATE")
            .execute(&mut *savepoint)
            .await;
        applied = checked.map(drop).map_err(ApplyError::of);
    }
    match applied {
        Ok(()) => {
            savepoint.commit().await.map_err(ApplyError::of)?;
            Ok(None)
        }
        Err(ApplyError::Poison(trouble)) => {
            savepoint.rollback().await.map_err(ApplyError::of)?;
            Ok(Some(trouble))
        }
        Err(other) => Err(other),
    }
}

/// The build's parked streams. Few: a stream is parked once however many of its events wait.
pub(crate) async fn parked_streams(
    connection: &mut PgConnection,
    id: &BuildId,
) -> Result<ParkedStreams, ApplyError> {
    let streams: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT stream FROM annals.parked WHERE projection = $1 AND build = $2")
            .bind(id.name.as_str())
            .bind(id.build.get())
            .fetch_all(connection)
            .await
            .map_err(ApplyError::of)?;
    Ok(streams.into_iter().map(String::into_boxed_str).collect())
}

/// Parks events whose stream is parked already.
pub(crate) async fn park_behind(
    connection: &mut PgConnection,
    id: &BuildId,
    prepared: &Prepared,
    events: &[usize],
) -> Result<(), ApplyError> {
    if events.is_empty() {
        return Ok(());
    }
    park(connection, id, prepared, events, None).await
}

async fn park(
    connection: &mut PgConnection,
    id: &BuildId,
    prepared: &Prepared,
    events: &[usize],
    error: Option<&str>,
) -> Result<(), ApplyError> {
    let mut columns: BTreeMap<(i32, i64, i32), (&str, &str)> = BTreeMap::new();
    for &at in events {
        let (Some(event), Some(event_type)) = (prepared.events.get(at), prepared.event_type(at)) else {
            continue;
        };
        let place = event.place()?;
        columns.insert(place, (prepared.stream(at), event_type));
    }
    let (places, names): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let (streams, types): (Vec<&str>, Vec<&str>) = names.into_iter().unzip();
    sqlx::query(
        "INSERT INTO annals.parked (projection, build, stream, type, shard, log_offset, event_index, error)
         SELECT $1, $2, e.*, $8 FROM UNNEST($3::text[], $4::text[], $5::int[], $6::bigint[], $7::int[]) AS e",
    )
    .bind(id.name.as_str())
    .bind(id.build.get())
    .bind(streams)
    .bind(types)
    .bind(places.iter().map(|place| place.0).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.1).collect::<Vec<_>>())
    .bind(places.iter().map(|place| place.2).collect::<Vec<_>>())
    .bind(error)
    .execute(connection)
    .await
    .map_err(ApplyError::of)?;
    Ok(())
}

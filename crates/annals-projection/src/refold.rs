//! The log read again up to exactly where a build is: what attestation, explanation and comparison are made of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_domain::Catalog;
use annals_log::{
    Checkpoint, CheckpointError, Log, LogError, ReadLimits, ReaderError, ReaderSettings, ShardReader,
};
use annals_record::fold::Head;
use annals_record::{Offset, Shard};
use sqlx::PgConnection;

use crate::apply::{ApplyError, Delivery, Limits, OpenPersonal};
use crate::build::BuildError;
use crate::manifest::BuildId;
use crate::parking::FetchError;

/// At most about so many records in one step.
const RECORDS: usize = 10_000;
/// At most about so many bytes of them.
const BYTES: usize = 16 << 20;
/// How long the log may give nothing although it has more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a build is folded from.
#[derive(Clone)]
pub struct Source {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The program's events.
    pub catalog: Catalog,
    /// Decrypts for projections with private columns.
    pub opener: Arc<dyn OpenPersonal>,
    /// Time-outs of statements.
    pub limits: Limits,
}

/// Why something could not be folded again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefoldError {
    /// Making or describing tables.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Applying events.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Reading the log.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// Reading one record again.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The journal.
    #[error(transparent)]
    Store(#[from] annals_log::StoreError),
    /// Checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Not as things stand: in words.
    #[error("{0}")]
    Refused(String),
}

impl From<sqlx::Error> for RefoldError {
    fn from(error: sqlx::Error) -> Self {
        Self::Build(error.into())
    }
}

impl From<LogError> for RefoldError {
    fn from(error: LogError) -> Self {
        Self::Reader(error.into())
    }
}

/// One reader a shard.
pub(crate) struct Readers {
    source: Source,
    open: BTreeMap<Shard, ShardReader>,
}

impl Readers {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            open: BTreeMap::new(),
        }
    }

    /// The next records of a shard in front of `to`, which is not beyond the log's end; `None` once it is there. The
    /// shard is opened at `at` if it was not before, and at its beginning without it.
    pub(crate) async fn next(
        &mut self,
        shard: Shard,
        at: Option<&Checkpoint>,
        to: Offset,
    ) -> Result<Option<Delivery>, RefoldError> {
        let reader = self.reader(shard, at).await?;
        let mut waited = 0;
        while reader.checkpoint().head.next < to {
            if let Some(batch) = reader.next_below(to).await? {
                return Ok(Some(Delivery::of(&batch)));
            }
            waited += 1;
            if waited > PATIENCE.as_millis() / WAIT.as_millis() {
                let text = format!("shard {shard} gives no record in front of {to}, although it has some");
                return Err(RefoldError::Refused(text));
            }
        }
        Ok(None)
    }

    /// Where the fold of a shard is; `None` if it was never read.
    pub(crate) fn at(&self, shard: Shard) -> Option<&Checkpoint> {
        self.open.get(&shard).map(ShardReader::checkpoint)
    }

    /// Opens a shard, at its beginning without `at`.
    pub(crate) async fn reader(
        &mut self,
        shard: Shard,
        at: Option<&Checkpoint>,
    ) -> Result<&mut ShardReader, RefoldError> {
        if !self.open.contains_key(&shard) {
            let source = &self.source;
            let log = source.log.describe().await?;
            let genesis = || Checkpoint::genesis(Head::genesis(&log.app, shard, log.shards));
            let settings = ReaderSettings {
                limits: ReadLimits {
                    records: RECORDS,
                    bytes: BYTES,
                    wait: WAIT,
                },
                ..ReaderSettings::default()
            };
            let at = at.cloned().unwrap_or_else(genesis);
            let (log, catalog) = (Arc::clone(&source.log), source.catalog.clone());
            let reader = ShardReader::open(log, catalog, shard, at, settings).await?;
            self.open.insert(shard, reader);
        }
        self.open
            .get_mut(&shard)
            .ok_or_else(|| RefoldError::Refused("a reader was lost".to_owned()))
    }
}

const WAIT: Duration = Duration::from_millis(500);

/// Where a build is, by shard.
pub(crate) async fn checkpoints(
    connection: &mut PgConnection,
    id: &BuildId,
) -> Result<BTreeMap<Shard, Checkpoint>, RefoldError> {
    let all = Checkpoint::load_all(connection, &id.reader()).await?;
    Ok(all.into_iter().collect())
}

//! Where the floor appends: one statement a batch, or an idempotent producer with the journal behind it.

use annals_record::Hash32;
use anyhow::Context;
use futures_util::future::try_join_all;
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::{GATHER, Written};
use crate::appender::{Bare, Rows};

/// The log of the floor.
pub(super) enum Store {
    /// The journal is the log.
    Postgres {
        connection: PgConnection,
        next: i64,
        chain: Vec<u8>,
    },
    /// One partition; what has landed goes on to the journal.
    Kafka {
        producer: Bare,
        journal: mpsc::Sender<Vec<Row>>,
    },
}

/// One row of the journal.
pub(super) struct Row {
    position: i64,
    time_ms: i64,
    version: i64,
    id: uuid::Uuid,
    prev: Hash32,
    key: annals_record::KeyHash,
    stream: String,
    value: String,
}

fn rows<'a>(written: impl Iterator<Item = (i64, RowOf<'a>)>) -> Rows<'a> {
    let mut rows = Rows::default();
    for (position, of) in written {
        rows.position.push(position);
        rows.time_ms.push(of.time_ms);
        rows.version.push(of.version);
        rows.id.push(of.id);
        rows.prev.push(of.prev);
        rows.stream.push(of.stream);
        rows.key.push(of.key);
        rows.value.push(of.value);
    }
    rows
}

struct RowOf<'a> {
    time_ms: i64,
    version: i64,
    id: uuid::Uuid,
    prev: &'a [u8],
    stream: &'a str,
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> From<&'a Written> for RowOf<'a> {
    fn from(written: &'a Written) -> Self {
        Self {
            time_ms: written.time_ms,
            version: written.version,
            id: written.record,
            prev: written.prev.as_bytes(),
            stream: &written.stream,
            key: written.key.as_bytes(),
            value: written.value.as_bytes(),
        }
    }
}

impl<'a> From<&'a Row> for RowOf<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            time_ms: row.time_ms,
            version: row.version,
            id: row.id,
            prev: row.prev.as_bytes(),
            stream: &row.stream,
            key: row.key.as_bytes(),
            value: row.value.as_bytes(),
        }
    }
}

impl Store {
    /// Over tables that were just made.
    pub(super) fn postgres(connection: PgConnection) -> Self {
        Self::Postgres {
            connection,
            next: 0,
            chain: vec![0],
        }
    }

    /// Appends a batch and gives the position of its first record; `head` is the chain behind it.
    pub(super) async fn append(&mut self, written: &[Written], head: Hash32) -> anyhow::Result<i64> {
        match self {
            Self::Postgres {
                connection,
                next,
                chain,
            } => {
                let from = *next;
                let batch = rows((from..).zip(written.iter().map(RowOf::from)));
                batch.append(connection, from, chain, head.as_bytes()).await?;
                *next += i64::try_from(written.len())?;
                *chain = head.as_bytes().to_vec();
                Ok(from)
            }
            Self::Kafka { producer, journal } => {
                let sent = written
                    .iter()
                    .map(|record| producer.send(0, &record.stream, record.value.as_bytes()));
                let landed = try_join_all(sent).await?;
                let row = |(position, written): (&i64, &Written)| Row {
                    position: *position,
                    time_ms: written.time_ms,
                    version: written.version,
                    id: written.record,
                    prev: written.prev,
                    key: written.key,
                    stream: written.stream.clone(),
                    value: written.value.clone(),
                };
                let rows = landed.iter().zip(written).map(row).collect();
                journal.send(rows).await.context("the journal has ended")?;
                landed.first().copied().context("a batch has a record")
            }
        }
    }
}

/// Fills the journal with what has gathered.
pub(super) async fn journal(
    mut landed: mpsc::Receiver<Vec<Row>>,
    mut connection: PgConnection,
) -> anyhow::Result<()> {
    let (mut from, mut chain) = (0_i64, vec![0]);
    let mut gathered = Vec::new();
    while landed.recv_many(&mut gathered, 1_024).await > 0 {
        tokio::time::sleep(GATHER).await;
        while let Ok(more) = landed.try_recv() {
            gathered.push(more);
        }
        let all: Vec<Row> = gathered.drain(..).flatten().collect();
        for some in all.chunks(2_000) {
            let to = from + i64::try_from(some.len())?;
            let head = to.to_be_bytes().to_vec();
            let batch = rows(some.iter().map(|row| (row.position, RowOf::from(row))));
            batch.append(&mut connection, from, &chain, &head).await?;
            (from, chain) = (to, head);
        }
    }
    Ok(())
}

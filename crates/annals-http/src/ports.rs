//! What the edge calls: the engine, the sealer, other nodes. Traits, so that tests can say what they answer.

use std::future::ready;
use std::time::Duration;

use annals_audit::{Audit, AuditError, Fresh, Search, Upto};
use annals_auth::command::Attempt;
use annals_auth::{CommandSealer, SealError, Sealed};
pub use annals_command::Place;
use annals_command::{Answer, SendError};
use annals_domain::catalog::{AggregateType, AnyCommand};
use annals_domain::{CommandRequest, Precondition};
use annals_query::live::Next;
use annals_query::{
    Column, ListAnswer, LiveId, Meta, Queries, QueryError, Request as QueryRequest, RowAnswer,
};
use annals_record::{Key, Position, RecordId, StreamId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use http::{Request, Response};

/// The engine.
pub trait Commands: Send + Sync {
    /// Where the stream's shard is owned, as far as this node knows.
    fn place(&self, stream: &StreamId) -> Place;
    /// Whether a command of this stream would be refused for too much load now.
    fn is_full(&self, stream: &StreamId) -> bool;
    /// Sends a command and waits for its answer, at most `deadline`; nobody else watches over that.
    fn send(&self, request: CommandRequest, deadline: Duration) -> BoxFuture<'_, Result<Answer, SendError>>;
}

impl Commands for annals_command::Commands {
    fn place(&self, stream: &StreamId) -> Place {
        Self::place(self, stream)
    }

    fn is_full(&self, stream: &StreamId) -> bool {
        Self::is_full(self, stream)
    }

    fn send(&self, request: CommandRequest, deadline: Duration) -> BoxFuture<'_, Result<Answer, SendError>> {
        Box::pin(Self::send(self, request, deadline))
    }
}

/// Makes of a parsed command what a record holds; see [`CommandSealer::seal`].
pub trait Seal: Send + Sync {
    /// Seals a command that needs nothing but memory for it; see [`CommandSealer::seal_at_once`].
    fn seal_at_once(
        &self,
        aggregate: &AggregateType,
        command: AnyCommand,
        sub: &str,
        precondition: &Precondition,
    ) -> Attempt {
        let _ = (aggregate, sub, precondition);
        Attempt::NeedsKey(command)
    }
    /// Seals a command.
    fn seal<'a>(
        &'a self,
        aggregate: &'a AggregateType,
        key: &'a Key,
        command: AnyCommand,
        sub: &'a str,
        precondition: &'a Precondition,
    ) -> BoxFuture<'a, Result<Sealed, SealError>>;
}

impl Seal for CommandSealer {
    fn seal_at_once(
        &self,
        aggregate: &AggregateType,
        command: AnyCommand,
        sub: &str,
        precondition: &Precondition,
    ) -> Attempt {
        CommandSealer::seal_at_once(self, aggregate, command, sub, precondition)
    }

    fn seal<'a>(
        &'a self,
        aggregate: &'a AggregateType,
        key: &'a Key,
        command: AnyCommand,
        sub: &'a str,
        precondition: &'a Precondition,
    ) -> BoxFuture<'a, Result<Sealed, SealError>> {
        Box::pin(CommandSealer::seal(
            self,
            aggregate,
            key,
            command,
            sub,
            precondition,
        ))
    }
}

/// The other nodes' internal listeners.
pub trait Peers: Send + Sync {
    /// Sends a request, whose target is path and query, to the node at `url`, and reads the whole response.
    fn call(&self, url: &str, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, PeerError>>;
}

/// Why another node gave no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Nothing reached it: no connection.
    #[error("the node cannot be reached")]
    NotSent,
    /// It may have been reached, and may have acted.
    #[error("the node did not answer")]
    Unknown,
}

/// A read model's answer.
#[derive(Debug, Clone)]
pub enum Read {
    /// The caller has it already (`If-None-Match`).
    NotModified(Meta),
    /// One row.
    Row(RowAnswer),
    /// A page of rows.
    List(ListAnswer),
}

/// A row or a list that is followed.
pub struct Live {
    /// How fresh the beginning is.
    pub meta: Meta,
    /// What there is, then what changes; [`Next::End`] is the last.
    pub events: BoxStream<'static, Next>,
}

/// The read models.
pub trait Reads: Send + Sync {
    /// The columns that a resource shows just now; none if there is no such resource.
    fn columns(&self, resource: &str) -> Vec<Column>;
    /// Answers a request; `if_none_match` is the header's value. What is known without waiting is known by this call.
    fn read(
        &self,
        request: QueryRequest,
        if_none_match: Option<String>,
    ) -> BoxFuture<'_, Result<Read, QueryError>>;
    /// Follows what a request asks for, as `caller`; `last` is the id of the last event that it has seen.
    fn follow<'a>(
        &'a self,
        request: QueryRequest,
        caller: &'a str,
        last: Option<LiveId>,
    ) -> BoxFuture<'a, Result<Live, QueryError>>;
}

impl Reads for Queries {
    fn columns(&self, resource: &str) -> Vec<Column> {
        let found = self.resources().get(resource);
        found.map_or_else(|_| Vec::new(), |resource| resource.columns.clone())
    }

    fn read(
        &self,
        request: QueryRequest,
        if_none_match: Option<String>,
    ) -> BoxFuture<'_, Result<Read, QueryError>> {
        // What needs no waiting is done before anything is boxed: the future of a statement is large to make and to move.
        let one = request.key.is_some();
        let prepared = match self.prepare(request) {
            Ok(prepared) => prepared,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        let same = if_none_match.and_then(|tags| self.not_modified(&prepared, &tags));
        if let Some(meta) = same {
            return Box::pin(ready(Ok(Read::NotModified(meta))));
        }
        match one {
            true => Box::pin(async move { self.row(prepared).await.map(Read::Row) }),
            false => Box::pin(async move { self.list(prepared).await.map(Read::List) }),
        }
    }

    fn follow<'a>(
        &'a self,
        request: QueryRequest,
        caller: &'a str,
        last: Option<LiveId>,
    ) -> BoxFuture<'a, Result<Live, QueryError>> {
        Box::pin(async move {
            let subscription = self.subscribe(request, caller, last).await?;
            let meta = subscription.meta.clone();
            let events = stream::unfold(subscription, async |mut subscription| {
                let next = subscription.next().await;
                Some((next, subscription))
            });
            let events = Box::pin(events);
            Ok(Live { meta, events })
        })
    }
}

/// What an auditor asks.
#[derive(Debug, Clone)]
pub enum Question {
    /// A stream's records.
    History {
        /// The stream.
        stream: StreamId,
        /// Behind this one.
        after: Option<Position>,
        /// The most records, 1 to 500.
        limit: u32,
    },
    /// A stream's state at a moment.
    State {
        /// The stream.
        stream: StreamId,
        /// The moment.
        upto: Upto,
    },
    /// A search.
    Records {
        /// What for.
        search: Search,
        /// The most records, 1 to 500.
        limit: u32,
    },
    /// One record.
    Record(RecordId),
    /// One record's exact bytes.
    Raw(RecordId),
    /// All shards.
    Shards,
}

/// The journal and the search table, as auditors see them.
pub trait Audits: Send + Sync {
    /// Answers with JSON, once it is as fresh as `after`; waits at most `wait` for that.
    fn ask(
        &self,
        question: Question,
        after: Vec<Position>,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Audited, AuditError>>;
}

/// What an auditor is told.
#[derive(Debug, Clone)]
pub struct Audited {
    /// JSON.
    pub body: Bytes,
    /// How fresh it is at least.
    pub fresh: Fresh,
}

impl Audits for Audit {
    fn ask(
        &self,
        question: Question,
        after: Vec<Position>,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Audited, AuditError>> {
        Box::pin(async move {
            let fresh = match &question {
                Question::History { .. } | Question::State { .. } | Question::Shards => {
                    self.wait_for_journal(&after, wait).await?;
                    self.journal_fresh().await?
                }
                Question::Records { .. } | Question::Record(_) | Question::Raw(_) => {
                    self.wait_for_search(&after, wait).await?;
                    self.search_fresh().await?
                }
            };
            let body = match question {
                Question::History { stream, after, limit } => {
                    json(&self.history(&stream, after, limit).await?)
                }
                Question::State { stream, upto } => json(&self.state(&stream, upto).await?),
                Question::Records { search, limit } => json(&self.records(&search, limit).await?),
                Question::Record(id) => json(&self.record(id).await?),
                Question::Raw(id) => json(&self.raw(id).await?),
                Question::Shards => json(&serde_json::json!({"data": self.shards().await?, "next": null})),
            };
            Ok(Audited { body: body?, fresh })
        })
    }
}

fn json(answer: &impl serde::Serialize) -> Result<Bytes, AuditError> {
    let bytes = serde_json::to_vec(answer).map_err(|error| AuditError::Unreadable(error.to_string()))?;
    Ok(bytes.into())
}

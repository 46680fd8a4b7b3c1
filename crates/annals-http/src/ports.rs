//! What the edge calls: the engine, the sealer, other nodes. Traits, so that tests can say what they answer.

use std::time::Duration;

use annals_auth::{CommandSealer, SealError, Sealed};
use annals_command::{Answer, SendError};
use annals_domain::catalog::{AggregateType, AnyCommand};
use annals_domain::{CommandRequest, Precondition};
use annals_record::{Key, StreamId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};

/// Where a stream's shard is owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By this node.
    Here,
    /// By the node with this internal address.
    At(String),
    /// By no node that is known.
    Nowhere,
    /// By none until an operator acts.
    Halted,
}

/// The engine.
pub trait Commands: Send + Sync {
    /// Where the stream's shard is owned, as far as this node knows.
    fn place(&self, stream: &StreamId) -> Place;
    /// Sends a command and waits for its answer, at most `deadline`.
    fn send(&self, request: CommandRequest, deadline: Duration) -> BoxFuture<'_, Result<Answer, SendError>>;
}

/// Makes of a parsed command what a record holds; see [`CommandSealer::seal`].
pub trait Seal: Send + Sync {
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

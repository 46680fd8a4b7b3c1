//! One command: from what its path, headers and body say to the engine and back, or to the shard's owner.

mod forward;
pub(crate) mod head;
mod reply;

use annals_auth::SecurityEvent;
use annals_auth::command::Attempt;
use annals_command::SendError;
use annals_domain::catalog::{AggregateType, ParseError};
use annals_domain::{CommandRequest, Permission};
use annals_record::{AppName, Key, KeyHash, StreamId};
use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::authenticate::Who;
use crate::edge::{Engine, Inner};
use crate::ports::Place;
use crate::problem::{Code, Problem, Scene};
use crate::reply::Reply;
use crate::scan::scan;
use head::CommandHead;

/// A command whose caller may send it, with its stream and its body, which nobody has looked into yet.
pub(crate) struct Call<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) engine: &'a Engine,
    pub(crate) aggregate: &'a AggregateType,
    pub(crate) name: &'static str,
    pub(crate) key: Key,
    pub(crate) stream: StreamId,
    pub(crate) who: &'a Who,
    pub(crate) permission: Permission,
    pub(crate) head: CommandHead,
    pub(crate) body: Bytes,
}

impl Call<'_> {
    /// The key of the command's stream: the client's, or one that the server makes.
    ///
    /// # Errors
    /// 405 if it cannot be made.
    pub(crate) fn key(
        inner: &Inner,
        aggregate: &AggregateType,
        key: Option<Key>,
        who: &Who,
        head: &CommandHead,
    ) -> Result<Key, Problem> {
        let made = || {
            let uuid = made_key(inner.catalog.app(), &who.caller.sub, &head.idempotency_key);
            aggregate
                .make_key(uuid)
                .ok_or_else(|| Problem::method_not_allowed("OPTIONS"))
        };
        key.map_or_else(made, Ok)
    }

    /// Gets the answer, in the scene of its request. Without `forwards` the shard has to be this node's: who came
    /// through another node has come far enough.
    pub(crate) async fn run(self, forwards: bool, scene: Scene<'_>) -> Reply {
        let refusals = &self.inner.refusals;
        match self.answer(forwards, scene).await {
            Ok(reply) => {
                if !reply.status.is_server_error() {
                    refusals.pay();
                }
                reply
            }
            Err(problem) => {
                if problem.code() == Code::Overloaded {
                    Box::pin(refusals.turn()).await;
                }
                Reply::problem(&problem, scene)
            }
        }
    }

    async fn answer(&self, forwards: bool, scene: Scene<'_>) -> Result<Reply, Problem> {
        let place = self.engine.commands.place(&self.stream);
        if forwards && let Place::At(url) = &place {
            return Box::pin(self.forward(url, scene)).await;
        }
        // Before the body is looked into: what is refused must cost little.
        if matches!(place, Place::Here { .. }) && self.engine.commands.is_full(&self.stream) {
            return Err(Code::Overloaded.into());
        }
        let request = self.request().await?;
        match place {
            // One that is becoming owner takes the command in, or says so itself.
            Place::Here { .. } => {}
            Place::At(_) | Place::Nowhere => return Err(Code::ShardUnavailable.into()),
            Place::Halted => return Err(Code::ShardHalted.into()),
        }
        // The port keeps the deadline, whatever the engine does.
        let deadline = self.inner.settings.deadline();
        match self.engine.commands.send(request, deadline).await {
            Ok(answer) => Ok(reply::answer(self.aggregate, &answer, scene)),
            Err(SendError::NotOwner { url }) if forwards => Box::pin(self.forward(&url, scene)).await,
            Err(error) => {
                self.note(&error);
                Err(Problem::from(&error))
            }
        }
    }

    /// Parses the body once, straight into the command's type, and makes its canonical bytes.
    async fn request(&self) -> Result<CommandRequest, Problem> {
        scan(&self.body, self.inner.settings.json_depth)?;
        let parsed = self.aggregate.parse(&self.key, self.name, &self.body);
        let command = parsed.map_err(|error| match error {
            ParseError::UnknownCommand => Code::UnknownCommand.into(),
            ParseError::Invalid(violations) => Problem::from(violations),
        })?;
        let sub = &self.who.caller.sub;
        let precondition = &self.head.precondition;
        let sealer = &self.engine.sealer;
        let sealed = match sealer.seal_at_once(self.aggregate, command, sub, precondition) {
            Attempt::Sealed(sealed) => sealed,
            Attempt::NeedsKey(command) => {
                let sealing = sealer.seal(self.aggregate, &self.key, command, sub, precondition);
                Box::pin(tokio::time::timeout(self.inner.settings.deadline(), sealing))
                    .await
                    .map_err(|_| Problem::new(Code::LogUnavailable))?
            }
        };
        let sealed = sealed.map_err(|error| {
            tracing::error!(%error, stream = %self.stream, "a command cannot be sealed");
            Problem::from(&error)
        })?;
        let data = String::from_utf8(Vec::from(sealed.data))
            .ok()
            .and_then(|text| RawValue::from_string(text).ok());
        Ok(CommandRequest {
            stream: self.stream.clone(),
            command: sealed.command,
            data: data.ok_or_else(|| {
                tracing::error!(stream = %self.stream, "a sealed command is not JSON");
                Problem::new(Code::Internal)
            })?,
            fingerprint: sealed.fingerprint.into(),
            idempotency_key: KeyHash::of(&self.head.idempotency_key),
            precondition: self.head.precondition,
            caller: self.who.caller.clone(),
            permission: self.permission,
            correlation: self.head.correlation.to_string(),
            causation: self.head.causation.clone(),
            traceparent: self.head.traceparent,
            metadata: self.head.metadata.clone(),
        })
    }

    /// What of a failure others must learn beside the caller.
    fn note(&self, error: &SendError) {
        match error {
            SendError::Forbidden => self.inner.security.record(&SecurityEvent::ForbiddenObject {
                sub: &self.who.caller.sub,
                what: &format!("{}/{}", self.aggregate.resource(), self.name),
                stream: self.stream.as_str(),
            }),
            SendError::Internal => tracing::error!(stream = %self.stream, "the engine failed"),
            _ => {}
        }
    }
}

/// The name under which an app's own names are made: UUIDv5 of `annals:app:{name}` under the nil UUID.
fn namespace(app: &AppName) -> Uuid {
    Uuid::new_v5(&Uuid::nil(), format!("annals:app:{app}").as_bytes())
}

/// The key that the server makes, the same for every repeat of a caller's idempotency key.
fn made_key(app: &AppName, sub: &str, idempotency_key: &str) -> Uuid {
    let mut name = Vec::with_capacity(sub.len() + 1 + idempotency_key.len());
    name.extend_from_slice(sub.as_bytes());
    name.push(0);
    name.extend_from_slice(idempotency_key.as_bytes());
    Uuid::new_v5(&namespace(app), &name)
}

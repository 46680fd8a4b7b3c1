//! How process managers send commands: through this node's own edge, as its internal listener would take them.
//!
//! A node with the role `command` judges them itself and sends them on to the shard's owner; another node asks one
//! that has the role. So a process manager's command has the same way as a client's, and no second one.

use std::sync::Arc;
use std::time::Duration;

use annals_process::{CommandSender, Outgoing, Sent};
use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Either};
use serde_json::Value;

use crate::authenticate::{CAUSATION, NODE_TOKEN};
use crate::command::head::IDEMPOTENCY_KEY;
use crate::edge::{Edge, Listener, Node};
use crate::ports::PeerError;
use crate::problem::Code;
use crate::reply::JSON;

/// Sends the commands of all process managers of a node.
pub struct ProcessCommands {
    edge: Edge,
    node: Node,
    /// The internal address of some node with the role `command`.
    other: Arc<dyn Fn() -> Option<String> + Send + Sync>,
}

impl ProcessCommands {
    /// Over an edge of this node; `other` names a node with the role `command`, and is asked only if this one lacks
    /// it.
    pub fn new(edge: Edge, node: Node, other: Arc<dyn Fn() -> Option<String> + Send + Sync>) -> Self {
        Self { edge, node, other }
    }

    fn request(&self, command: &Outgoing) -> Option<Request<Bytes>> {
        let target = format!("/v1/{}/{}/{}", command.resource, command.key, command.command);
        let quoted = command.idempotency_key.replace('\\', "\\\\").replace('"', "\\\"");
        let token = self.node.key.issue(&self.node.id, Some(&command.process));
        let mut request = Request::new(Bytes::copy_from_slice(command.data.get().as_bytes()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.parse().ok()?;
        let headers = request.headers_mut();
        headers.insert(NODE_TOKEN, HeaderValue::from_str(&token).ok()?);
        headers.insert(
            IDEMPOTENCY_KEY,
            HeaderValue::from_str(&format!("\"{quoted}\"")).ok()?,
        );
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(causation) = &command.causation {
            headers.insert(CAUSATION, HeaderValue::from_str(causation).ok()?);
        }
        Some(request)
    }
}

#[async_trait]
impl CommandSender for ProcessCommands {
    async fn send(&self, command: Outgoing) -> Sent {
        let Some(request) = self.request(&command) else {
            return Sent::Never {
                why: "its resource, key or command cannot be part of a path".to_owned(),
            };
        };
        if self.edge.inner().commands.is_some() {
            let response = self
                .edge
                .serve(
                    Listener::Internal,
                    request.map(|bytes| Either::Right(Body::from(bytes))),
                    None,
                )
                .await;
            let (head, body) = response.into_parts();
            return match body.collect().await {
                Ok(body) => sent(head.status, &head.headers, &body.to_bytes()),
                Err(_) => Sent::Unknown,
            };
        }
        let Some(url) = (self.other)() else {
            return Sent::Later { after: None };
        };
        match tokio::time::timeout(command.deadline, self.node.peers.call(&url, request)).await {
            Ok(Ok(response)) => sent(response.status(), response.headers(), response.body()),
            Ok(Err(PeerError::NotSent)) => Sent::Later { after: None },
            Ok(Err(PeerError::Unknown)) | Err(_) => Sent::Unknown,
        }
    }
}

/// What an answer says of a command.
fn sent(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Sent {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = problem["code"].as_str().and_then(Code::named);
    match code {
        None if status.is_success() => Sent::OnRecord,
        Some(Code::Rejected | Code::VersionMismatch) => Sent::OnRecord,
        Some(
            Code::QuotaExceeded
            | Code::Overloaded
            | Code::ShardUnavailable
            | Code::ShardHalted
            | Code::LogUnavailable
            // Another node may know this one's key, or have the role, in a moment.
            | Code::Unauthenticated
            | Code::Misdirected,
        ) => {
            let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Sent::Later {
                after: after.map(Duration::from_secs),
            }
        }
        // A failure of which nothing is known may have happened behind the append.
        None | Some(Code::OutcomeUnknown | Code::Internal) => Sent::Unknown,
        Some(code) => Sent::Never {
            why: format!("{}: {}", code.name(), problem["detail"].as_str().unwrap_or_default()),
        },
    }
}

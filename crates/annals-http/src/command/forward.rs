//! A command whose shard another node owns: sent there once, its body unparsed.

use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};

use super::{Call, head};
use crate::authenticate::{FORWARDED, NODE_TOKEN};
use crate::metrics;
use crate::ports::PeerError;
use crate::problem::{Code, Problem, Scene};
use crate::reply::{ANNALS_POSITION, IDEMPOTENT_REPLAYED, JSON, Reply};

/// What of an owner's response belongs to the answer; the rest is between the two nodes.
static ANSWER_HEADERS: [HeaderName; 9] = [
    CONTENT_TYPE,
    ETAG,
    LOCATION,
    RETRY_AFTER,
    WWW_AUTHENTICATE,
    ANNALS_POSITION,
    IDEMPOTENT_REPLAYED,
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("ratelimit-policy"),
];

impl Call<'_> {
    /// Sends it to the node at `url`.
    ///
    /// # Errors
    /// 503 if that node was not reached, 504 if it may have been.
    pub(super) async fn forward(&self, url: &str, scene: Scene<'_>) -> Result<Reply, Problem> {
        let node = self.inner.node.as_ref().ok_or(Code::ShardUnavailable)?;
        // The key stands in the path also where the server made it: both nodes mean the same stream.
        let target = format!("/v1/{}/{}/{}", self.aggregate.resource(), self.key, self.name);
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.parse().map_err(|_| Code::Internal)?;
        let headers = request.headers_mut();
        for (name, value) in head::write(&self.head) {
            headers.insert(name, value);
        }
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(authorization) = &self.who.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let token = HeaderValue::from_str(&node.key.issue(&node.id, self.who.process()))
            .map_err(|_| Code::Internal)?;
        headers.insert(NODE_TOKEN, token);
        headers.insert(FORWARDED, HeaderValue::from_static("1"));
        let called = tokio::time::timeout(self.inner.settings.request_time(), node.peers.call(url, request));
        let outcome = called.await.unwrap_or(Err(PeerError::Unknown));
        let label = match &outcome {
            Ok(_) => "answered",
            Err(PeerError::NotSent) => "not_sent",
            Err(PeerError::Unknown) => "unknown",
        };
        ::metrics::counter!(metrics::FORWARDED, "outcome" => label).increment(1);
        match outcome {
            // The client was let in here: what the owner refuses is this node, or the owner has just lost its role.
            Ok(response)
                if matches!(
                    response.status(),
                    StatusCode::UNAUTHORIZED | StatusCode::MISDIRECTED_REQUEST
                ) =>
            {
                tracing::error!(status = %response.status(), owner = url, "the shard's owner refuses this node");
                Err(Code::ShardUnavailable.into())
            }
            Ok(response) => {
                let (head, body) = response.into_parts();
                let kept = ANSWER_HEADERS
                    .iter()
                    .filter_map(|name| head.headers.get(name).map(|value| (name.clone(), value.clone())));
                let reply = Reply {
                    status: head.status,
                    headers: kept.collect(),
                    body,
                };
                Ok(reply)
            }
            Err(error) => {
                tracing::warn!(%error, owner = url, instance = scene.instance, "forwarding failed");
                Err(match error {
                    PeerError::NotSent => Code::ShardUnavailable.into(),
                    PeerError::Unknown => Code::OutcomeUnknown.into(),
                })
            }
        }
    }
}

//! Node to node: a request as it is, to another node's internal listener. One attempt; whoever calls decides on more.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Request, Response};

/// The largest answer that is taken from another node, in bytes: far above any acceptance or problem document.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Connections to the other nodes, HTTP/2 with prior knowledge: one each, however much is under way. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    http: reqwest::Client,
}

/// Why another node gave no response.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Nothing reached it: no connection.
    #[error("the node cannot be reached")]
    NotSent(#[source] reqwest::Error),
    /// It may have been reached, and may have acted.
    #[error("the node did not answer")]
    Unknown(#[source] reqwest::Error),
    /// Its address is none, or its answer is over [`MAX_ANSWER_BYTES`]: a fault of the program.
    #[error("{0}")]
    Unusable(String),
}

impl PeerError {
    /// Whether it is certain that nothing reached the other node.
    #[must_use]
    pub fn is_not_sent(&self) -> bool {
        matches!(self, Self::NotSent(_))
    }
}

impl Peers {
    /// Peers that answer within `timeout`, or count as silent.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub fn new(timeout: Duration) -> Result<Self, crate::Error> {
        let http = reqwest::Client::builder()
            .http2_prior_knowledge()
            .http2_keep_alive_interval(Duration::from_secs(5))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(2))
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(crate::Error::Setup)?;
        Ok(Self { http })
    }

    /// Sends a request, whose target is path and query, to the node at `url`, and reads the whole response. Headers
    /// and body pass through as they are.
    ///
    /// Cancel safe in the sense that dropping it gives up the answer, not the request.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn call(&self, url: &str, request: Request<Bytes>) -> Result<Response<Bytes>, PeerError> {
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let address = format!("{}{target}", url.trim_end_matches('/'));
        let address = reqwest::Url::parse(&address)
            .map_err(|error| PeerError::Unusable(format!("`{address}` is no address of a node: {error}")))?;
        let mut headers = head.headers;
        for own in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(own);
        }
        let sent = self
            .http
            .request(head.method, address)
            .headers(headers)
            .body(body)
            .send();
        let mut response = sent.await.map_err(|error| match error.is_connect() {
            true => PeerError::NotSent(error),
            false => PeerError::Unknown(error),
        })?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(PeerError::Unknown)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                let what = format!("a node answered with more than {MAX_ANSWER_BYTES} bytes");
                return Err(PeerError::Unusable(what));
            }
            body.extend_from_slice(&chunk);
        }
        let mut answer = Response::new(body.freeze());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

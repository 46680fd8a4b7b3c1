//! Many commands in one request: NDJSON up, NDJSON down, both streamed.

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::Client;
use crate::error::Error;
use crate::response::{Problem, Response};

/// The content type of both directions.
pub const NDJSON: &str = "application/x-ndjson";

/// One line that goes up. Source: 4-http.md, `POST /v1/batch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchLine {
    /// The plural name of the aggregate.
    pub resource: String,
    /// The stream's key; without it the server makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The command's name.
    pub command: String,
    /// The command's idempotency key.
    pub idempotency_key: String,
    /// The command's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
    /// As the header: `"\"3\""` or `"*"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    /// As the header: `"*"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_none_match: Option<String>,
}

/// One line that comes down.
#[derive(Debug, Clone, Deserialize)]
pub struct BatchResult {
    /// Which line it answers, from 1.
    pub line: u64,
    /// The status that the command would have had alone.
    pub status: u16,
    /// What it was accepted with.
    #[serde(default)]
    pub result: Option<Value>,
    /// Why it was not.
    #[serde(default)]
    pub problem: Option<Problem>,
}

/// What comes down, in the order of the lines.
pub type BatchResults = BoxStream<'static, Result<BatchResult, Error>>;

impl Client {
    /// Sends lines as they come, and gives results as they come, in the same order. The inner error is an answer that
    /// is no batch. Not tried again: lines without a result may have been done, and may be sent again with the
    /// same keys.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn batch(
        &self,
        lines: impl Stream<Item = BatchLine> + Send + 'static,
    ) -> Result<Result<BatchResults, Response>, Error> {
        let body = lines.map(|line| {
            let mut text = serde_json::to_vec(&line)?;
            text.push(b'\n');
            Ok::<_, serde_json::Error>(Bytes::from(text))
        });
        let url = self.path(["v1", "batch"])?;
        let mut request = self
            .http
            .post(url.clone())
            .header(CONTENT_TYPE, NDJSON)
            .timeout(std::time::Duration::from_secs(24 * 3_600))
            .body(reqwest::Body::wrap_stream(body));
        if let Some(authorization) = self.authorization()? {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await.map_err(|cause| self.failed(1, cause))?;
        if !response.status().is_success() {
            return Ok(Err(Response {
                status: response.status(),
                headers: response.headers().clone(),
                body: response.bytes().await.map_err(|cause| self.failed(1, cause))?,
                url: url.to_string(),
            }));
        }
        Ok(Ok(results(self.clone(), response, url.to_string())))
    }
}

fn results(client: Client, response: reqwest::Response, url: String) -> BatchResults {
    let state = (client, response, url, Lines::default());
    let results = stream::try_unfold(state, |(client, mut response, url, mut lines)| async move {
        loop {
            if let Some(line) = lines.next() {
                let result = serde_json::from_slice(&line).map_err(|error| Error::Malformed {
                    url: url.clone(),
                    what: error.to_string(),
                })?;
                return Ok(Some((result, (client, response, url, lines))));
            }
            match response.chunk().await.map_err(|cause| client.failed(1, cause))? {
                Some(chunk) => lines.push(&chunk),
                None if lines.rest.is_empty() => return Ok(None),
                None => lines.push(b"\n"),
            }
        }
    });
    results.boxed()
}

/// Lines out of pieces.
#[derive(Debug, Default)]
struct Lines {
    rest: BytesMut,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next whole line that is not empty, without its end.
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let end = self.rest.iter().position(|byte| *byte == b'\n')?;
            let line = self.rest.split_to(end + 1).freeze();
            let line = line.slice(..end);
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_came_in() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\r\n{\"c\"";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                lines.push(piece);
                while let Some(line) = lines.next() {
                    found.push(line);
                }
            }
            assert_eq!(found, [&b"{\"a\":1}"[..], b"{\"b\":2}\r"]);
            assert_eq!(&lines.rest[..], b"{\"c\"");
        }
    }
}

//! The demo's way to the shop: single commands and pages of rows over HTTP, and the positions of all answers.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals_client::{Client, Command, Precondition, Query, Response};
use annals_record::{Generation, Offset, Position, Shard};
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::DemoError;
use crate::order::Status;

/// The largest page.
const PAGE: usize = 500;
/// So many ids go into one address: 100 of 37 characters are well below the limit of a header.
const IDS: usize = 100;
/// How long the server may wait for a read model to be fresh, in seconds.
const WAIT_S: u32 = 8;
/// How often a command is sent again after 429.
const QUOTA_RETRIES: u32 = 20;

/// The shop at an address, and what was seen of it.
#[derive(Debug)]
pub(super) struct Shop<'a> {
    client: &'a Client,
    commands: AtomicU64,
    seen: Mutex<BTreeMap<(Generation, Shard), Offset>>,
}

/// A command of the demo; its idempotency key is its name, because the key's scope is the stream.
pub(super) struct Ask<'a> {
    pub(super) resource: &'static str,
    pub(super) key: &'a str,
    pub(super) command: &'static str,
    pub(super) data: Value,
    pub(super) precondition: Precondition,
}

/// What the shop said to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes, now or at an earlier run.
    Accepted,
    /// 412: the stream is at another version.
    OtherVersion,
    /// The rules said no.
    Rejected {
        code: String,
        /// With `wrong_status`, of an order.
        status: Option<Status>,
    },
}

impl<'a> Shop<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Self {
            client,
            commands: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// How many commands were answered.
    pub(super) fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Sends a command; 429 is waited out.
    ///
    /// # Errors
    /// [`DemoError::Client`]; [`DemoError::Answer`] for an answer that is neither yes nor no.
    pub(super) async fn send(&self, ask: Ask<'_>) -> Result<Answer, DemoError> {
        let idempotency_key = format!("tpch-{}", ask.command);
        let data = ask.data.to_string();
        let command = Command::new(ask.resource, ask.key, ask.command, data, &idempotency_key);
        let command = command.only_if(ask.precondition);
        let mut response = self.client.send(&command).await?;
        for _ in 0..QUOTA_RETRIES {
            if response.status.as_u16() != 429 {
                break;
            }
            tokio::time::sleep(retry_after(&response)).await;
            response = self.client.send(&command).await?;
        }
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.note(response.position());
        read_answer(&response).ok_or_else(|| DemoError::Answer {
            what: format!("{}/{}/{}", ask.resource, ask.key, ask.command),
            summary: response.summary(),
        })
    }

    /// Gives every row of a list to `each`; at least as fresh as all that was seen before, if `fresh`.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        resource: &'static str,
        query: Query,
        fresh: bool,
        mut each: impl FnMut(T),
    ) -> Result<(), DemoError> {
        let mut query = query.with("limit", PAGE.to_string());
        let after = self.positions();
        if fresh && !after.is_empty() {
            query = query.after(after).wait_s(WAIT_S);
        }
        let mut cursor: Option<String> = None;
        loop {
            let page = self.client.page(resource, &query, cursor.as_deref()).await?;
            let page = page.map_err(|response| DemoError::Answer {
                what: format!("GET {resource}"),
                summary: response.summary(),
            })?;
            self.note(page.position.as_deref());
            for row in page.rows {
                each(serde_json::from_value(row).map_err(|cause| DemoError::Row { resource, cause })?);
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// The rows with these order ids that are there, some columns of them.
    pub(super) async fn of_orders<T: DeserializeOwned>(
        &self,
        resource: &'static str,
        orders: &[Uuid],
        fields: &str,
    ) -> Result<Vec<T>, DemoError> {
        let mut rows = Vec::new();
        for some in orders.chunks(IDS) {
            let ids: Vec<String> = some.iter().map(Uuid::to_string).collect();
            let query = Query::default()
                .with("order_id.in", ids.join(","))
                .with("fields", fields);
            self.list(resource, query, false, |row| rows.push(row)).await?;
        }
        Ok(rows)
    }

    fn note(&self, positions: Option<&str>) {
        let positions = positions.unwrap_or_default().split(',');
        let mut seen = self.seen.lock().expect("nobody panics while holding it");
        for position in positions.filter_map(|text| text.trim().parse::<Position>().ok()) {
            let last = seen
                .entry((position.generation, position.shard))
                .or_insert(position.offset);
            *last = position.offset.max(*last);
        }
    }

    /// The last position of each shard that any answer named, with commas.
    fn positions(&self) -> String {
        let seen = self.seen.lock().expect("nobody panics while holding it");
        let last = seen
            .iter()
            .map(|(&(generation, shard), &offset)| Position::new(generation, shard, offset).to_string());
        last.collect::<Vec<_>>().join(", ")
    }
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response
        .header("retry-after")
        .and_then(|text| text.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(1).clamp(1, 60))
}

fn read_answer(response: &Response) -> Option<Answer> {
    match response.status.as_u16() {
        200 | 201 => Some(Answer::Accepted),
        412 => Some(Answer::OtherVersion),
        409 => {
            let rejection = response.problem()?.rejection?;
            let status = rejection.detail.get("status").cloned();
            Some(Answer::Rejected {
                code: rejection.code,
                status: status.and_then(|status| serde_json::from_value(status).ok()),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use annals_client::{NoToken, Settings};
    use serde_json::json;
    use std::sync::Arc;

    use super::*;

    fn response(status: u16, body: &Value) -> Response {
        let mut response = Response {
            status: reqwest::StatusCode::from_u16(status).unwrap(),
            headers: reqwest::header::HeaderMap::new(),
            body: body.to_string().into_bytes().into(),
            url: String::new(),
        };
        let kind = "application/problem+json".parse().unwrap();
        response.headers.insert("content-type", kind);
        response
    }

    #[test]
    fn reads_yes_no_and_neither() {
        let rejected = json!({ "code": "rejected", "rejection": { "code": "already_placed" } });
        let wrong = json!({ "code": "rejected",
            "rejection": { "code": "wrong_status", "detail": { "status": "delivered" } } });
        let no = |code: &str, status| {
            let code = code.to_owned();
            Some(Answer::Rejected { code, status })
        };
        let read = |status, body: &Value| read_answer(&response(status, body));
        assert_eq!(read(201, &json!({})), Some(Answer::Accepted));
        assert_eq!(read(412, &json!({})), Some(Answer::OtherVersion));
        assert_eq!(read(409, &rejected), no("already_placed", None));
        assert_eq!(read(409, &wrong), no("wrong_status", Some(Status::Delivered)));
        for neither in [400, 401, 403, 404, 422, 500, 503, 504] {
            assert_eq!(read(neither, &json!({})), None, "{neither}");
        }
    }

    #[test]
    fn remembers_the_last_position_of_each_shard() {
        let client = Client::new("http://127.0.0.1:1", Arc::new(NoToken), Settings::default()).unwrap();
        let shop = Shop::new(&client);
        for text in ["3:10", "0:5, 3:9", "0:7,11:1", "no position", "3:2~2"] {
            shop.note(Some(text));
        }
        shop.note(None);
        assert_eq!(shop.positions(), "0:7, 3:10, 11:1, 3:2~2");
    }
}

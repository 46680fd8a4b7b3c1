//! Live changes as a client sees them: server-sent events, read by the rules of the standard.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::api::Api;

/// How long an event may take to come; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(45);

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id; none for `end`.
    pub id: Option<String>,
    /// `snapshot`, `change`, `remove` or `end`.
    pub kind: String,
    /// Its data.
    pub data: Value,
}

/// A row or a list that is followed, and what is held of it.
#[derive(Debug)]
pub struct Follower {
    response: reqwest::Response,
    text: String,
    /// Rows by key.
    pub held: BTreeMap<String, Value>,
    /// The id of the last event.
    pub last: Option<String>,
    /// How many snapshots came.
    pub snapshots: usize,
    /// Events that told what was held already.
    pub repeats: usize,
    /// Events that told of an earlier version than the one that was held.
    pub went_back: usize,
    /// The last event, once it has come.
    pub end: Option<Value>,
}

impl Follower {
    /// Follows `path`; with a follower that is gone, from where that one was.
    ///
    /// # Panics
    /// If it is not answered with 200.
    pub async fn begin(api: &Api, path: &str, before: Option<&Self>) -> Self {
        let mut call = api.call("GET", path).header("accept", "text/event-stream");
        if let Some(last) = before.and_then(|before| before.last.as_ref()) {
            call = call.header("last-event-id", last).header("prefer", "wait=9");
        }
        let response = call.open().await;
        assert_eq!(response.status().as_u16(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(response.headers().contains_key("annals-position"));
        assert!(response.headers().contains_key("annals-lag-ms"));
        Self {
            response,
            text: String::new(),
            held: before.map(|before| before.held.clone()).unwrap_or_default(),
            last: before.and_then(|before| before.last.clone()),
            snapshots: before.map_or(0, |before| before.snapshots),
            repeats: before.map_or(0, |before| before.repeats),
            went_back: before.map_or(0, |before| before.went_back),
            end: None,
        }
    }

    /// The next event, taken in; none when the stream is over.
    ///
    /// # Panics
    /// If none comes in time.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = read(&block) {
                    self.take(&event);
                    return Some(event);
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.unwrap_or_else(|_| panic!("no event in {PATIENCE:?}; held: {:?}", self.held));
            match chunk {
                Ok(Some(bytes)) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                // A killed server breaks off.
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Takes events until what is held is as wanted.
    ///
    /// # Panics
    /// If the stream ends before that, or it takes too long.
    pub async fn until(&mut self, wanted: impl Fn(&BTreeMap<String, Value>) -> bool) {
        while !wanted(&self.held) {
            let event = self.next().await;
            assert!(
                event.is_some_and(|event| event.kind != "end"),
                "it ended: {:?}; held: {:?}",
                self.end,
                self.held
            );
        }
    }

    /// Takes events until the stream is over.
    pub async fn to_the_end(&mut self) {
        while self.next().await.is_some() {}
    }

    fn take(&mut self, event: &Event) {
        let key = |row: &Value| row["key"].as_str().unwrap_or_default().to_owned();
        let earlier = |new: &Value, old: Option<&Value>| {
            old.is_some_and(|old| new["version"].as_u64() < old["version"].as_u64())
        };
        match event.kind.as_str() {
            "snapshot" => {
                self.snapshots += 1;
                let rows = event.data["data"].as_array().cloned().unwrap_or_default();
                let back = rows.iter().filter(|row| earlier(row, self.held.get(&key(row))));
                self.went_back += back.count();
                self.held = rows.into_iter().map(|row| (key(&row), row)).collect();
            }
            "change" => {
                let before = self.held.insert(key(&event.data), event.data.clone());
                self.repeats += usize::from(before.as_ref() == Some(&event.data));
                self.went_back += usize::from(earlier(&event.data, before.as_ref()));
            }
            "remove" => self.repeats += usize::from(self.held.remove(&key(&event.data)).is_none()),
            "end" => self.end = Some(event.data.clone()),
            other => panic!("an event that is not of the contract: {other}"),
        }
        if let Some(id) = &event.id {
            self.last = Some(id.clone());
        }
    }
}

/// One event; none if the block is a comment or sets the time of retries.
fn read(block: &str) -> Option<Event> {
    let (mut id, mut kind, mut data) = (None, None, Vec::new());
    for line in block.lines() {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("id", value) => id = Some(value.to_owned()),
            ("event", value) => kind = Some(value.to_owned()),
            ("data", value) => data.push(value),
            ("retry" | ":" | "", _) => {}
            (field, _) => panic!("an unknown field: {field}"),
        }
    }
    let data = serde_json::from_str(&data.join("\n")).ok()?;
    Some(Event {
        id,
        kind: kind?,
        data,
    })
}

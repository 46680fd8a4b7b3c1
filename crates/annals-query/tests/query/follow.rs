//! A subscriber that holds what events say.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_query::live::{Kind, Next};
use annals_query::{Event, LiveId, Queries, Request, Subscription};
use serde_json::Value;

use crate::support::{json, orders};

/// Long enough for a busy machine; what is waited for comes in about 100 ms.
pub const SOON: Duration = Duration::from_secs(30);
/// How long is listened for what must not come: several readings of a feed.
pub const QUIET: Duration = Duration::from_millis(600);

/// Holds what events say.
#[derive(Debug, Default, Clone)]
pub struct Holder {
    pub held: BTreeMap<String, Value>,
    pub last: Option<LiveId>,
    pub snapshots: usize,
    /// Events that changed nothing.
    pub repeats: usize,
}

impl Holder {
    pub fn see(&mut self, event: &Event) {
        let data = json(&event.data);
        let key = |row: &Value| row["key"].as_str().unwrap().to_owned();
        match event.kind {
            Kind::Snapshot => {
                self.snapshots += 1;
                let rows = data["data"].as_array().unwrap();
                self.held = rows.iter().map(|row| (key(row), row.clone())).collect();
            }
            Kind::Change => {
                let before = self.held.insert(key(&data), data.clone());
                self.repeats += usize::from(before.as_ref() == Some(&data));
            }
            Kind::Remove => self.repeats += usize::from(self.held.remove(&key(&data)).is_none()),
        }
        self.last = Some(event.id.to_string().parse().unwrap());
    }

    /// Takes events until what is held is as wanted.
    pub async fn until(
        &mut self,
        subscription: &mut Subscription,
        wanted: impl Fn(&BTreeMap<String, Value>) -> bool,
    ) {
        let seen = async {
            while !wanted(&self.held) {
                match subscription.next().await {
                    Next::Events(events) => events.iter().for_each(|event| self.see(event)),
                    Next::End(end) => panic!("{end:?}"),
                }
            }
        };
        if tokio::time::timeout(SOON, seen).await.is_err() {
            panic!("not seen in time; held: {:?}", self.held);
        }
    }

    pub fn totals(&self) -> Vec<i64> {
        self.held
            .values()
            .map(|row| row["data"]["total"].as_i64().unwrap())
            .collect()
    }
}

pub async fn quiet(subscription: &mut Subscription) {
    if let Ok(next) = tokio::time::timeout(QUIET, subscription.next()).await {
        panic!("nothing was to come: {next:?}");
    }
}

pub async fn follow(queries: &Queries, request: Request, last: Option<LiveId>) -> Subscription {
    queries.subscribe(request, "ann", last).await.unwrap()
}

pub fn placed() -> Request {
    orders().with("status", "placed")
}

//! The role `process`: process managers, and the way of their commands over the internal listeners.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use annals_auth::NodeKey;
use annals_client::Peers;
use annals_log::ReaderSettings;
use annals_process::{
    CommandSender, EffectSettings, Effects, Outgoing, ProcessRunner, ProcessSettings, Sent,
};
use annals_record::{Key, ShardCount, StreamId};
use annals_store::lease::{LeaseKind, Leases};
use annals_store::roles::DatabaseRole;
use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::node::Parts;
use crate::node::tasks::{Phase, Tasks};

/// How often the owners of the shards are read again.
const OWNERS_EVERY: Duration = Duration::from_millis(500);
const NODE_TOKEN: HeaderName = HeaderName::from_static("annals-node-token");
const CAUSATION: HeaderName = HeaderName::from_static("annals-causation");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Starts every process manager of the app.
pub(crate) async fn start(app: &App, parts: &Parts, tasks: &mut Tasks) -> anyhow::Result<()> {
    let processes = app.processes(&parts.settings)?;
    if processes.is_empty() {
        return Ok(());
    }
    let effects = Effects::new(app.effects(&parts.settings)?, EffectSettings::default());
    let settings = ProcessSettings {
        batch: parts.settings.process.batch,
        retry_max_s: u32::try_from(parts.settings.process.retry_max_s).unwrap_or(u32::MAX),
        deadline: Duration::from_millis(parts.settings.command.deadline_ms),
        ..ProcessSettings::default()
    };
    let pool = parts
        .databases
        .pool(DatabaseRole::Process, "process", 8, None)
        .await?;
    let leases = parts.leases(pool.clone());
    let owners = Owners::default();
    owners
        .read(leases.as_ref())
        .await
        .context("the owners of the shards")?;
    let stop = tasks.token(Phase::Work);
    tasks.spawn(
        Phase::Work,
        "owners",
        owners.clone().follow(Arc::clone(&leases), stop),
    );
    let sender: Arc<dyn CommandSender> = Arc::new(Sender {
        catalog: parts.catalog.clone(),
        shards: parts.log.shards,
        owners,
        // An answer that is slower than the engine's own deadline is none.
        peers: Peers::new(settings.deadline + Duration::from_secs(1))?,
        key: Arc::clone(&parts.keys.node),
        node: parts.id.to_string(),
    });
    for process in processes {
        let name = process.name();
        let runner = ProcessRunner {
            process,
            effects: effects.clone(),
            sender: Arc::clone(&sender),
            log: Arc::clone(&parts.log.log),
            catalog: parts.catalog.clone(),
            pool: pool.clone(),
            leases: Arc::clone(&leases),
            shards: parts.log.shards,
            ambient: parts.ambient.clone(),
            reader: ReaderSettings::default(),
            settings: settings.clone(),
        };
        tasks.spawn(Phase::Work, name, runner.run(tasks.token(Phase::Work)));
    }
    Ok(())
}

/// Which node's internal listener answers for which shard, as the leases say. Cheap to clone.
#[derive(Clone, Default)]
struct Owners(Arc<RwLock<HashMap<u32, String>>>);

impl Owners {
    async fn read(&self, leases: &dyn Leases) -> Result<(), annals_store::Error> {
        let found = leases.list(LeaseKind::Command, "").await?;
        let live = found.into_iter().filter(|lease| lease.live);
        let live = live.map(|lease| (lease.key.shard, lease.url)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = live;
        Ok(())
    }

    async fn follow(self, leases: Arc<dyn Leases>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(OWNERS_EVERY) => {}
            }
            if let Err(error) = self.read(leases.as_ref()).await {
                tracing::warn!(%error, "the owners of the shards cannot be read");
            }
        }
    }

    fn of(&self, shard: u32) -> Option<String> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&shard)
            .cloned()
    }
}

/// Sends commands straight to the owner's internal listener: a request there is not forwarded again.
struct Sender {
    catalog: annals_domain::Catalog,
    shards: ShardCount,
    owners: Owners,
    peers: Peers,
    key: Arc<NodeKey>,
    node: String,
}

impl Sender {
    /// The node that owns the stream's shard; `Err` is a command for what there is not.
    fn owner(&self, command: &Outgoing) -> Result<Option<String>, Sent> {
        let never = |why: String| Sent::Never { why };
        let aggregate = self.catalog.resource(&command.resource);
        let aggregate =
            aggregate.ok_or_else(|| never(format!("there is no resource `{}`", command.resource)))?;
        let key = Key::try_from(command.key.as_str()).map_err(|error| never(error.to_string()))?;
        let stream = StreamId::new(aggregate.category(), &key);
        Ok(self.owners.of(self.shards.shard_of(&stream).get()))
    }

    fn request(&self, command: &Outgoing) -> Result<Request<Bytes>, Sent> {
        let never = |what: &str| Sent::Never {
            why: format!("{what} is not fit for HTTP"),
        };
        let target = format!("/v1/{}/{}/{}", command.resource, command.key, command.command);
        let mut request = Request::new(Bytes::from(command.data.get().to_owned()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = target.parse().map_err(|_| never("the key"))?;
        let token = self.key.issue(&self.node, Some(&command.process));
        let headers = request.headers_mut();
        let value = |what, text: &str| HeaderValue::from_str(text).map_err(|_| never(what));
        headers.insert(NODE_TOKEN, value("the token", &token)?);
        headers.insert(
            IDEMPOTENCY_KEY,
            value("the idempotency key", &command.idempotency_key)?,
        );
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(causation) = &command.causation {
            headers.insert(CAUSATION, value("the causation", causation)?);
        }
        Ok(request)
    }
}

#[async_trait]
impl CommandSender for Sender {
    async fn send(&self, command: Outgoing) -> Sent {
        let prepared = self
            .owner(&command)
            .and_then(|owner| Ok((owner, self.request(&command)?)));
        let (owner, request) = match prepared {
            Ok((Some(owner), request)) => (owner, request),
            Ok((None, _)) => {
                return Sent::Later {
                    after: Some(OWNERS_EVERY),
                };
            }
            Err(never) => return never,
        };
        match self.peers.call(&owner, request).await {
            Ok(response) => sent(&response),
            Err(error) if error.is_not_sent() => Sent::Later {
                after: Some(OWNERS_EVERY),
            },
            Err(error) => {
                tracing::debug!(%error, owner, "no answer to a process's command");
                Sent::Unknown
            }
        }
    }
}

/// What an answer means for the outbox. Source: 5-projections.md, "Process managers".
fn sent(response: &Response<Bytes>) -> Sent {
    let status = response.status();
    match status.as_u16() {
        200..=299 | 409 | 412 => Sent::OnRecord,
        // 401 and 421: the other node has another key or lost its role, for now.
        401 | 421 | 429 | 503 => {
            let after = response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse().ok());
            Sent::Later {
                after: after.map(Duration::from_secs),
            }
        }
        400..=499 => Sent::Never {
            why: why(status, response.body()),
        },
        _ => Sent::Unknown,
    }
}

/// Status, code and detail; problem documents hold no personal data.
fn why(status: StatusCode, body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}: {}", status.as_u16(), text("code"), text("detail"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&'static str>) -> Sent {
        let body = Bytes::from_static(b"{\"code\":\"invalid\",\"detail\":\"no\"}");
        let mut response = Response::builder().status(status).body(body).unwrap();
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        sent(&response)
    }

    #[test]
    fn only_answers_that_are_records_count_as_answers() {
        for status in [200, 201, 409, 412] {
            assert_eq!(answer(status, None), Sent::OnRecord, "{status}");
        }
        assert_eq!(
            answer(503, Some("2")),
            Sent::Later {
                after: Some(Duration::from_secs(2))
            }
        );
        assert_eq!(answer(429, None), Sent::Later { after: None });
        assert_eq!(answer(504, None), Sent::Unknown);
        assert_eq!(answer(500, None), Sent::Unknown);
        for status in [403, 404, 413, 422] {
            assert_eq!(
                answer(status, None),
                Sent::Never {
                    why: format!("{status} invalid: no")
                }
            );
        }
    }
}

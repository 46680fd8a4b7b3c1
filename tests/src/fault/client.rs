//! Clients that write down what they sent and were told: idempotency keys, repeats until an answer for good, the same
//! key at two nodes at once, old keys again, preconditions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster::Balancer;
use super::history::{Ask, At, Sent, Told, Verdict};
use super::plan::Random;
use super::setup::Ground;
use super::{Options, SHARDS};
use crate::api::shard_of;

/// How much longer than the servers' own deadline an attempt may take.
const LATE: Duration = Duration::from_secs(1);
/// Between two attempts, at least. (A polite client waits for `Retry-After`; this one looks for the first moment.)
pub(super) const AGAIN: Duration = Duration::from_millis(25);
/// Between two commands of a client.
const THINK: Duration = Duration::from_millis(15);
/// One command in so many is left open when nobody knows its outcome; it is asked for in the end.
const LEFT_OPEN: usize = 4;
/// One command in so many is not sent again after a 503: the checker looks whether really nothing happened.
const TAKEN_AT_ITS_WORD: usize = 20;

/// What all clients share.
#[derive(Debug)]
pub struct Clients {
    /// Where commands go.
    pub balancer: Balancer,
    /// Their tokens, one of them for each stream.
    pub tokens: Vec<String>,
    /// The zero of all times.
    pub began: Instant,
    /// Ends the load: each client finishes what it is at.
    pub stop: AtomicBool,
    history: Mutex<Vec<Sent>>,
    open: Mutex<Vec<Sent>>,
    counts: Mutex<BTreeMap<String, u64>>,
    /// For each shard, when a command was answered last.
    last: Vec<AtomicU64>,
    next: AtomicU64,
    http: reqwest::Client,
}

/// What an attempt came to.
pub(super) enum Attempt {
    Told(Told),
    /// 503: nothing happened.
    Not,
    /// No connection: nothing was sent.
    NotSent,
    /// Nobody knows.
    Unknown,
}

impl Clients {
    /// Of the nodes of a ground.
    ///
    /// # Panics
    /// If no HTTP client can be made.
    #[must_use]
    pub fn of(ground: &Ground, options: &Options) -> Arc<Self> {
        let shards = usize::try_from(SHARDS).expect("a small number");
        let patience = Duration::from_millis(options.deadline_ms) + LATE;
        let http = reqwest::Client::builder().no_proxy().timeout(patience).build();
        Arc::new(Self {
            balancer: ground.shared.commands.clone(),
            tokens: ground.tokens.clone(),
            began: Instant::now(),
            stop: AtomicBool::new(false),
            history: Mutex::default(),
            open: Mutex::default(),
            counts: Mutex::default(),
            last: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU64::new(0),
            http: http.expect("a client can be made"),
        })
    }

    /// Since the run began.
    #[must_use]
    pub fn now(&self) -> At {
        self.began.elapsed()
    }

    /// Everything that was answered, or left open, so far. What clients are at is not in it.
    #[must_use]
    pub fn history(&self) -> Vec<Sent> {
        lock(&self.history).clone()
    }

    /// Answers by what they said, failures by what they were.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        lock(&self.counts).clone()
    }

    /// Whether a command of each shard was answered after `at`.
    #[must_use]
    pub fn all_answered_since(&self, at: At) -> bool {
        let at = micros(at);
        self.last.iter().all(|last| last.load(Ordering::Relaxed) > at)
    }

    /// The shards that gave no answer after `at`.
    #[must_use]
    pub fn silent_since(&self, at: At) -> Vec<usize> {
        let at = micros(at);
        let silent =
            |(shard, last): (usize, &AtomicU64)| (last.load(Ordering::Relaxed) <= at).then_some(shard);
        self.last.iter().enumerate().filter_map(silent).collect()
    }

    /// One client on these streams of one shard, until the load ends.
    pub async fn run(self: Arc<Self>, streams: Vec<String>, seed: u64) {
        let mut random = Random::new(seed);
        let mut versions: BTreeMap<String, u64> = BTreeMap::new();
        let mut done: Vec<Sent> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let stream = streams[random.below(streams.len())].clone();
            let mut sent = self.draw(&stream, versions.get(&stream).copied(), &mut random);
            let again = random.below(20) == 0 && !done.is_empty();
            if again {
                // An old key: its first answer again, or a second record, which the checker would find.
                sent = done[random.below(done.len())].clone();
            }
            let twice = random.below(20) == 0;
            self.until_told(&mut sent, twice, Some(&mut random), again).await;
            if let Some(Verdict::Committed { version }) = sent.told.as_ref().map(|told| told.what.clone()) {
                versions.insert(stream, version);
            }
            if !again && sent.told.is_some() {
                done.push(sent.clone());
            }
            tokio::time::sleep(THINK).await;
        }
    }

    fn draw(&self, stream: &str, version: Option<u64>, random: &mut Random) -> Sent {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let count = i64::try_from(1 + random.below(9)).unwrap_or(1);
        let ask = match random.below(10) {
            0..6 => Ask::Receive(count),
            // About as much as comes in, so that now and then there is not enough.
            _ => Ask::Remove(count * 2),
        };
        let if_version = version.filter(|_| random.below(8) == 0);
        let now = self.now();
        Sent {
            stream: stream.to_owned(),
            key: format!("key-{number}"),
            ask,
            if_version,
            began: now,
            ended: now,
            unknown: 0,
            told: None,
            other: None,
            nothing: false,
        }
    }

    /// Sends until there is an answer for good, or, now and then, until nobody knows. `again`: it was answered before.
    async fn until_told(&self, sent: &mut Sent, twice: bool, random: Option<&mut Random>, again: bool) {
        let mut local = Random::new(micros(self.now()));
        let random = random.unwrap_or(&mut local);
        let mut avoid = None;
        let mut twice = twice;
        loop {
            let attempt = match twice {
                true => self.at_two_nodes(sent, random).await,
                false => {
                    let url = self.pick(avoid.as_deref(), random);
                    let attempt = self.attempt(sent, url.as_deref()).await;
                    if !matches!(attempt, Attempt::Told(_)) {
                        avoid = url;
                    }
                    attempt
                }
            };
            let was_twice = std::mem::replace(&mut twice, false);
            match attempt {
                Attempt::Told(told) => return self.told(sent, told, again),
                Attempt::Not
                    if sent.unknown == 0 && !again && !was_twice && random.below(TAKEN_AT_ITS_WORD) == 0 =>
                {
                    sent.ended = self.now();
                    sent.nothing = true;
                    lock(&self.history).push(sent.clone());
                    return;
                }
                Attempt::Not | Attempt::NotSent => {}
                Attempt::Unknown => {
                    sent.unknown += 1;
                    if !again && random.below(LEFT_OPEN) == 0 {
                        lock(&self.open).push(sent.clone());
                        return;
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn told(&self, sent: &mut Sent, told: Told, again: bool) {
        if again {
            if sent.told.as_ref() != Some(&told) {
                sent.other = Some(told);
                lock(&self.history).push(sent.clone());
            }
            self.count("first answer given again");
            return;
        }
        sent.ended = self.now();
        if let Some(last) = usize::try_from(told.shard)
            .ok()
            .and_then(|shard| self.last.get(shard))
        {
            last.fetch_max(micros(sent.ended), Ordering::Relaxed);
        }
        sent.told = Some(told);
        lock(&self.history).push(sent.clone());
    }

    /// The same key at two nodes at the same time: one record, one answer.
    async fn at_two_nodes(&self, sent: &mut Sent, random: &mut Random) -> Attempt {
        let (one, two) = (self.pick(None, random), self.pick(None, random));
        let (first, second) = tokio::join!(
            self.attempt(sent, one.as_deref()),
            self.attempt(sent, two.as_deref())
        );
        match (first, second) {
            (Attempt::Told(first), Attempt::Told(second)) => {
                if first != second {
                    sent.other = Some(second);
                }
                Attempt::Told(first)
            }
            (Attempt::Told(told), _) | (_, Attempt::Told(told)) => Attempt::Told(told),
            (Attempt::Unknown, _) | (_, Attempt::Unknown) => Attempt::Unknown,
            (Attempt::Not | Attempt::NotSent, Attempt::Not | Attempt::NotSent) => Attempt::Not,
        }
    }

    fn token_of(&self, stream: &str) -> &str {
        let shard = usize::try_from(shard_of(stream)).unwrap_or(0);
        &self.tokens[shard % self.tokens.len()]
    }

    pub(super) fn pick(&self, avoid: Option<&str>, random: &mut Random) -> Option<String> {
        let mut all = self.balancer.addresses();
        if all.len() > 1 {
            all.retain(|url| Some(url.as_str()) != avoid);
        }
        (!all.is_empty()).then(|| all.swap_remove(random.below(all.len())))
    }

    async fn attempt(&self, sent: &Sent, url: Option<&str>) -> Attempt {
        let Some(url) = url else {
            return self.send(None).await;
        };
        let sku = sent.stream.trim_start_matches("product-");
        let (command, data) = match sent.ask {
            Ask::Receive(count) => ("receive", json!({"quantity": count, "reference": sent.key})),
            Ask::Remove(count) => ("adjust", json!({"delta": -count, "reason": sent.key})),
        };
        let path = format!("/v1/products/{sku}/{command}");
        let mut request = self.request(url, &path, &sent.stream, &sent.key, &data);
        if let Some(version) = sent.if_version {
            request = request.header("if-match", format!("\"{version}\""));
        }
        self.send(Some(request)).await
    }

    /// A command to a node.
    pub(super) fn request(
        &self,
        url: &str,
        path: &str,
        stream: &str,
        key: &str,
        data: &Value,
    ) -> RequestBuilder {
        self.http
            .post(format!("{url}{path}"))
            .bearer_auth(self.token_of(stream))
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(data.to_string())
    }

    /// Sends it; `None`: there is no node to send it to.
    pub(super) async fn send(&self, request: Option<RequestBuilder>) -> Attempt {
        let Some(request) = request else {
            self.count("no node to send to");
            return Attempt::NotSent;
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                self.count("no connection");
                return Attempt::NotSent;
            }
            Err(error) => {
                self.count(if error.is_timeout() {
                    "no answer in time"
                } else {
                    "connection broke"
                });
                return Attempt::Unknown;
            }
        };
        let status = response.status().as_u16();
        let Ok(body) = response.json::<Value>().await else {
            self.count("answer broke off");
            return Attempt::Unknown;
        };
        self.understand(status, &body)
    }

    fn understand(&self, status: u16, body: &Value) -> Attempt {
        let code = body["code"].as_str().unwrap_or_default();
        self.count(&format!("{status} {code}"));
        let what = match status {
            200 | 201 => body["version"]
                .as_u64()
                .map(|version| Verdict::Committed { version }),
            409 => body["rejection"]["code"].as_str().map(|code| Verdict::Rejected {
                code: code.to_owned(),
            }),
            412 => body["current"]
                .as_u64()
                .map(|current| Verdict::Mismatch { current }),
            503 => return Attempt::Not,
            _ => return Attempt::Unknown,
        };
        let place = body["position"]
            .as_str()
            .and_then(|position| position.split_once(':'));
        let place = place.and_then(|(shard, offset)| Some((shard.parse().ok()?, offset.parse().ok()?)));
        match (what, place, body["record"].as_str()) {
            (Some(what), Some((shard, offset)), Some(record)) => Attempt::Told(Told {
                record: record.to_owned(),
                shard,
                offset,
                what,
            }),
            _ => {
                self.count("an answer that does not read");
                Attempt::Unknown
            }
        }
    }

    /// Asks for everything that was left open; how many there were. What is not answered by `until` stays open.
    pub async fn resolve(&self, until: Instant) -> usize {
        let open = std::mem::take(&mut *lock(&self.open));
        let count = open.len();
        let asking = open.into_iter().map(|mut sent| async move {
            let asked = tokio::time::timeout_at(until, async {
                while sent.told.is_none() {
                    self.until_told(&mut sent, false, None, false).await;
                    lock(&self.open).retain(|open| open.key != sent.key);
                }
            });
            if asked.await.is_err() {
                sent.ended = self.now();
                lock(&self.history).push(sent);
            }
        });
        futures_util::future::join_all(asking).await;
        count
    }

    fn count(&self, what: &str) {
        *lock(&self.counts).entry(what.trim().to_owned()).or_default() += 1;
    }
}

fn micros(at: At) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

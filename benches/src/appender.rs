//! The floor under the engine: rows with the same bytes as its records, appended by hand, as many at a time as there
//! are senders.

use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};
use sqlx::PgConnection;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The tables of the floor: one row of `head`, and a journal with two indexes.
pub const TABLES: &str = "
CREATE SCHEMA floor;
CREATE TABLE floor.head (shard int PRIMARY KEY, next bigint NOT NULL, chain bytea NOT NULL) WITH (fillfactor = 10);
INSERT INTO floor.head VALUES (0, 0, '\\x00');
CREATE TABLE floor.journal (
    position bigint NOT NULL, time_ms bigint NOT NULL, version bigint NOT NULL, id uuid NOT NULL, shard int NOT NULL,
    prev bytea NOT NULL, stream text COLLATE \"C\" NOT NULL, key bytea NOT NULL, value bytea NOT NULL,
    PRIMARY KEY (shard, position));
CREATE INDEX journal_by_stream ON floor.journal (stream, position);
ALTER TABLE floor.journal ALTER COLUMN value SET COMPRESSION lz4;";

/// Moves the head from where the writer left it and inserts the rows, or does neither.
pub const APPEND: &str = "
WITH moved AS (
    UPDATE floor.head SET next = $1, chain = $2 WHERE shard = 0 AND next = $3 AND chain = $4 RETURNING shard)
INSERT INTO floor.journal (position, time_ms, version, id, shard, prev, stream, key, value)
SELECT r.position, r.time_ms, r.version, r.id, m.shard, r.prev, r.stream, r.key, r.value
FROM moved m, UNNEST($5::bigint[], $6::bigint[], $7::bigint[], $8::uuid[], $9::bytea[], $10::text[], $11::bytea[],
    $12::bytea[]) AS r(position, time_ms, version, id, prev, stream, key, value)";

/// Rows by column, as one statement takes them.
#[derive(Debug, Default)]
pub struct Rows<'a> {
    /// Places in the shard.
    pub position: Vec<i64>,
    /// Times, ms since 1970.
    pub time_ms: Vec<i64>,
    /// Versions of the streams.
    pub version: Vec<i64>,
    /// Ids of the records.
    pub id: Vec<uuid::Uuid>,
    /// The chain before each record.
    pub prev: Vec<&'a [u8]>,
    /// The streams.
    pub stream: Vec<&'a str>,
    /// Hashes of the idempotency keys.
    pub key: Vec<&'a [u8]>,
    /// The values.
    pub value: Vec<&'a [u8]>,
}

impl Rows<'_> {
    /// Appends them behind `from`, whose chain was `chain`; the chain behind them is `to`.
    ///
    /// # Errors
    /// Of the database, or if the head was elsewhere.
    pub async fn append(
        self,
        connection: &mut PgConnection,
        from: i64,
        chain: &[u8],
        to: &[u8],
    ) -> anyhow::Result<()> {
        let count = self.position.len();
        let statement = sqlx::query(APPEND)
            .bind(from + i64::try_from(count)?)
            .bind(to)
            .bind(from)
            .bind(chain)
            .bind(self.position)
            .bind(self.time_ms)
            .bind(self.version)
            .bind(self.id)
            .bind(self.prev)
            .bind(self.stream)
            .bind(self.key)
            .bind(self.value);
        let done = statement.execute(connection).await?;
        ensure!(
            done.rows_affected() == u64::try_from(count)?,
            "the head has moved"
        );
        Ok(())
    }
}

/// Appends values of `bytes` in statements of `rows` each, and gives the rows a second.
#[derive(Debug)]
pub struct ByHand {
    connection: PgConnection,
    next: i64,
}

impl ByHand {
    /// Over tables that were just made.
    pub fn new(connection: PgConnection) -> Self {
        Self { connection, next: 0 }
    }

    /// One round.
    ///
    /// # Errors
    /// Of the database.
    pub async fn round(&mut self, rows: usize, bytes: usize, time: Duration) -> anyhow::Result<f64> {
        let value = vec![b'x'; bytes];
        let began = Instant::now();
        let first = self.next;
        while began.elapsed() < time {
            self.one(rows, &value).await?;
        }
        Ok((self.next - first) as f64 / began.elapsed().as_secs_f64())
    }

    /// The same with a statement due every so often; gives p50 and p99 of a statement, ms.
    ///
    /// # Errors
    /// Of the database.
    pub async fn paced(
        &mut self,
        rows: usize,
        bytes: usize,
        every: Duration,
        time: Duration,
    ) -> anyhow::Result<(f64, f64)> {
        let value = vec![b'x'; bytes];
        let (began, mut took) = (Instant::now(), Vec::new());
        let mut due = began;
        while began.elapsed() < time {
            tokio::time::sleep_until(due.into()).await;
            self.one(rows, &value).await?;
            took.push(due.elapsed().as_secs_f64() * 1e3);
            due += every;
        }
        took.sort_unstable_by(f64::total_cmp);
        let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
        Ok((at(50), at(99)))
    }

    /// One statement.
    async fn one(&mut self, rows: usize, value: &[u8]) -> anyhow::Result<()> {
        let ids: Vec<i64> = (self.next..).take(rows).collect();
        let streams: Vec<String> = ids
            .iter()
            .map(|n| format!("product-P{:06}", n * 7_919 % 10_000))
            .collect();
        let batch = Rows {
            time_ms: ids
                .iter()
                .map(|_| chrono::Utc::now().timestamp_millis())
                .collect(),
            version: ids.clone(),
            id: ids.iter().map(|_| uuid::Uuid::now_v7()).collect(),
            prev: ids.iter().map(|_| &value[..32]).collect(),
            stream: streams.iter().map(String::as_str).collect(),
            key: ids.iter().map(|_| &value[..32]).collect(),
            value: ids.iter().map(|_| value).collect(),
            position: ids,
        };
        let chain = |n: i64| if n == 0 { vec![0] } else { n.to_be_bytes().to_vec() };
        let to = self.next + i64::try_from(rows)?;
        batch
            .append(&mut self.connection, self.next, &chain(self.next), &chain(to))
            .await?;
        self.next = to;
        Ok(())
    }
}

/// Hands each delivery to whoever waits for it.
pub struct Deliveries;

impl ClientContext for Deliveries {}
impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<i64, String>>>;
    fn delivery(&self, result: &DeliveryResult<'_>, sender: Self::DeliveryOpaque) {
        let offset = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        // Nobody may be waiting any more.
        sender.send(offset).ok();
    }
}

/// A bare idempotent producer.
#[derive(Clone)]
pub struct Bare {
    producer: std::sync::Arc<ThreadedProducer<Deliveries, NoCustomPartitioner>>,
    topic: String,
}

impl Bare {
    /// For an existing topic.
    ///
    /// # Errors
    /// Of the client.
    pub fn new(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("queue.buffering.max.ms", "0");
        let producer = ThreadedProducer::from_config_and_context(&config, Deliveries)?;
        Ok(Self {
            producer: std::sync::Arc::new(producer),
            topic: topic.to_owned(),
        })
    }

    /// `senders` at once send values of `bytes` with headers as long as a record's, each waiting for its delivery.
    /// Gives the records a second.
    ///
    /// # Errors
    /// Of a delivery.
    pub async fn round(
        &self,
        senders: usize,
        partitions: u64,
        bytes: usize,
        time: Duration,
    ) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut running = JoinSet::new();
        for sender in 0..u64::try_from(senders)? {
            let bare = self.clone();
            running.spawn(async move {
                let (value, mut sent) = (vec![b'x'; bytes], 0_u64);
                while began.elapsed() < time {
                    let partition = i32::try_from((sender + sent * 7) % partitions)?;
                    bare.send(partition, &format!("product-P{sender:06}"), &value)
                        .await?;
                    sent += 1;
                }
                anyhow::Ok(sent)
            });
        }
        let mut sent = 0;
        while let Some(ended) = running.join_next().await {
            sent += ended??;
        }
        Ok(sent as f64 / began.elapsed().as_secs_f64())
    }

    /// Sends one record with headers as long as a commit's, and gives its offset once it has landed.
    ///
    /// # Errors
    /// Of the delivery.
    pub async fn send(&self, partition: i32, key: &str, value: &[u8]) -> anyhow::Result<i64> {
        let (sender, delivered) = oneshot::channel();
        let mut headers = OwnedHeaders::new_with_capacity(HEADERS.len());
        for (key, value) in HEADERS {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        let message = BaseRecord::with_opaque_to(&self.topic, Box::new(sender))
            .partition(partition)
            .key(key)
            .payload(value)
            .headers(headers);
        self.producer.send(message).map_err(|(error, _)| error)?;
        delivered.await?.map_err(anyhow::Error::msg)
    }

    /// Waits until nothing is under way.
    pub fn close(self) {
        self.producer.flush(Duration::from_millis(200)).ok();
    }
}

/// Headers as long as a commit's.
const HEADERS: [(&str, &str); 8] = [
    ("annals", "1"),
    ("kind", "commit"),
    ("id", "0192f1c0-687b-7abc-8def-0123456789ab"),
    ("epoch", "1"),
    (
        "prev",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ),
    ("version", "12"),
    ("count", "1"),
    ("idempotency-key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
];

/// Makes a topic of one partition and one replica.
///
/// # Errors
/// Of the brokers.
pub async fn create_topic(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    for made in admin.create_topics([&new], &AdminOptions::new()).await? {
        made.map_err(|(topic, error)| anyhow!("topic {topic}: {error}"))?;
    }
    Ok(())
}

/// Deletes topics.
///
/// # Errors
/// Of the brokers.
pub async fn delete_topics(brokers: &str, topics: &[&str]) -> anyhow::Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    admin.delete_topics(topics, &AdminOptions::new()).await?;
    Ok(())
}

//! How fast the Kafka log appends, beside a bare idempotent producer on the same broker in the same run.
//!
//! `ANNALS_TEST_KAFKA=127.0.0.1:9092 cargo run --release -p annals-log --example kafka_append_speed [SECONDS]`
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::disallowed_methods,
    dead_code
)]

#[path = "../tests/kafka/broker.rs"]
mod broker;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_log::testing::Chained;
use annals_log::{Appended, Log};
use annals_record::Shard;
use annals_record::record::Record;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, producer::NoCustomPartitioner};
use tokio::sync::oneshot;

use broker::TestTopic;

struct Bare;
impl ClientContext for Bare {}
impl ProducerContext for Bare {
    type DeliveryOpaque = Box<Option<oneshot::Sender<i64>>>;
    fn delivery(&self, result: &DeliveryResult<'_>, sender: Box<Option<oneshot::Sender<i64>>>) {
        let offset = result
            .as_ref()
            .map_err(|(error, _)| error.clone())
            .unwrap()
            .offset();
        if let Some(sender) = *sender {
            sender.send(offset).ok();
        }
    }
}

struct Measured {
    records_per_s: f64,
    p50: Duration,
    p99: Duration,
}

fn measured(mut took: Vec<Duration>, records: usize, all: Duration) -> Measured {
    took.sort();
    Measured {
        records_per_s: records as f64 / all.as_secs_f64(),
        p50: took[took.len() / 2],
        p99: took[took.len() * 99 / 100],
    }
}

/// Records of some 400 bytes of value and the log's headers.
fn batch(chain: &Chained, count: usize) -> Vec<Arc<Record>> {
    let mut chain = chain.clone();
    (0..count)
        .map(|_| chain.commit_sized("order-0192f1c0", 1, 100))
        .collect()
}

async fn ours(topic: &TestTopic, count: usize, in_flight: usize, time: Duration) -> Measured {
    let log = topic.open().await;
    let mut chain = Chained::new(topic.app.clone(), Shard::new(0), topic.shards);
    let claim = chain.claim();
    assert!(matches!(
        log.append(chain.shard(), chain.head(), vec![claim]).await,
        Appended::Landed(_)
    ));
    let batch = batch(&chain, count);
    let (mut under_way, mut took, mut records) = (VecDeque::new(), Vec::new(), 0);
    let started = Instant::now();
    while started.elapsed() < time {
        while under_way.len() < in_flight {
            let sent = Instant::now();
            under_way.push_back((sent, log.append(chain.shard(), chain.head(), batch.clone())));
        }
        let (sent, answer) = under_way.pop_front().unwrap();
        match answer.await {
            Appended::Landed(landed) => records += landed.len(),
            other => panic!("{other:?}"),
        }
        took.push(sent.elapsed());
    }
    let measured = measured(took, records, started.elapsed());
    for (_, answer) in under_way {
        answer.await;
    }
    log.close().await;
    measured
}

async fn bare(topic: &TestTopic, count: usize, in_flight: usize, time: Duration) -> Measured {
    let mut config = topic.client();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("queue.buffering.max.ms", "0");
    let producer: ThreadedProducer<Bare, NoCustomPartitioner> =
        ThreadedProducer::from_config_and_context(&config, Bare).unwrap();
    let chain = Chained::new(topic.app.clone(), Shard::new(1), topic.shards);
    let (name, batch) = (topic.name(), batch(&chain, count));
    let send = || {
        let mut answer = None;
        for (index, record) in batch.iter().enumerate() {
            let sender = (index + 1 == batch.len()).then(|| {
                let (sender, receiver) = oneshot::channel();
                answer = Some(receiver);
                sender
            });
            let mut headers = Some(OwnedHeaders::new_with_capacity(9));
            record.meta.visit_headers(|key, value| {
                headers = headers.take().map(|headers| {
                    headers.insert(Header {
                        key,
                        value: Some(value),
                    })
                });
            });
            let message = BaseRecord::with_opaque_to(&name, Box::new(sender))
                .partition(1)
                .key("order-0192f1c0")
                .payload(record.value.as_ref())
                .headers(headers.unwrap());
            producer.send(message).map_err(|(error, _)| error).unwrap();
        }
        answer.unwrap()
    };
    send().await.unwrap();
    let (mut under_way, mut took, mut records) = (VecDeque::new(), Vec::new(), 0);
    let started = Instant::now();
    while started.elapsed() < time {
        while under_way.len() < in_flight {
            under_way.push_back((Instant::now(), send()));
        }
        let (sent, answer) = under_way.pop_front().unwrap();
        answer.await.unwrap();
        records += count;
        took.push(sent.elapsed());
    }
    let measured = measured(took, records, started.elapsed());
    for (_, answer) in under_way {
        answer.await.unwrap();
    }
    producer.flush(Duration::from_millis(100)).unwrap();
    measured
}

/// How long a claim takes, which needs a producer of its own: the first one, one at once behind it, and one for which
/// a producer was ready.
async fn claims(topic: &TestTopic) {
    let log = topic.open().await;
    let mut chain = Chained::new(topic.app.clone(), Shard::new(0), topic.shards);
    for pause in [0, 0, 2_000] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let started = Instant::now();
        let answer = log.append(chain.shard(), chain.head(), vec![chain.claim()]).await;
        assert!(matches!(answer, Appended::Landed(_)), "{answer:?}");
        println!("claim after a pause of {pause} ms: {:.1?}", started.elapsed());
    }
    log.close().await;
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(3);
    let time = Duration::from_secs(seconds);
    let Some(topic) = TestTopic::create(2).await else {
        return;
    };
    claims(&topic).await;
    println!("records an append, in flight | log: records/s p50 p99 | bare: records/s p50 p99 | ratio");
    for count in [1, 10, 100] {
        for in_flight in [1, 4] {
            let bare = bare(&topic, count, in_flight, time).await;
            let ours = ours(&topic, count, in_flight, time).await;
            println!(
                "{count:>3} {in_flight} | {:>9.0} {:>9.1?} {:>9.1?} | {:>9.0} {:>9.1?} {:>9.1?} | {:.2}",
                ours.records_per_s,
                ours.p50,
                ours.p99,
                bare.records_per_s,
                bare.p50,
                bare.p99,
                ours.records_per_s / bare.records_per_s
            );
        }
    }
}

//! Where the leaders of a topic's partitions are, looked at many times a second.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::time::Instant;

/// Of each partition its leader and how many replicas are in sync.
pub type Now = BTreeMap<i32, (i32, usize)>;

/// Where the leaders of a topic are, looked at many times a second.
#[derive(Debug)]
pub struct Leaders {
    now: Arc<Mutex<Now>>,
    moved: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Leaders {
    pub fn watch(brokers: &str, topic: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let consumer: BaseConsumer = config.create().unwrap();
        let this = Self {
            now: Arc::default(),
            moved: Arc::default(),
            stop: Arc::default(),
        };
        let (now, moved, stop) = (
            Arc::clone(&this.now),
            Arc::clone(&this.moved),
            Arc::clone(&this.stop),
        );
        let topic = topic.to_owned();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok(metadata) = consumer.fetch_metadata(Some(&topic), Duration::from_secs(2)) {
                    let mut now = now.lock().unwrap();
                    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                        // Between two leaders there is none: -1.
                        if partition.leader() < 0 {
                            continue;
                        }
                        let is = (partition.leader(), partition.isr().len());
                        let was = now.insert(partition.id(), is);
                        if was.is_some_and(|was| was.0 != is.0) {
                            moved.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        this
    }

    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    pub async fn until(&self, within: Duration, holds: impl Fn(&Now) -> bool) {
        self.holds(within, holds).await.unwrap();
    }

    /// Waits until it is as wished; `Err`: how it is instead.
    pub async fn holds(&self, within: Duration, holds: impl Fn(&Now) -> bool) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let now = self.now.lock().unwrap().clone();
            if !now.is_empty() && holds(&now) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("not within {within:?}: {now:?}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Leaders {
    fn drop(&mut self) {
        self.stop();
    }
}

//! The suite of promises, on a real broker.

use std::sync::{Arc, Mutex};

use annals_log::conformance::{self, Subject};
use annals_log::{KafkaLog, Log};
use async_trait::async_trait;

use super::broker::TestTopic;

struct OnKafka {
    topic: TestTopic,
    log: Arc<KafkaLog>,
    others: Mutex<Vec<Arc<KafkaLog>>>,
}

#[async_trait]
impl Subject for OnKafka {
    fn log(&self) -> Arc<dyn Log> {
        self.log.clone()
    }
    async fn another(&self) -> Arc<dyn Log> {
        let log = Arc::new(self.topic.open().await);
        self.others.lock().unwrap().push(log.clone());
        log
    }
    fn compares(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_promises() {
    let count = u32::try_from(conformance::promises().len()).unwrap();
    let Some(topic) = TestTopic::create(count).await else {
        return;
    };
    let log = Arc::new(topic.open().await);
    let subject = OnKafka {
        topic,
        log,
        others: Mutex::default(),
    };
    let kept = conformance::run(&subject).await.unwrap();
    assert_eq!(kept.len(), conformance::promises().len());
    let broken: Vec<_> = kept.iter().filter(|(_, kept)| kept.is_err()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let OnKafka { log, others, .. } = subject;
    for log in others.into_inner().unwrap().into_iter().chain([log]) {
        Arc::into_inner(log).unwrap().close().await;
    }
}

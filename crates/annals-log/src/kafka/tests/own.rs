//! Own appends fill the ring as they land; what else is in the shard still reaches readers, and what was delivered is
//! compared with what is there.

use std::sync::Arc;
use std::time::Duration;

use annals_record::Offset;
use annals_record::record::{Record, Slot};
use tokio::time::{Instant, timeout};

use super::broker::TestTopic;
use super::is_landed;
use crate::kafka::KafkaLog;
use crate::testing::Chained;
use crate::{Hashed, Log, Placed, ReadLimits};

/// One shard, written by one process of two.
struct Two {
    log: KafkaLog,
    other: KafkaLog,
    writer: Chained,
    /// Where the shard ends.
    end: Offset,
    _topic: TestTopic,
}

impl Two {
    async fn open() -> Option<Self> {
        let topic = TestTopic::create(1).await?;
        let mut writer = Chained::new(topic.app.clone(), annals_record::Shard::new(0), topic.shards);
        let (log, other) = (topic.open().await, topic.open().await);
        let claim = writer.claim();
        let answer = log
            .append_hashed(writer.shard(), writer.head(), vec![Hashed::of(claim)])
            .await;
        assert!(is_landed(&answer), "{answer:?}");
        Some(Self {
            log,
            other,
            writer,
            end: Offset::new(1),
            _topic: topic,
        })
    }

    async fn append(&mut self) {
        let record = Hashed::of(self.writer.commit("order-1", 1, 0));
        let (shard, head) = (self.writer.shard(), self.writer.head());
        let answer = self.log.append_hashed(shard, head, vec![record]).await;
        assert!(is_landed(&answer), "{answer:?}");
        self.end = self.end.next();
    }

    async fn append_by_other(&mut self, record: Arc<Record>) {
        let (shard, head) = (self.writer.shard(), self.writer.head());
        let answer = self.other.append(shard, head, vec![record]).await;
        assert!(is_landed(&answer), "{answer:?}");
        self.end = self.end.next();
    }

    /// Reads the shard from `from` until `end`, and shows that it is what the other process reads.
    async fn read(&self, from: Offset, end: Offset) -> Vec<Arc<Placed>> {
        let ours = read(&self.log, from, end).await;
        let theirs = read(&self.other, from, end).await;
        let places = |all: &[Arc<Placed>]| {
            all.iter()
                .map(|placed| (placed.offset, placed.hash))
                .collect::<Vec<_>>()
        };
        assert_eq!(places(&ours), places(&theirs));
        ours
    }

    /// Appends until the consumer has left the shard; where it ends then.
    async fn feed(&mut self) -> Offset {
        read(&self.log, Offset::new(0), Offset::new(1)).await;
        let began = Instant::now();
        while !self.log.tail.is_away(self.writer.shard()) {
            assert!(began.elapsed() < Duration::from_secs(30), "the consumer stays");
            self.append().await;
        }
        self.end
    }

    async fn close(self) {
        self.log.close().await;
        self.other.close().await;
    }
}

async fn read(log: &KafkaLog, from: Offset, end: Offset) -> Vec<Arc<Placed>> {
    let all = async {
        let (mut next, mut all) = (from, Vec::new());
        while next < end {
            let shard = annals_record::Shard::new(0);
            for placed in log.read(shard, next, ReadLimits::default()).await.unwrap() {
                assert_eq!(placed.offset, next, "no hole, nothing twice");
                next = next.next();
                all.push(placed);
            }
        }
        all
    };
    timeout(Duration::from_secs(30), all).await.unwrap()
}

#[tokio::test]
async fn readers_have_own_appends_and_what_another_wrote_between_them() {
    let Some(mut two) = Two::open().await else { return };
    let end = two.feed().await;
    two.read(Offset::new(0), end).await;
    let mut zombie = two.writer.another(7);
    two.append_by_other(zombie.commit("order-2", 1, 0)).await;
    // It lands behind the other's, and its writer does not know that.
    two.append().await;
    let between = end.next().next();
    let read = two.read(end, between).await;
    let keys: Vec<_> = read
        .iter()
        .map(|placed| placed.slot.known().unwrap().stream.as_ref().unwrap().as_str())
        .collect();
    assert_eq!(keys, ["order-2", "order-1"]);
    two.close().await;
}

#[tokio::test]
async fn what_another_writes_is_read_though_nothing_of_our_own_comes() {
    let Some(mut two) = Two::open().await else { return };
    let end = two.feed().await;
    let mut successor = two.writer.another(7);
    let claim = successor.claim();
    two.append_by_other(Arc::clone(&claim)).await;
    let read = two.read(end, end.next()).await;
    assert_eq!(read[0].slot.known(), Some(&*claim));
    two.close().await;
}

#[tokio::test]
async fn what_was_delivered_and_is_not_there_is_found_out() {
    let Some(mut two) = Two::open().await else { return };
    let shard = two.writer.shard();
    let mut liar = two.writer.another(7);
    // A ghost; and the other's producer is ready from here on.
    liar.commit("order-2", 1, 0);
    two.append_by_other(liar.commit("order-2", 1, 0)).await;
    let began = Instant::now();
    let (at, lie) = loop {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the consumer always comes first"
        );
        let at = two.feed().await;
        let lie = Hashed::of(two.writer.another(7).commit("order-2", 1, 0));
        for _ in 0..2 {
            let truth = two.writer.commit("order-1", 1, 0);
            two.append_by_other(truth).await;
        }
        let placed = Placed::new(at, Slot::Known((*lie.record).clone()), lie.hash);
        two.log.tail.delivered(shard, &[Arc::new(placed)]);
        if read(&two.log, at, at.next()).await[0].hash == lie.hash {
            break (at, lie);
        }
    };
    let began = Instant::now();
    while read(&two.log, at, at.next()).await[0].hash == lie.hash {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody compares");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    two.read(Offset::new(0), two.end).await;
    two.close().await;
}

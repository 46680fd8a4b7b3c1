//! Opening and closing a Kafka log leaves no thread behind. A test program of its own: it counts all threads.
#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(target_os = "linux")]

#[path = "kafka/broker.rs"]
mod broker;

use annals_log::testing::Chained;
use annals_log::{Appended, Log, ReadLimits};
use annals_record::{Offset, Shard};
use broker::TestTopic;

fn threads() -> Vec<String> {
    let all = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    let mut names: Vec<_> = all.filter_map(|task| name(task.unwrap())).collect();
    // The runtime's own blocking threads come and go as it likes.
    names.retain(|name| name.starts_with("annals") || name.starts_with("rdk"));
    names
}

#[tokio::test]
async fn a_closed_log_leaves_no_thread_behind() {
    let Some(topic) = TestTopic::create(2).await else {
        return;
    };
    for round in 0..6 {
        let log = topic.open().await;
        log.warm_up();
        let mut writer = Chained::new(topic.app.clone(), Shard::new(0), topic.shards);
        let claim = log
            .append(writer.shard(), writer.head(), vec![writer.claim()])
            .await;
        assert!(matches!(claim, Appended::Landed(_)), "{claim:?}");
        assert!(
            !log.read(writer.shard(), Offset::new(0), ReadLimits::default())
                .await
                .unwrap()
                .is_empty()
        );
        assert!(!threads().is_empty());
        log.close().await;
        assert_eq!(threads(), [""; 0], "round {round}");
    }
}

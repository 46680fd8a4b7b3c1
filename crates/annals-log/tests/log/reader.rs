//! The reader over the memory log: accepted records only, upcast, and every reason to stop.

use std::sync::Arc;
use std::time::Duration;

use annals_log::testing::Chained;
use annals_log::{
    Appended, Batch, Checkpoint, HaltReason, Log, MemoryLog, Plays, ReadLimits, ReaderError, ReaderSettings,
    ShardReader,
};
use annals_record::fold::{Halt, Head};
use annals_record::record::{RawHeader, RawRecord, Record};
use annals_record::{AppName, Offset, Shard, ShardCount};
use bytes::Bytes;

use super::domain;

const SHARD: Shard = Shard::new(0);

fn kafka() -> Arc<MemoryLog> {
    let app = AppName::try_from("example").unwrap();
    let one = ShardCount::try_from(1).unwrap();
    Arc::new(MemoryLog::new(app, one, Plays::Kafka))
}

fn settings() -> ReaderSettings {
    let limits = ReadLimits {
        wait: Duration::from_millis(5),
        ..ReadLimits::default()
    };
    ReaderSettings {
        limits,
        short_log: Duration::from_millis(50),
        streams: 1000,
    }
}

async fn write(log: &MemoryLog, records: Vec<Arc<Record>>) {
    let at = *log.fold(SHARD).head();
    let landed = log.append(SHARD, at, records).await;
    assert!(matches!(landed, Appended::Landed(_)), "{landed:?}");
}

async fn open(log: &Arc<MemoryLog>, at: Checkpoint) -> Result<ShardReader, ReaderError> {
    let log: Arc<dyn Log> = log.clone();
    ShardReader::open(log, domain::catalog(), SHARD, at, settings()).await
}

async fn from_start(log: &Arc<MemoryLog>) -> ShardReader {
    let genesis = Checkpoint::genesis(Chained::example().head());
    open(log, genesis).await.unwrap()
}

fn halted<T: std::fmt::Debug>(result: Result<T, ReaderError>) -> (Offset, HaltReason) {
    match result {
        Err(ReaderError::Halted(halted)) => (halted.offset, halted.reason),
        other => panic!("expected a halt: {other:?}"),
    }
}

fn offsets(batch: &Batch) -> Vec<u64> {
    batch.records.iter().map(|record| record.offset().get()).collect()
}

#[tokio::test]
async fn gives_accepted_records_and_passes_over_ghosts() {
    let (log, mut writer) = (kafka(), Chained::example());
    let claim = writer.claim();
    let mut zombie = writer.another(1);
    let kept = writer.commit("order-1", 1, 2);
    let ghost = zombie.refusal("order-1", 1);
    write(&log, vec![claim, kept, ghost]).await;
    log.insert(
        SHARD,
        RawRecord {
            key: None,
            timestamp_ms: 1,
            value: None,
            headers: vec![],
        },
    );
    let mut reader = from_start(&log).await;
    let batch = reader.next().await.unwrap().unwrap();
    assert_eq!(offsets(&batch), [0, 1]);
    assert_eq!(batch.to.head.next, Offset::new(4));
    assert!(batch.to.last_ghost);
    assert_eq!(&batch.to, reader.checkpoint());
    assert!(batch.records[0].entry().is_none());
    let entry = batch.records[1].entry().unwrap();
    let events = entry.outcome.as_ref().unwrap();
    assert_eq!(events.iter().map(|e| e.version.get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(events[0].schema, 1);
    assert_eq!(events[0].data().get(), r#"{"what":"","count":1}"#);
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn resumes_where_it_was_and_shares_what_it_decoded() {
    let (log, mut writer) = (kafka(), Chained::example());
    write(&log, vec![writer.claim(), writer.commit("order-1", 1, 1)]).await;
    let mut first = from_start(&log).await;
    let batch = first.next().await.unwrap().unwrap();
    write(&log, vec![writer.refusal("order-1", 2)]).await;
    let mut second = open(&log, batch.to).await.unwrap();
    let later = second.next().await.unwrap().unwrap();
    assert_eq!(offsets(&later), [2]);
    assert_eq!(
        later.records[0]
            .entry()
            .unwrap()
            .outcome
            .as_ref()
            .unwrap_err()
            .code,
        "not_today"
    );
    let same = first.next().await.unwrap().unwrap();
    assert!(Arc::ptr_eq(
        same.records[0].entry().unwrap(),
        later.records[0].entry().unwrap()
    ));
    assert_eq!(first.checkpoint(), second.checkpoint());
}

#[tokio::test]
async fn halts_when_the_record_before_the_checkpoint_is_another() {
    let (log, mut writer) = (kafka(), Chained::example());
    write(&log, vec![writer.claim(), writer.commit("order-1", 1, 1)]).await;
    let mut reader = from_start(&log).await;
    let at = reader.next().await.unwrap().unwrap().to;
    let other = Chained::example().commit("order-2", 1, 1).to_raw();
    log.replace(SHARD, Offset::new(1), other);
    let (offset, reason) = halted(open(&log, at.clone()).await);
    assert_eq!(offset, Offset::new(1));
    let found = log.placed(SHARD)[1].hash;
    assert_eq!(
        reason,
        HaltReason::RecordReplaced {
            expected: at.last_hash,
            found
        }
    );
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_short_log_and_halts_when_it_stays_short() {
    let (log, mut writer) = (kafka(), Chained::example());
    let records = vec![
        writer.claim(),
        writer.commit("order-1", 1, 1),
        writer.commit("order-1", 2, 1),
    ];
    write(&log, records).await;
    let last = log.placed(SHARD)[2].slot.known().unwrap().to_raw();
    let mut reader = from_start(&log).await;
    let at = reader.next().await.unwrap().unwrap().to;
    log.truncate(SHARD, Offset::new(2));

    // It comes back in time: a failover.
    let (reopened, _) = tokio::join!(open(&log, at.clone()), async {
        tokio::task::yield_now().await;
        log.insert(SHARD, last);
    });
    reopened.unwrap();

    log.truncate(SHARD, Offset::new(2));
    let (offset, reason) = halted(open(&log, at).await);
    assert_eq!(offset, Offset::new(2));
    assert_eq!(reason, HaltReason::LogShortened { end: Offset::new(2) });
    let stopped = loop {
        match reader.next().await {
            Ok(batch) => assert!(batch.is_none()),
            stopped => break stopped,
        }
    };
    assert_eq!(halted(stopped).1, reason);
    assert!(reader.halted().is_some());
}

#[tokio::test]
async fn gives_out_what_stands_before_a_halt_and_then_stays_halted() {
    let (log, mut writer) = (kafka(), Chained::example());
    write(&log, vec![writer.claim(), writer.commit("order-1", 1, 1)]).await;
    let mut newer = writer.commit("order-1", 2, 1).to_raw();
    newer.headers[0] = RawHeader {
        name: Bytes::from_static(b"annals"),
        value: Some(Bytes::from_static(b"2")),
    };
    log.insert(SHARD, newer);
    let mut reader = from_start(&log).await;
    let batch = reader.next().await.unwrap().unwrap();
    assert_eq!(offsets(&batch), [0, 1]);
    for _ in 0..2 {
        let (offset, reason) = halted(reader.next().await);
        assert_eq!(offset, Offset::new(2));
        assert_eq!(reason, HaltReason::Fold(Halt::UnknownFormat { format: 2 }));
    }
    assert_eq!(reader.checkpoint(), &batch.to);
}

#[tokio::test]
async fn halts_when_a_claimer_saw_another_history() {
    let (log, mut writer) = (kafka(), Chained::example());
    write(&log, vec![writer.claim(), writer.commit("order-1", 1, 1)]).await;
    let mut reader = from_start(&log).await;
    reader.next().await.unwrap().unwrap();
    let forked = Head {
        chain: writer.genesis(),
        ..writer.head()
    };
    write(&log, vec![writer.another(1).at(forked).claim()]).await;
    let (offset, reason) = halted(reader.next().await);
    assert_eq!(offset, Offset::new(2));
    assert!(matches!(
        reason,
        HaltReason::Fold(Halt::HistoryReplaced { seen: 2, .. })
    ));
}

#[tokio::test]
async fn names_a_record_that_does_not_read_and_stops_before_it() {
    let (log, mut writer) = (kafka(), Chained::example());
    let known = writer.commit("order-1", 1, 1);
    let unknown = writer.commit_of("order-1", 2, &[("order.vanished", 1, "{}")]);
    write(&log, vec![known, unknown]).await;
    let mut reader = from_start(&log).await;
    let batch = reader.next().await.unwrap().unwrap();
    assert_eq!(offsets(&batch), [0]);
    let error = reader.next().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the record at 0:1 does not read: event 0: `order.vanished` is not known to this program"
    );
    assert_eq!(reader.checkpoint(), &batch.to);
}

#[tokio::test]
async fn stops_at_a_break_in_a_streams_versions() {
    let (log, mut writer) = (kafka(), Chained::example());
    write(
        &log,
        vec![writer.commit("order-1", 1, 1), writer.commit("order-1", 3, 1)],
    )
    .await;
    let mut reader = from_start(&log).await;
    reader.next().await.unwrap().unwrap();
    let error = reader.next().await.unwrap_err();
    assert!(
        matches!(&error, ReaderError::Version { offset, .. } if *offset == Offset::new(1)),
        "{error}"
    );
}

#[tokio::test]
async fn refuses_a_checkpoint_at_the_beginning_of_another_log() {
    let log = kafka();
    let other = Head::genesis(
        &AppName::try_from("other").unwrap(),
        SHARD,
        ShardCount::try_from(1).unwrap(),
    );
    let (_, reason) = halted(open(&log, Checkpoint::genesis(other)).await);
    assert!(matches!(reason, HaltReason::OtherLog { .. }));
}

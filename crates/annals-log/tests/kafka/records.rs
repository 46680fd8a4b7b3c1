//! Records that chain, made from a counter.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_record::fold::{Fold, Head, Verdict};
use annals_record::hash::{genesis, record_hash, sha256};
use annals_record::record::{Claim, Entry, Meta, Record, Seen};
use annals_record::{AppName, Hash32, KeyHash, RecordId, Shard, ShardCount, Version};
use bytes::Bytes;

pub(crate) const TIME: i64 = 1_790_000_000_000;

pub(crate) fn id() -> RecordId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    RecordId::from_parts(u64::try_from(TIME).unwrap(), random)
}

/// A shard's writer as far as chaining goes: what it writes would be accepted.
pub(crate) struct Chain {
    pub(crate) shard: Shard,
    pub(crate) fold: Fold,
    versions: std::collections::BTreeMap<String, u64>,
}

impl Chain {
    pub(crate) fn new(app: &AppName, shard: u32, shards: ShardCount) -> Self {
        let shard = Shard::new(shard);
        Self {
            shard,
            fold: Fold::from_genesis(genesis(app, shard, shards)),
            versions: std::collections::BTreeMap::new(),
        }
    }

    pub(crate) fn head(&self) -> Head {
        *self.fold.head()
    }

    fn take(&mut self, record: Record) -> Arc<Record> {
        let verdict = self.fold.step_record(&record, record_hash(&record));
        assert_eq!(verdict, Verdict::Accept);
        Arc::new(record)
    }

    pub(crate) fn claim(&mut self) -> Arc<Record> {
        let head = self.head();
        let record = Record {
            stream: None,
            timestamp_ms: TIME,
            meta: Meta::Claim(Claim {
                id: id(),
                epoch: head.epoch.next(),
                seen: Seen {
                    accepted: head.accepted,
                    chain: head.chain,
                },
                genesis: self.fold.genesis(),
            }),
            value: Bytes::from_static(b"{\"app\":\"t\"}"),
        };
        self.take(record)
    }

    pub(crate) fn commit(&mut self, stream: &str, count: u32, value: &[u8]) -> Arc<Record> {
        let version = self.versions.entry(stream.to_owned()).or_default();
        let first = *version + 1;
        *version += u64::from(count);
        let record = commit(self.head(), stream, first, count, value);
        self.take(record)
    }
}

/// A commit behind `head`, whether right or not.
pub(crate) fn commit(head: Head, stream: &str, version: u64, count: u32, value: &[u8]) -> Record {
    Record {
        stream: Some(stream.parse().unwrap()),
        timestamp_ms: head.time_ms.max(TIME),
        meta: Meta::Commit(Entry {
            id: id(),
            epoch: head.epoch,
            prev: head.chain,
            version: Version::new(version),
            count,
            idempotency_key: KeyHash::new(key(value)),
            traceparent: None,
        }),
        value: Bytes::copy_from_slice(value),
    }
}

fn key(value: &[u8]) -> Hash32 {
    sha256(value)
}

//! One record of each kind, with fixed content.

use annals_record::hash::{genesis, sha256};
use annals_record::{
    Claim, Close, Entry, Epoch, Hash32, KeyHash, Meta, RawHeader, RawRecord, Record, RecordId, Seen,
    ShardCount, Version,
};
use bytes::Bytes;

pub(crate) const RECORD: &str = "018bcfe5-687b-7abc-8def-0123456789ab";
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(crate) fn id() -> RecordId {
    RECORD.parse().unwrap()
}

pub(crate) fn c0() -> Hash32 {
    let shards = ShardCount::try_from(16).unwrap();
    genesis(&"commerce".parse().unwrap(), 3.into(), shards)
}

pub(crate) fn entry(epoch: u64, prev: Hash32, version: u64, count: u32) -> Entry {
    Entry {
        id: id(),
        epoch: Epoch::new(epoch),
        prev,
        version: Version::new(version),
        count,
        idempotency_key: KeyHash::of("client-key-1"),
        traceparent: None,
    }
}

pub(crate) fn record(stream: Option<&str>, timestamp_ms: i64, meta: Meta, value: &str) -> Record {
    Record {
        stream: stream.map(|s| s.parse().unwrap()),
        timestamp_ms,
        meta,
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

pub(crate) fn commit() -> Record {
    let mut entry = entry(7, sha256(b"prev"), 5, 2);
    entry.traceparent = Some(TRACE.parse().unwrap());
    let meta = Meta::Commit(entry);
    record(Some("order-0192f1c0"), 1_700_000_000_123, meta, r#"{"a":1}"#)
}

pub(crate) fn refusal() -> Record {
    let meta = Meta::Refusal(entry(7, sha256(b"prev"), 7, 0));
    record(Some("order-0192f1c0"), 1_700_000_000_124, meta, "{}")
}

pub(crate) fn claim() -> Record {
    let meta = Meta::Claim(Claim {
        id: id(),
        epoch: Epoch::new(8),
        seen: Seen {
            accepted: 41,
            chain: sha256(b"chain"),
        },
        genesis: c0(),
    });
    record(None, 1_700_000_000_125, meta, r#"{"app":"commerce"}"#)
}

pub(crate) fn close() -> Record {
    let meta = Meta::Close(Close {
        id: id(),
        epoch: Epoch::new(8),
        prev: sha256(b"prev"),
    });
    record(None, 1_700_000_000_126, meta, "{}")
}

pub(crate) fn foreign() -> RawRecord {
    RawRecord {
        key: None,
        timestamp_ms: -1,
        value: None,
        headers: vec![
            RawHeader {
                name: Bytes::from_static(b"x"),
                value: None,
            },
            header(b"", b"\0\xff"),
        ],
    }
}

pub(crate) fn header(name: &'static [u8], value: &'static [u8]) -> RawHeader {
    RawHeader {
        name: Bytes::from_static(name),
        value: Some(Bytes::from_static(value)),
    }
}

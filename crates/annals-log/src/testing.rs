//! Records for tests and for the conformance suite, each chained to the one before it.
//!
//! Nothing here is random and no clock is read: the same calls make the same bytes.

use std::sync::Arc;

use annals_record::fold::{self, ChainAt, Head};
use annals_record::record::{Claim, Close, Entry, Meta, Record, Seen};
use annals_record::value::{
    ActorValue, ClaimValue, CommandValue, EntryValue, EventValue, OutcomeValue, RefusalValue,
};
use annals_record::{
    AppName, EventId, Fingerprint, Generation, Hash32, KeyHash, RecordId, Shard, ShardCount, StreamId,
    Traceparent, Version, hash,
};
use serde_json::value::RawValue;

/// Makes the records of one writer of one shard. Each one moves the head, as the fold would.
#[derive(Debug, Clone)]
pub struct Chained {
    app: AppName,
    shard: Shard,
    shards: ShardCount,
    head: Head,
    /// Sets the ids of two writers apart.
    writer: u16,
    made: u64,
    /// The timestamp of the next record, ms since 1970.
    pub time_ms: i64,
}

impl Chained {
    /// The first writer of an empty shard. Its clock begins in 2023 and ticks a millisecond a record.
    pub fn new(app: AppName, shard: Shard, shards: ShardCount) -> Self {
        Self {
            head: Head::genesis(&app, shard, shards),
            app,
            shard,
            shards,
            writer: 0,
            made: 0,
            time_ms: 1_700_000_000_000,
        }
    }

    /// The only shard of an app `example`.
    ///
    /// # Panics
    /// Never.
    pub fn example() -> Self {
        let app = AppName::try_from("example").expect("it is of the grammar");
        let one = ShardCount::try_from(1).expect("one shard is allowed");
        Self::new(app, Shard::new(0), one)
    }

    /// Another writer of the same shard, who knows what this one knows; `writer` sets its ids apart.
    #[must_use]
    pub fn another(&self, writer: u16) -> Self {
        Self {
            writer,
            made: 0,
            ..self.clone()
        }
    }

    /// A writer of the same shard who goes on from another head.
    #[must_use]
    pub fn at(self, head: Head) -> Self {
        Self {
            time_ms: self.time_ms.max(head.time_ms),
            head,
            ..self
        }
    }

    /// The head that the next record is chained to.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The shard.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// c(0).
    pub fn genesis(&self) -> Hash32 {
        hash::genesis(&self.app, self.shard, self.shards)
    }

    /// A claim of the next epoch.
    pub fn claim(&mut self) -> Arc<Record> {
        let meta = Meta::Claim(Claim {
            id: self.id(),
            epoch: self.head.epoch.next(),
            seen: Seen {
                accepted: self.head.accepted,
                chain: self.head.chain,
            },
            genesis: self.genesis(),
        });
        let value = self.ownership();
        self.make(None, meta, value)
    }

    /// The end of the shard.
    pub fn close(&mut self) -> Arc<Record> {
        let meta = Meta::Close(Close {
            id: self.id(),
            epoch: self.head.epoch,
            prev: self.head.chain,
        });
        let value = self.ownership();
        self.make(None, meta, value)
    }

    /// A commit with `count` events `{category}.happened`, the first of them `version`.
    ///
    /// # Panics
    /// If `stream` is no stream id.
    pub fn commit(&mut self, stream: &str, version: u64, count: u32) -> Arc<Record> {
        let event = format!(
            "{}.happened",
            stream.split_once('-').map_or(stream, |(category, _)| category)
        );
        let events: Vec<_> = (0..count).map(|_| (event.as_str(), 1, "{}")).collect();
        self.commit_of(stream, version, &events)
    }

    /// A commit with these events, each a type, a schema and data as JSON.
    ///
    /// # Panics
    /// If `stream` is no stream id, or data no JSON.
    pub fn commit_of(&mut self, stream: &str, version: u64, events: &[(&str, u32, &str)]) -> Arc<Record> {
        let (stream, id) = (stream_id(stream), self.id());
        let data: Vec<_> = events.iter().map(|(.., data)| raw(data)).collect();
        let numbered = (0_u32..).zip(events.iter().zip(&data));
        let events: Vec<_> = numbered
            .map(|(index, ((type_name, schema, _), data))| EventValue {
                id: EventId::of(id, index),
                type_name,
                schema: *schema,
                data,
            })
            .collect();
        let count = u32::try_from(events.len()).expect("a test has few events");
        let value = entry_value(&stream, OutcomeValue::Events(&events), "{}");
        let entry = self.entry(id, version, count);
        self.make(Some(stream), Meta::Commit(entry), value)
    }

    /// A commit without events whose command's data are about `bytes` long.
    ///
    /// # Panics
    /// If `stream` is no stream id.
    pub fn commit_sized(&mut self, stream: &str, version: u64, bytes: usize) -> Arc<Record> {
        let (stream, id) = (stream_id(stream), self.id());
        let data = format!("{{\"filler\":\"{}\"}}", "ü".repeat(bytes / 2));
        let value = entry_value(&stream, OutcomeValue::Events(&[]), &data);
        let entry = self.entry(id, version, 0);
        self.make(Some(stream), Meta::Commit(entry), value)
    }

    /// A refusal; `version` is the one that the stream's next event will have.
    ///
    /// # Panics
    /// If `stream` is no stream id.
    pub fn refusal(&mut self, stream: &str, version: u64) -> Arc<Record> {
        let (stream, id) = (stream_id(stream), self.id());
        let detail = raw("{\"why\":\"because\"}");
        let refusal = RefusalValue {
            code: "not_today",
            detail: &detail,
        };
        let value = entry_value(&stream, OutcomeValue::Refusal(refusal), "{}");
        let entry = self.entry(id, version, 0);
        self.make(Some(stream), Meta::Refusal(entry), value)
    }

    fn id(&mut self) -> RecordId {
        self.made += 1;
        let mut random = [0; 10];
        random[..2].copy_from_slice(&self.writer.to_be_bytes());
        random[2..].copy_from_slice(&self.made.to_be_bytes());
        RecordId::from_parts(u64::try_from(self.time_ms).unwrap_or(0), random)
    }

    /// Every other record has a trace.
    fn entry(&self, id: RecordId, version: u64, count: u32) -> Entry {
        let traced = self.made.is_multiple_of(2);
        let mut parent = [1; 8];
        parent.copy_from_slice(&id.as_bytes()[8..]);
        Entry {
            id,
            epoch: self.head.epoch,
            prev: self.head.chain,
            version: Version::new(version),
            count,
            idempotency_key: KeyHash::of(&id.to_string()),
            traceparent: traced
                .then(|| Traceparent::new(*id.as_bytes(), parent, 1))
                .flatten(),
        }
    }

    fn ownership(&self) -> bytes::Bytes {
        let value = ClaimValue {
            app: self.app.clone(),
            shard: self.shard,
            shards: self.shards,
            generation: Generation::FIRST,
            node: format!("node-{}", self.writer),
            url: format!("http://node-{}.example:8081", self.writer),
        };
        value.to_bytes()
    }

    fn make(&mut self, stream: Option<StreamId>, meta: Meta, value: bytes::Bytes) -> Arc<Record> {
        let record = Record {
            stream,
            timestamp_ms: self.time_ms,
            meta,
            value,
        };
        self.time_ms += 1;
        let hash = hash::record_hash(&record);
        let unknown = |_| ChainAt::Forgotten;
        self.head = fold::accept_record(&self.head, self.genesis(), unknown, &record, hash).1;
        Arc::new(record)
    }
}

fn stream_id(text: &str) -> StreamId {
    StreamId::try_from(text).expect("the caller gives a stream id")
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).expect("the caller gives JSON")
}

fn entry_value(stream: &StreamId, outcome: OutcomeValue<'_>, data: &str) -> bytes::Bytes {
    let data = raw(data);
    let metadata = raw("{\"note\":\"größe, 尺寸, \\u0000\"}");
    let value = EntryValue {
        stream,
        command: CommandValue {
            name: "act",
            fingerprint: Fingerprint::new(hash::sha256(stream.as_str().as_bytes())),
            actor: ActorValue {
                sub: "someone",
                roles: &["clerk".into()],
            },
            data: &data,
        },
        outcome,
        metadata: Some(&metadata),
        correlation: "correlation",
        causation: None,
    };
    value.to_bytes()
}

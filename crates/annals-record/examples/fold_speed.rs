//! How fast a shard's history is verified, beside plain SHA-256 over the same bytes.
//!
//! `cargo run --release -p annals-record --example fold_speed`
#![allow(clippy::print_stdout, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use annals_record::hash::{record_hash, record_hash_with, sha256, value_hash};
use annals_record::{
    Claim, Entry, Epoch, Fold, Hash32, KeyHash, Meta, RawRecord, Record, RecordId, Seen, Slot, Version,
};

const RECORDS: u32 = 20_000;
const RUNS: u32 = 15;

fn main() {
    println!(
        "value bytes | plain ns | verify ns | ratio | copy and parse ns | hash without value ns | step ns"
    );
    for value_bytes in [100, 400, 1_000, 4_000] {
        let genesis = sha256(b"genesis");
        let raws = log(genesis, value_bytes);
        let records = f64::from(RECORDS);

        let flat: Vec<Vec<u8>> = raws.iter().map(flatten).collect();
        let plain = time(|| {
            flat.iter().for_each(|bytes| {
                black_box(sha256(bytes));
            })
        });

        let mut slots = Vec::new();
        let parse = time(|| slots = raws.iter().cloned().map(Slot::parse).collect());

        let verify = time(|| {
            let mut fold = Fold::from_genesis(genesis);
            for slot in &slots {
                let hash = slot.known().map(record_hash).unwrap_or(genesis);
                assert!(fold.step(slot, hash).is_accept());
            }
        });

        let known: Vec<&Record> = slots.iter().filter_map(Slot::known).collect();
        let values: Vec<Hash32> = known.iter().map(|r| value_hash(&r.value)).collect();
        let mut hashes = Vec::new();
        let serial = time(|| {
            let pairs = known.iter().zip(&values);
            hashes = pairs.map(|(r, v)| record_hash_with(r, *v)).collect();
        });
        let step = time(|| {
            let mut fold = Fold::from_genesis(genesis);
            for (record, hash) in known.iter().zip(&hashes) {
                assert!(fold.step_record(record, *hash).is_accept());
            }
        });

        println!(
            "{value_bytes:>11} | {:>8.0} | {:>9.0} | {:>5.2} | {:>8.0} | {:>21.0} | {:>7.0}",
            plain / records,
            verify / records,
            plain / verify,
            parse / records,
            serial / records,
            step / records
        );
    }
}

/// Nanoseconds of the fastest of several runs: the others shared the machine.
fn time(mut work: impl FnMut()) -> f64 {
    let run = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() * 1e9
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}

/// A claim and its commits, all accepted.
fn log(genesis: Hash32, value_bytes: usize) -> Vec<RawRecord> {
    let mut fold = Fold::from_genesis(genesis);
    let value = bytes::Bytes::from(vec![b'x'; value_bytes]);
    let mut raws = Vec::new();
    for n in 0..RECORDS {
        let head = *fold.head();
        let id = RecordId::from_parts(n.into(), [1; 10]);
        let meta = if n == 0 {
            Meta::Claim(Claim {
                id,
                epoch: Epoch::new(1),
                seen: Seen {
                    accepted: 0,
                    chain: genesis,
                },
                genesis,
            })
        } else {
            Meta::Commit(Entry {
                id,
                epoch: head.epoch,
                prev: head.chain,
                version: Version::new(n.into()),
                count: 1,
                idempotency_key: KeyHash::of("k"),
                traceparent: None,
            })
        };
        let record = Record {
            stream: (n > 0).then(|| {
                "order-0192f1c0-687b-7abc-8def-0123456789ab"
                    .parse()
                    .expect("valid")
            }),
            timestamp_ms: n.into(),
            meta,
            value: value.clone(),
        };
        fold.step_record(&record, record_hash(&record));
        raws.push(record.to_raw());
    }
    raws
}

fn flatten(raw: &RawRecord) -> Vec<u8> {
    let mut bytes = raw.timestamp_ms.to_be_bytes().to_vec();
    bytes.extend(raw.key.iter().chain(&raw.value).flat_map(|part| part.iter()));
    for header in &raw.headers {
        bytes.extend_from_slice(&header.name);
        bytes.extend(header.value.iter().flat_map(|value| value.iter()));
    }
    bytes
}

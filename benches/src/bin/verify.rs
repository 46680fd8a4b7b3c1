//! How fast a shard's history is verified, beside plain SHA-256 over the same bytes. Must reach half of it.
//!
//! To verify is to hash each record, to chain the hashes and to fold. Both run on one core and allocate nothing. Printed
//! beside it, without a floor: reading a record from its stored form, which verification of a file needs too.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a program from outside"
)]

use std::hint::black_box;
use std::time::Instant;

use annals_benches::args::Args;
use annals_benches::report::{self, Must, Pairs};
use annals_record::hash::{record_hash, sha256};
use annals_record::{
    Claim, Entry, Epoch, Fold, Hash32, KeyHash, Meta, RawRecord, Record, RecordId, Seen, Slot, Version,
};

const RECORDS: u32 = 20_000;

fn main() {
    let args = Args::parse();
    let rounds = args.rounds(15, 60);
    report::head(
        "verification on one core (records/s)",
        &format!(
            "fold, record hashes and chain of {RECORDS} commits; floor: SHA-256 of the same bytes; {rounds} pairs"
        ),
    );
    for value_bytes in [100, 400, 1_000, 4_000] {
        measure(value_bytes, rounds);
    }
}

fn measure(value_bytes: usize, rounds: usize) {
    let genesis = sha256(b"genesis");
    let raws = log(genesis, value_bytes);
    let flat: Vec<Vec<u8>> = raws.iter().map(flatten).collect();
    let (mut pairs, mut parsing) = (Pairs::default(), Vec::new());
    for round in 0..=rounds {
        let mut slots: Vec<Slot> = Vec::new();
        let copied = raws.clone();
        parsing.push(rate(|| slots = copied.into_iter().map(Slot::parse).collect()));
        let verified = rate(|| {
            let mut fold = Fold::from_genesis(genesis);
            for slot in &slots {
                let hash = slot.known().map_or(genesis, record_hash);
                assert!(
                    fold.step(slot, hash).is_accept(),
                    "a record of the log does not count"
                );
            }
        });
        let hashed = rate(|| {
            for bytes in &flat {
                black_box(sha256(bytes));
            }
        });
        if round > 0 {
            pairs.push(verified, hashed);
        }
    }
    report::row(
        &format!("values of {value_bytes} bytes"),
        &pairs,
        0,
        Must::Reach(0.5),
    );
    println!(
        "  reading them from their stored form: {:.0}/s",
        report::median(parsing)
    );
}

/// Records a second.
fn rate(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    f64::from(RECORDS) / began.elapsed().as_secs_f64()
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

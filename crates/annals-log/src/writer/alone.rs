//! What goes alone: the first append behind a claim, and the first behind a long idle time.

use annals_record::record::Slot;
use annals_record::value::ClaimValue;
use annals_record::{
    AppName, Generation, KeyHash, Offset, RecordId, Shard, ShardCount, StreamId, Version, hash,
};
use bytes::Bytes;

use super::*;
use crate::{Appended, LogError, Placed};

fn id(n: u8) -> RecordId {
    RecordId::from_parts(1, [n; 10])
}

struct Alone {
    writer: ShardWriter,
    made: u8,
    end: u64,
    last: Option<Arc<Placed>>,
}

impl Alone {
    fn owner() -> Self {
        let app = AppName::try_from("test").unwrap();
        let genesis = hash::genesis(&app, Shard::new(0), ShardCount::try_from(1u32).unwrap());
        let settings = WriterSettings {
            appends_in_flight: 3,
            append_records: 1,
            idle_ms: 1_000,
            ..WriterSettings::default()
        };
        let at = Checkpoint::genesis(Head::at_genesis(genesis));
        let mut this = Self {
            writer: ShardWriter::new(Shard::new(0), genesis, &at, settings),
            made: 0,
            end: 0,
            last: None,
        };
        this.claim();
        this
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.writer.step(input, &mut out);
        out
    }

    fn claim(&mut self) {
        let app = AppName::try_from("test").unwrap();
        let (shard, shards) = (Shard::new(0), ShardCount::try_from(1u32).unwrap());
        let (node, url) = ("a".to_owned(), "http://a".to_owned());
        let generation = Generation::FIRST;
        let value = ClaimValue {
            app,
            shard,
            shards,
            generation,
            node,
            url,
        }
        .to_bytes();
        self.made += 1;
        self.step(Input::Claim {
            id: id(self.made),
            time_ms: 1,
            value,
        });
        let mut out = self.step(Input::End(Offset::new(self.end)));
        if let Some(last) = &self.last {
            // Claiming anew, it looks first whether the log is still the one that it folded.
            assert!(appends(&out).is_empty(), "{out:?}");
            let last = Arc::clone(last);
            out = self.step(Input::Read(vec![last]));
        }
        let (append, claim) = appends(&out).remove(0);
        self.step(Input::Appended {
            append,
            result: self.landed(&claim),
        });
        let placed = self.place(claim);
        let out = self.step(Input::Read(vec![placed]));
        assert!(matches!(out.last(), Some(Output::Owner)), "{out:?}");
    }

    /// The record is the log's last one.
    fn place(&mut self, record: Record) -> Arc<Placed> {
        let hash = hash::record_hash(&record);
        let placed = Arc::new(Placed::new(Offset::new(self.end), Slot::Known(record), hash));
        self.end += 1;
        self.last = Some(Arc::clone(&placed));
        placed
    }

    fn landed(&self, record: &Record) -> Appended {
        Appended::Landed(vec![(record.id(), Offset::new(self.end))])
    }

    /// Submits a command decided at this time; what goes to the log.
    fn submit(&mut self, time_ms: i64) -> Vec<(AppendId, Record)> {
        self.made += 1;
        let submitted = self.writer.submit(Draft {
            id: id(self.made),
            stream: StreamId::try_from("order-1").unwrap(),
            refusal: false,
            time_ms,
            version: Version::new(1),
            count: 0,
            idempotency_key: KeyHash::of("k"),
            traceparent: None,
            value: Bytes::from_static(b"{}"),
        });
        submitted.unwrap();
        let mut out = Vec::new();
        self.writer.flush(&mut out);
        appends(&out)
    }

    /// The oldest append lands where it should; what goes to the log then.
    fn lands(&mut self, (append, record): &(AppendId, Record)) -> Vec<(AppendId, Record)> {
        let result = self.landed(record);
        self.place(record.clone());
        appends(&self.step(Input::Appended {
            append: *append,
            result,
        }))
    }
}

fn appends(out: &[Output]) -> Vec<(AppendId, Record)> {
    let append = |output: &Output| {
        let Output::Append { append, records, .. } = output else {
            return None;
        };
        Some((*append, (*records[0].record).clone()))
    };
    out.iter().filter_map(append).collect()
}

#[test]
fn several_appends_are_under_way_but_none_beside_the_first_behind_a_claim() {
    let mut alone = Alone::owner();
    let first = alone.submit(10);
    assert_eq!(first.len(), 1);
    for _ in 0..4 {
        assert!(alone.submit(10).is_empty(), "nothing goes behind it");
    }
    let three = alone.lands(&first[0]);
    assert_eq!(three.len(), 3, "as many as may be under way");
    assert_eq!(alone.lands(&three[0]).len(), 1, "the fourth takes its place");
    assert_eq!(alone.writer.head().accepted, 3);
    // A claim anew: alone again, though there was no pause.
    let lost = Appended::Unknown(LogError::Unavailable("gone".to_owned()));
    let out = alone.step(Input::Appended {
        append: three[1].0,
        result: lost,
    });
    assert!(
        out.iter().any(|output| matches!(output, Output::Stopped(_))),
        "{out:?}"
    );
    alone.claim();
    assert_eq!(alone.submit(10).len(), 1);
    assert!(alone.submit(10).is_empty(), "alone behind the second claim");
}

#[test]
fn behind_a_long_idle_time_one_append_goes_alone() {
    let mut alone = Alone::owner();
    let first = alone.submit(10);
    alone.lands(&first[0]);
    let second = alone.submit(20);
    let third = alone.submit(30);
    assert_eq!((second.len(), third.len()), (1, 1), "side by side");
    assert!(
        alone.submit(5_000).is_empty(),
        "idle for long: it waits until nothing is open"
    );
    assert!(alone.lands(&second[0]).is_empty());
    let probe = alone.lands(&third[0]);
    assert_eq!(probe.len(), 1);
    assert!(
        alone.submit(5_001).is_empty(),
        "and nothing follows until it has landed"
    );
    assert_eq!(alone.lands(&probe[0]).len(), 1);
}

#[test]
fn what_it_awaits_changes_with_every_answer_and_is_nothing_when_nothing_is_open() {
    let mut alone = Alone::owner();
    assert_eq!(alone.writer.awaits(), None);
    let first = alone.submit(10);
    let waits = alone.writer.awaits();
    assert!(waits.is_some());
    alone.submit(10);
    assert_eq!(alone.writer.awaits(), waits, "submitting is no progress");
    alone.lands(&first[0]);
    let later = alone.writer.awaits();
    assert!(later.is_some() && later != waits);
}

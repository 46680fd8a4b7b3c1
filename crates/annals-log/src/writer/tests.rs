//! The writer against a dumb log that loses, delays, repeats and reorders: whatever happens, its words are true.

mod resuming;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use annals_record::record::{Claim, Record, Seen, Slot};
use annals_record::value::ClaimValue;
use annals_record::{
    AppName, Generation, Hash32, KeyHash, Offset, RecordId, Shard, ShardCount, StreamId, Version, hash,
};

use super::*;
use crate::{LogError, Placed};

const STEPS: usize = 400;
const SEEDS: u64 = 300;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % u64::try_from(n).unwrap())
            .unwrap()
    }
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn genesis() -> Hash32 {
    let app = AppName::try_from("test").unwrap();
    hash::genesis(&app, Shard::new(0), ShardCount::try_from(1u32).unwrap())
}

/// An append on its way: its records land one by one, and its answer comes some time after.
struct Way {
    node: usize,
    append: AppendId,
    at: Head,
    left: Vec<Arc<Record>>,
    places: Vec<(RecordId, Offset)>,
    lost: bool,
}

struct World {
    rng: Rng,
    compares: bool,
    log: Vec<Arc<Placed>>,
    head: Fold,
    writers: Vec<ShardWriter>,
    ways: Vec<Way>,
    answers: Vec<(usize, Input)>,
    submitted: HashMap<RecordId, usize>,
    accepted: HashMap<RecordId, Offset>,
    never: HashSet<RecordId>,
    next_id: u64,
    halted: bool,
}

impl World {
    fn new(seed: u64, compares: bool, appends_in_flight: usize) -> Self {
        let at = Checkpoint::genesis(Head::at_genesis(genesis()));
        let settings = WriterSettings {
            appends_in_flight,
            append_records: 2,
            keep_tail: true,
            ..Default::default()
        };
        let writers = (0..3)
            .map(|_| ShardWriter::new(Shard::new(0), genesis(), &at, settings))
            .collect();
        Self {
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            compares,
            log: Vec::new(),
            head: Fold::from_genesis(genesis()),
            writers,
            ways: Vec::new(),
            answers: Vec::new(),
            submitted: HashMap::new(),
            accepted: HashMap::new(),
            never: HashSet::new(),
            next_id: 0,
            halted: false,
        }
    }

    fn id(&mut self) -> RecordId {
        self.next_id += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.next_id.to_be_bytes());
        RecordId::from_parts(1, random)
    }

    fn land(&mut self, slot: Slot) -> Offset {
        let hash = hash::slot_hash(&slot);
        let offset = self.head.head().next;
        self.head.step(&slot, hash);
        self.log.push(Arc::new(Placed::new(offset, slot, hash)));
        offset
    }

    fn feed(&mut self, node: usize, input: Input) {
        let mut out = Vec::new();
        self.writers[node].step(input, &mut out);
        self.carry_out(node, out);
    }

    fn carry_out(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::End => {
                    let end = self.head.head().next;
                    self.answers.push((node, Input::End(end)));
                }
                Output::Read(from) => {
                    let slots = self.slots(from);
                    self.answers.push((node, Input::Read(slots)));
                }
                Output::Append { append, at, records } => {
                    let way = Way {
                        node,
                        append,
                        at,
                        left: records.into_iter().map(|hashed| hashed.record).collect(),
                        places: vec![],
                        lost: false,
                    };
                    self.ways.push(way);
                }
                Output::Accepted { record, offset } => {
                    assert_eq!(
                        self.submitted.get(&record.id()),
                        Some(&node),
                        "accepted what was never submitted here"
                    );
                    assert!(
                        self.accepted.insert(record.id(), offset).is_none(),
                        "accepted twice"
                    );
                    assert!(
                        !self.never.contains(&record.id()),
                        "accepted what was said to have never happened"
                    );
                }
                Output::NeverHappened(record) => {
                    assert!(self.never.insert(record.id()), "settled twice");
                    assert!(
                        !self.accepted.contains_key(&record.id()),
                        "unhappened after it was accepted"
                    );
                }
                Output::Halted(_) => self.halted = true,
                Output::Owner
                | Output::OtherAccepted { .. }
                | Output::Stopped(_)
                | Output::Lost(_)
                | Output::Closed
                | Output::Ghost { .. } => {}
            }
        }
    }

    fn slots(&mut self, from: Offset) -> Vec<Arc<Placed>> {
        let from = usize::try_from(from.get()).unwrap();
        let most = 1 + self.rng.below(4);
        self.log
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take(most)
            .cloned()
            .collect()
    }

    fn act(&mut self) {
        match self.rng.below(10) {
            0 => {
                let node = self.rng.below(3);
                if self.rng.chance(20) {
                    let id = self.id();
                    let value = ClaimValue {
                        app: AppName::try_from("test").unwrap(),
                        shard: Shard::new(0),
                        shards: ShardCount::try_from(1u32).unwrap(),
                        generation: Generation::default(),
                        node: node.to_string(),
                        url: String::new(),
                    };
                    self.feed(
                        node,
                        Input::Claim {
                            id,
                            time_ms: 5,
                            value: value.to_bytes(),
                        },
                    );
                } else if self.rng.chance(10) {
                    self.feed(node, Input::GiveUpClaim);
                }
            }
            1..=3 => {
                let node = self.rng.below(3);
                self.submit(node);
            }
            4..=6 => self.progress_an_append(),
            7 | 8 if !self.answers.is_empty() => {
                let index = self.rng.below(self.answers.len());
                // Answers to one writer's reads keep their order: at most one is open.
                let (node, input) = self.answers.remove(index);
                self.feed(node, input);
            }
            9 if !self.compares && self.rng.chance(10) && !self.log.is_empty() => {
                // A duplicate, as a broker without idempotence leaves it.
                let index = self.rng.below(self.log.len());
                let slot = self.log[index].slot.clone();
                self.land(slot);
            }
            _ => {}
        }
    }

    fn submit(&mut self, node: usize) {
        let id = self.id();
        let draft = Draft {
            id,
            stream: StreamId::try_from("counter-1").unwrap(),
            refusal: false,
            time_ms: self.writers[node].next_time(10),
            version: Version::new(1),
            count: 1,
            idempotency_key: KeyHash::of("k"),
            traceparent: None,
            value: Bytes::from_static(b"{}"),
        };
        if self.writers[node].submit(draft).is_some() {
            self.submitted.insert(id, node);
            let mut out = Vec::new();
            self.writers[node].flush(&mut out);
            self.carry_out(node, out);
        }
    }

    /// A log like Kafka: appends of one node land in order, those of several mingle; a record may be missing.
    /// One that compares writes an append as a whole or not at all.
    fn progress_an_append(&mut self) {
        if self.ways.is_empty() {
            return;
        }
        let node = self.ways[self.rng.below(self.ways.len())].node;
        let index = self.ways.iter().position(|way| way.node == node).unwrap();
        if self.rng.chance(4) {
            // The answer is lost; the append goes on, or never happens.
            let (append, node) = (self.ways[index].append, self.ways[index].node);
            let unknown = Appended::Unknown(LogError::Unavailable("lost".to_owned()));
            if !std::mem::replace(&mut self.ways[index].lost, true) {
                self.answers.push((
                    node,
                    Input::Appended {
                        append,
                        result: unknown,
                    },
                ));
            }
            if self.rng.chance(50) {
                self.ways.remove(index);
            }
            return;
        }
        if self.compares {
            return self.append_as_a_whole(index);
        }
        let record = self.ways[index].left.remove(0);
        if self.rng.chance(2) {
            self.ways[index].lost = true; // a hole: the record is gone, what follows it lands
        } else {
            let offset = self.land(Slot::Known((*record).clone()));
            self.ways[index].places.push((record.id(), offset));
        }
        if self.ways[index].left.is_empty() {
            let way = self.ways.remove(index);
            let result = if way.lost {
                Appended::Unknown(LogError::Unavailable("hole".to_owned()))
            } else {
                Appended::Landed(way.places)
            };
            self.answers.push((
                way.node,
                Input::Appended {
                    append: way.append,
                    result,
                },
            ));
        }
    }

    fn append_as_a_whole(&mut self, index: usize) {
        let way = self.ways.remove(index);
        let head = *self.head.head();
        let fits = way.at.next == head.next && way.at.epoch == head.epoch && way.at.chain == head.chain;
        let result = if fits {
            let places = way
                .left
                .iter()
                .map(|record| (record.id(), self.land(Slot::Known((**record).clone()))));
            Appended::Landed(places.collect())
        } else {
            Appended::HeadMoved(head)
        };
        if !way.lost {
            self.answers.push((
                way.node,
                Input::Appended {
                    append: way.append,
                    result,
                },
            ));
        }
    }

    /// What the log itself says, folded from the start.
    fn check(&self) {
        let mut fold = Fold::from_genesis(genesis());
        let mut accepted = HashMap::new();
        for placed in &self.log {
            if fold.step(&placed.slot, placed.hash).is_accept() {
                let id = placed.slot.known().unwrap().id();
                assert!(
                    accepted.insert(id, placed.offset).is_none(),
                    "one record counts twice"
                );
            }
        }
        for (id, offset) in &self.accepted {
            assert_eq!(
                accepted.get(id),
                Some(offset),
                "L1: an acknowledged record is not there"
            );
        }
        for id in &self.never {
            assert!(
                !accepted.contains_key(id),
                "what was said to have never happened counts"
            );
        }
        for writer in &self.writers {
            let head = writer.head();
            assert_ne!(
                self.writers[0].agrees(head.accepted, head.chain),
                Some(false),
                "L4: two heads differ"
            );
        }
    }
}

fn run(seed: u64, compares: bool, in_flight: usize) -> (usize, usize) {
    let mut world = World::new(seed, compares, in_flight);
    for _ in 0..STEPS {
        world.act();
        assert!(!world.halted, "nothing here is worth a halt");
    }
    world.check();
    (world.accepted.len(), world.never.len())
}

fn run_all(compares: bool, in_flight: usize) {
    let mut accepted = 0;
    let mut never = 0;
    for seed in 1..=SEEDS {
        let outcome = std::panic::catch_unwind(|| run(seed, compares, in_flight));
        let (a, n) = outcome
            .unwrap_or_else(|_| panic!("seed {seed} fails (compares: {compares}, in flight: {in_flight})"));
        accepted += a;
        never += n;
    }
    assert!(
        accepted > 1_000 && never > 50,
        "the walk reaches too little: {accepted} accepted, {never} never happened"
    );
}

#[test]
fn tells_the_truth_over_a_log_that_lands_where_it_lands() {
    run_all(false, 1);
    run_all(false, 3);
}

#[test]
fn tells_the_truth_over_a_log_that_compares() {
    run_all(true, 1);
    run_all(true, 3);
}

#[test]
fn a_replaced_record_before_the_checkpoint_halts() {
    let head = Head {
        next: Offset::new(1),
        ..Head::at_genesis(genesis())
    };
    let checkpoint = Checkpoint {
        head,
        last_hash: Hash32::from([7; 32]),
        last_ghost: true,
    };
    let mut writer = ShardWriter::new(Shard::new(0), genesis(), &checkpoint, WriterSettings::default());
    let mut out = Vec::new();
    let id = RecordId::from_parts(1, [1; 10]);
    writer.step(
        Input::Claim {
            id,
            time_ms: 1,
            value: Bytes::new(),
        },
        &mut out,
    );
    writer.step(Input::End(Offset::new(1)), &mut out);
    assert!(
        matches!(out.last(), Some(Output::Read(from)) if from.get() == 0),
        "reads the record before it: {out:?}"
    );
    let record = Record {
        stream: None,
        timestamp_ms: 0,
        meta: Meta::Claim(Claim {
            id,
            epoch: annals_record::Epoch::new(1),
            seen: Seen {
                accepted: 0,
                chain: genesis(),
            },
            genesis: genesis(),
        }),
        value: Bytes::new(),
    };
    let slot = Slot::Known(record);
    let hash = hash::slot_hash(&slot);
    writer.step(
        Input::Read(vec![Arc::new(Placed::new(Offset::new(0), slot, hash))]),
        &mut out,
    );
    assert!(
        matches!(out.last(), Some(Output::Halted(HaltReason::Replaced { .. }))),
        "{out:?}"
    );
}

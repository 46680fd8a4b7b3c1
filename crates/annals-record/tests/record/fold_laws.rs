//! The fold's laws, on logs that honest, late, unlucky and hostile writers leave behind.

use annals_record::fold::{ChainAt, accept};
use annals_record::hash::{chain, record_hash, sha256, slot_hash};
use annals_record::{
    Claim, Close, Entry, Epoch, Fold, Ghost, Hash32, Head, KeyHash, Meta, Record, RecordId, Seen, Slot,
    Verdict, Version,
};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::fixture::{c0, foreign};

const WRITERS: usize = 3;

/// What happens to the log next.
#[derive(Debug, Clone)]
enum Op {
    /// A writer claims; unless it is late, it has read everything before. What it says it has seen
    /// is what it folded, never what it hopes for.
    Claim { writer: usize, late: bool },
    /// A writer appends what follows from its own view, right or wrong.
    Append {
        writer: usize,
        refuse: bool,
        later_ms: i64,
    },
    /// The same, with a clock that went back.
    ClockBack { writer: usize },
    /// A writer believes that a record landed which did not.
    Hole { writer: usize },
    /// Something that was written before is there again.
    Again(Index),
    /// Not ours.
    Stranger,
    /// A claim of a log of another name.
    OtherLog,
    /// The end.
    Close { writer: usize },
    /// Any meta at all, near the head.
    Hostile {
        kind: u8,
        epoch: i8,
        chained: bool,
        later_ms: i64,
        seen: u8,
    },
}

fn honest() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..WRITERS, any::<bool>()).prop_map(|(writer, late)| Op::Claim { writer, late }),
        8 => (0..WRITERS, any::<bool>(), 0..5i64)
            .prop_map(|(writer, refuse, later_ms)| Op::Append { writer, refuse, later_ms }),
    ]
}

fn unlucky() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => honest(),
        1 => (0..WRITERS).prop_map(|writer| Op::ClockBack { writer }),
        1 => (0..WRITERS).prop_map(|writer| Op::Hole { writer }),
        2 => any::<Index>().prop_map(Op::Again),
        1 => Just(Op::Stranger),
        1 => Just(Op::OtherLog),
    ]
}

fn hostile() -> impl Strategy<Value = Op> {
    let any_meta = (0..4u8, -2..3i8, any::<bool>(), -2..3i64, 0..6u8).prop_map(
        |(kind, epoch, chained, later_ms, seen)| Op::Hostile {
            kind,
            epoch,
            chained,
            later_ms,
            seen,
        },
    );
    prop_oneof![
        20 => unlucky(),
        10 => any_meta,
        1 => (0..WRITERS).prop_map(|writer| Op::Close { writer }),
    ]
}

fn logs<S: Strategy<Value = Op>>(ops: S) -> impl Strategy<Value = Vec<Slot>> {
    prop::collection::vec(ops, 1..60).prop_map(|ops| {
        let mut world = World::new();
        for op in ops {
            world.play(op);
        }
        world.log
    })
}

/// The log and what each writer believes.
struct World {
    log: Vec<Slot>,
    truth: Fold,
    writers: [Head; WRITERS],
    /// What each writer last read, without what it hopes for.
    folded: [Head; WRITERS],
}

impl World {
    fn new() -> Self {
        let truth = Fold::from_genesis(c0());
        let writers = [*truth.head(); WRITERS];
        let folded = writers;
        let log = Vec::new();
        let mut world = Self {
            log,
            truth,
            writers,
            folded,
        };
        world.play(Op::Claim {
            writer: 0,
            late: false,
        });
        world
    }

    fn push(&mut self, slot: Slot) {
        self.truth.step(&slot, slot_hash(&slot));
        self.log.push(slot);
    }

    /// A record that is like no other.
    fn record(&self, stream: bool, time_ms: i64, meta: Meta) -> Record {
        Record {
            stream: stream.then(|| "order-1".parse().unwrap()),
            timestamp_ms: time_ms,
            meta,
            value: Bytes::from(self.log.len().to_string()),
        }
    }

    fn id(&self) -> RecordId {
        RecordId::from_parts(u64::try_from(self.log.len()).unwrap(), [7; 10])
    }

    fn claim(&self, view: &Head, genesis: Hash32) -> Record {
        let meta = Meta::Claim(Claim {
            id: self.id(),
            epoch: view.epoch.next(),
            seen: Seen {
                accepted: view.accepted,
                chain: view.chain,
            },
            genesis,
        });
        self.record(false, view.time_ms + 100, meta)
    }

    fn entry(&self, view: &Head, refuse: bool, time_ms: i64) -> Record {
        let entry = Entry {
            id: self.id(),
            epoch: view.epoch,
            prev: view.chain,
            version: Version::new(1),
            count: u32::from(!refuse),
            idempotency_key: KeyHash::of("k"),
            traceparent: None,
        };
        let meta = if refuse {
            Meta::Refusal(entry)
        } else {
            Meta::Commit(entry)
        };
        self.record(true, time_ms, meta)
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Claim { writer, late } => {
                if !late {
                    self.folded[writer] = *self.truth.head();
                }
                let claim = self.claim(&self.folded[writer], c0());
                self.push(Slot::Known(claim));
                if !late {
                    self.folded[writer] = *self.truth.head();
                    self.writers[writer] = *self.truth.head();
                }
            }
            Op::Append {
                writer,
                refuse,
                later_ms,
            } => {
                let view = self.writers[writer];
                let entry = self.entry(&view, refuse, view.time_ms + later_ms);
                self.believe(writer, &entry);
                self.push(Slot::Known(entry));
            }
            Op::ClockBack { writer } => {
                let view = self.writers[writer];
                let entry = self.entry(&view, false, view.time_ms - 1);
                self.push(Slot::Known(entry));
            }
            Op::Hole { writer } => {
                let view = self.writers[writer];
                let lost = self.entry(&view, false, view.time_ms);
                self.believe(writer, &lost);
            }
            Op::Again(index) => {
                let slot = index.get(&self.log).clone();
                self.push(slot);
            }
            Op::Stranger => self.push(Slot::parse(foreign())),
            Op::OtherLog => {
                let other = self.claim(self.truth.head(), sha256(b"another log"));
                self.push(Slot::Known(other));
            }
            Op::Close { writer } => {
                let view = self.writers[writer];
                let (id, epoch, prev) = (self.id(), view.epoch, view.chain);
                let close = self.record(false, view.time_ms, Meta::Close(Close { id, epoch, prev }));
                self.push(Slot::Known(close));
            }
            Op::Hostile { .. } => {
                let record = self.hostile(&op);
                self.push(Slot::Known(record));
            }
        }
    }

    /// The writer goes on as if its record counted.
    fn believe(&mut self, writer: usize, entry: &Record) {
        let view = &mut self.writers[writer];
        view.chain = chain(view.chain, record_hash(entry));
        view.accepted += 1;
        view.time_ms = entry.timestamp_ms;
    }

    fn hostile(&self, op: &Op) -> Record {
        let Op::Hostile {
            kind,
            epoch,
            chained,
            later_ms,
            seen,
        } = *op
        else {
            panic!("only called for hostile ones");
        };
        let mut view = *self.truth.head();
        view.epoch = Epoch::new(view.epoch.get().saturating_add_signed(epoch.into()));
        if !chained {
            view.chain = sha256(b"another history");
        }
        let time_ms = view.time_ms + later_ms;
        match kind {
            0 | 1 => self.entry(&view, kind == 1, time_ms),
            2 => {
                view.accepted = (view.accepted + 2).saturating_sub(seen.into());
                self.claim(&view, c0())
            }
            _ => {
                let (id, epoch, prev) = (self.id(), view.epoch, view.chain);
                self.record(false, time_ms, Meta::Close(Close { id, epoch, prev }))
            }
        }
    }
}

/// Folds until the end or a halt; the verdicts so far tell which.
fn run(fold: &mut Fold, log: &[Slot]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for slot in log {
        let verdict = fold.step(slot, slot_hash(slot));
        verdicts.push(verdict);
        if matches!(verdict, Verdict::Halt(_)) {
            break;
        }
    }
    verdicts
}

fn fresh(log: &[Slot]) -> (Head, Vec<Verdict>) {
    let mut fold = Fold::from_genesis(c0());
    let verdicts = run(&mut fold, log);
    (*fold.head(), verdicts)
}

fn accepted(log: &[Slot], verdicts: &[Verdict]) -> Vec<usize> {
    (0..verdicts.len().min(log.len()))
        .filter(|i| verdicts[*i].is_accept())
        .collect()
}

/// What must hold of every step, whatever the record.
fn check_step(before: &Head, slot: &Slot, verdict: Verdict, after: &Head) -> Result<(), TestCaseError> {
    match verdict {
        Verdict::Halt(_) => prop_assert_eq!(after, before, "a halt moves nothing"),
        Verdict::Ghost(_) => {
            let next = before.next.next();
            prop_assert_eq!(*after, Head { next, ..*before }, "a ghost moves the offset alone");
        }
        Verdict::Accept => {
            let record = slot.known().unwrap();
            prop_assert!(!before.closed, "closed is final");
            prop_assert_eq!(after.next, before.next.next());
            prop_assert_eq!(after.accepted, before.accepted + 1);
            prop_assert_eq!(after.chain, chain(before.chain, record_hash(record)));
            prop_assert_eq!(after.epoch, record.epoch());
            prop_assert_eq!(after.closed, matches!(record.meta, Meta::Close(_)));
            if let Meta::Claim(claim) = &record.meta {
                prop_assert_eq!(claim.genesis, c0());
                prop_assert_eq!(claim.epoch.get(), before.epoch.get() + 1);
                prop_assert_eq!(after.time_ms, before.time_ms, "a claim's time moves nothing");
            } else {
                prop_assert_eq!(record.prev(), Some(before.chain));
                prop_assert_eq!(record.epoch(), before.epoch, "an ended term never counts");
                prop_assert!(record.timestamp_ms >= before.time_ms, "L7");
                prop_assert_eq!(after.time_ms, record.timestamp_ms);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_step_keeps_the_laws_and_every_reader_agrees(log in logs(hostile())) {
        let mut fold = Fold::from_genesis(c0());
        let mut chains = vec![c0()];
        for slot in &log {
            let before = *fold.head();
            let hash = slot_hash(slot);
            // A second reader, with a memory of its own.
            let known = |n: u64| ChainAt::Known(chains[usize::try_from(n).unwrap()]);
            let pure = accept(&before, c0(), known, slot, hash);
            let verdict = fold.step(slot, hash);
            check_step(&before, slot, verdict, fold.head())?;
            prop_assert_eq!((verdict, *fold.head()), pure);
            if verdict.is_accept() {
                chains.push(fold.head().chain);
            }
        }
        let (head, verdicts) = fresh(&log);
        prop_assert_eq!((head, verdicts), fresh(&log), "the same log, the same answer");
    }

    #[test]
    fn a_reader_that_resumes_ends_where_the_others_do(log in logs(unlucky()), at in any::<Index>()) {
        let (whole, verdicts) = fresh(&log);
        prop_assert!(verdicts.iter().all(|v| !matches!(v, Verdict::Halt(_))), "nobody lied");
        let at = at.index(log.len() + 1);
        let (middle, _) = fresh(&log[..at]);
        let mut resumed = Fold::new(c0(), middle);
        let rest = run(&mut resumed, &log[at..]);
        prop_assert_eq!(*resumed.head(), whole);
        prop_assert_eq!(&rest[..], &verdicts[at..]);
    }

    #[test]
    fn ghosts_can_be_left_out(log in logs(unlucky())) {
        // What `log copy` relies on.
        let (whole, verdicts) = fresh(&log);
        let kept: Vec<_> = accepted(&log, &verdicts).into_iter().map(|i| log[i].clone()).collect();
        let (copy, all) = fresh(&kept);
        prop_assert!(all.iter().all(|v| v.is_accept()));
        prop_assert_eq!(Head { next: whole.next, ..copy }, whole);
    }

    #[test]
    fn a_second_copy_of_any_record_is_a_ghost(log in logs(hostile()), at in any::<Index>()) {
        let (_, verdicts) = fresh(&log);
        for i in accepted(&log, &verdicts) {
            let last = verdicts.len() - 1;
            let at = i + at.index(last - i + 1);
            let mut twice = log[..=last].to_vec();
            twice.insert(at + 1, log[i].clone());
            let (_, found) = fresh(&twice);
            if let Some(copy) = found.get(at + 1) {
                prop_assert!(matches!(copy, Verdict::Ghost(_)), "{i} again at {}: {copy:?}", at + 1);
            }
        }
    }

    #[test]
    fn an_accepted_record_that_is_missing_or_moved_is_noticed(
        log in logs(honest()), which in any::<Index>(), to in any::<Index>(),
    ) {
        let (head, verdicts) = fresh(&log);
        let accepted = accepted(&log, &verdicts);
        let i = *which.get(&accepted);
        let mut missing = log.clone();
        // Something harmless keeps the count of records.
        missing[i] = Slot::parse(foreign());
        prop_assert_ne!(fresh(&missing).0.chain, head.chain);

        let j = *to.get(&accepted);
        if i != j {
            let mut swapped = log.clone();
            swapped.swap(i, j);
            prop_assert_ne!(fresh(&swapped).0.chain, head.chain);
        }
    }

    #[test]
    fn an_accepted_record_that_was_edited_is_noticed(
        log in logs(honest()), which in any::<Index>(), field in 0..4u8, header in any::<Index>(),
        at in any::<Index>(), bit in 0..8u8,
    ) {
        let (head, verdicts) = fresh(&log);
        let i = *which.get(&accepted(&log, &verdicts));
        let mut raw = log[i].known().unwrap().to_raw();
        let flip = |bytes: &mut Option<Bytes>| {
            let mut changed = bytes.take().unwrap_or_default().to_vec();
            if changed.is_empty() {
                changed.push(b'x');
            } else {
                let i = at.index(changed.len());
                changed[i] ^= 1 << bit;
            }
            *bytes = Some(changed.into());
        };
        match field {
            0 => flip(&mut raw.key),
            1 => raw.timestamp_ms ^= 1 << bit,
            2 => flip(&mut raw.value),
            _ => flip(&mut header.get_mut(&mut raw.headers).value),
        }
        let mut edited = log.clone();
        edited[i] = Slot::parse(raw);
        prop_assert_ne!(fresh(&edited).0.chain, head.chain);
    }

    #[test]
    fn an_inserted_record_counts_only_at_the_price_of_another_chain(
        log in logs(honest()), at in any::<Index>(), refuse in any::<bool>(),
    ) {
        let (head, verdicts) = fresh(&log);
        let at = at.index(log.len() + 1);
        let (middle, _) = fresh(&log[..at]);
        let mut world = World::new();
        world.log = log.clone();
        let forged = world.entry(&middle, refuse, middle.time_ms);
        let mut longer = log.clone();
        longer.insert(at, Slot::Known(forged));
        let (other, found) = fresh(&longer);
        prop_assert!(found[at].is_accept(), "it has the right epoch and the right prev");
        prop_assert_ne!(other.chain, head.chain);
        // Whatever counted after it in the same term is left behind as unchained.
        if let Some(next) = (at..log.len()).find(|i| verdicts[*i].is_accept())
            && !matches!(log[next].known().unwrap().meta, Meta::Claim(_))
        {
            prop_assert_eq!(found[next + 1], Verdict::Ghost(Ghost::Unchained));
        }
    }

    #[test]
    fn the_same_head_means_the_same_accepted_records(
        log in logs(unlucky()), a in any::<Index>(), b in any::<Index>(),
    ) {
        // With copies in the log, swapping may be harmless: then nothing that counts has changed.
        let mut swapped = log.clone();
        swapped.swap(a.index(log.len()), b.index(log.len()));
        let hashes = |log: &[Slot]| {
            let (head, verdicts) = fresh(log);
            let counted: Vec<_> = accepted(log, &verdicts).into_iter().map(|i| slot_hash(&log[i])).collect();
            (head.chain, counted)
        };
        let (one, two) = (hashes(&log), hashes(&swapped));
        prop_assert_eq!(one.0 == two.0, one.1 == two.1);
    }
}

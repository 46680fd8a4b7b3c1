//! The fold's table, row by row and in its order.

use annals_record::fold::{ChainAt, WINDOW, accept};
use annals_record::hash::{chain, record_hash, sha256, slot_hash};
use annals_record::{
    Claim, Close, Epoch, Fold, Ghost, Halt, Hash32, Head, Meta, Record, Seen, ShardCount, Slot, Verdict,
};

use crate::fixture::{c0, claim, commit, entry, foreign, header, id, record};

fn claim_of(epoch: u64, accepted: u64, chain: Hash32) -> Record {
    let meta = Meta::Claim(Claim {
        id: id(),
        epoch: Epoch::new(epoch),
        seen: Seen { accepted, chain },
        genesis: c0(),
    });
    record(None, 5_000, meta, "{}")
}

fn commit_of(epoch: u64, prev: Hash32, time_ms: i64) -> Record {
    let meta = Meta::Commit(entry(epoch, prev, 1, 1));
    record(Some("order-1"), time_ms, meta, "{}")
}

fn close_of(epoch: u64, prev: Hash32, time_ms: i64) -> Record {
    let (id, epoch) = (id(), Epoch::new(epoch));
    record(None, time_ms, Meta::Close(Close { id, epoch, prev }), "{}")
}

fn step(fold: &mut Fold, record: &Record) -> Verdict {
    let before = *fold.head();
    let verdict = fold.step_record(record, record_hash(record));
    assert_eq!(fold.head().next, before.next.next());
    if !verdict.is_accept() {
        let next = before.next;
        assert_eq!(Head { next, ..*fold.head() }, before);
    }
    verdict
}

/// A shard in epoch 2, at time 1,000, with three records accepted.
fn owned() -> Fold {
    let mut fold = Fold::from_genesis(c0());
    assert_eq!(step(&mut fold, &claim_of(1, 0, c0())), Verdict::Accept);
    let seen = (fold.head().accepted, fold.head().chain);
    assert_eq!(step(&mut fold, &claim_of(2, seen.0, seen.1)), Verdict::Accept);
    let first = commit_of(2, fold.head().chain, 1_000);
    assert_eq!(step(&mut fold, &first), Verdict::Accept);
    fold
}

#[test]
fn an_empty_shard() {
    let shards = ShardCount::try_from(16).unwrap();
    let head = Head::genesis(&"commerce".parse().unwrap(), 3.into(), shards);
    assert_eq!(head, Head::at_genesis(c0()));
    assert_eq!((head.next.get(), head.accepted, head.epoch.get()), (0, 0, 0));
    assert_eq!((head.chain, head.time_ms, head.closed), (c0(), 0, false));
}

#[test]
fn strangers_are_ghosts_and_unknown_formats_halt_even_after_a_close() {
    let mut fold = owned();
    let stranger = Slot::Foreign(foreign());
    let mut raw = foreign();
    raw.headers.push(header(b"annals", b"2"));
    let unknown = Slot::parse(raw);
    for _ in 0..2 {
        let before = *fold.head();
        let verdict = fold.step(&stranger, slot_hash(&stranger));
        assert_eq!(verdict, Verdict::Ghost(Ghost::Foreign));
        assert_eq!(fold.head().next, before.next.next());
        assert_eq!(fold.head().chain, before.chain);

        let before = *fold.head();
        let verdict = fold.step(&unknown, slot_hash(&unknown));
        assert_eq!(verdict, Verdict::Halt(Halt::UnknownFormat { format: 2 }));
        assert_eq!(*fold.head(), before, "a halt moves nothing");
        if !before.closed {
            let close = close_of(2, before.chain, 1_000);
            assert_eq!(step(&mut fold, &close), Verdict::Accept);
        }
    }
}

#[test]
fn after_a_close_nothing_counts() {
    let mut fold = owned();
    let close = close_of(2, fold.head().chain, 1_500);
    assert_eq!(step(&mut fold, &close), Verdict::Accept);
    let head = *fold.head();
    assert!(head.closed);
    assert_eq!(head.time_ms, 1_500);
    let mut other = claim_of(3, head.accepted, head.chain);
    for record in [
        other.clone(),
        claim_of(9, 0, c0()),
        claim_of(3, head.accepted + 1, head.chain),
        commit_of(2, head.chain, 2_000),
        commit_of(1, head.chain, 2_000),
        close_of(2, head.chain, 2_000),
        close,
    ] {
        assert_eq!(step(&mut fold, &record), Verdict::Ghost(Ghost::Closed));
    }
    if let Meta::Claim(claim) = &mut other.meta {
        claim.genesis = sha256(b"another log");
    }
    assert_eq!(step(&mut fold, &other), Verdict::Ghost(Ghost::Closed));
}

#[test]
fn a_claim_of_another_log_is_a_stranger() {
    let mut fold = owned();
    let head = *fold.head();
    let mut other = claim_of(3, head.accepted, head.chain);
    if let Meta::Claim(claim) = &mut other.meta {
        claim.genesis = sha256(b"another log");
    }
    assert_eq!(step(&mut fold, &other), Verdict::Ghost(Ghost::Foreign));
    assert_eq!(
        step(&mut fold, &claim()),
        Verdict::Ghost(Ghost::LostClaim),
        "epoch 8 after 2"
    );
}

#[test]
fn only_the_next_epoch_can_be_claimed_and_its_time_moves_nothing() {
    let head = *owned().head();
    for epoch in [0, 1, 2, 4, 5, u64::MAX] {
        let lost = claim_of(epoch, head.accepted, head.chain);
        assert_eq!(
            step(&mut owned(), &lost),
            Verdict::Ghost(Ghost::LostClaim),
            "{epoch}"
        );
        let lost = claim_of(epoch, head.accepted + 9, head.chain);
        assert_eq!(
            step(&mut owned(), &lost),
            Verdict::Ghost(Ghost::LostClaim),
            "{epoch}"
        );
    }
    let (mut fold, next) = (owned(), claim_of(3, head.accepted, head.chain));
    assert_eq!(step(&mut fold, &next), Verdict::Accept);
    let chain = chain(head.chain, record_hash(&next));
    let (epoch, accepted) = (Epoch::new(3), head.accepted + 1);
    let next = head.next.next();
    assert_eq!(
        *fold.head(),
        Head {
            next,
            epoch,
            accepted,
            chain,
            ..head
        }
    );
}

#[test]
fn after_the_last_epoch_every_claim_is_lost() {
    let mut head = *owned().head();
    head.epoch = Epoch::new(u64::MAX);
    for epoch in [0, 1, u64::MAX] {
        let claim = claim_of(epoch, head.accepted, head.chain);
        let verdict = step(&mut Fold::new(c0(), head), &claim);
        assert_eq!(verdict, Verdict::Ghost(Ghost::LostClaim));
    }
}

#[test]
fn a_claim_that_saw_another_history_halts() {
    let fold = owned();
    let head = *fold.head();
    let other = sha256(b"another history");
    let ChainAt::Known(second) = fold.chain_at(2) else {
        panic!("within the window");
    };
    for (accepted, chain, ours) in [
        (head.accepted + 1, head.chain, None),
        (i64::MAX.unsigned_abs(), head.chain, None),
        (head.accepted, other, Some(head.chain)),
        (2, other, Some(second)),
        (2, head.chain, Some(second)),
        (0, other, Some(c0())),
    ] {
        let claim = claim_of(3, accepted, chain);
        let mut fold = fold.clone();
        let halt = Halt::HistoryReplaced {
            seen: accepted,
            theirs: chain,
            accepted: head.accepted,
            ours,
        };
        assert_eq!(fold.step_record(&claim, record_hash(&claim)), Verdict::Halt(halt));
        assert_eq!(*fold.head(), head);
        assert!(halt.to_string().contains(&chain.to_string()));
    }
    for (accepted, chain) in [(head.accepted, head.chain), (2, second), (0, c0())] {
        assert!(step(&mut fold.clone(), &claim_of(3, accepted, chain)).is_accept());
    }
}

#[test]
fn below_what_it_folded_itself_a_reader_cannot_tell() {
    let head = *owned().head();
    let other = sha256(b"another history");
    let resumed = Fold::new(c0(), head);
    for accepted in [0, head.accepted - 1] {
        assert_eq!(resumed.chain_at(accepted), ChainAt::Forgotten);
        assert!(step(&mut resumed.clone(), &claim_of(3, accepted, other)).is_accept());
    }
    let claim = claim_of(3, head.accepted, other);
    let slot = Slot::Known(claim);
    assert!(matches!(
        resumed.clone().step(&slot, slot_hash(&slot)),
        Verdict::Halt(Halt::HistoryReplaced { .. })
    ));
}

#[test]
fn an_ended_term_cannot_write() {
    let head = *owned().head();
    for epoch in [0, 1] {
        for record in [
            commit_of(epoch, head.chain, 2_000),
            close_of(epoch, head.chain, 2_000),
        ] {
            assert_eq!(step(&mut owned(), &record), Verdict::Ghost(Ghost::Superseded));
        }
    }
}

#[test]
fn the_owners_next_record_counts_and_nothing_else_does() {
    let head = *owned().head();
    for time_ms in [1_000, 1_001] {
        let mut fold = owned();
        let commit = commit_of(2, head.chain, time_ms);
        assert_eq!(step(&mut fold, &commit), Verdict::Accept);
        let chain = chain(head.chain, record_hash(&commit));
        let (next, accepted) = (head.next.next(), head.accepted + 1);
        assert_eq!(
            *fold.head(),
            Head {
                next,
                accepted,
                chain,
                time_ms,
                ..head
            }
        );
    }
    for record in [
        commit_of(2, head.chain, 999),
        commit_of(2, c0(), 2_000),
        commit_of(3, head.chain, 2_000),
        commit_of(i64::MAX.unsigned_abs(), head.chain, 2_000),
        close_of(2, head.chain, 999),
        close_of(2, c0(), 2_000),
        close_of(3, head.chain, 2_000),
        commit(),
    ] {
        assert_eq!(step(&mut owned(), &record), Verdict::Ghost(Ghost::Unchained));
    }
}

#[test]
fn the_window_holds_exactly_the_last_counts() {
    let mut fold = Fold::from_genesis(c0());
    assert!(step(&mut fold, &claim_of(1, 0, c0())).is_accept());
    let mut chains = vec![c0(), fold.head().chain];
    let window = u64::try_from(WINDOW).unwrap();
    for n in 2..=3 * window + 7 {
        let next = commit_of(1, fold.head().chain, 0);
        assert!(step(&mut fold, &next).is_accept());
        chains.push(fold.head().chain);
        let known = |count: u64| match fold.chain_at(count) {
            ChainAt::Known(chain) => Some(chain),
            ChainAt::Forgotten => None,
        };
        let oldest = n.saturating_sub(window - 1);
        for count in [oldest, n, n / 2 + oldest / 2] {
            assert_eq!(known(count), chains.get(usize::try_from(count).unwrap()).copied());
        }
        assert_eq!(oldest.checked_sub(1).and_then(known), None);
        assert_eq!(known(n + 1), None);
    }
}

#[test]
fn the_pure_function_and_the_reader_agree() {
    let fold = owned();
    let slot = Slot::Known(commit_of(2, fold.head().chain, 1_000));
    let never = |_| panic!("only claims look back");
    let (verdict, head) = accept(fold.head(), c0(), never, &slot, slot_hash(&slot));
    let mut reader = fold.clone();
    assert_eq!(reader.step(&slot, slot_hash(&slot)), verdict);
    assert_eq!(*reader.head(), head);
}

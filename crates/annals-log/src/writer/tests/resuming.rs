//! A writer that claims again looks whether the log is still the one that it has folded.

use super::*;

/// A writer that owns epoch 1 and has had `commits` records accepted, and what stands in the log.
fn owner(commits: u64) -> (ShardWriter, Vec<Arc<Placed>>) {
    let at = Checkpoint::genesis(Head::at_genesis(genesis()));
    let mut writer = ShardWriter::new(Shard::new(0), genesis(), &at, WriterSettings::default());
    let mut log = Vec::new();
    let mut out = claim(&mut writer, 1);
    feed(&mut writer, Input::End(Offset::new(0)), &mut out);
    land(&mut writer, &mut log, &mut out);
    for n in 0..commits {
        submit(&mut writer, n + 1);
        writer.flush(&mut out);
        land(&mut writer, &mut log, &mut out);
    }
    assert!(writer.is_owner() && writer.pending() == 0);
    // It loses the shard by an answer that never comes.
    let stop = Input::Appended {
        append: 99,
        result: Appended::Unknown(LogError::Unavailable("lost".to_owned())),
    };
    writer.step(stop, &mut out);
    writer.stop(StopReason::HeadMoved, &mut out);
    (writer, log)
}

fn submit(writer: &mut ShardWriter, version: u64) {
    let submitted = writer.submit(Draft {
        id: id(10 + version),
        stream: StreamId::try_from("counter-1").unwrap(),
        refusal: false,
        time_ms: 10,
        version: Version::new(version),
        count: 1,
        idempotency_key: KeyHash::of("k"),
        traceparent: None,
        value: Bytes::from_static(b"{}"),
    });
    assert!(submitted.is_some(), "it is owner");
}

fn id(n: u64) -> RecordId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    RecordId::from_parts(1, random)
}

fn claim(writer: &mut ShardWriter, n: u64) -> Vec<Output> {
    let mut out = Vec::new();
    let value = Bytes::from_static(b"{}");
    let (id, time_ms) = (id(n), 1);
    feed(writer, Input::Claim { id, time_ms, value }, &mut out);
    out
}

fn feed(writer: &mut ShardWriter, input: Input, out: &mut Vec<Output>) {
    out.clear();
    writer.step(input, out);
}

/// The append among the outputs lands at the end of the log; what is asked for is read.
fn land(writer: &mut ShardWriter, log: &mut Vec<Arc<Placed>>, out: &mut Vec<Output>) {
    while let Some(output) = out.pop() {
        let input = if let Output::Append { append, records, .. } = output {
            let mut places = Vec::new();
            for hashed in records {
                let offset = Offset::new(u64::try_from(log.len()).unwrap());
                places.push((hashed.record.id(), offset));
                let slot = Slot::Known((*hashed.record).clone());
                log.push(Arc::new(Placed::new(offset, slot, hashed.hash)));
            }
            let result = Appended::Landed(places);
            Input::Appended { append, result }
        } else if let Output::Read(from) = output {
            Input::Read(log[usize::try_from(from.get()).unwrap()..].to_vec())
        } else {
            continue;
        };
        let mut more = Vec::new();
        writer.step(input, &mut more);
        out.extend(more);
    }
}

#[test]
fn a_log_that_is_what_it_was_is_claimed_again() {
    let (mut writer, mut log) = owner(2);
    let mut out = claim(&mut writer, 2);
    feed(&mut writer, Input::End(Offset::new(3)), &mut out);
    assert!(
        matches!(out[..], [Output::Read(from)] if from == Offset::new(2)),
        "it looks at the record before its head: {out:?}"
    );
    land(&mut writer, &mut log, &mut out);
    assert!(writer.is_owner());
    assert_eq!(log.len(), 4);
}

#[test]
fn a_log_that_ends_below_what_was_folded_is_not_claimed_and_halts() {
    let (mut writer, _) = owner(2);
    let mut out = claim(&mut writer, 2);
    feed(&mut writer, Input::End(Offset::new(1)), &mut out);
    assert!(
        matches!(out[..], [Output::Read(from)] if from == Offset::new(3)),
        "it asks for more than there is, and appends nothing: {out:?}"
    );
    feed(&mut writer, Input::Truncated(Offset::new(1)), &mut out);
    assert!(
        matches!(out[..], [Output::Halted(HaltReason::Truncated { .. })]),
        "{out:?}"
    );
}

#[test]
fn a_log_that_grew_anew_beyond_the_head_halts() {
    let (mut writer, mut log) = owner(2);
    log.truncate(2);
    let slot = Slot::parse(annals_record::RawRecord {
        key: None,
        timestamp_ms: 0,
        value: None,
        headers: vec![],
    });
    let hash = hash::slot_hash(&slot);
    log.push(Arc::new(Placed::new(Offset::new(2), slot, hash)));
    let mut out = claim(&mut writer, 2);
    feed(&mut writer, Input::End(Offset::new(3)), &mut out);
    feed(&mut writer, Input::Read(log[2..].to_vec()), &mut out);
    assert!(
        matches!(out[..], [Output::Halted(HaltReason::Replaced { .. })]),
        "{out:?}"
    );
}

#[test]
fn a_log_that_comes_back_is_read_from_the_record_before_the_head() {
    let (mut writer, mut log) = owner(2);
    let mut out = claim(&mut writer, 2);
    feed(&mut writer, Input::End(Offset::new(1)), &mut out);
    feed(&mut writer, Input::Read(vec![]), &mut out);
    assert!(
        matches!(out[..], [Output::Read(from)] if from == Offset::new(2)),
        "{out:?}"
    );
    land(&mut writer, &mut log, &mut out);
    assert!(writer.is_owner());
}

#[test]
fn a_log_that_loses_its_end_after_it_was_asked_for_is_asked_again() {
    let (mut writer, _) = owner(2);
    let mut out = claim(&mut writer, 2);
    feed(&mut writer, Input::End(Offset::new(3)), &mut out);
    feed(&mut writer, Input::Read(vec![]), &mut out);
    assert!(matches!(out[..], [Output::End]), "{out:?}");
}

#[test]
fn a_head_that_moved_back_is_not_claimed_in_a_loop() {
    let (mut writer, log) = owner(2);
    let mut out = claim(&mut writer, 2);
    feed(&mut writer, Input::End(Offset::new(3)), &mut out);
    feed(&mut writer, Input::Read(log[2..].to_vec()), &mut out);
    let Some(Output::Append { append, .. }) = out.pop() else {
        panic!("it claims: {out:?}")
    };
    let result = Appended::HeadMoved(Head::at_genesis(genesis()));
    feed(&mut writer, Input::Appended { append, result }, &mut out);
    assert!(
        matches!(out[..], [Output::Stopped(StopReason::ClaimFailed(_))]),
        "{out:?}"
    );
}

/// An owner whose next record was said to have landed behind a gap: it reads what is in it.
fn behind_a_gap() -> (ShardWriter, Vec<Output>) {
    let (mut writer, mut log) = owner(1);
    let mut out = claim(&mut writer, 2);
    feed(&mut writer, Input::End(Offset::new(2)), &mut out);
    land(&mut writer, &mut log, &mut out);
    submit(&mut writer, 2);
    writer.flush(&mut out);
    let Some(Output::Append { append, records, .. }) = out.pop() else {
        panic!("it appends: {out:?}")
    };
    let result = Appended::Landed(vec![(records[0].record.id(), Offset::new(5))]);
    feed(&mut writer, Input::Appended { append, result }, &mut out);
    assert!(
        matches!(out[..], [Output::Read(from)] if from == Offset::new(3)),
        "{out:?}"
    );
    feed(&mut writer, Input::Read(vec![]), &mut out);
    assert!(
        matches!(out[..], [Output::End]),
        "and asks where the log ends: {out:?}"
    );
    (writer, out)
}

#[test]
fn what_landed_and_is_gone_halts() {
    let (mut writer, mut out) = behind_a_gap();
    feed(&mut writer, Input::End(Offset::new(3)), &mut out);
    assert!(
        matches!(out[..], [Output::Read(from)] if from == Offset::new(6)),
        "it asks for what landed: {out:?}"
    );
    feed(&mut writer, Input::Truncated(Offset::new(3)), &mut out);
    assert!(
        matches!(out[..], [Output::Halted(HaltReason::Truncated { .. })]),
        "{out:?}"
    );
}

#[test]
fn whoever_waits_for_the_next_claim_sees_that_the_log_was_replaced() {
    let (mut writer, mut log) = owner(1);
    let mut out = claim(&mut writer, 2);
    feed(&mut writer, Input::End(Offset::new(2)), &mut out);
    land(&mut writer, &mut log, &mut out);
    submit(&mut writer, 2);
    writer.flush(&mut out);
    let Some(Output::Append { append, .. }) = out.pop() else {
        panic!("it appends: {out:?}")
    };
    let result = Appended::Unknown(LogError::Unavailable("lost".to_owned()));
    feed(&mut writer, Input::Appended { append, result }, &mut out);
    assert!(
        matches!(out[..], [Output::Stopped(_), Output::Read(from)] if from == Offset::new(2)),
        "it looks at the record before its head: {out:?}"
    );
    let other = Arc::new(Placed::new(Offset::new(2), log[1].slot.clone(), log[1].hash));
    feed(&mut writer, Input::Read(vec![other]), &mut out);
    assert!(
        matches!(out[..], [Output::Halted(HaltReason::Replaced { .. })]),
        "{out:?}"
    );
}

#[test]
fn what_landed_and_is_only_late_is_read() {
    let (mut writer, mut out) = behind_a_gap();
    feed(&mut writer, Input::End(Offset::new(6)), &mut out);
    assert!(
        matches!(out[..], [Output::Read(from)] if from == Offset::new(3)),
        "{out:?}"
    );
}

#[test]
fn what_landed_and_comes_back_is_read_from_the_record_before_the_head() {
    let (mut writer, mut out) = behind_a_gap();
    feed(&mut writer, Input::End(Offset::new(3)), &mut out);
    feed(&mut writer, Input::Read(vec![]), &mut out);
    assert!(
        matches!(out[..], [Output::Read(from)] if from == Offset::new(2)),
        "{out:?}"
    );
}

#[test]
fn whoever_waits_for_the_next_claim_looks_back_as_long_as_nothing_comes() {
    let (mut writer, log) = owner(1);
    writer.state = State::Owner { repair: None };
    submit(&mut writer, 2);
    let mut out = Vec::new();
    writer.stop(StopReason::HeadMoved, &mut out);
    // The record before the head, nothing new behind it, and so again: never twice at once without a wait between.
    feed(&mut writer, Input::Read(log[1..].to_vec()), &mut out);
    for _ in 0..3 {
        assert!(
            matches!(out[..], [Output::Read(from)] if from == Offset::new(2)),
            "{out:?}"
        );
        feed(&mut writer, Input::Read(vec![]), &mut out);
        assert!(
            matches!(out[..], [Output::Read(from)] if from == Offset::new(1)),
            "{out:?}"
        );
        feed(&mut writer, Input::Read(log[1..].to_vec()), &mut out);
    }
    feed(&mut writer, Input::Read(vec![]), &mut out);
    feed(&mut writer, Input::Read(vec![]), &mut out);
    assert!(
        matches!(out[..], [Output::End]),
        "the record before the head is gone: {out:?}"
    );
}

#[test]
fn a_writer_that_begins_behind_a_close_claims_nothing() {
    let head = Head {
        closed: true,
        ..Head::at_genesis(genesis())
    };
    let at = Checkpoint::genesis(head);
    let mut writer = ShardWriter::new(Shard::new(0), genesis(), &at, WriterSettings::default());
    assert!(matches!(claim(&mut writer, 1)[..], [Output::Closed]));
}

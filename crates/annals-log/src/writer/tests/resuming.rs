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
        let submitted = writer.submit(Draft {
            id: id(10 + n),
            stream: StreamId::try_from("counter-1").unwrap(),
            refusal: false,
            time_ms: 10,
            version: Version::new(n + 1),
            count: 1,
            idempotency_key: KeyHash::of("k"),
            traceparent: None,
            value: Bytes::from_static(b"{}"),
        });
        assert!(submitted.is_some(), "it is owner");
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
        let input = match output {
            Output::Append { append, records, .. } => {
                let mut places = Vec::new();
                for hashed in records {
                    let offset = Offset::new(u64::try_from(log.len()).unwrap());
                    places.push((hashed.record.id(), offset));
                    let slot = Slot::Known((*hashed.record).clone());
                    log.push(Arc::new(Placed::new(offset, slot, hashed.hash)));
                }
                let result = Appended::Landed(places);
                Input::Appended { append, result }
            }
            Output::Read(from) => Input::Read(log[usize::try_from(from.get()).unwrap()..].to_vec()),
            _ => continue,
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

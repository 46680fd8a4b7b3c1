//! Every promise broken once on purpose: a checker that cannot fail checks nothing.

use std::time::Duration;

use super::*;

const STREAM: &str = "product-P";

fn kept(offset: u64, key: &str, version: u64, command: &str, delta: i64) -> Kept {
    Kept {
        shard: 3,
        offset,
        record: format!("r{offset}"),
        time_ms: 1_000 + i64::try_from(offset).unwrap(),
        stream: STREAM.to_owned(),
        key: key.to_owned(),
        version,
        events: 1,
        command: command.to_owned(),
        delta,
        refusal: None,
        current: None,
    }
}

fn refusal(offset: u64, key: &str, version: u64, code: &str, current: Option<u64>) -> Kept {
    Kept {
        events: 0,
        refusal: Some(code.to_owned()),
        current,
        ..kept(offset, key, version, "adjust", 0)
    }
}

fn sent(key: &str, ask: Ask, at_ms: u64, offset: u64, what: Verdict) -> Sent {
    Sent {
        stream: STREAM.to_owned(),
        key: key.to_owned(),
        ask,
        if_version: None,
        began: Duration::from_millis(at_ms),
        ended: Duration::from_millis(at_ms + 5),
        unknown: 0,
        told: Some(Told {
            record: format!("r{offset}"),
            shard: 3,
            offset,
            what,
        }),
        other: None,
        nothing: false,
    }
}

fn committed(version: u64) -> Verdict {
    Verdict::Committed { version }
}

fn rejected() -> Verdict {
    Verdict::Rejected {
        code: "below_reserved".to_owned(),
    }
}

/// Registered; 5 come in; 9 cannot go; a precondition fails; 5 go.
fn run() -> (Vec<Sent>, Vec<Kept>) {
    let mut mismatch = sent("c", Ask::Receive(1), 30, 4, Verdict::Mismatch { current: 2 });
    mismatch.if_version = Some(1);
    let sent = vec![
        sent("a", Ask::Receive(5), 10, 2, committed(2)),
        sent("b", Ask::Remove(9), 20, 3, rejected()),
        mismatch,
        sent("d", Ask::Remove(5), 40, 5, committed(3)),
    ];
    let log = vec![
        kept(1, "setup", 1, "register", 0),
        kept(2, "a", 2, "receive", 5),
        refusal(3, "b", 3, "below_reserved", None),
        refusal(4, "c", 3, "version-mismatch", Some(2)),
        kept(5, "d", 3, "adjust", -5),
    ];
    (sent, log)
}

fn kinds(sent: &[Sent], log: &[Kept]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = check(sent, log, str::to_owned)
        .violations
        .iter()
        .map(|found| found.kind)
        .collect();
    kinds.dedup();
    kinds
}

#[test]
fn a_right_history_has_no_violation() {
    let (sent, log) = run();
    let findings = check(&sent, &log, str::to_owned);
    assert_eq!(findings.violations, []);
    assert_eq!((findings.records, findings.refusals), (5, 2));
    assert_eq!(findings.stock[STREAM], (0, 3));
}

#[test]
fn a_command_without_an_answer_may_have_happened_or_not() {
    let (mut sent, mut log) = run();
    sent[3].told = None;
    assert_eq!(kinds(&sent, &log), []);
    log.pop();
    assert_eq!(kinds(&sent, &log), []);
}

#[test]
fn an_answer_whose_record_is_missing_or_elsewhere_is_lost() {
    let (sent, mut log) = run();
    log.pop();
    assert_eq!(kinds(&sent, &log), [Kind::Lost]);
    let (sent, mut log) = run();
    log[4].offset = 6;
    assert_eq!(kinds(&sent, &log), [Kind::Lost]);
    let (sent, mut log) = run();
    log[4].record = "another".to_owned();
    assert_eq!(kinds(&sent, &log), [Kind::Lost]);
}

#[test]
fn a_key_with_two_records_or_two_answers_is_doubled() {
    let (sent, mut log) = run();
    log.push(kept(6, "a", 4, "receive", 5));
    assert!(kinds(&sent, &log).contains(&Kind::Doubled));
    let (mut sent, log) = run();
    sent[0].other = sent[3].told.clone();
    assert_eq!(kinds(&sent, &log), [Kind::Doubled]);
}

#[test]
fn a_gap_in_versions_is_seen() {
    let (mut sent, mut log) = run();
    log[4].version = 4;
    sent[3].told.as_mut().unwrap().what = committed(4);
    assert!(kinds(&sent, &log).contains(&Kind::Gap));
}

#[test]
fn a_wrong_yes_and_a_wrong_no_are_seen() {
    let (mut sent, mut log) = run();
    // More goes than is there.
    sent[3].ask = Ask::Remove(6);
    log[4].delta = -6;
    assert_eq!(kinds(&sent, &log), [Kind::Wrong]);
    // A no although there is enough.
    let (mut sent, log) = run();
    sent[1].ask = Ask::Remove(5);
    assert_eq!(kinds(&sent, &log), [Kind::Wrong]);
    // A precondition that held, and one that failed with another version.
    let (mut sent, log) = run();
    sent[2].if_version = Some(2);
    assert_eq!(kinds(&sent, &log), [Kind::Wrong]);
    let (sent, mut log) = run();
    log[3].current = Some(1);
    assert!(kinds(&sent, &log).contains(&Kind::Wrong));
    // Another amount than was asked for.
    let (sent, mut log) = run();
    log[1].delta = 50;
    assert!(kinds(&sent, &log).contains(&Kind::Wrong));
}

#[test]
fn a_command_in_front_of_one_that_was_answered_before_it_began_is_stale() {
    let (mut sent, log) = run();
    (sent[1].began, sent[1].ended) = (Duration::from_millis(50), Duration::from_millis(60));
    assert_eq!(kinds(&sent, &log), [Kind::Stale]);
    // At once is in any order.
    sent[1].began = Duration::from_millis(34);
    assert_eq!(kinds(&sent, &log), []);
}

#[test]
fn time_that_goes_back_and_commands_that_nobody_sent_are_seen() {
    let (sent, mut log) = run();
    log[2].time_ms = 1;
    assert_eq!(kinds(&sent, &log), [Kind::Time]);
    let (mut sent, log) = run();
    sent.remove(0);
    assert!(kinds(&sent, &log).contains(&Kind::Invented));
}

#[test]
fn a_record_of_a_command_that_was_answered_with_nothing_happened_is_seen() {
    let (mut sent, mut log) = run();
    (sent[3].told, sent[3].nothing) = (None, true);
    assert_eq!(kinds(&sent, &log), [Kind::Happened]);
    log.pop();
    assert_eq!(kinds(&sent, &log), []);
}

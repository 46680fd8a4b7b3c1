//! The checker: client histories against the log. Pure; it knows the rules of a product's stock by itself, and
//! shares nothing with the program that it judges.

pub mod orders;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::history::{Ask, Kept, Sent, Told, Verdict};

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// What was seen, with positions and keys.
    pub what: String,
}

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged record is not in the log, or not where it was said to be (L1).
    Lost,
    /// A key has two records, or two answers (L3).
    Doubled,
    /// A stream's versions have a gap or a repeat (L2).
    Gap,
    /// A record says what the records before it do not allow (L5).
    Wrong,
    /// A command that began after another was answered stands before it in the log.
    Stale,
    /// A command has a record though its sender was told that nothing happened.
    Happened,
    /// Time goes back within a shard (L7).
    Time,
    /// The log holds a command that nobody sent.
    Invented,
    /// A read model is not what the log adds up to (L8).
    ReadModel,
    /// A node, or the whole, did not behave: died, did not end in time, did not recover.
    Conduct,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.kind, self.what)
    }
}

/// What a run's histories add up to.
#[derive(Debug, Default)]
pub struct Findings {
    /// All that is wrong.
    pub violations: Vec<Violation>,
    /// Accepted records of commands.
    pub records: usize,
    /// Refusals among them.
    pub refusals: usize,
    /// The stock of each product at the end, and its stream's version.
    pub stock: BTreeMap<String, (i64, u64)>,
}

impl Findings {
    fn found(&mut self, kind: Kind, what: String) {
        self.violations.push(Violation { kind, what });
    }

    /// How many of a kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.violations.iter().filter(|found| found.kind == kind).count()
    }
}

/// Compares what was sent and told with the log, whose records come by shard and offset. `hash` is how the log names an
/// idempotency key.
#[must_use]
pub fn check(sent: &[Sent], log: &[Kept], hash: impl Fn(&str) -> String) -> Findings {
    let mut findings = Findings {
        records: log.len(),
        refusals: log.iter().filter(|kept| kept.refusal.is_some()).count(),
        ..Findings::default()
    };
    let asked: HashMap<(&str, String), &Sent> = sent
        .iter()
        .map(|sent| ((sent.stream.as_str(), hash(&sent.key)), sent))
        .collect();
    answers(sent, log, &mut findings);
    replay(log, &asked, &mut findings);
    real_time(sent, &mut findings);
    findings
}

/// Every answer is a record, at its place, that says the same.
fn answers(sent: &[Sent], log: &[Kept], findings: &mut Findings) {
    let placed: HashMap<(u32, u64), &Kept> =
        log.iter().map(|kept| ((kept.shard, kept.offset), kept)).collect();
    for sent in sent {
        if let (Some(told), Some(other)) = (&sent.told, &sent.other) {
            let what = format!("key {} was answered {told:?} and {other:?}", sent.key);
            findings.found(Kind::Doubled, what);
        }
        let Some(told) = &sent.told else { continue };
        match placed.get(&(told.shard, told.offset)) {
            Some(kept) if says(kept, sent, told) => {}
            Some(kept) => findings.found(
                Kind::Lost,
                format!("key {} was told {told:?}, and there stands {kept:?}", sent.key),
            ),
            None => findings.found(
                Kind::Lost,
                format!("key {} was told {told:?}: no such record", sent.key),
            ),
        }
    }
}

fn says(kept: &Kept, sent: &Sent, told: &Told) -> bool {
    kept.record == told.record && kept.stream == sent.stream && kept.verdict() == told.what
}

/// Every record follows from those before it in its stream, and was asked for once.
fn replay(log: &[Kept], asked: &HashMap<(&str, String), &Sent>, findings: &mut Findings) {
    let mut streams: HashMap<&str, Product> = HashMap::new();
    let mut keys: HashMap<(&str, &str), &Kept> = HashMap::new();
    let mut last: Option<&Kept> = None;
    for kept in log {
        if let Some(before) =
            last.filter(|before| before.shard == kept.shard && before.time_ms > kept.time_ms)
        {
            let what = format!(
                "{}:{} is at {} ms, behind {} ms",
                kept.shard, kept.offset, kept.time_ms, before.time_ms
            );
            findings.found(Kind::Time, what);
        }
        last = Some(kept);
        if let Some(first) = keys.insert((&kept.stream, &kept.key), kept) {
            let what = format!(
                "{} has {}:{} and {}:{} for one key",
                kept.stream, first.shard, first.offset, kept.shard, kept.offset
            );
            findings.found(Kind::Doubled, what);
        }
        let product = streams.entry(&kept.stream).or_default();
        if kept.version != product.version + 1 {
            let what = format!(
                "{} at {}:{} has version {} behind {}",
                kept.stream, kept.shard, kept.offset, kept.version, product.version
            );
            findings.found(Kind::Gap, what);
        }
        let sent = asked.get(&(kept.stream.as_str(), kept.key.clone())).copied();
        if sent.is_some_and(|sent| sent.nothing) {
            findings.found(
                Kind::Happened,
                format!("503 said that nothing happened, and there is {kept:?}"),
            );
        }
        if sent.is_none() && kept.command != "register" {
            findings.found(Kind::Invented, format!("nobody sent {kept:?}"));
        }
        let expected = product.decide(kept, sent);
        if expected != kept.verdict() {
            findings.found(
                Kind::Wrong,
                format!("{kept:?} should be {expected:?}, with {product:?} before it"),
            );
        }
        product.take(kept);
    }
    findings.stock = streams
        .into_iter()
        .map(|(stream, product)| (stream.to_owned(), (product.stock, product.version)))
        .collect();
}

/// A product as this checker understands it.
#[derive(Debug, Default)]
struct Product {
    registered: bool,
    stock: i64,
    version: u64,
}

impl Product {
    fn decide(&self, kept: &Kept, sent: Option<&Sent>) -> Verdict {
        if let Some(wanted) = sent.and_then(|sent| sent.if_version)
            && wanted != self.version
        {
            return Verdict::Mismatch {
                current: self.version,
            };
        }
        let rejected = |code: &str| Verdict::Rejected {
            code: code.to_owned(),
        };
        let refused = match sent.map(|sent| sent.ask) {
            None => self.registered.then(|| rejected("already_registered")),
            Some(_) if !self.registered => Some(rejected("unknown_product")),
            Some(Ask::Receive(_)) => None,
            Some(Ask::Remove(count)) => (count > self.stock).then(|| rejected("below_reserved")),
        };
        // What was asked for is what must have happened.
        let asked = match sent.map(|sent| sent.ask) {
            Some(Ask::Receive(count)) => count,
            Some(Ask::Remove(count)) => -count,
            None => 0,
        };
        match refused {
            None if kept.refusal.is_none() && kept.delta != asked => rejected("another command"),
            None => Verdict::Committed {
                version: self.version + 1,
            },
            Some(refused) => refused,
        }
    }

    fn take(&mut self, kept: &Kept) {
        if kept.refusal.is_none() {
            self.registered |= kept.command == "register";
            self.stock += kept.delta;
            self.version = (kept.version + kept.events).saturating_sub(1);
        }
    }
}

/// Real time: what began after an answer stands behind it, in each shard. With the log as the witness of order, that
/// makes every stream's history linearizable.
fn real_time(sent: &[Sent], findings: &mut Findings) {
    let mut shards: BTreeMap<u32, Vec<(&Sent, &Told)>> = BTreeMap::new();
    for sent in sent {
        if let Some(told) = &sent.told {
            shards.entry(told.shard).or_default().push((sent, told));
        }
    }
    for commands in shards.values() {
        let mut by_end = commands.clone();
        by_end.sort_by_key(|(sent, _)| sent.ended);
        let mut by_begin = commands.clone();
        by_begin.sort_by_key(|(sent, _)| sent.began);
        let mut ended = by_end.into_iter().peekable();
        let mut newest: Option<(&Sent, &Told)> = None;
        for (sent, told) in by_begin {
            while let Some(before) = ended.next_if(|(before, _)| before.ended < sent.began) {
                newest = match newest {
                    Some(known) if known.1.offset >= before.1.offset => Some(known),
                    _ => Some(before),
                };
            }
            if let Some((first, known)) = newest.filter(|(_, known)| known.offset > told.offset) {
                let what = format!(
                    "key {} began {:?} after key {} was answered with {}:{}, and stands at {}:{}",
                    sent.key,
                    sent.began.saturating_sub(first.ended),
                    first.key,
                    known.shard,
                    known.offset,
                    told.shard,
                    told.offset
                );
                findings.found(Kind::Stale, what);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The oracle: a second, plain reading of the log, record by record, with every invariant that can be seen there.
//!
//! It has a fold of its own, written from the table in `annals_record::fold` without looking at the code below it,
//! and replays the accepted history through the plain form of the domain. *Source:* the log's design, "Invariants".

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_log::{Checkpoint, Placed};
use annals_record::fold::Head;
use annals_record::record::{Meta, Slot};
use annals_record::value::{EntryView, OutcomeView};
use annals_record::{Hash32, KeyHash, Offset, RecordId, StreamId, hash};

use super::domain::{Told, decide, key_hash};
use super::history::{History, KeyRule, who};
use super::{Check, Violation};

/// A node in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Author {
    pub(crate) node: usize,
    pub(crate) life: u32,
}

/// An accepted commit or refusal.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) id: RecordId,
    pub(crate) attempt: usize,
    pub(crate) key: KeyHash,
    pub(crate) time_ms: i64,
    /// What whoever sent it must be told.
    pub(crate) told: Told,
    pub(crate) version_after: u64,
}

/// A stream behind one of its records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) next: Offset,
    pub(crate) sum: i64,
    pub(crate) version: u64,
}

#[derive(Debug, Default)]
struct StreamTruth {
    /// Behind each of its records, oldest first.
    points: Vec<Point>,
    facts: Vec<Offset>,
}

/// What stands in the log and what it means.
#[derive(Debug)]
pub(crate) struct Truth {
    genesis: Hash32,
    pub(crate) placed: Vec<Arc<Placed>>,
    /// In front of each offset.
    checkpoints: Vec<Checkpoint>,
    facts: BTreeMap<Offset, Fact>,
    by_id: BTreeMap<RecordId, Offset>,
    streams: BTreeMap<StreamId, StreamTruth>,
    /// Who handed a record to the log, and under which epoch.
    authors: BTreeMap<RecordId, (Author, u64)>,
    /// Whose each epoch is; epoch 1 first.
    owners: Vec<Author>,
    /// The chain after each count of accepted records.
    chains: Vec<Hash32>,
    rule: KeyRule,
    judges: bool,
    /// Records that are not the successor of what was accepted: every reader raises an alarm.
    pub(crate) unchained: u64,
}

impl Truth {
    pub(crate) fn new(genesis: Hash32, rule: KeyRule) -> Self {
        Self {
            genesis,
            placed: Vec::new(),
            checkpoints: vec![Checkpoint::genesis(Head::at_genesis(genesis))],
            facts: BTreeMap::new(),
            by_id: BTreeMap::new(),
            streams: BTreeMap::new(),
            authors: BTreeMap::new(),
            owners: Vec::new(),
            chains: vec![genesis],
            rule,
            judges: true,
            unchained: 0,
        }
    }

    pub(crate) fn genesis(&self) -> Hash32 {
        self.genesis
    }

    pub(crate) fn rule(&self) -> KeyRule {
        self.rule
    }

    pub(crate) fn head(&self) -> &Head {
        &self.checkpoint().head
    }

    /// Behind everything.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        self.checkpoints
            .last()
            .expect("there is one in front of offset 0")
    }

    /// In front of `next`; `None` beyond the end.
    pub(crate) fn checkpoint_at(&self, next: Offset) -> Option<&Checkpoint> {
        self.checkpoints.get(index(next))
    }

    pub(crate) fn end(&self) -> Offset {
        self.head().next
    }

    pub(crate) fn fact(&self, offset: Offset) -> Option<&Fact> {
        self.facts.get(&offset)
    }

    /// Accepted commits and refusals in an interval of offsets.
    pub(crate) fn facts_in(&self, from: Offset, to: Offset) -> impl Iterator<Item = (Offset, &Fact)> {
        self.facts.range(from..to).map(|(offset, fact)| (*offset, fact))
    }

    /// The accepted records of a key.
    pub(crate) fn of_key(&self, stream: &StreamId, key: u32) -> impl Iterator<Item = (Offset, &Fact)> {
        let key = key_hash(key);
        let of_stream = self.streams.get(stream).into_iter().flat_map(|s| &s.facts);
        of_stream
            .map(|offset| (*offset, &self.facts[offset]))
            .filter(move |(_, fact)| fact.key == key)
    }

    /// The stream as its records below `offset` make it.
    pub(crate) fn stream_at(&self, stream: &StreamId, offset: Offset) -> Point {
        let points = self.streams.get(stream).map_or(&[][..], |s| &s.points);
        let behind = points.iter().rev().find(|point| point.next <= offset);
        behind.copied().unwrap_or(Point {
            next: Offset::new(0),
            sum: 0,
            version: 0,
        })
    }

    /// The time of a stream's newest record below `offset`.
    pub(crate) fn newest_below(&self, stream: &StreamId, offset: Offset) -> Option<i64> {
        let facts = self.streams.get(stream).map_or(&[][..], |s| &s.facts);
        let newest = facts.iter().rev().find(|at| **at < offset)?;
        self.facts.get(newest).map(|fact| fact.time_ms)
    }

    /// The version of a stream at the end of the log.
    pub(crate) fn version(&self, stream: &StreamId) -> u64 {
        self.stream_at(stream, self.end()).version
    }

    pub(crate) fn authored(&mut self, record: RecordId, author: Author, epoch: u64) {
        self.authors.insert(record, (author, epoch));
    }

    pub(crate) fn author(&self, record: RecordId) -> Option<Author> {
        self.authors.get(&record).map(|(author, _)| *author)
    }

    /// Whose the current epoch is.
    pub(crate) fn owner_of(&self, epoch: u64) -> Option<Author> {
        self.owners
            .get(usize::try_from(epoch.checked_sub(1)?).ok()?)
            .copied()
    }

    /// Whether a record does not count and never will: a later claim counts, or a close.
    pub(crate) fn can_never_count(&self, record: RecordId) -> bool {
        let epoch = self.authors.get(&record).map_or(0, |(_, epoch)| *epoch);
        !self.by_id.contains_key(&record) && (self.head().epoch.get() > epoch || self.head().closed)
    }

    /// The offsets of everything that counts.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = Offset> {
        let counts = self.checkpoints.iter().skip(1).filter(|at| !at.last_ghost);
        counts.filter_map(|at| at.head.next.get().checked_sub(1).map(Offset::new))
    }

    /// The log was tampered with: reads all of it again, and no longer judges what it says.
    pub(crate) fn read_again(&mut self, placed: Vec<Arc<Placed>>) {
        let authors = std::mem::take(&mut self.authors);
        *self = Self {
            authors,
            judges: false,
            ..Self::new(self.genesis, self.rule)
        };
        for placed in placed {
            self.fold(&placed, self.counts(&placed.slot).unwrap_or(false));
            self.placed.push(placed);
        }
    }

    /// Takes in what landed.
    pub(crate) fn absorb(&mut self, landed: Vec<Arc<Placed>>, history: &History) -> Check {
        for placed in landed {
            // A claim that saw another history ends every reader of a log that was tampered with; the oracle goes on.
            let counts = match self.counts(&placed.slot) {
                Err(_) if !self.judges => false,
                counts => counts?,
            };
            if counts && self.judges {
                self.judge(&placed, history)?;
            }
            self.fold(&placed, counts);
            self.placed.push(placed);
        }
        Ok(())
    }

    /// Whether a record counts, by the table.
    fn counts(&self, slot: &Slot) -> Result<bool, Violation> {
        let head = self.head();
        let Some(record) = slot.known().filter(|_| !head.closed) else {
            return Ok(false);
        };
        let (epoch, prev) = match &record.meta {
            Meta::Claim(claim) => {
                if claim.genesis != self.genesis || claim.epoch.get() != head.epoch.get() + 1 {
                    return Ok(false);
                }
                let seen = usize::try_from(claim.seen.accepted)
                    .ok()
                    .and_then(|n| self.chains.get(n));
                if seen != Some(&claim.seen.chain) {
                    return Violation::of("L9", format!("claim {} saw another history", claim.id));
                }
                return Ok(true);
            }
            Meta::Commit(entry) | Meta::Refusal(entry) => (entry.epoch, entry.prev),
            Meta::Close(close) => (close.epoch, close.prev),
        };
        Ok(epoch == head.epoch && prev == head.chain && record.timestamp_ms >= head.time_ms)
    }

    fn fold(&mut self, placed: &Placed, counts: bool) {
        let mut head = *self.head();
        let epoch = placed
            .slot
            .known()
            .filter(|record| record.prev().is_some())
            .map(annals_record::Record::epoch);
        if !counts && !head.closed && epoch.is_some_and(|epoch| epoch >= head.epoch) {
            self.unchained += 1;
        }
        if counts && let Some(record) = placed.slot.known() {
            match &record.meta {
                Meta::Claim(claim) => {
                    head.epoch = claim.epoch;
                    let author = self.author(claim.id).expect("only nodes claim");
                    self.owners.push(author);
                }
                Meta::Commit(_) | Meta::Refusal(_) => head.time_ms = record.timestamp_ms,
                Meta::Close(_) => {
                    head.time_ms = record.timestamp_ms;
                    head.closed = true;
                }
            }
            self.by_id.insert(record.id(), placed.offset);
            head.accepted += 1;
            head.chain = hash::chain(head.chain, placed.hash);
            self.chains.push(head.chain);
        }
        head.next = placed.offset.next();
        self.checkpoints.push(Checkpoint {
            head,
            last_hash: placed.hash,
            last_ghost: !counts,
        });
    }

    /// L2, L3, L5, L7 and one owner an epoch, at an accepted commit or refusal.
    fn judge(&mut self, placed: &Placed, history: &History) -> Check {
        let offset = placed.offset;
        let record = placed.slot.known().expect("only well-formed records count");
        let (Some(entry), Some(stream)) = (record.entry().copied(), record.stream.clone()) else {
            return Ok(());
        };
        let author = self.author(entry.id).expect("only nodes write commits");
        let owner = self.owner_of(entry.epoch.get());
        if owner != Some(author) {
            let owner = owner.map_or("nobody".to_owned(), who);
            let what = format!(
                "{} writes in epoch {} of {owner}, at {offset}",
                who(author),
                entry.epoch
            );
            return Violation::of("one owner", what);
        }
        if record.timestamp_ms < self.head().time_ms {
            return Violation::of("L7", format!("time falls at {offset}"));
        }
        let before = self.stream_at(&stream, offset);
        if entry.version.get() != before.version + 1 {
            let what = format!(
                "{stream} goes on with version {} after {}, at {offset}",
                entry.version, before.version
            );
            return Violation::of("L2", what);
        }
        let view = EntryView::parse(&record.value).map_err(|error| {
            Violation::new("L2", format!("the record at {offset} does not read: {error}"))
        })?;
        let attempt: usize = view.correlation.parse().expect("the simulation's own");
        let asked = &history.attempts[attempt];
        let order = &history.orders[asked.order];
        if offset.get() < asked.floor {
            let what = format!(
                "attempt {attempt} began after offset {} was acknowledged, and counts at {offset}",
                asked.floor - 1
            );
            return Violation::of("real time", what);
        }
        self.not_remembered(&stream, entry.idempotency_key, record.timestamp_ms, offset)?;
        if order.foreign {
            return Violation::of("L5", format!("a command that nobody may send counts at {offset}"));
        }
        let (told, sum) = decide(before.sum, before.version, order.verb, order.precondition);
        if !is_recorded(&view.outcome, &told) {
            let what = format!(
                "attempt {attempt} at {offset} says {:?}; on the state there it is {told:?}",
                view.outcome
            );
            return Violation::of("L5", what);
        }
        let version = before.version + u64::from(entry.count);
        let of_stream = self.streams.entry(stream.clone()).or_default();
        of_stream.points.push(Point {
            next: offset.next(),
            sum,
            version,
        });
        of_stream.facts.push(offset);
        let fact = Fact {
            id: entry.id,
            attempt,
            key: entry.idempotency_key,
            time_ms: record.timestamp_ms,
            told,
            version_after: version,
        };
        self.facts.insert(offset, fact);
        Ok(())
    }

    /// The keys that a stream must remember for a record of this time: where each stands, newest first.
    pub(crate) fn remembered(
        &self,
        stream: &StreamId,
        time_ms: i64,
    ) -> impl Iterator<Item = (Offset, &Fact)> {
        let facts = self.streams.get(stream).map_or(&[][..], |s| &s.facts);
        let newest = facts.iter().rev().take(self.rule.records);
        newest
            .map(|offset| (*offset, &self.facts[offset]))
            .take_while(move |(_, fact)| fact.time_ms >= time_ms - self.rule.lifetime_ms)
    }

    fn not_remembered(&self, stream: &StreamId, key: KeyHash, time_ms: i64, offset: Offset) -> Check {
        match self.remembered(stream, time_ms).find(|(_, fact)| fact.key == key) {
            Some((first, _)) => Violation::of(
                "L3",
                format!("the key of {first} counts again at {offset}, while it is remembered"),
            ),
            None => Ok(()),
        }
    }
}

fn is_recorded(outcome: &OutcomeView<'_>, told: &Told) -> bool {
    match (outcome, told) {
        (OutcomeView::Events(events), Told::Committed(expected)) => {
            events.len() == expected.len() && events.iter().zip(expected).all(|(e, x)| e.type_name == *x)
        }
        (OutcomeView::Refusal(refusal), Told::Rejected { code, detail }) => {
            refusal.code == *code && refusal.detail.get() == detail
        }
        (OutcomeView::Refusal(refusal), Told::Mismatch { current }) => {
            refusal.code == annals_domain::VERSION_MISMATCH
                && refusal.detail.get() == format!("{{\"current\":{current}}}")
        }
        (OutcomeView::Events(_) | OutcomeView::Refusal(_), _) => false,
    }
}

/// An offset as an index.
pub(crate) fn index(offset: Offset) -> usize {
    usize::try_from(offset.get()).expect("an offset in memory")
}

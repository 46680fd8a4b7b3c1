//! What the clients asked, and what they were told: checked answer by answer against what stands in the log.
//!
//! A command is sent, forwarded once at most, and sent again with its key for as long as nobody knows its outcome.
//! Everything that an answer or an error claims is held against the log at that very moment.

use std::collections::BTreeMap;

use annals_command::{Answer, Outcome, SendError};
use annals_domain::Precondition;
use annals_record::{Offset, RecordId, StreamId};

use super::domain::{Told, Verb};
use super::truth::{Author, Truth};
use super::{Check, Violation};

/// One command of a client, however often it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) stream: StreamId,
    pub(crate) verb: Verb,
    pub(crate) precondition: Precondition,
    pub(crate) key: u32,
    /// Sent by a caller whose stream it is not.
    pub(crate) foreign: bool,
    /// Whether a final answer has reached the client.
    pub(crate) settled: bool,
    /// The attempt that the client waits for.
    pub(crate) waits_for: Option<usize>,
}

impl Order {
    /// Whether the two have one fingerprint.
    fn is_same_command(&self, other: &Self) -> bool {
        self.verb == other.verb && self.precondition == other.precondition && self.foreign == other.foreign
    }
}

/// One request for an order, through as many nodes as it was forwarded.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) order: usize,
    /// Whatever was acknowledged before it began stands below this offset.
    pub(crate) floor: u64,
    pub(crate) forwarded: bool,
    /// The records that were made for it.
    pub(crate) records: Vec<RecordId>,
}

/// A command in the hands of one node.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) attempt: usize,
    pub(crate) node: usize,
    /// The log's time as that node had folded it when it got the command.
    pub(crate) time_ms: i64,
    /// When it got it, by the world's clock.
    pub(crate) since_ms: i64,
    pub(crate) answered: bool,
}

/// What the client does with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The command has its answer.
    Settled,
    /// It may be sent again.
    Again,
    /// This node says that another one owns the shard.
    Forward,
}

/// Everything that was asked.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) orders: Vec<Order>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) handed: BTreeMap<u64, Handed>,
    next_token: u64,
    /// Everything acknowledged stands below it.
    pub(crate) floor: u64,
    /// What was acknowledged: where, and which record.
    pub(crate) acknowledged: Vec<(Offset, RecordId)>,
    /// Whether answers are judged: on a log that was tampered with nothing is promised.
    pub(crate) judges: bool,
}

impl Default for History {
    fn default() -> Self {
        Self {
            orders: Vec::new(),
            attempts: Vec::new(),
            handed: BTreeMap::new(),
            next_token: 0,
            floor: 0,
            acknowledged: Vec::new(),
            judges: true,
        }
    }
}

impl History {
    pub(crate) fn begin(&mut self, order: usize) -> usize {
        self.attempts.push(Attempt {
            order,
            floor: self.floor,
            forwarded: false,
            records: Vec::new(),
        });
        let attempt = self.attempts.len() - 1;
        self.orders[order].waits_for = Some(attempt);
        attempt
    }

    /// A node gets an attempt.
    pub(crate) fn hand(&mut self, attempt: usize, node: usize, now_ms: i64) -> u64 {
        self.next_token += 1;
        let handed = Handed {
            attempt,
            node,
            time_ms: i64::MIN / 2,
            since_ms: now_ms,
            answered: false,
        };
        self.handed.insert(self.next_token, handed);
        self.next_token
    }

    /// Clients give up what they sent before this; the commands go on.
    pub(crate) fn time_out(&mut self, before_ms: i64) {
        for handed in self
            .handed
            .values()
            .filter(|handed| !handed.answered && handed.since_ms < before_ms)
        {
            self.orders[self.attempts[handed.attempt].order].stop_waiting(handed.attempt);
        }
    }

    /// A node is gone: nobody hears from it any more.
    pub(crate) fn lost(&mut self, node: usize) {
        for handed in self.handed.values_mut().filter(|handed| handed.node == node) {
            if !std::mem::replace(&mut handed.answered, true) {
                self.orders[self.attempts[handed.attempt].order].stop_waiting(handed.attempt);
            }
        }
    }

    /// A record is being made for an attempt: whatever was made for it before must not count, now or ever.
    pub(crate) fn records(&mut self, attempt: usize, record: RecordId, truth: &Truth) -> Check {
        self.nothing_counts(attempt, truth, "decides a command anew")?;
        self.attempts[attempt].records.push(record);
        Ok(())
    }

    fn nothing_counts(&self, attempt: usize, truth: &Truth, who: &str) -> Check {
        for record in self.attempts[attempt].records.iter().filter(|_| self.judges) {
            if !truth.can_never_count(*record) {
                return Violation::of(
                    "settling",
                    format!("a node {who} (attempt {attempt}) whose record {record} counts, or still may"),
                );
            }
        }
        Ok(())
    }

    /// A node answers. Checks everything that the answer says.
    pub(crate) fn answered(
        &mut self,
        token: u64,
        result: &Result<Answer, SendError>,
        truth: &Truth,
        keys: KeyRule,
    ) -> Result<(usize, Next), Violation> {
        let Some(handed) = self.handed.get_mut(&token) else {
            return Violation::of("replies", format!("an answer to {token}, which was never sent"));
        };
        if std::mem::replace(&mut handed.answered, true) {
            return Violation::of(
                "replies",
                format!("a second answer to attempt {}", handed.attempt),
            );
        }
        let handed = handed.clone();
        let attempt = handed.attempt;
        let next = match result {
            Ok(_) if !self.judges => Next::Settled,
            Err(SendError::NotOwner { .. }) if !self.judges => Next::Forward,
            Err(_) if !self.judges => Next::Again,
            Ok(answer) => {
                self.committed(&handed, answer, truth, keys)?;
                Next::Settled
            }
            Err(SendError::OutcomeUnknown) => Next::Again,
            Err(SendError::Internal | SendError::TooLarge { .. } | SendError::RefusalBudget { .. }) => {
                return Violation::of("replies", format!("attempt {attempt} got {result:?}"));
            }
            Err(error) => {
                self.nothing_counts(attempt, truth, "says that nothing happened to a command")?;
                self.refused(&handed, error, truth, keys)?
            }
        };
        let order = self.attempts[attempt].order;
        if next == Next::Settled {
            self.orders[order].settled = true;
        }
        if next != Next::Forward {
            self.orders[order].stop_waiting(attempt);
        }
        Ok((attempt, next))
    }

    fn refused(
        &self,
        handed: &Handed,
        error: &SendError,
        truth: &Truth,
        keys: KeyRule,
    ) -> Result<Next, Violation> {
        let order = &self.orders[self.attempts[handed.attempt].order];
        match error {
            SendError::NotOwner { .. } => Ok(Next::Forward),
            SendError::Forbidden if order.foreign => Ok(Next::Settled),
            SendError::KeyReused => {
                let used_by_another = truth.of_key(&order.stream, order.key).any(|(_, fact)| {
                    !self.orders[self.attempts[fact.attempt].order].is_same_command(order)
                        && fact.time_ms >= handed.time_ms - keys.lifetime_ms
                });
                if !used_by_another {
                    return Violation::of(
                        "keys",
                        format!(
                            "attempt {} is told that its key was used for another command",
                            handed.attempt
                        ),
                    );
                }
                Ok(Next::Settled)
            }
            SendError::ShardHalted if truth.head().closed => Ok(Next::Settled),
            SendError::ShardHalted | SendError::Forbidden => Violation::of(
                "replies",
                format!("attempt {} got {error:?} without a cause", handed.attempt),
            ),
            _ => Ok(Next::Again),
        }
    }

    fn committed(&mut self, handed: &Handed, answer: &Answer, truth: &Truth, keys: KeyRule) -> Check {
        let attempt = handed.attempt;
        let order = &self.orders[self.attempts[attempt].order];
        let offset = answer.position.offset;
        let Some(fact) = truth.fact(offset).filter(|fact| fact.id == answer.record) else {
            return Violation::of(
                "L6",
                format!(
                    "attempt {attempt} is answered from {}, and no such record counts there",
                    answer.position
                ),
            );
        };
        let of = &self.orders[self.attempts[fact.attempt].order];
        if of.stream != order.stream || of.key != order.key || !of.is_same_command(order) {
            return Violation::of(
                "replies",
                format!("attempt {attempt} gets the answer of another command, at {offset}"),
            );
        }
        if fact.attempt != attempt && !answer.replayed {
            return Violation::of(
                "replies",
                format!("attempt {attempt} gets a first answer that is not its own"),
            );
        }
        if fact.attempt != attempt && fact.time_ms < handed.time_ms - keys.lifetime_ms {
            return Violation::of(
                "keys",
                format!(
                    "attempt {attempt} is replayed the record at {offset}, of {} ms, though the log was at {} ms",
                    fact.time_ms, handed.time_ms
                ),
            );
        }
        if !says(answer, &fact.told) || answer.version.get() != fact.version_after {
            return Violation::of(
                "L5",
                format!(
                    "attempt {attempt} is told {answer:?}; by the log it is {:?}",
                    fact.told
                ),
            );
        }
        self.floor = self.floor.max(offset.get() + 1);
        self.acknowledged.push((offset, answer.record));
        Ok(())
    }
}

impl Order {
    fn stop_waiting(&mut self, attempt: usize) {
        if self.waits_for == Some(attempt) {
            self.waits_for = None;
        }
    }
}

/// For how long a key must be remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRule {
    pub(crate) lifetime_ms: i64,
    pub(crate) records: usize,
}

fn says(answer: &Answer, told: &Told) -> bool {
    match (&answer.outcome, told) {
        (Outcome::Committed(events), Told::Committed(expected)) => {
            events.len() == expected.len()
                && events
                    .iter()
                    .zip(expected)
                    .all(|(event, expected)| event.event_type == **expected)
        }
        (Outcome::Rejected { code, detail }, Told::Rejected { code: c, detail: d }) => {
            code == c && detail.get() == d
        }
        (Outcome::VersionMismatch { current }, Told::Mismatch { current: c }) => current.get() == *c,
        (Outcome::Committed(_) | Outcome::Rejected { .. } | Outcome::VersionMismatch { .. }, _) => false,
    }
}

/// Who made a record: a node, and which of its lives.
pub(crate) fn who(author: Author) -> String {
    format!("node {} (life {})", author.node, author.life)
}

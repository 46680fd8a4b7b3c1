//! Appends on their way to the log in memory: each lands when it lands, and is answered when and as it may be.
//!
//! A session is one producer (Kafka) or one connection (Postgres) of a node. Within a session order holds; a claim
//! takes a new one, and what an old one still carries may land at any later time, or never.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_log::writer::AppendId;
use annals_log::{Appended, Hashed, Log, LogError, MemoryLog, Plays};
use annals_record::fold::Head;
use annals_record::record::{RawRecord, Record, Slot};
use annals_record::{Offset, RecordId, Shard};
use bytes::Bytes;
use futures_util::FutureExt;

use super::plan::Faults;
use super::rng::Rng;
use super::truth::Author;

/// The only shard.
pub(crate) const SHARD: Shard = Shard::new(0);

/// One append that was handed over.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) append: AppendId,
    at: Head,
    records: VecDeque<Arc<Record>>,
    landed: Vec<(RecordId, Offset)>,
    /// A record of it is missing.
    spoiled: bool,
    /// Its answer was given: Unknown, while it was still under way.
    pub(crate) answered: bool,
}

/// A producer or a connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) author: Author,
    pub(crate) sent: VecDeque<Sent>,
}

/// An answer to an append.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) author: Author,
    pub(crate) append: AppendId,
    pub(crate) result: Appended,
}

/// Every session that carries something, and the log behind them.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) log: MemoryLog,
    plays: Plays,
    pub(crate) sessions: Vec<Session>,
}

impl Wire {
    pub(crate) fn new(log: MemoryLog, plays: Plays) -> Self {
        Self {
            log,
            plays,
            sessions: Vec::new(),
        }
    }

    /// Takes an append over; `anew` takes a new session for it.
    pub(crate) fn send(
        &mut self,
        author: Author,
        append: AppendId,
        at: Head,
        records: Vec<Hashed>,
        anew: bool,
    ) {
        let sent = Sent {
            append,
            at,
            records: records.into_iter().map(|hashed| hashed.record).collect(),
            landed: Vec::new(),
            spoiled: false,
            answered: false,
        };
        let newest = self
            .sessions
            .iter_mut()
            .rev()
            .find(|session| session.author == author);
        match newest {
            Some(session) if !anew => session.sent.push_back(sent),
            Some(_) | None => self.sessions.push(Session {
                author,
                sent: VecDeque::from([sent]),
            }),
        }
    }

    /// The next thing happens to the first append of a session; an answer may follow from it.
    pub(crate) fn progress(&mut self, session: usize, rng: &mut Rng, faults: &Faults) -> Option<Answered> {
        let author = self.sessions[session].author;
        let sent = self.sessions[session].sent.front_mut()?;
        let result = if sent.landed.is_empty() && !sent.answered && rng.chance(faults.not_written) {
            sent.records.clear();
            Some(Appended::NotWritten(lost()))
        } else {
            match self.plays {
                Plays::Postgres => {
                    let records = std::mem::take(&mut sent.records).into();
                    Some(append(&self.log, sent.at, records))
                }
                Plays::Kafka => land_next(&self.log, sent, rng, faults),
            }
        };
        // One that is told to have failed may have happened all the same.
        let result = match result {
            Some(Appended::NotWritten(error)) => Some(Appended::NotWritten(error)),
            Some(_) if rng.chance(faults.unknown) => Some(Appended::Unknown(lost())),
            other => other,
        };
        let result = result?;
        let sent = self.sessions[session].sent.pop_front()?;
        self.forget_empty();
        (!sent.answered).then_some(Answered {
            author,
            append: sent.append,
            result,
        })
    }

    /// Nobody waits for one append of a session any longer; it stays under way.
    pub(crate) fn give_up(&mut self, session: usize, rng: &mut Rng) -> Option<Answered> {
        let session = &mut self.sessions[session];
        let open = rng.below(session.sent.len());
        let sent = &mut session.sent[open];
        (!std::mem::replace(&mut sent.answered, true)).then_some(Answered {
            author: session.author,
            append: sent.append,
            result: Appended::Unknown(lost()),
        })
    }

    /// What a session still carries behind answers that were given never happens.
    pub(crate) fn drop_rest(&mut self, session: usize) -> usize {
        let of = &mut self.sessions[session];
        let dropped = if of.sent.iter().all(|sent| sent.answered) {
            std::mem::take(&mut of.sent).len()
        } else {
            0
        };
        self.forget_empty();
        dropped
    }

    /// The node is gone: nobody hears the answers.
    pub(crate) fn orphan(&mut self, author: Author) {
        for session in self
            .sessions
            .iter_mut()
            .filter(|session| session.author == author)
        {
            session.sent.iter_mut().for_each(|sent| sent.answered = true);
        }
    }

    /// Somebody else's bytes.
    pub(crate) fn foreign(&self, rng: &mut Rng) {
        self.log.insert(
            SHARD,
            RawRecord {
                key: None,
                timestamp_ms: 0,
                value: Some(Bytes::copy_from_slice(&rng.next().to_be_bytes())),
                headers: Vec::new(),
            },
        );
    }

    fn forget_empty(&mut self) {
        self.sessions.retain(|session| !session.sent.is_empty());
    }
}

fn land_next(log: &MemoryLog, sent: &mut Sent, rng: &mut Rng, faults: &Faults) -> Option<Appended> {
    if let Some(record) = sent.records.pop_front() {
        if rng.chance(faults.hole) {
            sent.spoiled = true;
        } else {
            let copies = if rng.chance(faults.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                if let Appended::Landed(places) = append(log, sent.at, vec![Arc::clone(&record)]) {
                    sent.landed.extend(places);
                }
            }
            // Each record at one place: the last that the broker told.
            if copies == 2 {
                let first = sent.landed.len() - 2;
                sent.landed.remove(first);
            }
        }
    }
    if !sent.records.is_empty() {
        return None;
    }
    Some(if sent.spoiled {
        Appended::Unknown(lost())
    } else {
        Appended::Landed(std::mem::take(&mut sent.landed))
    })
}

fn append(log: &MemoryLog, at: Head, records: Vec<Arc<Record>>) -> Appended {
    log.append(SHARD, at, records)
        .now_or_never()
        .expect("an append in memory is done at once")
}

fn lost() -> LogError {
    LogError::Unavailable("by plan".to_owned())
}

/// The bytes of a slot, to be put elsewhere.
pub(crate) fn raw(slot: &Slot) -> RawRecord {
    match slot {
        Slot::Known(record) => record.to_raw(),
        Slot::UnknownFormat { raw, .. } | Slot::Foreign(raw) => raw.clone(),
    }
}

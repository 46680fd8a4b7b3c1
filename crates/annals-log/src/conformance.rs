//! The promises of [`Log`], one function each, to be kept by every implementation and every broker.
//!
//! A tests' runner and `log check --broker` call the same functions. Each promise has a shard of its own, which must
//! be empty; nothing is cleaned up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use annals_record::fold::{Fold, Head};
use annals_record::record::{Record, Slot};
use annals_record::{Epoch, Hash32, Offset, Shard, hash};
use async_trait::async_trait;
use tokio::time::timeout;

use crate::testing::Chained;
use crate::{Appended, Log, LogError, Placed, ReadLimits};

/// A log to be looked at.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The log; its first [`promises`] many shards are empty.
    fn log(&self) -> Arc<dyn Log>;
    /// The same log as another process sees it: opened anew, with nothing in memory.
    async fn another(&self) -> Arc<dyn Log>;
    /// Whether it compares heads and refuses what the fold would pass over (Postgres), or lets everything land (Kafka).
    fn compares(&self) -> bool;
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(String);

/// What became of a promise.
pub type Kept = Result<(), Broken>;

/// A promise, begun on a subject and an empty shard.
pub type Check = for<'a> fn(&'a dyn Subject, Chained) -> Pin<Box<dyn Future<Output = Kept> + Send + 'a>>;

/// Longer than any append or read of one promise may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough for a read that has to find something.
const PATIENT: ReadLimits = ReadLimits {
    records: 100,
    bytes: 1 << 20,
    wait: Duration::from_secs(30),
};

macro_rules! hold {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(Broken(format!($($what)+)));
        }
    };
}

/// Every promise with its name.
pub fn promises() -> Vec<(&'static str, Check)> {
    macro_rules! list {
        ($($name:ident),+ $(,)?) => {
            vec![$((stringify!($name), |subject, chained| Box::pin($name(subject, chained)))),+]
        };
    }
    list![
        appends_land_in_the_order_of_the_calls,
        offsets_are_dense_and_a_read_begins_anywhere,
        limits_bound_a_read,
        a_read_waits_and_is_woken,
        an_empty_read_is_not_an_end,
        the_end_is_the_durable_part,
        a_moved_head_is_told_and_writes_nothing,
        what_does_not_chain_never_counts,
        of_two_writers_only_what_chains_counts,
        large_records_come_back_whole,
        bytes_come_back_exactly,
        another_process_sees_the_same,
    ]
}

/// Looks at every promise in turn, each on a shard of its own.
///
/// # Errors
/// What [`Log::describe`] says; a broken promise is a line of the answer.
pub async fn run(subject: &dyn Subject) -> Result<Vec<(&'static str, Kept)>, LogError> {
    let description = subject.log().describe().await?;
    let mut kept = Vec::new();
    for ((name, check), shard) in promises().into_iter().zip(description.shards.shards()) {
        let chained = Chained::new(description.app.clone(), shard, description.shards);
        let done = timeout(PATIENCE, check(subject, chained)).await;
        let done = done.unwrap_or_else(|_| Err(Broken(format!("not done within {PATIENCE:?}"))));
        kept.push((name, done));
    }
    Ok(kept)
}

/// Several appends may be under way; they land in the order in which they were handed over.
pub async fn appends_land_in_the_order_of_the_calls(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let log = subject.log();
    append(&*log, &mut writer, |w| vec![w.claim()]).await?;
    let mut under_way = Vec::new();
    for version in 1..=40 {
        let at = writer.head();
        let record = writer.commit("conformance-order", version, 1);
        under_way.push((at.next, record.id(), log.append(writer.shard(), at, vec![record])));
    }
    for (offset, id, answer) in under_way {
        let landed = landed(answer.await)?;
        hold!(landed == [(id, offset)], "{landed:?} instead of {offset}");
    }
    count(subject, &writer, 41).await
}

/// Offsets begin at 0 and have no gap; a read gives the record that it asked for first.
pub async fn offsets_are_dense_and_a_read_begins_anywhere(
    subject: &dyn Subject,
    mut writer: Chained,
) -> Kept {
    let log = subject.log();
    append(&*log, &mut writer, |w| {
        vec![w.claim(), w.commit("conformance-dense", 1, 1)]
    })
    .await?;
    append(&*log, &mut writer, |w| vec![w.refusal("conformance-dense", 2)]).await?;
    for log in [log, subject.another().await] {
        for from in 0..3 {
            let read = read_to(&*log, writer.shard(), from, 3).await?;
            let offsets: Vec<u64> = read.iter().map(|placed| placed.offset.get()).collect();
            hold!(
                offsets == (from..3).collect::<Vec<_>>(),
                "from {from}: {offsets:?}"
            );
        }
    }
    Ok(())
}

/// A read brings no more than it may, but one record always.
pub async fn limits_bound_a_read(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let log = subject.log();
    let sized = |w: &mut Chained| {
        (1..=6)
            .map(|_| w.commit_sized("conformance-limits", 1, 10_000))
            .collect()
    };
    append(&*log, &mut writer, sized).await?;
    for log in [log, subject.another().await] {
        let limits = |records, bytes| ReadLimits {
            records,
            bytes,
            ..PATIENT
        };
        for (limits, most) in [
            (limits(2, 1 << 20), 2),
            (limits(100, 25_000), 3),
            (limits(100, 1), 1),
        ] {
            let read = log
                .read(writer.shard(), Offset::new(0), limits)
                .await
                .map_err(broken)?;
            hold!(
                !read.is_empty() && read.len() <= most,
                "{limits:?}: {} records",
                read.len()
            );
        }
    }
    Ok(())
}

/// A read at the end waits, and an append of this or of another process wakes it.
pub async fn a_read_waits_and_is_woken(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let log = subject.log();
    let shard = writer.shard();
    for reader in [subject.log(), subject.another().await] {
        let from = writer.head().next;
        let (read, appended) = tokio::join!(
            reader.read(shard, from, PATIENT),
            append(&*log, &mut writer, |w| vec![w.claim()]),
        );
        appended?;
        let read = read.map_err(broken)?;
        hold!(
            read.first().map(|placed| placed.offset) == Some(from),
            "{read:?} at {from}"
        );
    }
    Ok(())
}

/// A read that times out says nothing; only one beyond the end is an error.
pub async fn an_empty_read_is_not_an_end(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let (log, shard) = (subject.log(), writer.shard());
    append(&*log, &mut writer, |w| vec![w.claim()]).await?;
    let brief = ReadLimits {
        wait: Duration::from_millis(20),
        ..PATIENT
    };
    let read = log.read(shard, Offset::new(1), brief).await.map_err(broken)?;
    hold!(read.is_empty(), "{read:?} at the end");
    let beyond = log.read(shard, Offset::new(5), brief).await;
    let end = Offset::new(1);
    hold!(
        matches!(&beyond, Err(LogError::BeyondEnd { end: found, .. }) if *found == end),
        "{beyond:?} beyond the end"
    );
    append(&*log, &mut writer, |w| vec![w.commit("conformance-end", 1, 1)]).await?;
    read_to(&*log, shard, 1, 2).await.map(drop)
}

/// The end counts what has landed, at once and for everyone, and all below it can be read.
pub async fn the_end_is_the_durable_part(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let (log, another, shard) = (subject.log(), subject.another().await, writer.shard());
    let end = log.end(shard).await.map_err(broken)?;
    hold!(end == Offset::new(0), "an empty shard ends at {end}");
    for n in 1..=3 {
        append(&*log, &mut writer, |w| vec![w.commit("conformance-end", n, 1)]).await?;
        for log in [&log, &another] {
            let end = log.end(shard).await.map_err(broken)?;
            hold!(end == Offset::new(n), "{n} records landed, and the end is {end}");
            read_to(&**log, shard, 0, n).await?;
        }
    }
    Ok(())
}

/// An append on a head that is not the log's: a log that compares tells its head and writes nothing.
pub async fn a_moved_head_is_told_and_writes_nothing(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let (log, shard) = (subject.log(), writer.shard());
    append(&*log, &mut writer, |w| vec![w.claim()]).await?;
    let mut zombie = writer.another(1);
    append(&*log, &mut writer, |w| vec![w.claim()]).await?;
    let (at, zombies) = (zombie.head(), subject.another().await);
    // The second of the zombie's pipelined appends would fit the end again, by its offset.
    let (first, second) = (vec![zombie.commit("conformance-zombie", 1, 1)], zombie.head());
    let (first, second) = (zombies.append(shard, at, first), {
        let records = vec![zombie.commit("conformance-zombie", 2, 1)];
        zombies.append(shard, second, records)
    });
    for answer in [first.await, second.await] {
        if subject.compares() {
            hold!(
                matches!(&answer, Appended::HeadMoved(head) if *head == writer.head()),
                "{answer:?} instead of the head {:?}",
                writer.head()
            );
        } else {
            landed(answer)?;
        }
    }
    let end = log.end(shard).await.map_err(broken)?;
    let expected = if subject.compares() { 2 } else { 4 };
    hold!(end == Offset::new(expected), "the shard ends at {end}");
    count(subject, &writer, 2).await
}

/// What the fold would pass over is refused or lands as a ghost; it never counts.
pub async fn what_does_not_chain_never_counts(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let (log, shard) = (subject.log(), writer.shard());
    append(&*log, &mut writer, |w| {
        vec![w.claim(), w.commit("conformance-ghost", 1, 1)]
    })
    .await?;
    let mut hole = writer.clone();
    hole.commit("conformance-ghost", 2, 1);
    let mut late = writer.clone();
    late.time_ms = writer.head().time_ms - 1_000;
    let lost = writer.clone().at(Head {
        epoch: Epoch::new(7),
        ..writer.head()
    });
    let zombies = subject.another().await;
    let ghosts = [
        hole.commit("conformance-ghost", 3, 1),
        late.commit("conformance-ghost", 2, 1),
        lost.another(9).claim(),
    ];
    for ghost in ghosts {
        match zombies.append(shard, writer.head(), vec![ghost]).await {
            Appended::HeadMoved(head) if subject.compares() => {
                hold!(head == writer.head(), "{head:?} instead of {:?}", writer.head());
            }
            Appended::Landed(_) if !subject.compares() => {}
            other => return Err(Broken(format!("{other:?} for what the fold passes over"))),
        }
    }
    count(subject, &writer, 2).await
}

/// Two writers that both believe that they own the shard: every reader counts the same records, all of one chain.
pub async fn of_two_writers_only_what_chains_counts(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let (log, shard) = (subject.log(), writer.shard());
    let rival_log = subject.another().await;
    let mut rival = writer.another(1);
    let mut under_way = Vec::new();
    for n in 1..=20 {
        for (log, writer) in [(&log, &mut writer), (&rival_log, &mut rival)] {
            let at = writer.head();
            let record = if n == 1 {
                writer.claim()
            } else {
                writer.commit("conformance-rival", n - 1, 1)
            };
            under_way.push(log.append(shard, at, vec![record]));
        }
    }
    let mut landed = 0;
    for answer in under_way {
        match answer.await {
            Appended::Landed(_) => landed += 1,
            Appended::HeadMoved(_) if subject.compares() => {}
            other => return Err(Broken(format!("{other:?} of a healthy log"))),
        }
    }
    let expected = if subject.compares() { 20 } else { 40 };
    hold!(
        landed == expected,
        "{landed} of 40 appends landed instead of {expected}"
    );
    let ours = fold(&*log, &writer).await?;
    let theirs = fold(&*subject.another().await, &writer).await?;
    hold!(
        ours.head() == theirs.head(),
        "{:?} and {:?}",
        ours.head(),
        theirs.head()
    );
    let one_chain = [writer.head().chain, rival.head().chain].contains(&ours.head().chain);
    hold!(
        one_chain && ours.head().accepted == 20,
        "{:?} is neither's",
        ours.head()
    );
    Ok(())
}

/// A record of half a megabyte is no trouble.
pub async fn large_records_come_back_whole(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let sized = [10, 512 << 10, 10];
    let records = sized.map(|bytes| (writer.head(), writer.commit_sized("conformance-large", 1, bytes)));
    same_bytes(subject, &writer, &records).await
}

/// Every kind of record comes back byte for byte, whatever its value holds.
pub async fn bytes_come_back_exactly(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let odd = " { \"ä\" : \"\\u0000 尺寸 🦀\" , \"n\" : 1.0e2 } ";
    let records = [
        (writer.head(), writer.claim()),
        (writer.head(), writer.commit("conformance-0.9_~-A", 1, 3)),
        (
            writer.head(),
            writer.commit_of("conformance-x", 1, &[("x.y", 7, odd)]),
        ),
        (writer.head(), writer.refusal("conformance-x", 2)),
        (writer.head(), writer.commit("conformance-x", 2, 0)),
        (writer.head(), writer.claim()),
        (writer.head(), writer.close()),
    ];
    same_bytes(subject, &writer, &records).await
}

/// What a process wrote, another one reads, with the same hashes and the same end.
pub async fn another_process_sees_the_same(subject: &dyn Subject, mut writer: Chained) -> Kept {
    let log = subject.log();
    for version in 1..=9 {
        append(&*log, &mut writer, |w| {
            vec![w.commit("conformance-again", version, 1)]
        })
        .await?;
    }
    let another = subject.another().await;
    let here = read_to(&*log, writer.shard(), 0, 9).await?;
    let there = read_to(&*another, writer.shard(), 0, 9).await?;
    hold!(hashes(&here) == hashes(&there), "{here:?} and {there:?}");
    let (here, there) = (
        log.describe().await.map_err(broken)?,
        another.describe().await.map_err(broken)?,
    );
    let same = (here.kind, here.app, here.shards, here.generation)
        == (there.kind, there.app, there.shards, there.generation);
    hold!(same, "another process sees another log");
    count(subject, &writer, 9).await
}

/// Appends what `make` makes, and waits until it has landed where it should.
async fn append(
    log: &dyn Log,
    writer: &mut Chained,
    make: impl FnOnce(&mut Chained) -> Vec<Arc<Record>>,
) -> Kept {
    let (shard, at) = (writer.shard(), writer.head());
    let records = make(writer);
    let ids: Vec<_> = records.iter().map(|record| record.id()).collect();
    let landed = landed(log.append(shard, at, records).await)?;
    let expected = (at.next.get()..).map(Offset::new);
    hold!(
        landed == ids.into_iter().zip(expected).collect::<Vec<_>>(),
        "landed at {landed:?}, and {} was expected first",
        at.next
    );
    Ok(())
}

fn landed(answer: Appended) -> Result<Vec<(annals_record::RecordId, Offset)>, Broken> {
    match answer {
        Appended::Landed(landed) => Ok(landed),
        other => Err(Broken(format!("{other:?} instead of a landing"))),
    }
}

async fn read_to(log: &dyn Log, shard: Shard, from: u64, to: u64) -> Result<Vec<Arc<Placed>>, Broken> {
    let mut all: Vec<Arc<Placed>> = Vec::new();
    let mut next = from;
    while next < to {
        let read = log
            .read(shard, Offset::new(next), PATIENT)
            .await
            .map_err(broken)?;
        hold!(!read.is_empty(), "nothing at {next} within {:?}", PATIENT.wait);
        for placed in read {
            hold!(
                placed.offset == Offset::new(next),
                "{:?} instead of offset {next}",
                placed.offset
            );
            hold!(
                placed.hash == hash::slot_hash(&placed.slot),
                "a wrong hash at {next}"
            );
            next += 1;
            all.push(placed);
        }
    }
    Ok(all)
}

async fn same_bytes(subject: &dyn Subject, writer: &Chained, records: &[(Head, Arc<Record>)]) -> Kept {
    let log = subject.log();
    for (at, record) in records {
        landed(log.append(writer.shard(), *at, vec![Arc::clone(record)]).await)?;
    }
    let to = writer.head().next.get();
    for log in [log, subject.another().await] {
        let read = read_to(&*log, writer.shard(), 0, to).await?;
        for (placed, (_, record)) in read.iter().zip(records) {
            let raw = record.to_raw();
            let back = match &placed.slot {
                Slot::Known(record) => record.to_raw(),
                Slot::UnknownFormat { raw, .. } | Slot::Foreign(raw) => raw.clone(),
            };
            hold!(back == raw, "{back:?} instead of {raw:?}");
        }
    }
    Ok(())
}

async fn fold(log: &dyn Log, writer: &Chained) -> Result<Fold, Broken> {
    let end = log.end(writer.shard()).await.map_err(broken)?;
    let mut fold = Fold::from_genesis(writer.genesis());
    for placed in read_to(log, writer.shard(), 0, end.get()).await? {
        fold.step(&placed.slot, placed.hash);
    }
    Ok(fold)
}

/// Everyone's fold ends with the writer's chain after `accepted` records.
async fn count(subject: &dyn Subject, writer: &Chained, accepted: u64) -> Kept {
    for log in [subject.log(), subject.another().await] {
        let fold = fold(&*log, writer).await?;
        let same = fold.head().accepted == accepted && fold.head().chain == writer.head().chain;
        hold!(
            same,
            "{:?} instead of {accepted} records of {:?}",
            fold.head(),
            writer.head()
        );
    }
    Ok(())
}

fn hashes(placed: &[Arc<Placed>]) -> Vec<(Offset, Hash32)> {
    placed.iter().map(|placed| (placed.offset, placed.hash)).collect()
}

fn broken(error: LogError) -> Broken {
    Broken(error.to_string())
}

//! What `log copy` says in the end: of every shard, and of every record that stays behind.

use std::collections::BTreeMap;

use annals_log::copy::{BehindAs, Carried, Proof, ShardCopy};
use annals_record::{Generation, Offset, Shard};
use serde::Serialize;

use crate::cli::output::{self, Output};

/// One line of the report.
#[derive(Debug, Serialize)]
struct Row {
    shard: Shard,
    /// Accepted records, the same in both.
    records: u64,
    /// The chain behind them, the same in both.
    chain: String,
    /// Records of the source that do not count, and were not copied.
    source_ghosts: u64,
    /// Appends that were made again, and what does not count in the target.
    resent: u64,
    target_ghosts: u64,
    /// Records that stay behind.
    behind: usize,
}

/// A record that stays behind.
#[derive(Debug, Serialize)]
struct Left {
    shard: Shard,
    offset: Offset,
    kind: Option<String>,
    stream: Option<String>,
    record: Option<String>,
    hash: String,
    /// What it was in the source: accepted, a ghost, or behind a halt.
    was: String,
}

/// Everything, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    generation: Generation,
    shards: Vec<Row>,
    behind: Vec<Left>,
    subject_keys: u64,
    processes: annals_process::Carried,
    /// Process managers that had read records that stay behind.
    readers_ahead: Vec<String>,
}

impl Report {
    /// Of a copy that is proven.
    pub(super) fn of(
        generation: Generation,
        copies: &BTreeMap<Shard, ShardCopy>,
        proofs: &BTreeMap<Shard, Proof>,
        carried: &[Carried],
        subject_keys: u64,
        processes: annals_process::Carried,
    ) -> Self {
        Self {
            generation,
            shards: rows(copies, proofs),
            behind: left(copies),
            subject_keys,
            processes,
            readers_ahead: ahead(carried),
        }
    }

    /// As a table, or for programs.
    pub(super) fn print(&self, output: Output) -> anyhow::Result<()> {
        let report = self;
        if output != Output::Table {
            return output.print(self);
        }
        output.print_all(&report.shards)?;
        if !report.behind.is_empty() {
            output::text("\nrecords that stay behind:")?;
            output.print_all(&report.behind)?;
        }
        for ahead in &report.readers_ahead {
            output::text(&format!("look into it: {ahead}"))?;
        }
        let records: u64 = report.shards.iter().map(|row| row.records).sum();
        let annals_process::Carried {
            instances,
            outbox,
            timers,
        } = report.processes;
        output::text(&format!(
            "\ncopied: {records} records in {} shards, every chain the same; generation {}\ncarried: {} keys of data subjects, \
         {instances} process instances, {outbox} outbox rows, {timers} timers",
            report.shards.len(),
            report.generation,
            report.subject_keys
        ))
    }
}

fn rows(copies: &BTreeMap<Shard, ShardCopy>, proofs: &BTreeMap<Shard, Proof>) -> Vec<Row> {
    let row = |(shard, copied): (&Shard, &ShardCopy)| Row {
        shard: *shard,
        records: copied.head.accepted,
        chain: copied.head.chain.to_string(),
        source_ghosts: copied.ghosts,
        resent: copied.resent,
        target_ghosts: proofs.get(shard).map_or(0, |proof| proof.ghosts),
        behind: copied.behind.len(),
    };
    copies.iter().map(row).collect()
}

fn left(copies: &BTreeMap<Shard, ShardCopy>) -> Vec<Left> {
    let of_shard = |(shard, copied): (&Shard, &ShardCopy)| {
        let shard = *shard;
        let left = copied.behind.iter().map(move |behind| Left {
            shard,
            offset: behind.offset,
            kind: behind.kind.map(|kind| format!("{kind:?}").to_lowercase()),
            stream: behind.stream.clone(),
            record: behind.id.map(|id| id.to_string()),
            hash: behind.hash.to_string(),
            was: match behind.verdict {
                BehindAs::Accepted => "accepted".to_owned(),
                BehindAs::Ghost(why) => format!("ghost ({why})"),
                BehindAs::Halted => "behind a halt".to_owned(),
            },
        });
        left.collect::<Vec<_>>()
    };
    copies.iter().flat_map(of_shard).collect()
}

fn ahead(carried: &[Carried]) -> Vec<String> {
    let ahead = carried.iter().filter(|carried| carried.lost() > 0);
    ahead
        .map(|carried| {
            format!(
                "`{}` had read {} records of shard {} that stay behind",
                carried.reader,
                carried.lost(),
                carried.shard
            )
        })
        .collect()
}

//! `log check`: the settings, and every shard folded from its first record against whoever has folded it before.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_log::{Checkpoint, Log, LogError, ReadLimits};
use annals_record::fold::{Fold, Ghost, Verdict};
use annals_record::{Hash32, Offset, Shard, hash};
use serde::Serialize;
use sqlx::PgPool;

use crate::cli::output::{Output, Progress};
use crate::exit::Answer;
use crate::node::log::OpenLog;

/// What was found in a shard.
#[derive(Debug, Serialize)]
struct ShardReport {
    shard: Shard,
    records: u64,
    accepted: u64,
    ghosts: String,
    /// Ghosts that should not be: foreign and unchained ones.
    alarming: u64,
    epoch: String,
    chain: String,
    closed: bool,
    /// Where the log halts, or contradicts a reader: offset, both hashes, reason.
    wrong: Vec<String>,
}

/// Checks all of it.
pub(super) async fn run(open: &OpenLog, pool: &PgPool, output: Output) -> anyhow::Result<Answer> {
    let description = open.log.describe().await?;
    let mut sound = true;
    for wrong in description.settings.iter().filter(|setting| !setting.ok) {
        sound = false;
        eprintln!(
            "setting: {} is {} and must be {}",
            wrong.name, wrong.value, wrong.wanted
        );
    }
    let mut total = 0;
    for shard in open.shards.shards() {
        total += open.log.end(shard).await?.get();
    }
    let mut readers: BTreeMap<Shard, Vec<(String, Checkpoint)>> = BTreeMap::new();
    for (reader, shard, checkpoint) in Checkpoint::load_readers(pool).await? {
        readers.entry(shard).or_default().push((reader, checkpoint));
    }
    let mut reports = Vec::new();
    let mut progress = Progress::new("log check", total);
    for shard in open.shards.shards() {
        let genesis = hash::genesis(&description.app, shard, open.shards);
        let readers = readers.remove(&shard).unwrap_or_default();
        let found = Checked::new(Fold::from_genesis(genesis), readers);
        reports.push(found.read(open.log.as_ref(), shard, &mut progress).await?);
    }
    progress.finish();
    output.print_all(&reports)?;
    sound &= reports
        .iter()
        .all(|report| report.wrong.is_empty() && report.alarming == 0);
    Ok(if sound { Answer::Done } else { Answer::No })
}

/// A shard on its way through the fold.
struct Checked {
    fold: Fold,
    readers: Vec<(String, Checkpoint)>,
    accepted: u64,
    alarming: u64,
    ghosts: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
}

impl Checked {
    fn new(fold: Fold, readers: Vec<(String, Checkpoint)>) -> Self {
        Self {
            fold,
            readers,
            accepted: 0,
            alarming: 0,
            ghosts: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    async fn read(
        mut self,
        log: &dyn Log,
        shard: Shard,
        progress: &mut Progress,
    ) -> anyhow::Result<ShardReport> {
        let (begin, end) = log.bounds(shard).await?;
        let limits = ReadLimits {
            wait: Duration::from_secs(5),
            ..ReadLimits::default()
        };
        if begin > Offset::new(0) {
            self.wrong.push(format!(
                "the log begins at offset {begin}: what was before was deleted, and nothing behind it can be proven"
            ));
        }
        'read: while self.wrong.is_empty() && self.fold.head().next < end {
            let placed = match log.read(shard, self.fold.head().next, limits).await {
                Ok(placed) => placed,
                Err(error @ LogError::Refused(_)) => {
                    self.wrong.push(error.to_string());
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            for placed in placed {
                let chain = self.fold.head().chain;
                match self.fold.step(&placed.slot, placed.hash) {
                    Verdict::Accept => self.accepted += 1,
                    Verdict::Ghost(why) => {
                        self.alarming += u64::from(matches!(why, Ghost::Foreign | Ghost::Unchained));
                        *self.ghosts.entry(why.as_str()).or_default() += 1;
                    }
                    Verdict::Halt(why) => {
                        let (offset, hash) = (placed.offset, placed.hash);
                        self.wrong
                            .push(format!("at offset {offset}: {why}; record {hash}, chain {chain}"));
                        break 'read;
                    }
                }
                self.compare(placed.hash);
                progress.add(1);
            }
        }
        if self.wrong.is_empty() {
            self.beyond(end);
        }
        let head = *self.fold.head();
        let ghosts: Vec<String> = self
            .ghosts
            .iter()
            .map(|(why, count)| format!("{why} {count}"))
            .collect();
        Ok(ShardReport {
            shard,
            records: head.next.get(),
            accepted: self.accepted,
            ghosts: ghosts.join(", "),
            alarming: self.alarming,
            epoch: head.epoch.to_string(),
            chain: head.chain.to_string(),
            closed: head.closed,
            wrong: self.wrong,
        })
    }

    /// Readers that stand exactly here: they must have seen this record, and have this head (L4, L9).
    fn compare(&mut self, hash: Hash32) {
        let head = *self.fold.head();
        for (reader, at) in self.readers.iter().filter(|(_, at)| at.head.next == head.next) {
            let offset = head.next.get().saturating_sub(1);
            if at.last_hash != hash {
                let theirs = at.last_hash;
                self.wrong.push(format!(
                    "at offset {offset}: the record's hash is {hash}, and reader `{reader}` folded {theirs}: it was replaced"
                ));
            } else if at.head != head {
                self.wrong.push(format!(
                    "at offset {offset}: the chain is {} after {} accepted records, and reader `{reader}` has {} after {}: \
                     something before it was replaced",
                    head.chain, head.accepted, at.head.chain, at.head.accepted
                ));
            }
        }
    }

    /// Readers that have folded more than there is.
    fn beyond(&mut self, end: Offset) {
        for (reader, at) in self.readers.iter().filter(|(_, at)| at.head.next > end) {
            self.wrong.push(format!(
                "the log ends at offset {end} with chain {}, and reader `{reader}` folded up to {} with chain {}: it was \
                 cut off",
                self.fold.head().chain,
                at.head.next,
                at.head.chain
            ));
        }
    }
}

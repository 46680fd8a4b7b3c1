//! What a run shows: a table, and whether every promise was kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::check::orders::Checked;
use super::check::{Findings, Kind as Promise};
use super::history::{At, Sent};
use super::log::Contents;
use super::plan::{Fault, Kind};
use super::{Options, answered};

/// The most violations that are shown.
const SHOWN: usize = 20;

/// A fault, and from when to when clients may have felt it.
#[derive(Debug, Clone)]
pub struct Outage {
    kind: Kind,
    began: At,
    healed: At,
    recovered: At,
}

impl Outage {
    /// Of a fault.
    #[must_use]
    pub fn of(fault: &Fault, began: At, healed: At, recovered: At) -> Self {
        Self {
            kind: fault.kind,
            began,
            healed,
            recovered,
        }
    }

    /// The longest time, over all shards, in which a shard answered nothing while this lasted.
    #[must_use]
    pub fn longest(&self, answered: &BTreeMap<u32, Vec<At>>) -> Duration {
        let of_shard = |times: &Vec<At>| {
            // From the last answer before it to the first one behind it.
            let first = times.partition_point(|at| *at < self.began).saturating_sub(1);
            let last = (times.partition_point(|at| *at <= self.recovered) + 1).min(times.len());
            let window = times.get(first..last).unwrap_or_default();
            window
                .windows(2)
                .map(|pair| pair[1].saturating_sub(pair[0]))
                .max()
                .unwrap_or_default()
        };
        answered.values().map(of_shard).max().unwrap_or_default()
    }
}

/// A run.
#[derive(Debug)]
pub struct Report {
    /// How it was run; the seed is in it.
    pub options: Options,
    /// Faults that cannot be made here, and why.
    pub skipped: Vec<String>,
    /// What clients were answered, and how often.
    pub counts: BTreeMap<String, u64>,
    /// Every command.
    pub sent: Vec<Sent>,
    /// How many commands clients left without an answer, and asked for again in the end.
    pub left_open: usize,
    /// The log.
    pub contents: Contents,
    /// How often a partition had another leader, on brokers of the run's own.
    pub leaders_moved: Option<u64>,
    /// What the checkouts came to.
    pub checkouts: Option<Checked>,
    /// Each fault.
    pub outages: Vec<Outage>,
    /// What is wrong.
    pub findings: Findings,
    /// What nodes wrote, if it was kept.
    pub logs: Option<PathBuf>,
}

impl Report {
    /// Whether no promise was broken.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.violations.is_empty()
    }

    /// The command that repeats it.
    #[must_use]
    pub fn command(&self) -> String {
        let Options {
            seconds,
            seed,
            faults,
            nodes,
            lease_ms,
            log,
            brokers,
            deadline_ms,
            queue_ms,
            orders,
            keep: _,
        } = &self.options;
        let seed = seed.unwrap_or_default();
        let mut text = format!(
            "make fault ARGS=\"--seed {seed} --seconds {seconds} --nodes {nodes} --lease-ms {lease_ms} --deadline-ms {deadline_ms} --queue-ms {queue_ms} --orders {orders}"
        );
        if !faults.is_empty() {
            let names: Vec<String> = faults.iter().map(|kind| kind.name()).collect();
            let _ = write!(text, " --faults {}", names.join(","));
        }
        let _ = write!(text, " --log {log}");
        if let Some(brokers) = brokers {
            let _ = write!(text, " --brokers {brokers}");
        }
        text.push('"');
        text
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        let acknowledged = self.sent.iter().filter(|sent| sent.told.is_some()).count();
        let unknown = self.sent.iter().filter(|sent| sent.unknown > 0).count();
        let open = self
            .sent
            .iter()
            .filter(|sent| sent.told.is_none() && !sent.nothing)
            .count();
        let count = |kind| self.findings.count(kind);
        let rows = [
            ("commands sent", self.sent.len()),
            ("acknowledged", acknowledged),
            (
                "  of them refused by the rules or a precondition",
                self.findings.refusals,
            ),
            ("unknown for a while (asked again with the same key)", unknown),
            (
                "  of them left by their client, asked for in the end",
                self.left_open,
            ),
            (
                "answered 503 and taken at its word",
                self.sent.iter().filter(|sent| sent.nothing).count(),
            ),
            ("unknown in the end", open),
            ("records of commands that count", self.findings.records),
            ("claims that count", self.contents.claims),
            ("LOST", count(Promise::Lost)),
            ("DOUBLED", count(Promise::Doubled)),
            ("versions with a gap", count(Promise::Gap)),
            ("wrong answers", count(Promise::Wrong) + count(Promise::Invented)),
            ("stale answers", count(Promise::Stale)),
            ("happened though 503", count(Promise::Happened)),
            ("time going back", count(Promise::Time)),
            ("wrong rows", count(Promise::ReadModel)),
            ("misconduct", count(Promise::Conduct)),
        ];
        for (name, number) in rows {
            let _ = writeln!(text, "  {name:<54}{number:>8}");
        }
        if let Some(checkouts) = &self.checkouts {
            let placed = checkouts.orders.len();
            let _ = writeln!(text, "  {:<54}{placed:>8}", "orders placed");
            for (status, number) in &checkouts.statuses {
                let _ = writeln!(text, "  {:<54}{number:>8}", format!("  {status}"));
            }
            let seconds = |ms: Option<&i64>| ms.map_or(0, |ms| ms / 1_000);
            let took = &checkouts.confirmed_ms;
            for (name, ms) in [("half of", took.get(took.len() / 2)), ("all", took.last())] {
                let name = format!("  {name} those confirmed within s");
                let _ = writeln!(text, "  {name:<54}{:>8}", seconds(ms));
            }
            let (charged, unsettled) = (checkouts.charged, checkouts.unsettled.len());
            let _ = writeln!(
                text,
                "  {:<54}{charged:>8}",
                "payments that the gateway holds or took"
            );
            let _ = writeln!(
                text,
                "  {:<54}{unsettled:>8}",
                "checkouts or goods not in a right state"
            );
        }
        if let Some(moved) = self.leaders_moved {
            let _ = writeln!(text, "  {:<54}{moved:>8}", "leaders of partitions moved");
        }
        for (why, number) in &self.contents.ghosts {
            let _ = writeln!(text, "  {:<54}{number:>8}", format!("ghosts: {why}"));
        }
        let _ = writeln!(text, "  attempts by answer:");
        for (what, number) in &self.counts {
            let _ = writeln!(text, "    {what:<52}{number:>8}");
        }
        self.outages_by_kind(&mut text);
        if let Some(logs) = &self.logs {
            let _ = writeln!(text, "  what the nodes wrote: {}", logs.display());
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "  not made: {skipped}");
        }
        text
    }

    fn outages_by_kind(&self, text: &mut String) {
        let answered = answered(&self.sent);
        let mut kinds: BTreeMap<Kind, Vec<(Duration, Duration)>> = BTreeMap::new();
        for outage in &self.outages {
            let lasted = outage.healed.saturating_sub(outage.began);
            kinds
                .entry(outage.kind)
                .or_default()
                .push((outage.longest(&answered), lasted));
        }
        let _ = writeln!(
            text,
            "  {:<16}{:>6}{:>24}{:>24}{:>14}",
            "fault", "times", "longest unavailable s", "median of the longest", "lasted s"
        );
        for (kind, mut found) in kinds {
            found.sort();
            let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
            let (longest, _) = found.last().copied().unwrap_or_default();
            let (median, _) = found.get(found.len() / 2).copied().unwrap_or_default();
            let lasted = found.iter().map(|(_, lasted)| *lasted).max().unwrap_or_default();
            let _ = writeln!(
                text,
                "  {:<16}{:>6}{:>24}{:>24}{:>14}",
                kind.name(),
                found.len(),
                seconds(longest),
                seconds(median),
                seconds(lasted)
            );
        }
    }

    /// What is wrong, and how to see it again.
    #[must_use]
    pub fn complaint(&self) -> String {
        let mut text = String::new();
        for violation in self.findings.violations.iter().take(SHOWN) {
            let _ = writeln!(text, "  {violation}");
        }
        let more = self.findings.violations.len().saturating_sub(SHOWN);
        if more > 0 {
            let _ = writeln!(text, "  and {more} more");
        }
        text
    }
}

/// Says on standard error what happens now.
pub(super) fn progress(at: At, fault: &Fault) {
    let (what, number) = match fault.kind.hits_broker() {
        true => ("broker", fault.broker + 1),
        false if fault.kind.is_of_processes() => ("process", fault.node % 2 + 1),
        false => ("command", fault.node + 1),
    };
    eprintln!(
        "fault: {:>6.1} s {} {what}-{number} for {:.1} s",
        at.as_secs_f64(),
        fault.kind.name(),
        fault.lasts.as_secs_f64()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_the_longest_silence_of_a_shard_from_before_it_to_behind_it() {
        let ms = |times: &[u64]| {
            times
                .iter()
                .map(|ms| Duration::from_millis(*ms))
                .collect::<Vec<_>>()
        };
        let answered = BTreeMap::from([
            (0, ms(&[0, 90, 110, 130, 200, 210, 900])),
            // Silent from 95 to 180; what comes long after the recovery is another's.
            (1, ms(&[0, 95, 180, 190, 205, 2_000])),
        ]);
        let outage = Outage {
            kind: Kind::Kill,
            began: Duration::from_millis(100),
            healed: Duration::from_millis(150),
            recovered: Duration::from_millis(185),
        };
        assert_eq!(outage.longest(&answered), Duration::from_millis(85));
    }
}

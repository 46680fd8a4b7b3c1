//! Fault runs: real processes under load, broken on purpose by a seeded plan, and a checker over what clients were told
//! and what the log holds.
//!
//! In reading order: [`plan`] (which fault when), [`history`] and [`check`] (what is promised; pure), [`net`], [`proxy`],
//! [`postgres`], [`brokers`] and [`cluster`] (what runs, and how it is broken), [`client`] (the load that writes everything down),
//! [`orders`] (checkouts in it), [`log`] (reading the log by the fold), [`rows`] (the read models), [`report`].
//!
//! `make fault` runs it for long; `tests/fault.rs` for a minute. Each run prints the command that repeats it.

pub mod brokers;
pub mod check;
pub mod client;
pub mod cluster;
pub mod history;
pub mod inject;
pub mod log;
pub mod net;
pub mod orders;
pub mod plan;
pub mod postgres;
pub mod proxy;
pub mod report;
pub mod rows;
pub mod setup;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use annals_record::{KeyHash, ShardCount};
use tokio::task::JoinSet;
use tokio::time::Instant;

use check::orders::Checked;
use check::{Findings, Kind as Promise, Violation};
use client::Clients;
use history::{At, Sent};
use inject::Injector;
use orders::Shop;
use plan::{Fault, Kind, Plan};
use report::{Outage, Report};
use setup::Ground;

/// Shards of the log.
pub const SHARDS: u32 = 16;
/// Streams of each shard that the load goes over.
const STREAMS: usize = 3;
/// Clients of each shard.
const CLIENTS: u64 = 2;
/// After a fault, every shard must answer within this time.
const RECOVERY: Duration = Duration::from_secs(90);
/// How long the load runs undisturbed in the beginning and after each fault.
const CALM: Duration = Duration::from_millis(700);
/// How long everything that is open may take to be answered in the end.
const RESOLVED: Duration = Duration::from_secs(60);
/// How long checkouts may take to end in the end: the timer that gives them up, the longest pause before something that
/// failed is tried again (`process.retry_max_s`, 60 s), and the machine being busy.
const SETTLED: Duration = Duration::from_secs(180);

/// What a run is.
#[derive(Debug, Clone, clap::Parser)]
#[command(about = "Breaks a running cluster on purpose, under load, and checks every promise")]
pub struct Options {
    /// How long new faults begin, seconds.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// Draws the faults and the load; without it, one that was never used.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Only these faults, with commas.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub faults: Vec<Kind>,
    /// Command nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    pub nodes: u8,
    /// How long leases last, ms.
    #[arg(long, default_value_t = 3_000)]
    pub lease_ms: u64,
    /// Which log: postgres or kafka. Kafka without --brokers is three brokers of the run's own, which are broken too.
    #[arg(long, default_value = "postgres")]
    pub log: String,
    /// Kafka: `host:port`, several with commas.
    #[arg(long)]
    pub brokers: Option<String>,
    /// Until when commands must be answered, ms.
    #[arg(long, default_value_t = 5_000)]
    pub deadline_ms: u64,
    /// How much longer than an append answers may take before commands are shed, ms.
    #[arg(long, default_value_t = 100)]
    pub queue_ms: u64,
    /// Keep what the nodes wrote even if nothing was wrong.
    #[arg(long)]
    pub keep: bool,
    /// Clients that place orders, whose checkouts a process node runs; 0: neither.
    #[arg(long, default_value_t = 3)]
    pub orders: u8,
}

impl Default for Options {
    /// Three command nodes on Postgres, two minutes; deadlines are short, no command is shed, nobody places orders.
    fn default() -> Self {
        Self {
            deadline_ms: 2_000,
            queue_ms: 60_000,
            orders: 0,
            ..<Self as clap::Parser>::parse_from(["fault"])
        }
    }
}

impl Options {
    /// The seed, drawn now if none was given.
    pub fn settle_seed(&mut self) -> u64 {
        let drawn = || u64::try_from(uuid::Uuid::now_v7().as_u128() & 0xff_ffff).unwrap_or(1);
        *self.seed.get_or_insert_with(drawn)
    }

    /// Those named, whether they can be made or not; else all that there are for this log.
    fn kinds(&self) -> Vec<Kind> {
        let fits = |kind: &Kind| self.log == "kafka" || !kind.is_of_brokers();
        match self.faults.is_empty() {
            true => Kind::ALL.into_iter().filter(fits).collect(),
            false => self.faults.clone(),
        }
    }

    /// How long leases last.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }
}

/// Runs it. `Err`: it could not be run.
///
/// # Errors
/// What could not be set up, in words.
pub async fn run(options: &Options) -> Result<Report, String> {
    let mut options = options.clone();
    let seed = options.settle_seed();
    let (mut ground, kinds) = Ground::prepare(&options, options.kinds()).await?;
    let mut findings = Findings::default();
    let clients = Clients::of(&ground, &options);
    let streams = ground.register().await?;
    let shop = match options.orders {
        0 => None,
        _ => Some(Shop::open(&ground.api()?).await?),
    };
    let mut load = start_load(&clients, &streams, seed);
    if let Some(shop) = &shop {
        shop.start_load(&clients, options.orders, seed, &mut load);
    }
    let outages = break_it(
        &mut ground,
        &clients,
        &options,
        Plan::new(seed, &kinds.made, options.nodes.into(), options.lease()),
        &mut findings,
    )
    .await;
    clients.stop.store(true, Ordering::Relaxed);
    let until = Instant::now() + RESOLVED;
    while let Ok(Some(ended)) = tokio::time::timeout_at(until, load.join_next()).await {
        ended.map_err(|error| error.to_string())?;
    }
    if !load.is_empty() {
        findings.violations.push(conduct(format!(
            "{} clients had no answer {RESOLVED:?} after the last fault",
            load.len()
        )));
    }
    let left_open = clients.resolve(until + RESOLVED).await;
    let sent = clients.history();
    let (contents, checkouts) = settled(&ground, shop.as_deref(), &mut findings).await;
    let checked = check::check(&sent, &contents.kept, |key| KeyHash::of(key).to_string());
    findings.violations.extend(checked.violations.iter().cloned());
    rows::compare(
        &ground,
        &checked,
        checkouts.as_ref(),
        &contents.ends,
        &mut findings,
    )
    .await;
    ground.end(&mut findings, options.keep).await;
    let report = Report {
        options,
        skipped: kinds.skipped,
        leaders_moved: ground.brokers.as_ref().map(brokers::Brokers::moved),
        counts: clients.counts(),
        sent,
        left_open,
        contents,
        checkouts,
        outages,
        findings: Findings {
            violations: findings.violations,
            ..checked
        },
        logs: ground.logs_kept(),
    };
    Ok(report)
}

/// The log once every checkout has ended, or once it should have, and what the checkouts came to.
async fn settled(
    ground: &Ground,
    shop: Option<&Shop>,
    findings: &mut Findings,
) -> (log::Contents, Option<Checked>) {
    let until = Instant::now() + SETTLED;
    loop {
        let read = log::read(&ground.log, shard_count()).await;
        let contents = read.unwrap_or_else(|error| {
            findings.violations.push(conduct(format!("the log: {error}")));
            log::Contents::default()
        });
        let (Some(shop), Some(gateway)) = (shop, &ground.gateway) else {
            return (contents, None);
        };
        let accounts = gateway.accounts().await.unwrap_or_else(|error| {
            findings.violations.push(conduct(error));
            Vec::new()
        });
        let checked =
            check::orders::check(&shop.orders(), &contents.entries, &accounts, &shop.goods, |key| {
                KeyHash::of(key).to_string()
            });
        if checked.unsettled.is_empty() || Instant::now() > until || contents.ends.is_empty() {
            findings.violations.extend(checked.violations.iter().cloned());
            let left = checked.unsettled.iter().cloned();
            findings.violations.extend(left.map(conduct));
            return (contents, Some(checked));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// As [`SHARDS`] has it.
///
/// # Panics
/// Never: it is a count.
#[must_use]
pub fn shard_count() -> ShardCount {
    ShardCount::try_from(SHARDS).expect("a shard count")
}

fn conduct(what: String) -> Violation {
    Violation {
        kind: Promise::Conduct,
        what,
    }
}

/// Starts the clients of every shard.
pub fn start_load(clients: &Arc<Clients>, streams: &BTreeMap<u32, Vec<String>>, seed: u64) -> JoinSet<()> {
    let mut load = JoinSet::new();
    for (shard, streams) in streams {
        for client in 0..CLIENTS {
            let seed = seed
                .wrapping_mul(1_000)
                .wrapping_add(u64::from(*shard) * CLIENTS + client);
            load.spawn(Arc::clone(clients).run(streams.clone(), seed));
        }
    }
    load
}

/// One fault after the other until the time is over; what clients felt of each.
async fn break_it(
    ground: &mut Ground,
    clients: &Clients,
    options: &Options,
    plan: Plan,
    findings: &mut Findings,
) -> Vec<Outage> {
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut outages = Vec::new();
    recovered(clients, clients.now(), "the start", findings).await;
    for fault in plan {
        tokio::time::sleep(CALM).await;
        if Instant::now() >= until {
            break;
        }
        let began = clients.now();
        report::progress(began, &fault);
        let mut injector = Injector {
            ground: &mut *ground,
            clients,
            lease: options.lease(),
        };
        if let Err(what) = injector.inject(&fault).await {
            findings
                .violations
                .push(conduct(format!("{:?} at {began:?}: {what}", fault.kind)));
        }
        let healed = clients.now();
        recovered(clients, healed, &format!("{:?}", fault.kind), findings).await;
        outages.push(Outage::of(&fault, began, healed, clients.now()));
        for died in ground.died() {
            findings.violations.push(conduct(died));
        }
        ground.start_missing(findings).await;
    }
    outages
}

/// Waits until every shard answers again.
async fn recovered(clients: &Clients, since: At, what: &str, findings: &mut Findings) {
    let until = Instant::now() + RECOVERY;
    while !clients.all_answered_since(since) {
        if Instant::now() > until {
            let silent = clients.silent_since(since);
            let text = format!("shards {silent:?} gave no answer within {RECOVERY:?} of {what}");
            findings.violations.push(conduct(text));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// For each shard, when commands were answered, in order.
#[must_use]
pub fn answered(sent: &[Sent]) -> BTreeMap<u32, Vec<At>> {
    let mut answered: BTreeMap<u32, Vec<At>> = BTreeMap::new();
    for sent in sent {
        if let Some(told) = &sent.told {
            answered.entry(told.shard).or_default().push(sent.ended);
        }
    }
    for times in answered.values_mut() {
        times.sort();
    }
    answered
}

/// Whether a fault is one of a command node alone, so that another takes over within its leases and a second.
#[must_use]
pub fn is_takeover(fault: &Fault) -> bool {
    matches!(fault.kind, Kind::Kill | Kind::Pause | Kind::Two)
}

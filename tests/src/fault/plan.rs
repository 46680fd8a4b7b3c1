//! Which fault comes when: drawn from a seed, so that a run can be repeated.

use std::time::Duration;

use super::brokers::BROKERS;

/// What is done to a running cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// A command node gets SIGKILL, and is started again.
    Kill,
    /// A command node gets SIGSTOP for longer than its leases last, then SIGCONT: a zombie wakes up.
    Pause,
    /// A command node gets SIGTERM, must end in time with status 0, and is started again.
    Term,
    /// Nothing gets through between a command node and Postgres for longer than its leases last; what was held back
    /// arrives in the end.
    Cut,
    /// A command node's connections to Postgres break, and new ones are refused.
    Break,
    /// Everything between a command node and Postgres takes longer.
    Slow,
    /// Postgres is stopped in immediate mode (as by a crash) and started again.
    Postgres,
    /// Postgres has no room on its disk.
    Disk,
    /// Projector and query nodes get SIGKILL, and are started again.
    Readers,
    /// One command node is killed while another is paused.
    Two,
    /// A command node is cut off from everything: clients, other nodes, Postgres, brokers.
    Isolate,
    /// What a command node sends to Postgres is lost: its connections are half open.
    CutPostgres,
    /// What a command node sends to other command nodes is lost.
    CutPeers,
    /// What a command node sends to the brokers is lost; it keeps its shards, which do not answer until that ends.
    CutLog,
    /// A broker gets SIGKILL, is started again, and gets its leaders back.
    BrokerKill,
    /// A broker gets SIGSTOP for longer than its session lasts, then SIGCONT.
    BrokerPause,
    /// A broker gets SIGTERM, hands its leaders over, is started again, and gets them back by a preferred election.
    BrokerRestart,
    /// A broker is cut off from everybody for longer than its session lasts.
    BrokerIsolate,
    /// Two of three brokers get SIGKILL: for some seconds nothing can be acknowledged.
    BrokersTwo,
    /// A node that runs checkouts gets SIGKILL, and is started again.
    Process,
    /// A node that runs checkouts gets SIGSTOP for longer than its leases last, then SIGCONT: what it sends then, another one
    /// has sent meanwhile.
    ProcessPause,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Kill,
        Self::Pause,
        Self::Term,
        Self::Cut,
        Self::Break,
        Self::Slow,
        Self::Postgres,
        Self::Disk,
        Self::Readers,
        Self::Two,
        Self::Isolate,
        Self::CutPostgres,
        Self::CutPeers,
        Self::CutLog,
        Self::BrokerKill,
        Self::BrokerPause,
        Self::BrokerRestart,
        Self::BrokerIsolate,
        Self::BrokersTwo,
        Self::Process,
        Self::ProcessPause,
    ];

    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it happens to brokers, or to ways to them: brokers of the run's own are needed.
    #[must_use]
    pub fn is_of_brokers(self) -> bool {
        self.hits_broker() || self == Self::CutLog
    }

    /// Whether it happens to a broker and to no node.
    #[must_use]
    pub fn hits_broker(self) -> bool {
        matches!(
            self,
            Self::BrokerKill
                | Self::BrokerPause
                | Self::BrokerRestart
                | Self::BrokerIsolate
                | Self::BrokersTwo
        )
    }

    /// Whether it happens to nodes that run checkouts.
    #[must_use]
    pub fn is_of_processes(self) -> bool {
        matches!(self, Self::Process | Self::ProcessPause)
    }

    /// Whether network namespaces are needed.
    #[must_use]
    pub fn is_of_network(self) -> bool {
        matches!(
            self,
            Self::Isolate | Self::CutPostgres | Self::CutPeers | Self::CutLog | Self::BrokerIsolate
        )
    }
}

/// Which kinds a run makes, and why it does not make the others that it was to.
#[derive(Debug, Clone, Default)]
pub struct Kinds {
    /// These.
    pub made: Vec<Kind>,
    /// The others, each with the reason.
    pub skipped: Vec<String>,
}

impl Kinds {
    /// Leaves out those that cannot be made, for this reason.
    pub fn skip(&mut self, which: impl Fn(Kind) -> bool, why: &str) {
        let (out, made) = self.made.iter().partition(|kind| which(**kind));
        self.made = made;
        let out: Vec<Kind> = out;
        self.skipped
            .extend(out.iter().map(|kind| format!("{}: {why}", kind.name())));
    }

    /// Whether one of this sort is to be made.
    #[must_use]
    pub fn any(&self, which: impl Fn(Kind) -> bool) -> bool {
        self.made.iter().any(|kind| which(*kind))
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Which command node.
    pub node: usize,
    /// Which other one, for [`Kind::Two`].
    pub other: usize,
    /// Which broker.
    pub broker: usize,
    /// Which other broker, for [`Kind::BrokersTwo`].
    pub other_broker: usize,
    /// How long it lasts, where it has a length.
    pub lasts: Duration,
}

/// Faults without end: every kind once in a random order, then again.
#[derive(Debug)]
pub struct Plan {
    random: Random,
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    nodes: usize,
    lease: Duration,
}

impl Plan {
    /// Of these kinds, for so many command nodes whose leases last so long.
    #[must_use]
    pub fn new(seed: u64, kinds: &[Kind], nodes: usize, lease: Duration) -> Self {
        Self {
            random: Random::new(seed),
            kinds: kinds.to_vec(),
            left: Vec::new(),
            nodes,
            lease,
        }
    }
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let kind = self.left.swap_remove(self.random.below(self.left.len().max(1)));
        let node = self.random.below(self.nodes);
        let other = (node + 1 + self.random.below(self.nodes.saturating_sub(1).max(1))) % self.nodes;
        let brokers = usize::try_from(BROKERS).unwrap_or(3);
        let broker = self.random.below(brokers);
        let other_broker = (broker + 1 + self.random.below(brokers - 1)) % brokers;
        // One and a half times to two and a half times a lease.
        let percent = 150 + u32::try_from(self.random.below(100)).unwrap_or(0);
        let lasts = self.lease * percent / 100;
        Some(Fault {
            kind,
            node,
            other,
            broker,
            other_broker,
            lasts,
        })
    }
}

/// SplitMix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    #[allow(
        clippy::should_implement_trait,
        reason = "there is no end, and no need for an iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which counts as 1 if it is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % limit).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_is_left_out_and_said() {
        let mut kinds = Kinds {
            made: Kind::ALL.to_vec(),
            skipped: Vec::new(),
        };
        assert!(kinds.any(Kind::is_of_network));
        kinds.skip(Kind::is_of_network, "no right");
        kinds.skip(Kind::is_of_network, "no right");
        assert!(!kinds.any(Kind::is_of_network));
        assert_eq!(kinds.made.len() + kinds.skipped.len(), Kind::ALL.len());
        assert!(kinds.skipped.contains(&"broker-isolate: no right".to_owned()));
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_each_kind_has_its_turn() {
        let lease = Duration::from_secs(2);
        let plan = |seed| {
            Plan::new(seed, &Kind::ALL, 3, lease)
                .take(2 * Kind::ALL.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        for round in plan(7).chunks(Kind::ALL.len()) {
            let mut kinds: Vec<_> = round.iter().map(|fault| fault.kind).collect();
            kinds.sort();
            assert_eq!(kinds, Kind::ALL);
            for fault in round {
                assert!(fault.node < 3 && fault.other < 3 && fault.node != fault.other);
                assert!(fault.broker < 3 && fault.other_broker < 3 && fault.broker != fault.other_broker);
                assert!(fault.lasts >= lease * 3 / 2 && fault.lasts <= lease * 5 / 2);
            }
        }
    }
}

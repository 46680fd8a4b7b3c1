//! Which fault comes when: drawn from a seed, so that a run can be repeated.

use std::time::Duration;

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
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
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
    ];
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
        // One and a half times to two and a half times a lease.
        let percent = 150 + u32::try_from(self.random.below(100)).unwrap_or(0);
        let lasts = self.lease * percent / 100;
        Some(Fault {
            kind,
            node,
            other,
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
    fn the_same_seed_gives_the_same_faults_and_each_kind_has_its_turn() {
        let lease = Duration::from_secs(2);
        let plan = |seed| Plan::new(seed, &Kind::ALL, 3, lease).take(20).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        for round in plan(7).chunks(Kind::ALL.len()) {
            let mut kinds: Vec<_> = round.iter().map(|fault| fault.kind).collect();
            kinds.sort();
            assert_eq!(kinds, Kind::ALL);
            for fault in round {
                assert!(fault.node < 3 && fault.other < 3 && fault.node != fault.other);
                assert!(fault.lasts >= lease * 3 / 2 && fault.lasts <= lease * 5 / 2);
            }
        }
    }
}

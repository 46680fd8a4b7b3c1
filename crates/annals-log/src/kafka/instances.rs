//! Which producer instance carries which shard: bookkeeping without any client in it.
//!
//! An idempotent producer that meets trouble may send again what it has in flight. So that nothing of an
//! earlier ownership term can come out behind a claim of the same process by the same way, an instance carries
//! **at most one epoch of a shard**: an append that holds a claim takes an instance that never carried
//! this shard, and a new one is started if there is none. Source: 3-log.md, "`Log`", kafka.

use std::collections::{BTreeMap, BTreeSet};

use annals_record::Shard;

/// The number of an instance, never used twice by a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct InstanceId(pub(super) u64);

/// All instances of one process, and where each shard is.
#[derive(Debug)]
pub(super) struct Instances {
    /// How many to spread shards over.
    wanted: usize,
    /// How many at most, retiring ones not counted.
    max: usize,
    next: u64,
    live: BTreeMap<InstanceId, Carried>,
    places: BTreeMap<Shard, Place>,
}

#[derive(Debug, Default)]
struct Carried {
    /// The shards whose appends go through it now.
    now: BTreeSet<Shard>,
    /// The shards that it ever carried, which includes those.
    ever: BTreeSet<Shard>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    On(InstanceId),
    /// Its instance is gone: nothing more of this epoch may be sent.
    Lost,
}

/// Where an append goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Through this instance.
    Through {
        /// Which.
        instance: InstanceId,
        /// It does not run yet: start it.
        start: bool,
        /// These carry no shard any more: purge them.
        retire: Vec<InstanceId>,
    },
    /// The shard's instance is gone. The shard has to be claimed.
    Lost,
}

impl Instances {
    /// None yet; `wanted` to spread over and `max` at most, both at least 1.
    pub(super) fn new(wanted: usize, max: usize) -> Self {
        let wanted = wanted.max(1);
        Self {
            wanted,
            max: max.max(wanted),
            next: 0,
            live: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// Where an append for `shard` goes; `claims` if a claim is among its records.
    pub(super) fn route(&mut self, shard: Shard, claims: bool) -> Route {
        match self.places.get(&shard) {
            Some(Place::On(instance)) if !claims => Route::Through {
                instance: *instance,
                start: false,
                retire: Vec::new(),
            },
            Some(Place::Lost) if !claims => Route::Lost,
            _ => self.place(shard),
        }
    }

    /// An instance is of no use any more: whatever went through it has to be claimed. `false` if it was
    /// retired before.
    pub(super) fn lose(&mut self, instance: InstanceId) -> bool {
        let Some(carried) = self.live.remove(&instance) else {
            return false;
        };
        for shard in carried.now {
            self.places.insert(shard, Place::Lost);
        }
        true
    }

    /// The number of the next instance, if one more may be kept ready for it: not at the maximum, where one would
    /// have to be emptied first.
    pub(super) fn spare(&self) -> Option<InstanceId> {
        (self.live.len() < self.max).then_some(InstanceId(self.next))
    }

    /// All that run.
    #[cfg(test)]
    pub(super) fn live(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.live.keys().copied()
    }

    /// Finds an instance that never carried the shard, or a new one.
    fn place(&mut self, shard: Shard) -> Route {
        let mut retire: Vec<InstanceId> = self.leave(shard).into_iter().collect();
        let free = self
            .live
            .iter()
            .filter(|(_, carried)| !carried.ever.contains(&shard))
            .min_by_key(|(id, carried)| (carried.now.len(), **id))
            .map(|(id, _)| *id);
        let (instance, start) = match free {
            Some(instance) if self.live.len() >= self.wanted => (instance, false),
            _ => {
                if self.live.len() >= self.max {
                    retire.extend(self.empty_the_smallest());
                }
                let instance = InstanceId(self.next);
                self.next += 1;
                (instance, true)
            }
        };
        let carried = self.live.entry(instance).or_default();
        carried.now.insert(shard);
        carried.ever.insert(shard);
        self.places.insert(shard, Place::On(instance));
        Route::Through {
            instance,
            start,
            retire,
        }
    }

    /// Takes a shard off its instance; the instance, if that was its last one.
    fn leave(&mut self, shard: Shard) -> Option<InstanceId> {
        let Some(Place::On(instance)) = self.places.remove(&shard) else {
            return None;
        };
        let carried = self.live.get_mut(&instance)?;
        carried.now.remove(&shard);
        if !carried.now.is_empty() {
            return None;
        }
        self.live.remove(&instance);
        Some(instance)
    }

    /// Gives up the instance with the fewest shards; of several the oldest.
    fn empty_the_smallest(&mut self) -> Option<InstanceId> {
        let smallest = self
            .live
            .iter()
            .min_by_key(|(id, carried)| (carried.now.len(), **id))
            .map(|(id, _)| *id)?;
        self.lose(smallest);
        Some(smallest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn shard(n: u32) -> Shard {
        Shard::new(n)
    }

    fn through(route: Route) -> (u64, bool, Vec<u64>) {
        match route {
            Route::Through {
                instance,
                start,
                retire,
            } => (instance.0, start, retire.into_iter().map(|i| i.0).collect()),
            Route::Lost => panic!("lost"),
        }
    }

    #[test]
    fn spreads_shards_over_the_wanted_number() {
        let mut all = Instances::new(2, 8);
        let placed: Vec<u64> = (0..6).map(|n| through(all.route(shard(n), true)).0).collect();
        assert_eq!(placed, [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn an_append_without_a_claim_stays_where_the_shard_is() {
        let mut all = Instances::new(2, 8);
        assert_eq!(through(all.route(shard(3), false)), (0, true, vec![]));
        assert_eq!(through(all.route(shard(3), false)), (0, false, vec![]));
    }

    #[test]
    fn a_claim_takes_an_instance_that_never_carried_the_shard() {
        let mut all = Instances::new(2, 8);
        for n in 0..4 {
            all.route(shard(n), true);
        }
        assert_eq!(through(all.route(shard(0), true)), (1, false, vec![]));
        // Both carried it: a third one.
        assert_eq!(through(all.route(shard(0), true)), (2, true, vec![]));
    }

    #[test]
    fn an_instance_without_shards_is_retired() {
        let mut all = Instances::new(2, 8);
        assert_eq!(through(all.route(shard(0), true)), (0, true, vec![]));
        assert_eq!(through(all.route(shard(0), true)), (1, true, vec![0]));
    }

    #[test]
    fn at_the_maximum_the_one_with_the_fewest_shards_is_emptied() {
        let mut all = Instances::new(2, 2);
        for n in 0..5 {
            all.route(shard(n), true);
        }
        // 0: shards 0, 2, 4; 1: shards 1, 3. Shard 0 goes to 1, and back it cannot go.
        assert_eq!(through(all.route(shard(0), true)), (1, false, vec![]));
        assert_eq!(through(all.route(shard(0), true)), (2, true, vec![0]));
        assert_eq!(all.route(shard(2), false), Route::Lost);
        assert_eq!(all.route(shard(4), false), Route::Lost);
        assert_eq!(through(all.route(shard(1), false)).0, 1);
        assert_eq!(through(all.route(shard(2), true)).0, 2);
    }

    #[test]
    fn the_spare_is_the_next_one_to_be_started() {
        let mut all = Instances::new(1, 2);
        assert_eq!(all.spare(), Some(InstanceId(0)));
        assert_eq!(through(all.route(shard(0), true)), (0, true, vec![]));
        all.route(shard(1), true);
        assert_eq!(all.spare(), Some(InstanceId(1)));
        assert_eq!(through(all.route(shard(1), true)), (1, true, vec![]));
        assert_eq!(all.spare(), None);
    }

    #[test]
    fn whatever_went_through_a_lost_instance_must_be_claimed() {
        let mut all = Instances::new(1, 8);
        all.route(shard(0), true);
        all.route(shard(1), true);
        assert!(all.lose(InstanceId(0)));
        assert!(!all.lose(InstanceId(0)));
        assert_eq!(all.route(shard(0), false), Route::Lost);
        assert_eq!(through(all.route(shard(0), true)), (1, true, vec![]));
        assert_eq!(through(all.route(shard(0), false)), (1, false, vec![]));
        assert_eq!(all.route(shard(1), false), Route::Lost);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(u32),
        Claim(u32),
        Lose(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..9_u32).prop_map(Step::Append),
            4 => (0..9_u32).prop_map(Step::Claim),
            1 => (0..9_usize).prop_map(Step::Lose),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A second account of it, kept by the rules' own words.
        #[test]
        fn keeps_its_rules(
            wanted in 1..4_usize,
            more in 0..5_usize,
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let max = wanted + more;
            let mut all = Instances::new(wanted, max);
            let mut term: BTreeMap<u32, u64> = BTreeMap::new();
            let mut started: BTreeSet<u64> = BTreeSet::new();
            let mut gone: BTreeSet<u64> = BTreeSet::new();
            let mut carried: BTreeMap<(u64, u32), u64> = BTreeMap::new();
            let mut at: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                let (n, claims) = match step {
                    Step::Append(n) => (n, false),
                    Step::Claim(n) => (n, true),
                    Step::Lose(index) => {
                        let victim = all.live().nth(index);
                        if let Some(victim) = victim {
                            prop_assert!(all.lose(victim));
                            gone.insert(victim.0);
                        }
                        continue;
                    }
                };
                let before = at.get(&n).copied();
                if claims {
                    *term.entry(n).or_default() += 1;
                }
                match all.route(shard(n), claims) {
                    Route::Lost => {
                        prop_assert!(!claims, "a claim always finds a way");
                        prop_assert!(gone.contains(&before.unwrap()), "lost only with its instance");
                    }
                    Route::Through { instance, start, retire } => {
                        let id = instance.0;
                        prop_assert_eq!(start, started.insert(id));
                        for retired in retire {
                            prop_assert!(started.contains(&retired.0));
                            prop_assert!(gone.insert(retired.0), "retired once");
                        }
                        prop_assert!(!gone.contains(&id), "never through one that is gone");
                        if !claims && let Some(before) = before {
                            prop_assert_eq!(before, id, "one way for all of an epoch");
                        }
                        let this = term.get(&n).copied().unwrap_or_default();
                        let carries = *carried.entry((id, n)).or_insert(this);
                        prop_assert_eq!(carries, this, "one epoch of a shard an instance");
                        at.insert(n, id);
                    }
                }
                prop_assert!(all.live().count() <= max);
                prop_assert!(all.live().all(|i| !gone.contains(&i.0)));
                // Whoever runs carries something: nothing idles.
                for id in all.live() {
                    prop_assert!(at.values().any(|at| *at == id.0));
                }
            }
        }
    }
}

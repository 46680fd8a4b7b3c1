//! Where each shard's commands are handled, as far as this node knows; read by every request, without a lock
//! where the answer is "here".

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use annals_record::{Shard, ShardCount};

use crate::engine::Lease;

/// Where a shard's commands are handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By this node, or soon: it is owner or is becoming it.
    Here {
        /// Whether the log has accepted this node's claim.
        owner: bool,
    },
    /// By the node with this internal address.
    At(String),
    /// By nobody that is known.
    Nowhere,
    /// By nobody until an operator acts.
    Halted,
}

// What is known of a shard, each by itself: what its lease says, whether this node is owner by the log, whether it is halted.
// They come from two sides in any order, so neither may stand for the other.
const OURS: u8 = 1;
const THEIRS: u8 = 2;
const OWNER: u8 = 4;
const HALTED: u8 = 8;

/// Where a shard's entry is; beyond the end for one that this log does not have.
fn index(shard: Shard) -> usize {
    usize::try_from(shard.get()).unwrap_or(usize::MAX)
}

#[derive(Debug)]
pub(crate) struct Routing {
    shards: Vec<AtomicU8>,
    stalled: Vec<AtomicBool>,
    urls: RwLock<Vec<String>>,
}

impl Routing {
    pub(crate) fn new(shards: ShardCount) -> Self {
        let count = shards.shards().len();
        Self {
            shards: (0..count).map(|_| AtomicU8::new(0)).collect(),
            stalled: (0..count).map(|_| AtomicBool::new(false)).collect(),
            urls: RwLock::new(vec![String::new(); count]),
        }
    }

    fn cell(&self, shard: Shard) -> Option<&AtomicU8> {
        self.shards.get(index(shard))
    }

    /// An owner by the log whose lease is nobody's decides on until somebody claims. One whose lease is another's sends
    /// commands there, where they wait until that one's claim counts.
    pub(crate) fn place(&self, shard: Shard) -> Place {
        let known = self.cell(shard).map_or(0, |cell| cell.load(Ordering::Acquire));
        let owner = known & OWNER != 0;
        if known & HALTED != 0 {
            Place::Halted
        } else if known & THEIRS != 0 {
            let urls = self.urls.read().expect("nobody panics while holding it");
            urls.get(index(shard))
                .map_or(Place::Nowhere, |url| Place::At(url.clone()))
        } else if owner || known & OURS != 0 {
            Place::Here { owner }
        } else {
            Place::Nowhere
        }
    }

    /// What the lease of a shard says.
    pub(crate) fn lease(&self, shard: Shard, lease: &Lease) {
        let says = match lease {
            Lease::Ours => OURS,
            Lease::Unknown => 0,
            Lease::Theirs(url) => {
                let mut urls = self.urls.write().expect("nobody panics while holding it");
                if let Some(known) = urls.get_mut(index(shard)) {
                    known.clone_from(url);
                }
                THEIRS
            }
        };
        self.learn(shard, OURS | THEIRS, says);
    }

    /// Whether this node is owner by the log.
    pub(crate) fn owner(&self, shard: Shard, owner: bool) {
        self.learn(shard, OWNER, if owner { OWNER } else { 0 });
    }

    /// Of what is known of a shard, this part is now so.
    fn learn(&self, shard: Shard, part: u8, now: u8) {
        if let Some(cell) = self.cell(shard) {
            cell.update(Ordering::AcqRel, Ordering::Acquire, |known| (known & !part) | now);
        }
    }

    pub(crate) fn stalled(&self, shard: Shard, stalled: bool) {
        if let Some(cell) = self.stalled.get(index(shard)) {
            cell.store(stalled, Ordering::Release);
        }
    }

    pub(crate) fn is_stalled(&self, shard: Shard) -> bool {
        let cell = self.stalled.get(index(shard));
        cell.is_some_and(|cell| cell.load(Ordering::Acquire))
    }

    pub(crate) fn halted(&self, shard: Shard) {
        self.learn(shard, HALTED, HALTED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard::new(1);

    #[derive(Debug, Clone, PartialEq)]
    enum Heard {
        Lease(Lease),
        Owner(bool),
    }

    /// The node claims, its lease goes to another meanwhile, the claim counts after all, and it resigns.
    #[test]
    fn a_claim_that_counts_after_its_lease_went_to_another_leaves_no_trace() {
        let routing = Routing::new(ShardCount::try_from(2).expect("a count"));
        let theirs = Lease::Theirs("http://b".to_owned());
        routing.lease(SHARD, &Lease::Ours);
        routing.lease(SHARD, &theirs);
        routing.owner(SHARD, true);
        routing.owner(SHARD, false);
        assert_eq!(routing.place(SHARD), Place::At("http://b".to_owned()));
    }

    #[test]
    fn whatever_is_heard_in_which_order_the_last_of_each_side_counts() {
        let all = [
            Heard::Lease(Lease::Ours),
            Heard::Lease(Lease::Unknown),
            Heard::Lease(Lease::Theirs("http://b".to_owned())),
            Heard::Owner(true),
            Heard::Owner(false),
        ];
        for number in 0..all.len().pow(5) {
            let routing = Routing::new(ShardCount::try_from(2).expect("a count"));
            let (mut lease, mut owner) = (Lease::Unknown, false);
            let heard = (0..5).map(|digit| &all[number / all.len().pow(digit) % all.len()]);
            for heard in heard.clone() {
                match heard {
                    Heard::Lease(says) => {
                        routing.lease(SHARD, says);
                        lease = says.clone();
                    }
                    Heard::Owner(is) => {
                        routing.owner(SHARD, *is);
                        owner = *is;
                    }
                }
            }
            let wanted = match lease {
                Lease::Theirs(url) => Place::At(url),
                Lease::Ours => Place::Here { owner },
                Lease::Unknown if owner => Place::Here { owner },
                Lease::Unknown => Place::Nowhere,
            };
            assert_eq!(routing.place(SHARD), wanted, "{:?}", heard.collect::<Vec<_>>());
            assert_eq!(routing.place(Shard::new(0)), Place::Nowhere);
            routing.halted(SHARD);
            assert_eq!(routing.place(SHARD), Place::Halted);
        }
    }
}

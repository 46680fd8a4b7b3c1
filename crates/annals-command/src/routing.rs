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

const NOWHERE: u8 = 0;
const CLAIMING: u8 = 1;
const OWNER: u8 = 2;
const ELSEWHERE: u8 = 3;
const HALTED: u8 = 4;

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
            shards: (0..count).map(|_| AtomicU8::new(NOWHERE)).collect(),
            stalled: (0..count).map(|_| AtomicBool::new(false)).collect(),
            urls: RwLock::new(vec![String::new(); count]),
        }
    }

    fn cell(&self, shard: Shard) -> Option<&AtomicU8> {
        self.shards.get(index(shard))
    }

    pub(crate) fn place(&self, shard: Shard) -> Place {
        match self.cell(shard).map(|cell| cell.load(Ordering::Acquire)) {
            Some(CLAIMING) => Place::Here { owner: false },
            Some(OWNER) => Place::Here { owner: true },
            Some(HALTED) => Place::Halted,
            Some(ELSEWHERE) => {
                let urls = self.urls.read().expect("nobody panics while holding it");
                urls.get(index(shard))
                    .map_or(Place::Nowhere, |url| Place::At(url.clone()))
            }
            _ => Place::Nowhere,
        }
    }

    /// Leases speak of shards that this node does not own by the log.
    pub(crate) fn lease(&self, shard: Shard, lease: &Lease) {
        let Some(cell) = self.cell(shard) else { return };
        let state = match lease {
            Lease::Ours => CLAIMING,
            Lease::Unknown => NOWHERE,
            Lease::Theirs(url) => {
                let mut urls = self.urls.write().expect("nobody panics while holding it");
                if let Some(known) = urls.get_mut(index(shard)) {
                    known.clone_from(url);
                }
                ELSEWHERE
            }
        };
        // An owner by the log whose lease is nobody's decides on until somebody claims: routes stay as they are.
        let stays = |now| now == HALTED || (now == OWNER && matches!(state, CLAIMING | NOWHERE));
        let change = |now| (!stays(now)).then_some(state);
        cell.try_update(Ordering::AcqRel, Ordering::Acquire, change).ok();
    }

    pub(crate) fn owner(&self, shard: Shard, owner: bool) {
        let Some(cell) = self.cell(shard) else { return };
        let change = |now| match (owner, now) {
            (_, HALTED) | (false, NOWHERE | ELSEWHERE | CLAIMING) => None,
            (true, _) => Some(OWNER),
            (false, _) => Some(CLAIMING),
        };
        cell.try_update(Ordering::AcqRel, Ordering::Acquire, change).ok();
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
        if let Some(cell) = self.cell(shard) {
            cell.store(HALTED, Ordering::Release);
        }
    }
}

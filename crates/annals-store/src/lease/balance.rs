//! Who should have which lease: rendezvous hashing over the live nodes. Pure.
//!
//! Every node computes the same from the same list of nodes; a node that comes or goes moves only the
//! leases that it gains or had.
//!
//! Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Lease, LeaseKey, LeaseKind, NodeId};

/// What a node should do next about leases of one kind and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Should be this node's, and nobody else has it in force.
    pub acquire: Vec<LeaseKey>,
    /// Is this node's, and stays so.
    pub keep: Vec<LeaseKey>,
    /// Is this node's, and should be another live node's: finish what is under way, then release.
    pub release: Vec<LeaseKey>,
}

/// The node that should have a lease: the one with the highest hash of node and lease. `None` without
/// nodes. The order of `nodes` does not matter.
#[must_use]
pub fn desired_owner<'a>(nodes: &'a [NodeId], kind: LeaseKind, name: &str, shard: u32) -> Option<&'a NodeId> {
    nodes
        .iter()
        .max_by_key(|node| (score(node, kind, name, shard), *node))
}

/// What `me` should do about `keys`, given the live `nodes` able to do the work and the leases in the table.
///
/// If `me` is not among the nodes, it releases what it has and takes nothing.
#[must_use]
pub fn balance(me: &NodeId, nodes: &[NodeId], keys: &[LeaseKey], leases: &[Lease]) -> Plan {
    let held: BTreeMap<&LeaseKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
    let mut plan = Plan::default();
    for key in keys {
        let mine = desired_owner(nodes, key.kind, &key.name, key.shard) == Some(me);
        let holder = held.get(key).filter(|lease| lease.live).map(|lease| &lease.node);
        match (mine, holder == Some(me), holder) {
            (true, true, _) => plan.keep.push(key.clone()),
            (true, false, None) => plan.acquire.push(key.clone()),
            (false, true, _) => plan.release.push(key.clone()),
            (true, false, Some(_)) | (false, false, _) => {}
        }
    }
    plan
}

fn score(node: &NodeId, kind: LeaseKind, name: &str, shard: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [node.as_str(), kind.as_str(), name] {
        // A byte that UTF-8 never has, so that no two lists of parts look alike.
        hash.update(part.as_bytes());
        hash.update([0xff]);
    }
    hash.update(shard.to_be_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn nodes(names: &[&str]) -> Vec<NodeId> {
        names.iter().map(|name| NodeId::new(*name)).collect()
    }

    fn keys(shards: u32) -> Vec<LeaseKey> {
        (0..shards)
            .map(|shard| LeaseKey::new(LeaseKind::Command, "", shard))
            .collect()
    }

    fn lease(key: &LeaseKey, node: &str, live: bool) -> Lease {
        Lease {
            key: key.clone(),
            node: NodeId::new(node),
            url: String::new(),
            epoch_hint: 0,
            expires_at: None,
            live,
            remaining: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn every_lease_has_exactly_one_desired_owner_whatever_the_order_of_nodes() {
        let (forth, back) = (nodes(&["a", "b", "c"]), nodes(&["c", "b", "a"]));
        let mut count = BTreeMap::new();
        for shard in 0..300 {
            let owner = desired_owner(&forth, LeaseKind::Command, "", shard).unwrap();
            assert_eq!(Some(owner), desired_owner(&back, LeaseKind::Command, "", shard));
            *count.entry(owner.clone()).or_insert(0) += 1;
        }
        // 100 expected, standard deviation 8.
        assert!(count.values().all(|n| (60..=140).contains(n)), "{count:?}");
        assert_eq!(desired_owner(&[], LeaseKind::Command, "", 0), None);
    }

    #[test]
    fn a_node_that_leaves_moves_only_what_it_had() {
        let (all, fewer) = (nodes(&["a", "b", "c"]), nodes(&["a", "c"]));
        for shard in 0..200 {
            let before = desired_owner(&all, LeaseKind::Projection, "orders/3", shard).unwrap();
            let after = desired_owner(&fewer, LeaseKind::Projection, "orders/3", shard).unwrap();
            assert!(before.as_str() == "b" || before == after);
        }
    }

    #[test]
    fn one_node_takes_all_that_is_free_and_leaves_what_is_held() {
        let keys = keys(4);
        let leases = [
            lease(&keys[0], "me", true),
            lease(&keys[1], "old", true),
            lease(&keys[2], "old", false),
        ];
        let plan = balance(&NodeId::new("me"), &nodes(&["me"]), &keys, &leases);
        assert_eq!(plan.keep, [keys[0].clone()]);
        assert_eq!(plan.acquire, [keys[2].clone(), keys[3].clone()]);
        assert!(plan.release.is_empty());
    }

    #[test]
    fn a_second_node_is_given_exactly_its_share() {
        let keys = keys(16);
        let both = nodes(&["first", "second"]);
        let held: Vec<Lease> = keys.iter().map(|key| lease(key, "first", true)).collect();
        let first = balance(&both[0], &both, &keys, &held);
        let second = balance(&both[1], &both, &keys, &held);
        assert!(second.acquire.is_empty(), "what is in force is not taken");
        assert!(!first.release.is_empty() && !first.keep.is_empty());
        let left: Vec<Lease> = first.keep.iter().map(|key| lease(key, "first", true)).collect();
        assert_eq!(balance(&both[1], &both, &keys, &left).acquire, first.release);
    }

    #[test]
    fn a_node_that_is_not_listed_gives_everything_back() {
        let keys = keys(2);
        let leases = [lease(&keys[0], "me", true)];
        let plan = balance(&NodeId::new("me"), &nodes(&["other"]), &keys, &leases);
        assert_eq!(
            plan,
            Plan {
                release: vec![keys[0].clone()],
                ..Plan::default()
            }
        );
    }
}

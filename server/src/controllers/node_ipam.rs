//! Gives every node its pod address ranges (`pkg/controller/nodeipam/ipam/range_allocator.go`).
//!
//! Owns `spec.podCIDR` of nodes. The ranges in use are read off the nodes themselves; nothing else remembers them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, Error, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

/// A cluster range, cut into equal node ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: u128,
    prefix: u8,
    node_prefix: u8,
    bits: u8,
}

impl Range {
    /// From `10.244.0.0/16` and the prefix length of a node's share.
    ///
    /// # Errors
    /// What is wrong with the text, or that a share would be larger than the whole.
    pub fn parse(text: &str, v4: u8, v6: u8) -> Result<Self, Error> {
        let invalid = || Error::Other(format!("invalid CIDR address: {text}"));
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let (address, prefix) = (address.parse::<IpAddr>().map_err(|_| invalid())?, prefix.parse::<u8>().map_err(|_| invalid())?);
        let (bits, number, node_prefix) = match address {
            IpAddr::V4(a) => (32, u128::from(u32::from(a)), v4),
            IpAddr::V6(a) => (128, u128::from(a), v6),
        };
        if prefix > bits || node_prefix > bits {
            return Err(invalid());
        }
        if node_prefix < prefix {
            return Err(Error::Other(format!("node range /{node_prefix} does not fit into cluster range {text}")));
        }
        let base = if prefix == 0 { 0 } else { number >> (bits - prefix) << (bits - prefix) };
        Ok(Range { base, prefix, node_prefix, bits })
    }

    /// How many nodes fit.
    pub fn capacity(&self) -> u64 {
        1u64 << (self.node_prefix - self.prefix).min(62)
    }

    fn step(&self) -> u128 {
        if self.bits == self.node_prefix { 1 } else { 1u128 << (self.bits - self.node_prefix) }
    }

    /// The share with this number.
    pub fn nth(&self, n: u64) -> String {
        let address = self.base + self.step() * u128::from(n);
        let address = if self.bits == 32 { IpAddr::V4(Ipv4Addr::from(address as u32)) } else { IpAddr::V6(Ipv6Addr::from(address)) };
        format!("{address}/{}", self.node_prefix)
    }

    /// The numbers of the shares that a range within this one touches.
    pub fn shares(&self, text: &str) -> Option<std::ops::RangeInclusive<u64>> {
        let (address, prefix) = text.split_once('/')?;
        let prefix: u8 = prefix.parse().ok()?;
        let (bits, number) = match address.parse().ok()? {
            IpAddr::V4(a) => (32, u128::from(u32::from(a))),
            IpAddr::V6(a) => (128, u128::from(a)),
        };
        if bits != self.bits || prefix > bits || number < self.base {
            return None;
        }
        let size = if prefix == 0 { u128::MAX } else { (1u128 << (bits - prefix)) - 1 };
        let (first, last) = ((number - self.base) / self.step(), (number.saturating_add(size) - self.base) / self.step());
        let (first, last) = (u64::try_from(first).ok()?, u64::try_from(last).unwrap_or(u64::MAX).min(self.capacity() - 1));
        (first < self.capacity()).then_some(first..=last)
    }
}

/// The lowest free share of a range.
pub fn free<'a>(range: &Range, in_use: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut taken = BTreeSet::new();
    for shares in in_use.filter_map(|text| range.shares(text)) {
        taken.extend(shares);
    }
    (0..range.capacity()).find(|n| !taken.contains(n)).map(|n| range.nth(n))
}

fn ranges_of(node: &Node) -> Vec<String> {
    let spec = node.spec.clone().unwrap_or_default();
    spec.pod_cidrs.filter(|c| !c.is_empty()).unwrap_or_else(|| spec.pod_cidr.into_iter().collect())
}

/// Starts the controller; without cluster ranges there is nothing to give.
pub fn start(ctx: Context) {
    let parsed: Result<Vec<_>, _> =
        ctx.config.cluster_cidrs.iter().map(|text| Range::parse(text, ctx.config.node_mask_v4, ctx.config.node_mask_v6)).collect();
    let ranges = match parsed {
        Ok(ranges) if ranges.is_empty() => return,
        Ok(ranges) => ranges,
        Err(error) => return tracing::error!(%error, "node-ipam-controller is off"),
    };
    let nodes = ctx.informers.get::<Node>();
    let queue: Queue<Key> = Queue::new();
    let (all, into) = (nodes.clone(), queue.clone());
    let waiting = move || all.list().iter().filter(|n| ranges_of(n).is_empty()).map(|n| Key::of(&**n)).collect::<Vec<_>>();
    queue.set_resync(ctx.config.resync, waiting.clone());
    ctx.on(&nodes, move |change| match &change {
        // A node that goes makes room for one that waits.
        Change::Deleted(_) => waiting().into_iter().for_each(|key| into.add(key)),
        _ if ranges_of(change.object()).is_empty() => into.add(Key::of(&**change.object())),
        _ => {}
    });
    let allocator = Arc::new(Allocator {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        nodes: nodes.clone(),
        ranges,
        given: parking_lot::Mutex::default(),
    });
    // One at a time: two nodes must not find the same share free.
    ctx.work(&queue, 1, vec![synced(&nodes)], move |key| {
        let allocator = allocator.clone();
        async move { allocator.sync(&key).await }
    });
}

struct Allocator {
    client: kube::Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    ranges: Vec<Range>,
    /// What was given to nodes whose change the cache may not show yet.
    given: parking_lot::Mutex<std::collections::HashMap<String, Vec<String>>>,
}

impl Allocator {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let all = self.nodes.list();
        let Some(node) = all.iter().find(|n| n.metadata.name.as_deref() == Some(&key.name)) else {
            self.given.lock().remove(&key.name);
            return Ok(());
        };
        if !ranges_of(node).is_empty() || node.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut in_use: Vec<String> = all.iter().flat_map(|n| ranges_of(n)).collect();
        {
            let mut given = self.given.lock();
            given.retain(|name, _| *name != key.name && all.iter().any(|n| n.metadata.name.as_ref() == Some(name) && ranges_of(n).is_empty()));
            in_use.extend(given.values().flatten().cloned());
        }
        let chosen: Option<Vec<String>> = self.ranges.iter().map(|r| free(r, in_use.iter().map(String::as_str))).collect();
        let Some(chosen) = chosen else {
            self.event(node, "CIDRNotAvailable");
            return Err(Error::Other(format!(
                "failed to allocate cidr for node {}: CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range",
                key.name
            )));
        };
        self.given.lock().insert(key.name.clone(), chosen.clone());
        let patch = json!({
            "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
            "spec": { "podCIDR": chosen.first(), "podCIDRs": chosen },
        });
        let api: Api<Node> = Api::all(self.client.clone());
        match found(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await) {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(error),
            Err(error) => {
                self.event(node, "CIDRAssignmentFailed");
                Err(error)
            }
        }
    }

    fn event(&self, node: &Node, status: &str) {
        let name = node.metadata.name.clone();
        let text = format!("Node {} status is now: {status}", name.as_deref().unwrap_or_default());
        let object = ObjectReference { kind: Some("Node".into()), uid: node.metadata.uid.clone(), name, ..ObjectReference::default() };
        self.recorder.event_on(object, Kind::Normal, status, text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_cut_from_the_range_in_order() {
        let range = Range::parse("10.244.0.0/16", 24, 64).unwrap();
        assert_eq!((range.capacity(), range.nth(0), range.nth(255)), (256, "10.244.0.0/24".into(), "10.244.255.0/24".into()));
        let six = Range::parse("fd00:1::/48", 24, 64).unwrap();
        assert_eq!((six.capacity(), six.nth(1).as_str()), (65536, "fd00:1:0:1::/64"));
        assert_eq!(Range::parse("10.0.0.7/24", 24, 64).unwrap().nth(0), "10.0.0.0/24");
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/28"] {
            assert!(Range::parse(bad, 24, 64).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_lowest_free_share_is_given_and_larger_ranges_in_use_are_respected() {
        let range = Range::parse("10.244.0.0/22", 24, 64).unwrap();
        let given = |in_use: &[&str]| free(&range, in_use.iter().copied());
        assert_eq!(given(&[]), Some("10.244.0.0/24".into()));
        assert_eq!(given(&["10.244.0.0/24", "10.244.2.0/24"]), Some("10.244.1.0/24".into()));
        assert_eq!(given(&["10.244.0.0/23"]), Some("10.244.2.0/24".into()));
        assert_eq!(given(&["10.244.1.128/25", "10.244.0.0/24"]), Some("10.244.2.0/24".into()));
        assert_eq!(given(&["192.168.0.0/24", "fd00::/64"]), Some("10.244.0.0/24".into()));
        assert_eq!(given(&["10.244.0.0/22"]), None);
    }

    proptest! {
        #[test]
        fn every_node_gets_a_share_of_its_own_until_none_is_left(gone in proptest::collection::vec(0..64usize, 0..20)) {
            let range = Range::parse("10.0.0.0/18", 24, 64).unwrap();
            let mut held: Vec<String> = Vec::new();
            while let Some(share) = free(&range, held.iter().map(String::as_str)) {
                prop_assert!(!held.contains(&share));
                held.push(share);
            }
            prop_assert_eq!(held.len(), 64);
            let kept: Vec<String> = held.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, s)| s.clone()).collect();
            let next = free(&range, kept.iter().map(String::as_str));
            prop_assert_eq!(next.is_some(), kept.len() < 64);
            prop_assert!(next.is_none_or(|n| !kept.contains(&n)));
        }
    }
}

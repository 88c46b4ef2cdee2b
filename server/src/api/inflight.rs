//! Limits on requests under way: reading ones, mutating ones, and a lane that is always open for health and leases
//! (`k8s.io/apiserver/pkg/server/filters/maxinflight.go`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::request_info::RequestInfo;
use super::user::User;

/// A class of requests that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// get, list
    Reading,
    /// create, update, patch, delete
    Mutating,
    /// Health and leases: what tells others that this server and its clients are alive must not wait behind work.
    Exempt,
}

impl Lane {
    /// The lane of a request; `None` for one that lives as long as its client wants, which is counted elsewhere.
    pub fn of(info: &RequestInfo, user: &User) -> Option<Lane> {
        if info.long_running() {
            return None;
        }
        let health = !info.is_resource && ["/healthz", "/livez", "/readyz"].iter().any(|p| info.path.starts_with(p));
        // Only Kubernetes' own parts: anyone else could fill the lane that has no limit.
        let own = user.name.starts_with("system:") && !user.name.starts_with("system:serviceaccount:");
        if health || own && info.is_resource && info.group == "coordination.k8s.io" && info.resource == "leases" {
            return Some(Lane::Exempt);
        }
        Some(if matches!(info.verb, "get" | "list" | "head") { Lane::Reading } else { Lane::Mutating })
    }
    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Reading => "readOnly",
            Lane::Mutating => "mutating",
            Lane::Exempt => "exempt",
        }
    }
}

/// The counters; clones share them.
#[derive(Clone)]
pub struct InFlight(Arc<[Counter; 3]>);

struct Counter {
    now: AtomicUsize,
    limit: usize,
}

/// A place in a lane, given back when dropped.
pub struct Place(InFlight, Lane);

impl InFlight {
    /// Limits for the reading and the mutating lane.
    pub fn new(reading: usize, mutating: usize) -> Self {
        InFlight(Arc::new([reading, mutating, usize::MAX].map(|limit| Counter { now: AtomicUsize::new(0), limit })))
    }
    fn counter(&self, lane: Lane) -> &Counter {
        &self.0[lane as usize]
    }
    /// A place, unless the lane is full.
    pub fn enter(&self, lane: Lane) -> Option<Place> {
        let counter = self.counter(lane);
        let before = counter.now.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.clone(), lane);
        // A refused place is dropped here, which takes the count back.
        (before < counter.limit).then_some(place)
    }
    /// How many requests are under way in a lane.
    pub fn now(&self, lane: Lane) -> usize {
        self.counter(lane).now.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counter(self.1).now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane_of(user: &str, method: &http::Method, uri: &str) -> Option<Lane> {
        Lane::of(&RequestInfo::parse(method, &uri.parse().unwrap()).unwrap(), &User::new(user, &[]))
    }
    fn lane(method: &http::Method, uri: &str) -> Option<Lane> {
        lane_of("system:node:n", method, uri)
    }

    #[test]
    fn a_full_lane_refuses_until_a_place_is_given_back() {
        let limits = InFlight::new(2, 1);
        let (a, b) = (limits.enter(Lane::Reading), limits.enter(Lane::Reading));
        assert!(a.is_some() && b.is_some() && limits.enter(Lane::Reading).is_none());
        assert!(limits.enter(Lane::Mutating).is_some(), "lanes are apart");
        assert_eq!(limits.now(Lane::Reading), 2, "a refusal counts for nothing");
        drop(a);
        assert!(limits.enter(Lane::Reading).is_some());
        let exempt: Vec<_> = (0..1000).map(|_| limits.enter(Lane::Exempt)).collect();
        assert!(exempt.iter().all(Option::is_some));
    }

    #[test]
    fn health_and_leases_have_a_lane_of_their_own_and_streams_have_none() {
        use http::Method;
        assert_eq!(lane(&Method::GET, "/api/v1/pods"), Some(Lane::Reading));
        assert_eq!(lane(&Method::POST, "/api/v1/namespaces/a/pods"), Some(Lane::Mutating));
        assert_eq!(lane(&Method::GET, "/readyz"), Some(Lane::Exempt));
        assert_eq!(lane(&Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n"), Some(Lane::Exempt));
        let lease = "/apis/coordination.k8s.io/v1/namespaces/a/leases/n";
        assert_eq!(lane_of("jane", &Method::PUT, lease), Some(Lane::Mutating));
        assert_eq!(lane_of("system:serviceaccount:a:b", &Method::PUT, lease), Some(Lane::Mutating));
        assert_eq!(lane(&Method::GET, "/api/v1/pods?watch=1"), None);
        assert_eq!(lane(&Method::GET, "/api/v1/namespaces/a/pods/p/log?follow=1"), None);
        assert_eq!(lane(&Method::POST, "/api/v1/namespaces/a/pods/p/exec"), None);
    }
}

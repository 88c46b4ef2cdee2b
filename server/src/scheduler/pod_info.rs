//! A pod as the scheduler sees it: everything a decision needs, parsed once.
//!
//! Pure values. Must not reach for other objects; what depends on them is asked of [`super::cluster::Cluster`].

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodCondition, PodSpec, PodStatus, TopologySpreadConstraint, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use shared::selector::Selector;

use super::resources::{Resources, pod_nonzero_requests, pod_requests};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What selectors see of a pod. Pods of one workload share it, so a selector is matched once for all of them.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// Namespace.
    pub namespace: String,
    /// Labels.
    pub labels: Labels,
}

/// Makes equal classes the same allocation.
#[derive(Default)]
pub struct Classes {
    known: HashSet<Arc<Class>>,
    limit: usize,
}

impl Classes {
    fn intern(&mut self, class: Class) -> Arc<Class> {
        if let Some(known) = self.known.get(&class) {
            return known.clone();
        }
        if self.known.len() >= self.limit {
            self.known.retain(|c| Arc::strong_count(c) > 1);
            self.limit = (self.known.len() * 2).max(1024);
        }
        let class = Arc::new(class);
        self.known.insert(class.clone());
        class
    }
}

/// A port that a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port.
    pub port: i32,
    /// Address; `0.0.0.0` is all of them.
    pub ip: String,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let wild = |ip: &str| ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (self.ip == other.ip || wild(&self.ip) || wild(&other.ip))
    }
}

/// One pod (anti-)affinity term.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    namespaces: BTreeSet<String>,
    namespace_selector: Selector,
    selector: Selector,
    /// Node label that makes up the domain.
    pub topology_key: String,
    /// 1 for required terms.
    pub weight: i64,
}

impl AffinityTerm {
    /// Whether a pod with these labels is meant; `namespaces` gives the labels of a namespace.
    pub fn matches(&self, class: &Class, namespaces: &BTreeMap<String, Labels>) -> bool {
        let here = self.namespaces.contains(&class.namespace)
            || namespaces.get(&class.namespace).is_some_and(|labels| self.namespace_selector.matches(labels))
            || (self.namespace_selector.is_everything() && !namespaces.contains_key(&class.namespace));
        here && self.selector.matches(&class.labels)
    }
}

/// One topology spread constraint.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Largest difference allowed between domains.
    pub max_skew: i64,
    /// Node label that makes up the domain.
    pub topology_key: String,
    /// Which pods are counted.
    pub selector: Selector,
    /// Fewer domains than this count as having none of the pods.
    pub min_domains: i64,
    /// Leave nodes out that the pod's node affinity excludes.
    pub honor_affinity: bool,
    /// Leave nodes out whose taints the pod does not tolerate.
    pub honor_taints: bool,
}

/// A parsed pod.
#[derive(Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// `namespace/name`
    pub key: Arc<str>,
    /// Namespace and labels.
    pub class: Arc<Class>,
    /// Priority; 0 when absent.
    pub priority: i32,
    /// What it takes from a node.
    pub requests: Resources,
    /// The same with assumed amounts, for scores.
    pub nonzero: Resources,
    /// Host ports.
    pub ports: Vec<HostPort>,
    /// Required affinity.
    pub affinity: Vec<AffinityTerm>,
    /// Required anti-affinity.
    pub anti_affinity: Vec<AffinityTerm>,
    /// Preferred affinity, and anti-affinity with negative weights.
    pub preferred: Vec<AffinityTerm>,
    /// Hard spread constraints.
    pub spread: Vec<Spread>,
    /// Soft spread constraints.
    pub soft_spread: Vec<Spread>,
}

impl PodInfo {
    /// Parses a pod. A selector that cannot be parsed (the API refuses those) selects nothing.
    pub fn new(pod: Arc<Pod>, classes: &mut Classes) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let affinity = spec.and_then(|s| s.affinity.as_ref());
        let with = affinity.and_then(|a| a.pod_affinity.as_ref());
        let without = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let required = |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(|t| term(t, 1, &namespace, &labels)).collect();
        let mut preferred = weighted(with.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1, &namespace, &labels);
        preferred.extend(weighted(without.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), -1, &namespace, &labels));
        let constraints = spec.and_then(|s| s.topology_spread_constraints.as_ref());
        let spreads =
            |when: &str| constraints.into_iter().flatten().filter(|c| c.when_unsatisfiable == when).map(|c| spread(c, &labels)).collect::<Vec<_>>();
        PodInfo {
            key: format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default()).into(),
            priority: spec.and_then(|s| s.priority).unwrap_or(0),
            requests: pod_requests(&pod),
            nonzero: pod_nonzero_requests(&pod),
            ports: spec.map(host_ports).unwrap_or_default(),
            affinity: required(with.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            anti_affinity: required(without.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred,
            spread: spreads("DoNotSchedule"),
            soft_spread: spreads("ScheduleAnyway"),
            class: classes.intern(Class { namespace, labels }),
            pod,
        }
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }
    /// Namespace.
    pub fn namespace(&self) -> &str {
        &self.class.namespace
    }
    /// UID.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }
    /// The node it is bound to.
    pub fn node_name(&self) -> Option<&str> {
        self.spec().and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty())
    }
    /// The node that preemption made room on.
    pub fn nominated_node(&self) -> Option<&str> {
        self.status().and_then(|s| s.nominated_node_name.as_deref()).filter(|n| !n.is_empty())
    }
    /// Whether its deletion has begun.
    pub fn terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }
    /// Whether it has ended, and so takes nothing any more.
    pub fn finished(&self) -> bool {
        matches!(self.status().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
    }
    /// Whether gates keep it from being scheduled.
    pub fn gated(&self) -> bool {
        self.spec().and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty())
    }
    /// Whether other pods matter to its affinity, or it to theirs.
    pub fn has_affinity(&self) -> bool {
        !(self.affinity.is_empty() && self.anti_affinity.is_empty() && self.preferred.is_empty())
    }
    /// Spec.
    pub fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }
    /// Status.
    pub fn status(&self) -> Option<&PodStatus> {
        self.pod.status.as_ref()
    }
    /// A condition of its status.
    pub fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.status()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
    }
    /// When it started, or was made, for the order of preemption.
    pub fn started(&self) -> Option<k8s_openapi::jiff::Timestamp> {
        let started = self.status().and_then(|s| s.start_time.as_ref());
        started.or(self.pod.metadata.creation_timestamp.as_ref()).map(|t| t.0)
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let restartable = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut ports = Vec::new();
    for port in spec.containers.iter().chain(restartable).flat_map(|c| c.ports.iter().flatten()) {
        if let Some(number) = port.host_port.filter(|p| *p > 0) {
            let or = |text: &Option<String>, default: &str| text.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| default.into());
            ports.push(HostPort { protocol: or(&port.protocol, "TCP"), port: number, ip: or(&port.host_ip, "0.0.0.0") });
        }
    }
    ports
}

/// `matchLabelKeys` and `mismatchLabelKeys` become requirements on the pod's own values, as the API server also writes them.
fn with_label_keys(selector: Option<&LabelSelector>, keys: &[String], operator: &str, labels: &Labels) -> Option<LabelSelector> {
    let mut selector = selector?.clone();
    for key in keys {
        if let Some(value) = labels.get(key) {
            let requirement = LabelSelectorRequirement { key: key.clone(), operator: operator.into(), values: Some(vec![value.clone()]) };
            selector.match_expressions.get_or_insert_with(Vec::new).push(requirement);
        }
    }
    Some(selector)
}

fn parsed(selector: Option<&LabelSelector>) -> Selector {
    Selector::from_label_selector(selector).unwrap_or_else(|_| Selector::nothing())
}

fn term(term: &PodAffinityTerm, weight: i64, namespace: &str, labels: &Labels) -> AffinityTerm {
    let same = with_label_keys(term.label_selector.as_ref(), term.match_label_keys.as_deref().unwrap_or_default(), "In", labels);
    let selector = with_label_keys(same.as_ref(), term.mismatch_label_keys.as_deref().unwrap_or_default(), "NotIn", labels);
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.insert(namespace.to_owned());
    }
    AffinityTerm {
        namespaces,
        namespace_selector: parsed(term.namespace_selector.as_ref()),
        selector: parsed(selector.as_ref()),
        topology_key: term.topology_key.clone(),
        weight,
    }
}

fn weighted(terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64, namespace: &str, labels: &Labels) -> Vec<AffinityTerm> {
    terms.into_iter().flatten().map(|t| term(&t.pod_affinity_term, sign * i64::from(t.weight), namespace, labels)).collect()
}

fn spread(constraint: &TopologySpreadConstraint, labels: &Labels) -> Spread {
    let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
    Spread {
        max_skew: i64::from(constraint.max_skew),
        topology_key: constraint.topology_key.clone(),
        selector: parsed(with_label_keys(constraint.label_selector.as_ref(), keys, "In", labels).as_ref()),
        min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

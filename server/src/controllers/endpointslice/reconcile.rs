//! From the slices there are and the endpoints wanted to the fewest writes (`staging/src/k8s.io/endpointslice/reconciler.go`). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::endpoint::{HEADLESS, is_headless};
use crate::controllers::control::controller_ref;

/// Most endpoints a slice has.
pub const MAX_ENDPOINTS: usize = 100;
/// The Service a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who looks after a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// This controller, as such.
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// What is to be written.
#[derive(Debug, Default)]
pub struct Plan {
    /// New slices, without names.
    pub create: Vec<EndpointSlice>,
    /// Slices with new contents.
    pub update: Vec<EndpointSlice>,
    /// Slices that go.
    pub delete: Vec<Arc<EndpointSlice>>,
}

/// Ports in an order and a form that can be compared: name, number, protocol, application protocol.
pub type PortKey = Vec<(String, i32, String, String)>;

/// The key of a list of ports.
pub fn port_key(ports: &[EndpointPort]) -> PortKey {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let mut key: PortKey = ports.iter().map(|p| (text(&p.name), p.port.unwrap_or_default(), text(&p.protocol), text(&p.app_protocol))).collect();
    key.sort();
    key
}

/// The endpoints wanted with one set of ports.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The ports.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// What tells endpoints apart: address, hostname, and the namespace and name of the pod.
type EndpointKey = (Vec<String>, String, String, String);

fn endpoint_key(endpoint: &Endpoint) -> EndpointKey {
    let target = endpoint.target_ref.clone().unwrap_or_default();
    let hostname = endpoint.hostname.clone().unwrap_or_default();
    (endpoint.addresses.clone(), hostname, target.namespace.unwrap_or_default(), target.name.unwrap_or_default())
}

/// The labels slices of a Service carry: the Service's own, and ours.
pub fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|k, _| !matches!(k.as_str(), SERVICE_NAME | MANAGED_BY | HEADLESS));
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels
}

/// What the slices of one Service have in common.
pub struct Common {
    /// The Service's namespace.
    pub namespace: Option<String>,
    /// The Service's name.
    pub service: String,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
    /// Their annotations, if those are of any concern.
    pub annotations: Option<BTreeMap<String, String>>,
    /// What they go with.
    pub owner: OwnerReference,
    /// Most endpoints each has.
    pub most: usize,
    /// Whether one stays, empty, when there are no endpoints.
    pub placeholder: bool,
}

impl Common {
    /// The slices this controller makes for a Service.
    pub fn of(service: &Service) -> Self {
        Common {
            namespace: service.metadata.namespace.clone(),
            service: service.metadata.name.clone().unwrap_or_default(),
            labels: labels(service),
            annotations: None,
            owner: controller_ref(service),
            most: MAX_ENDPOINTS,
            placeholder: true,
        }
    }

    fn owns(&self, slice: &EndpointSlice) -> bool {
        slice.metadata.owner_references.iter().flatten().any(|o| o.uid == self.owner.uid)
    }

    fn is_worn(&self, meta: &ObjectMeta) -> bool {
        meta.labels.as_ref() == Some(&self.labels) && self.annotations.as_ref().is_none_or(|a| *a == meta.annotations.clone().unwrap_or_default())
    }

    fn dress(&self, meta: &mut ObjectMeta) {
        meta.labels = Some(self.labels.clone());
        if let Some(annotations) = &self.annotations {
            meta.annotations = Some(annotations.clone());
        }
    }

    fn slice(&self, address_type: &str, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let mut metadata = ObjectMeta {
            generate_name: Some(format!("{}-", self.service)),
            namespace: self.namespace.clone(),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        };
        self.dress(&mut metadata);
        EndpointSlice { metadata, address_type: address_type.to_owned(), endpoints: Some(endpoints), ports: Some(ports) }
    }
}

/// Plans the slices of one address type.
pub fn plan(common: &Common, address_type: &str, existing: &[Arc<EndpointSlice>], wanted: BTreeMap<PortKey, Wanted>) -> Plan {
    let mut plan = Plan::default();
    let mut by_ports: BTreeMap<PortKey, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        let key = port_key(slice.ports.as_deref().unwrap_or_default());
        if common.owns(slice) && wanted.contains_key(&key) {
            by_ports.entry(key).or_default().push(slice.clone());
        } else {
            plan.delete.push(slice.clone());
        }
    }
    for (key, wanted) in wanted {
        plan_ports(&mut plan, common, address_type, by_ports.remove(&key).unwrap_or_default(), wanted);
    }
    // An empty slice stands for "no endpoints", which is not the same as "not looked at yet".
    if common.placeholder && plan.create.is_empty() && plan.delete.len() == existing.len() {
        let placeholder = common.slice(address_type, Vec::new(), Vec::new());
        if let [only] = plan.delete.as_slice()
            && is_same_placeholder(only, &placeholder)
        {
            plan.delete.clear();
        } else {
            plan.create.push(placeholder);
        }
    }
    reuse(&mut plan, common);
    plan
}

fn is_same_placeholder(slice: &EndpointSlice, placeholder: &EndpointSlice) -> bool {
    slice.endpoints.as_ref().is_none_or(Vec::is_empty)
        && slice.ports.as_ref().is_none_or(Vec::is_empty)
        && slice.metadata.labels == placeholder.metadata.labels
        && slice.metadata.owner_references == placeholder.metadata.owner_references
}

fn plan_ports(plan: &mut Plan, common: &Common, address_type: &str, existing: Vec<Arc<EndpointSlice>>, wanted: Wanted) {
    let mut missing: BTreeMap<EndpointKey, Endpoint> = wanted.endpoints.into_iter().map(|e| (endpoint_key(&e), e)).collect();
    let (mut changed, mut unchanged) = (Vec::new(), Vec::new());
    // 1. Drop what is not wanted and refresh what is.
    for slice in existing {
        let before = slice.endpoints.clone().unwrap_or_default();
        let kept: Vec<Endpoint> = before.iter().filter_map(|e| missing.remove(&endpoint_key(e))).collect();
        if kept.is_empty() && !before.is_empty() {
            plan.delete.push(slice);
        } else if kept != before || !common.is_worn(&slice.metadata) {
            let mut new = (*slice).clone();
            new.endpoints = Some(kept);
            common.dress(&mut new.metadata);
            changed.push(new);
        } else {
            unchanged.push(slice);
        }
    }
    // 2. Fill up slices that are written anyway, the fullest first.
    changed.sort_by_key(|s| std::cmp::Reverse(s.endpoints.as_ref().map_or(0, Vec::len)));
    for slice in &mut changed {
        fill(slice, &mut missing, common.most);
    }
    // 3. The rest goes into the one untouched slice it fits best, or into new ones.
    while !missing.is_empty() {
        let room = |s: &Arc<EndpointSlice>| s.endpoints.as_ref().map_or(0, Vec::len) + missing.len();
        let best = unchanged.iter().enumerate().filter(|(_, s)| room(s) <= common.most).max_by_key(|(_, s)| room(s)).map(|(i, _)| i);
        match best {
            Some(at) => {
                let mut slice = (*unchanged.swap_remove(at)).clone();
                fill(&mut slice, &mut missing, common.most);
                changed.push(slice);
            }
            None => {
                let mut slice = common.slice(address_type, wanted.ports.clone(), Vec::new());
                fill(&mut slice, &mut missing, common.most);
                plan.create.push(slice);
            }
        }
    }
    plan.update.extend(changed);
}

fn fill(slice: &mut EndpointSlice, missing: &mut BTreeMap<EndpointKey, Endpoint>, most: usize) {
    let endpoints = slice.endpoints.get_or_insert_default();
    while endpoints.len() < most
        && let Some((_, endpoint)) = missing.pop_first()
    {
        endpoints.push(endpoint);
    }
}

/// Slices that would go take the contents of those that would come: one write instead of two, and no moment without either.
fn reuse(plan: &mut Plan, common: &Common) {
    let mut spare: BTreeSet<usize> = (0..plan.delete.len()).collect();
    spare.retain(|i| common.owns(&plan.delete[*i]));
    let mut reused = BTreeSet::new();
    for at in spare {
        let Some(mut slice) = plan.create.pop() else { break };
        let old = &plan.delete[at].metadata;
        slice.metadata.name = old.name.clone();
        slice.metadata.generate_name = old.generate_name.clone();
        slice.metadata.resource_version = old.resource_version.clone();
        slice.metadata.uid = old.uid.clone();
        plan.update.push(slice);
        reused.insert(at);
    }
    let mut at = 0;
    plan.delete.retain(|_| {
        at += 1;
        !reused.contains(&(at - 1))
    });
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;
    use proptest::prelude::*;

    use super::*;

    fn plan(service: &Service, address_type: &str, existing: &[Arc<EndpointSlice>], wanted: BTreeMap<PortKey, Wanted>) -> Plan {
        super::plan(&Common::of(service), address_type, existing, wanted)
    }

    fn service() -> Service {
        let mut service = Service::default();
        service.metadata.name = Some("web".into());
        service.metadata.namespace = Some("ns".into());
        service.metadata.uid = Some("u1".into());
        service
    }

    fn endpoint(n: usize, node: &str) -> Endpoint {
        let target = ObjectReference { name: Some(format!("p{n}")), ..ObjectReference::default() };
        Endpoint {
            addresses: vec![format!("10.0.{}.{}", n / 256, n % 256)],
            node_name: Some(node.into()),
            target_ref: Some(target),
            ..Endpoint::default()
        }
    }

    fn port(number: i32) -> EndpointPort {
        EndpointPort { name: Some("http".into()), port: Some(number), protocol: Some("TCP".into()), app_protocol: None }
    }

    fn wanted(range: impl IntoIterator<Item = usize>, number: i32) -> BTreeMap<PortKey, Wanted> {
        let endpoints: Vec<_> = range.into_iter().map(|n| endpoint(n, "n1")).collect();
        if endpoints.is_empty() {
            return BTreeMap::new();
        }
        [(port_key(&[port(number)]), Wanted { ports: vec![port(number)], endpoints })].into()
    }

    /// What the API would hold after the plan.
    fn apply(existing: &[Arc<EndpointSlice>], plan: Plan, counter: &mut usize) -> Vec<Arc<EndpointSlice>> {
        let mut after: Vec<_> = existing.to_vec();
        after.retain(|s| !plan.delete.iter().any(|d| d.metadata.name == s.metadata.name));
        for update in plan.update {
            let slot = after.iter_mut().find(|s| s.metadata.name == update.metadata.name).expect("updates name existing slices");
            *slot = Arc::new(update);
        }
        for mut new in plan.create {
            *counter += 1;
            new.metadata.name = Some(format!("web-{counter}"));
            after.push(Arc::new(new));
        }
        after
    }

    fn count(slices: &[Arc<EndpointSlice>]) -> usize {
        slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).sum()
    }

    fn writes(plan: &Plan) -> (usize, usize, usize) {
        (plan.create.len(), plan.update.len(), plan.delete.len())
    }

    #[test]
    fn slices_are_filled_split_and_left_alone() {
        let (service, mut n) = (service(), 0);
        let first = plan(&service, "IPv4", &[], wanted(0..250, 80));
        assert_eq!(writes(&first), (3, 0, 0));
        let slices = apply(&[], first, &mut n);
        assert_eq!(count(&slices), 250);
        assert_eq!(writes(&plan(&service, "IPv4", &slices, wanted(0..250, 80))), (0, 0, 0));
        // One more endpoint touches one slice: the fullest with room.
        let more = plan(&service, "IPv4", &slices, wanted(0..251, 80));
        assert_eq!(writes(&more), (0, 1, 0));
        let slices = apply(&slices, more, &mut n);
        // One endpoint replaced by another touches one slice too.
        let swapped = plan(&service, "IPv4", &slices, wanted((1..251).chain([300]), 80));
        assert_eq!(writes(&swapped), (0, 1, 0));
        // Another port reuses the names of the slices that would go.
        let other = plan(&service, "IPv4", &slices, wanted(0..150, 81));
        assert_eq!(writes(&other), (0, 2, 1));
        let slices = apply(&slices, other, &mut n);
        assert_eq!(count(&slices), 150);
    }

    #[test]
    fn no_endpoints_leave_one_empty_slice() {
        let (service, mut n) = (service(), 0);
        let empty = plan(&service, "IPv4", &[], BTreeMap::new());
        assert_eq!(writes(&empty), (1, 0, 0));
        let slices = apply(&[], empty, &mut n);
        assert_eq!(writes(&plan(&service, "IPv4", &slices, BTreeMap::new())), (0, 0, 0));
        let some = plan(&service, "IPv4", &slices, wanted(0..1, 80));
        assert_eq!(writes(&some), (0, 1, 0));
        let slices = apply(&slices, some, &mut n);
        let none = plan(&service, "IPv4", &slices, BTreeMap::new());
        assert_eq!(writes(&none), (0, 1, 0));
    }

    #[test]
    fn a_changed_label_of_the_service_reaches_its_slices() {
        let (mut service, mut n) = (service(), 0);
        let slices = apply(&[], plan(&service, "IPv4", &[], wanted(0..3, 80)), &mut n);
        service.metadata.labels = Some([("team".to_owned(), "a".to_owned()), (MANAGED_BY.to_owned(), "me".to_owned())].into());
        let changed = plan(&service, "IPv4", &slices, wanted(0..3, 80));
        assert_eq!(writes(&changed), (0, 1, 0));
        let labels = changed.update[0].metadata.labels.clone().unwrap();
        assert_eq!((labels["team"].as_str(), labels[MANAGED_BY].as_str()), ("a", CONTROLLER));
    }

    #[test]
    fn slices_of_an_earlier_service_of_the_same_name_are_not_reused() {
        let (mut service, mut n) = (service(), 0);
        let slices = apply(&[], plan(&service, "IPv4", &[], wanted(0..3, 80)), &mut n);
        service.metadata.uid = Some("u2".into());
        assert_eq!(writes(&plan(&service, "IPv4", &slices, wanted(0..3, 80))), (1, 0, 1));
    }

    proptest! {
        #[test]
        fn any_sequence_of_sets_ends_with_exactly_the_endpoints_wanted(sets in proptest::collection::vec(
            (proptest::collection::btree_set(0..400usize, 0..260), 80..82i32), 1..6)) {
            let (service, mut n) = (service(), 0);
            let mut slices = Vec::new();
            for (set, number) in sets {
                let next = plan(&service, "IPv4", &slices, wanted(set.iter().copied(), number));
                slices = apply(&slices, next, &mut n);
                let mut held: Vec<String> = slices.iter().flat_map(|s| s.endpoints.clone().unwrap()).map(|e| e.target_ref.unwrap().name.unwrap()).collect();
                held.sort();
                let mut expected: Vec<String> = set.iter().map(|n| format!("p{n}")).collect();
                expected.sort();
                prop_assert_eq!(held, expected);
                prop_assert!(slices.iter().all(|s| s.endpoints.as_ref().unwrap().len() <= MAX_ENDPOINTS));
                prop_assert!(!slices.is_empty());
                let again = plan(&service, "IPv4", &slices, wanted(set.iter().copied(), number));
                prop_assert_eq!(writes(&again), (0, 0, 0));
            }
        }
    }
}

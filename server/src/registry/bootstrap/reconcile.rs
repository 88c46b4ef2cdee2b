//! What is changed in a stored default object, if anything: pure functions from (wanted, stored) to the repaired object
//! (`pkg/registry/rbac/reconciliation/*.go`, `pkg/controlplane/reconcilers`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::authz::rules;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// A namespace only has to exist.
pub(super) fn present(_: &Namespace, _: Namespace) -> Option<Namespace> {
    None
}

/// The value of a system class may not differ.
pub(super) fn priority_class(wanted: &PriorityClass, mut stored: PriorityClass) -> Option<PriorityClass> {
    if stored.value == wanted.value {
        return None;
    }
    stored.value = wanted.value;
    Some(stored)
}

/// Adds missing labels and annotations; `None` when the object asks to be left alone.
fn merge_meta(wanted: &ObjectMeta, stored: &mut ObjectMeta) -> Option<bool> {
    if stored.annotations.as_ref().and_then(|a| a.get(AUTOUPDATE)).is_some_and(|v| v == "false") {
        return None;
    }
    let labels = add_missing(wanted.labels.as_ref(), &mut stored.labels);
    let annotations = add_missing(wanted.annotations.as_ref(), &mut stored.annotations);
    Some(labels || annotations)
}

fn add_missing(wanted: Option<&BTreeMap<String, String>>, stored: &mut Option<BTreeMap<String, String>>) -> bool {
    let mut changed = false;
    for (key, value) in wanted.into_iter().flatten() {
        let stored = stored.get_or_insert_default();
        if !stored.contains_key(key) {
            stored.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    changed
}

fn add_rules(wanted: Option<&Vec<PolicyRule>>, stored: &mut Option<Vec<PolicyRule>>) -> bool {
    let missing = rules::missing(stored.as_deref().unwrap_or_default(), wanted.map_or(&[][..], Vec::as_slice));
    let changed = !missing.is_empty();
    if changed {
        stored.get_or_insert_default().extend(rules::compact(missing));
    }
    changed
}

fn add_selectors(wanted: Option<&AggregationRule>, stored: &mut Option<AggregationRule>) -> bool {
    let Some(selectors) = wanted.and_then(|w| w.cluster_role_selectors.as_ref()) else { return false };
    let held = stored.get_or_insert_default().cluster_role_selectors.get_or_insert_default();
    let missing: Vec<_> = selectors.iter().filter(|s| !held.contains(s)).cloned().collect();
    let changed = !missing.is_empty();
    held.extend(missing);
    changed
}

fn add_subjects(wanted: Option<&Vec<Subject>>, stored: &mut Option<Vec<Subject>>) -> bool {
    let held = stored.as_deref().unwrap_or_default();
    let missing: Vec<_> = wanted.into_iter().flatten().filter(|s| !held.contains(s)).cloned().collect();
    let changed = !missing.is_empty();
    if changed {
        stored.get_or_insert_default().extend(missing);
    }
    changed
}

pub(super) fn cluster_role(wanted: &ClusterRole, mut stored: ClusterRole) -> Option<ClusterRole> {
    let mut changed = merge_meta(&wanted.metadata, &mut stored.metadata)?;
    changed |= add_selectors(wanted.aggregation_rule.as_ref(), &mut stored.aggregation_rule);
    // An aggregated role's rules are its controller's.
    if stored.aggregation_rule.is_none() {
        changed |= add_rules(wanted.rules.as_ref(), &mut stored.rules);
    }
    changed.then_some(stored)
}

pub(super) fn role(wanted: &Role, mut stored: Role) -> Option<Role> {
    let mut changed = merge_meta(&wanted.metadata, &mut stored.metadata)?;
    changed |= add_rules(wanted.rules.as_ref(), &mut stored.rules);
    changed.then_some(stored)
}

pub(super) fn cluster_role_binding(wanted: &ClusterRoleBinding, mut stored: ClusterRoleBinding) -> Option<ClusterRoleBinding> {
    let mut changed = merge_meta(&wanted.metadata, &mut stored.metadata)?;
    changed |= add_subjects(wanted.subjects.as_ref(), &mut stored.subjects);
    changed.then_some(stored)
}

pub(super) fn role_binding(wanted: &RoleBinding, mut stored: RoleBinding) -> Option<RoleBinding> {
    let mut changed = merge_meta(&wanted.metadata, &mut stored.metadata)?;
    changed |= add_subjects(wanted.subjects.as_ref(), &mut stored.subjects);
    changed.then_some(stored)
}

/// The Service's port leads to this server's.
pub(super) fn service(wanted: &Service, mut stored: Service) -> Option<Service> {
    let target =
        |s: &Service| s.spec.as_ref().and_then(|s| s.ports.as_ref()).map(|p| p.iter().map(|p| (p.port, p.target_port.clone())).collect::<Vec<_>>());
    if target(wanted) == target(&stored) {
        return None;
    }
    let ports = wanted.spec.as_ref().and_then(|s| s.ports.clone());
    stored.spec.get_or_insert_default().ports = ports;
    Some(stored)
}

/// Adds this server's address; the addresses of other servers with the same port stay.
pub(super) fn endpoints(wanted: &Endpoints, mut stored: Endpoints) -> Option<Endpoints> {
    let mut changed = add_missing(wanted.metadata.labels.as_ref(), &mut stored.metadata.labels);
    let Some(own) = wanted.subsets.as_ref().and_then(|s| s.first()) else { return changed.then_some(stored) };
    let subsets = stored.subsets.get_or_insert_default();
    let same_port = |s: &EndpointSubset| s.ports.iter().flatten().map(|p| p.port).eq(own.ports.iter().flatten().map(|p| p.port));
    match subsets.as_mut_slice() {
        [one] if same_port(one) => {
            let held = one.addresses.get_or_insert_default();
            for address in own.addresses.iter().flatten() {
                if !held.iter().any(|a| a.ip == address.ip) {
                    held.push(address.clone());
                    changed = true;
                }
            }
            held.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
        _ => {
            *subsets = vec![own.clone()];
            changed = true;
        }
    }
    changed.then_some(stored)
}

/// As [`endpoints`], for the slice.
pub(super) fn endpoint_slice(wanted: &EndpointSlice, mut stored: EndpointSlice) -> Option<EndpointSlice> {
    let mut changed = add_missing(wanted.metadata.labels.as_ref(), &mut stored.metadata.labels);
    if stored.ports != wanted.ports {
        stored.ports.clone_from(&wanted.ports);
        stored.endpoints.clone_from(&wanted.endpoints);
        return Some(stored);
    }
    let held = stored.endpoints.get_or_insert_default();
    for endpoint in wanted.endpoints.iter().flatten() {
        if !held.iter().any(|e| e.addresses == endpoint.addresses) {
            held.push(endpoint.clone());
            changed = true;
        }
    }
    changed.then_some(stored)
}

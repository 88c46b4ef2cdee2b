//! A kubelet writes only what is its own: its node, its lease, the status of its pods (`plugin/pkg/admission/noderestriction/admission.go`).

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, PodSpec};
use shared::status::{ApiError, GroupResource};

use super::{Attributes, Context, Operation, Plugin, forbidden, new_object, old_object};
use crate::api::authz::node_identity;
use crate::api::objects::Reader;
use crate::api::user::User;

pub(super) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        node_identity(attributes.user).is_some() && attributes.operation != Operation::Connect
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(node) = node_identity(attributes.user) else { return Ok(()) };
        let refusal = match (attributes.resource.group, attributes.resource.plural, attributes.subresource) {
            ("", "pods", "") => pod(context, attributes, node)?,
            ("", "pods", "status") => pod_status(attributes, node),
            ("", "pods", "eviction") => {
                let target = context.reader.get_fresh::<Pod>(attributes.namespace, attributes.name).await?;
                let other = target.is_some_and(|p| !on_node(&p, node));
                other.then(|| format!("node {node} can only evict pods with spec.nodeName set to itself"))
            }
            ("", "pods", other) => Some(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed")),
            ("", "nodes", _) => own_node(attributes, node),
            ("", "persistentvolumeclaims", "status") => claim_status(attributes, node),
            ("", "persistentvolumeclaims", _) => Some("may only update PVC status".into()),
            ("coordination.k8s.io", "leases", _) => lease(attributes, node),
            ("storage.k8s.io", "csinodes", _) => {
                let other = attributes.operation == Operation::Create && name(attributes) != node;
                other.then(|| "can only access CSINode with the same name as the requesting node".into())
            }
            _ => None,
        };
        refusal.map_or(Ok(()), |text| Err(forbidden(attributes, &text)))
    }
}

/// Upstream's bounds on the tokens a kubelet asks for: for a pod of its own, at the pod's UID.
///
/// # Errors
/// 404 when the pod does not exist, 403 for anything else a node may not ask for. Users who are no nodes pass.
pub async fn check_token(reader: &Reader, user: &User, namespace: &str, account: &str, request: &TokenRequest) -> Result<(), ApiError> {
    let Some(node) = node_identity(user) else { return Ok(()) };
    let refuse = |text: &str| ApiError::forbidden(GroupResource { group: "", resource: "serviceaccounts" }, account, text);
    let bound = request.spec.as_ref().and_then(|s| s.bound_object_ref.as_ref());
    let pod_ref = bound.filter(|b| b.api_version.as_deref() == Some("v1") && b.kind.as_deref() == Some("Pod"));
    let Some((name, reference)) = pod_ref.and_then(|b| Some((b.name.clone().filter(|n| !n.is_empty())?, b))) else {
        return Err(refuse("node requested token not bound to a pod"));
    };
    let Some(uid) = reference.uid.as_deref().filter(|u| !u.is_empty()) else {
        return Err(refuse("node requested token with a pod binding without a uid"));
    };
    let pod = reader.get_fresh::<Pod>(namespace, &name).await?;
    let pod = pod.ok_or_else(|| ApiError::not_found(GroupResource { group: "", resource: "pods" }, &name))?;
    if pod.metadata.uid.as_deref() != Some(uid) {
        let text = "does not match the UID in record. The object might have been deleted and then recreated";
        return Err(refuse(&format!("the UID in the bound object reference ({uid}) {text}")));
    }
    if !on_node(&pod, node) {
        return Err(refuse("node requested token bound to a pod scheduled on a different node"));
    }
    let asked = request.spec.as_ref().and_then(|s| s.audiences.as_deref()).unwrap_or_default();
    match asked.iter().find(|audience| !audience.is_empty() && !audiences(&pod).any(|a| a == **audience)) {
        None => Ok(()),
        Some(audience) => {
            let text = "not found in pod spec volume, system:node:";
            Err(refuse(&format!("audience {audience:?} {text}{node} is not authorized to request tokens for this audience")))
        }
    }
}

/// The audiences that a pod's projected volumes name (`ServiceAccountNodeAudienceRestriction`). CSI drivers' are not looked up.
fn audiences(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let sources = volumes.filter_map(|v| v.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    sources.filter_map(|s| s.service_account_token.as_ref()?.audience.as_deref())
}

fn on_node(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node)
}

/// The name a write is about, also where only the object says it.
fn name<'a>(attributes: &'a Attributes<'_>) -> &'a str {
    if attributes.name.is_empty() { attributes.object.as_deref().map_or("", |o| o.name()) } else { attributes.name }
}

fn pod(context: &Context, attributes: &Attributes<'_>, node: &str) -> Result<Option<String>, ApiError> {
    match attributes.operation {
        Operation::Create => {
            let Some(pod) = new_object::<Pod>(attributes) else { return Ok(None) };
            if let Some(text) = mirror_pod(pod, node) {
                return Ok(Some(text));
            }
            let owner = pod.metadata.owner_references.iter().flatten().next();
            let expected = owner.map(|o| o.uid.as_str()).unwrap_or_default();
            let Some(own) = context.reader.get::<Node>("", node)? else {
                return Err(ApiError::not_found(GroupResource { group: "", resource: "nodes" }, node));
            };
            let uid = own.metadata.uid.as_deref().unwrap_or_default();
            Ok((uid != expected).then(|| format!("node {node} UID mismatch: expected {expected} got {uid}")))
        }
        Operation::Delete => {
            let other = old_object::<Pod>(attributes).is_some_and(|p| !on_node(p, node));
            Ok(other.then(|| format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        _ => Ok(Some(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))),
    }
}

/// What keeps a pod from being a mirror pod of this node that refers to nothing.
fn mirror_pod(pod: &Pod, node: &str) -> Option<String> {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    if !pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return Some(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if !on_node(pod, node) {
        return Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    match pod.metadata.owner_references.as_deref().unwrap_or_default() {
        [owner] if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node => {
            return Some(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        [owner] if owner.controller != Some(true) => {
            return Some(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
        }
        [owner] if owner.block_owner_deletion == Some(true) => {
            return Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        [_] => {}
        [] => return Some(format!("node {node:?} can only create pods with an owner reference set to itself")),
        _ => return Some(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    }
    let what = referenced(pod.spec.as_ref()?)?;
    Some(format!("node {node:?} can not create pods that reference {what}"))
}

/// The first sort of API object a pod refers to.
fn referenced(spec: &PodSpec) -> Option<&'static str> {
    if spec.service_account_name.as_ref().is_some_and(|n| !n.is_empty()) {
        return Some("a service account");
    }
    let used = crate::api::authz::pod_references(spec);
    [("Secret", "secrets"), ("ConfigMap", "configmaps"), ("Claim", "persistentvolumeclaims"), ("ResourceClaim", "resourceclaims")]
        .into_iter()
        .find(|(kind, _)| used.contains(*kind))
        .map(|(_, what)| what)
}

fn pod_status(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let (new, old) = (new_object::<Pod>(attributes)?, old_object::<Pod>(attributes)?);
    if !on_node(old, node) {
        return Some(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if new.metadata.labels.clone().unwrap_or_default() != old.metadata.labels.clone().unwrap_or_default() {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |p: &Pod| p.status.as_ref().and_then(|s| s.resource_claim_statuses.clone()).unwrap_or_default();
    (claims(new) != claims(old)).then(|| format!("node {node:?} cannot update resource claim statues"))
}

fn own_node(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let requested = name(attributes);
    if requested != node {
        return Some(format!("node {node:?} is not allowed to modify node {requested:?}"));
    }
    let new = new_object::<Node>(attributes)?;
    let old = old_object::<Node>(attributes);
    let (has, had) =
        (new.spec.as_ref().and_then(|s| s.config_source.as_ref()), old.and_then(|o| o.spec.as_ref()).and_then(|s| s.config_source.as_ref()));
    if has.is_some() && (old.is_none() || has != had) {
        return Some(match old {
            None => format!("node {node:?} is not allowed to create pods with a non-nil configSource"),
            Some(_) => format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"),
        });
    }
    if let Some(old) = old {
        let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        if taints(new) != taints(old) {
            return Some(format!("node {node:?} is not allowed to modify taints"));
        }
    }
    let forbidden = forbidden_labels(new.metadata.labels.as_ref(), old.and_then(|o| o.metadata.labels.as_ref()));
    if forbidden.is_empty() {
        return None;
    }
    let list = forbidden.into_iter().collect::<Vec<_>>().join(", ");
    Some(match old {
        None => format!("node {node:?} is not allowed to set the following labels: {list}"),
        Some(_) => format!("is not allowed to modify labels: {list}"),
    })
}

/// Labels under `kubernetes.io` and `k8s.io` that a kubelet may set on its own node (`k8s.io/kubelet/pkg/apis/well_known_labels.go`).
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];
const KUBELET_LABEL_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

fn within(domain: &str, parent: &str) -> bool {
    domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

fn forbidden_label(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    if within(domain, "node-restriction.kubernetes.io") {
        return true;
    }
    let kubernetes = within(domain, "kubernetes.io") || within(domain, "k8s.io");
    kubernetes && !KUBELET_LABELS.contains(&key) && !KUBELET_LABEL_DOMAINS.iter().any(|d| within(domain, d))
}

type Labels = BTreeMap<String, String>;

fn forbidden_labels(new: Option<&Labels>, old: Option<&Labels>) -> BTreeSet<String> {
    let keys = new.into_iter().flatten().chain(old.into_iter().flatten()).map(|(k, _)| k);
    let changed = |k: &&String| new.and_then(|l| l.get(*k)) != old.and_then(|l| l.get(*k));
    keys.filter(changed).filter(|k| forbidden_label(k)).cloned().collect()
}

fn claim_status(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let comparable = |claim: &PersistentVolumeClaim| {
        let mut claim = claim.clone();
        claim.metadata.resource_version = None;
        claim.metadata.managed_fields = None;
        if let Some(status) = &mut claim.status {
            status.capacity = None;
            status.conditions = None;
            status.allocated_resource_statuses = None;
            status.allocated_resources = None;
        }
        claim
    };
    let (new, old) = (new_object::<PersistentVolumeClaim>(attributes)?, old_object::<PersistentVolumeClaim>(attributes)?);
    let other = comparable(new) != comparable(old);
    other.then(|| format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions"))
}

fn lease(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    if attributes.namespace != "kube-node-lease" {
        return Some("can only access leases in the \"kube-node-lease\" system namespace".into());
    }
    (name(attributes) != node).then(|| "can only access node lease with the same name as the requesting node".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_sets_its_own_labels_and_none_that_steer_pods() {
        for (key, refused) in [
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/anything", false),
            ("example.com/x", false),
            ("plain", false),
            ("node-role.kubernetes.io/control-plane", true),
            ("node-restriction.kubernetes.io/x", true),
            ("a.node-restriction.kubernetes.io/x", true),
            ("notkubernetes.io/x", false),
            ("k8s.io/x", true),
        ] {
            assert_eq!(forbidden_label(key), refused, "{key}");
        }
    }
}

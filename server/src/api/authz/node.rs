//! What a kubelet may do: its own node, lease and pods, and only what its pods use (`plugin/pkg/auth/authorizer/node/node_authorizer.go`).

use super::graph::{Graph, Kind};
use super::{Access, equality, rules};
use crate::api::user::User;
use crate::registry::bootstrap::node_rules;

/// The node a user is, if it is one (`pkg/auth/nodeidentifier/default.go`).
pub(crate) fn identity(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|n| !n.is_empty() && user.in_group("system:nodes"))
}

type Verdict = Result<(), String>;

fn related(yes: bool, node: &str) -> Verdict {
    if yes { Ok(()) } else { Err(format!("no relationship found between node '{node}' and this object")) }
}

fn need(condition: bool, reason: &str) -> Verdict {
    if condition { Ok(()) } else { Err(reason.to_owned()) }
}

/// Allows, or tells why not; an empty reason means no opinion.
pub(super) fn authorize(graph: &Graph, node: &str, access: &Access<'_>) -> Verdict {
    match (access.group, access.resource) {
        ("", "secrets") => read(graph, node, Kind::Secret, access),
        ("", "configmaps") => read(graph, node, Kind::ConfigMap, access),
        ("", "persistentvolumeclaims") if access.subresource == "status" => {
            need(matches!(access.verb, "update" | "patch"), "can only get/update/patch this type")?;
            object(graph, node, Kind::Claim, access)
        }
        ("", "persistentvolumeclaims") => get(access).and_then(|()| object(graph, node, Kind::Claim, access)),
        ("", "persistentvolumes") => get(access).and_then(|()| related(graph.uses_volume(node, access.name), node)),
        ("resource.k8s.io", "resourceclaims") => get(access).and_then(|()| object(graph, node, Kind::ResourceClaim, access)),
        ("storage.k8s.io", "volumeattachments") => get(access).and_then(|()| related(graph.attached(node, access.name), node)),
        ("", "serviceaccounts") => {
            need(access.verb == "create" && !access.name.is_empty(), "can only create tokens for individual service accounts")?;
            need(access.subresource == "token", "can only create token subresource of serviceaccount")?;
            related(graph.uses(node, Kind::ServiceAccount, access.namespace, access.name), node)
        }
        ("coordination.k8s.io", "leases") => lease(node, access),
        ("storage.k8s.io", "csinodes") => {
            need(OWN_VERBS.contains(&access.verb), "can only get, create, update, patch, or delete a CSINode")?;
            need(access.subresource.is_empty(), "cannot authorize CSINode subresources")?;
            need(access.verb == "create" || access.name == node, "can only access CSINode with the same name as the requesting node")
        }
        // Whose slice it is stands in the object, which is not known here: only what names the node by selector is allowed.
        ("resource.k8s.io", "resourceslices") => {
            let own = equality(access.field_selector, "spec.nodeName").or_else(|| equality(access.field_selector, "nodeName")) == Some(node);
            let listed = matches!(access.verb, "list" | "watch" | "deletecollection") && own;
            need(listed, "can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        ("", "nodes") => own_node(node, access),
        ("", "pods") => pod(graph, node, access),
        _ => need(node_rules().iter().any(|rule| rules::allows(rule, access)), ""),
    }
}

const OWN_VERBS: &[&str] = &["get", "create", "update", "patch", "delete"];

fn get(access: &Access<'_>) -> Verdict {
    need(access.verb == "get", "can only get individual resources of this type")?;
    need(access.subresource.is_empty(), "cannot get subresource")
}

fn object(graph: &Graph, node: &str, kind: Kind, access: &Access<'_>) -> Verdict {
    need(!access.name.is_empty(), "No Object name found")?;
    related(graph.uses(node, kind, access.namespace, access.name), node)
}

fn read(graph: &Graph, node: &str, kind: Kind, access: &Access<'_>) -> Verdict {
    need(matches!(access.verb, "get" | "list" | "watch"), "can only read resources of this type")?;
    need(access.subresource.is_empty(), "cannot read subresource")?;
    need(!access.namespace.is_empty(), "can only read namespaced object of this type")?;
    object(graph, node, kind, access)
}

fn lease(node: &str, access: &Access<'_>) -> Verdict {
    need(OWN_VERBS.contains(&access.verb), "can only get, create, update, patch, or delete a node lease")?;
    need(access.namespace == "kube-node-lease", "can only access leases in the \"kube-node-lease\" system namespace")?;
    need(access.verb == "create" || access.name == node, "can only access node lease with the same name as the requesting node")
}

fn own_node(node: &str, access: &Access<'_>) -> Verdict {
    match (access.subresource, access.verb) {
        // NodeRestriction limits writes to the node's own object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if access.name == node => Ok(()),
        ("", "get" | "list" | "watch") if access.name.is_empty() => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
        ("", "get" | "list" | "watch") => Err(format!("node '{node}' cannot read '{}', only its own Node object", access.name)),
        _ => Err(String::new()),
    }
}

fn pod(graph: &Graph, node: &str, access: &Access<'_>) -> Verdict {
    match (access.subresource, access.verb) {
        ("", "get") => object(graph, node, Kind::Pod, access),
        ("", "list" | "watch") => {
            if equality(access.field_selector, "spec.nodeName") == Some(node) {
                return Ok(());
            }
            need(!access.name.is_empty(), "can only list/watch pods with spec.nodeName field selector")?;
            object(graph, node, Kind::Pod, access)
        }
        // NodeRestriction limits these to mirror pods and pods bound to the node.
        ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
        _ => Err(String::new()),
    }
}

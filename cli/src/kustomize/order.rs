//! The order in which a build's objects come out: what others need comes first (`kustomize/api/internal/builtins/SortOrderTransformer.go`). Pure.

use std::cmp::Ordering;

use anyhow::{Result, bail};

use super::resource::{Id, Resources};
use super::spec::{Kinds, Sort};

const FIRST: &[&str] = &[
    "Namespace",
    "ResourceQuota",
    "StorageClass",
    "CustomResourceDefinition",
    "ServiceAccount",
    "PodSecurityPolicy",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Secret",
    "Endpoints",
    "Service",
    "LimitRange",
    "PriorityClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "CronJob",
    "PodDisruptionBudget",
];
const LAST: &[&str] = &["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Sorts the objects, unless the kustomization leaves them as they come.
pub fn sort(all: &mut Resources, options: Option<&Sort>) -> Result<()> {
    let usual = Kinds { order_first: FIRST.iter().map(ToString::to_string).collect(), order_last: LAST.iter().map(ToString::to_string).collect() };
    let kinds = match options {
        Some(sort) if sort.order == "fifo" => return Ok(()),
        Some(sort) if sort.order == "legacy" => sort.legacy_sort_options.clone().unwrap_or(usual),
        Some(_) => bail!("the field 'sortOptions.order' must be one of [fifo, legacy]"),
        None => usual,
    };
    let mut keyed: Vec<_> = std::mem::take(&mut all.0).into_iter().map(|r| (r.id(), r)).collect();
    keyed.sort_by(|(a, _), (b, _)| compare(a, b, &kinds));
    all.0 = keyed.into_iter().map(|(_, r)| r).collect();
    Ok(())
}

fn compare(a: &Id, b: &Id, kinds: &Kinds) -> Ordering {
    // The first kinds stand below zero, the last ones above it.
    let rank = |id: &Id| {
        let at = |list: &[String]| list.iter().position(|k| *k == id.kind).and_then(|at| i64::try_from(at).ok());
        match (at(&kinds.order_first), at(&kinds.order_last)) {
            (Some(at), _) => at - i64::try_from(kinds.order_first.len()).unwrap_or(i64::MAX),
            (None, Some(at)) => at + 1,
            (None, None) => 0,
        }
    };
    // Upstream compares texts in which whatever is missing has a name that sorts last.
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let kind = |id: &Id| format!("{}_{}_{}", or(&id.group, "~G"), or(&id.version, "~V"), or(&id.kind, "~K"));
    let whole = |id: &Id| format!("{}|{}|{}", kind(id), or(&id.namespace, "~X"), or(&id.name, "~N"));
    rank(a).cmp(&rank(b)).then_with(|| kind(a).cmp(&kind(b))).then_with(|| whole(a).cmp(&whole(b)))
}

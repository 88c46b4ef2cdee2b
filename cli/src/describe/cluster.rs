//! Namespaces, quotas and limit ranges.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Writer;
use super::format::{quantity, rfc1123};

pub(super) fn namespace(w: &mut Writer, namespace: &Namespace, quotas: &[ResourceQuota], limits: &[LimitRange]) {
    let status = namespace.status.clone().unwrap_or_default();
    w.field(0, "Name", namespace.metadata.name.as_deref().unwrap_or_default());
    w.labels("Labels", namespace.metadata.labels.as_ref());
    w.annotations("Annotations", namespace.metadata.annotations.as_ref());
    w.field(0, "Status", status.phase.as_deref().unwrap_or_default());
    if let Some(conditions) = status.conditions.as_ref().filter(|c| !c.is_empty()) {
        w.write(0, "Conditions:\n  Type\tStatus\tLastTransitionTime\tReason\tMessage\n");
        w.write(1, "----\t------\t------------------\t------\t-------\n");
        for c in conditions {
            let time = c.last_transition_time.as_ref().map_or_else(String::new, rfc1123);
            w.write(
                1,
                &format!(
                    "{} \t{} \t{time} \t{} \t{}\n",
                    c.type_,
                    c.status,
                    c.reason.as_deref().unwrap_or_default(),
                    c.message.as_deref().unwrap_or_default()
                ),
            );
        }
    }
    w.write(0, "\n");
    quotas_section(w, quotas);
    w.write(0, "\n");
    if limits.is_empty() {
        return w.write(0, "No LimitRange resource.\n");
    }
    w.write(0, "Resource Limits\n Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio\n");
    w.write(0, " ----\t--------\t---\t---\t---------------\t-------------\t-----------------------\n");
    limits.iter().for_each(|l| limit_rows(w, l, " "));
}

fn quotas_section(w: &mut Writer, quotas: &[ResourceQuota]) {
    if quotas.is_empty() {
        return w.write(0, "No resource quota.\n");
    }
    let mut sorted: Vec<&ResourceQuota> = quotas.iter().collect();
    sorted.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    w.write(0, "Resource Quotas\n");
    for quota in sorted {
        w.field(1, "Name", quota.metadata.name.as_deref().unwrap_or_default());
        scopes(w, quota, 1);
        w.write(1, "Resource\tUsed\tHard\n");
        w.write(1, "--------\t---\t---\n");
        for (resource, used, hard) in usage(quota) {
            w.write(1, &format!("{resource}\t{used}\t{hard}\n"));
        }
    }
}

fn scopes(w: &mut Writer, quota: &ResourceQuota, level: usize) {
    let scopes: BTreeSet<&String> = quota.spec.iter().filter_map(|s| s.scopes.as_ref()).flatten().collect();
    if scopes.is_empty() {
        return;
    }
    w.field(level, "Scopes", scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "));
    for scope in scopes {
        let help = match scope.as_str() {
            "Terminating" => {
                "Matches all pods that have an active deadline. These pods have a limited lifespan on a node before being actively terminated by the system."
            }
            "NotTerminating" => {
                "Matches all pods that do not have an active deadline. These pods usually include long running pods whose container command is not expected to terminate."
            }
            "BestEffort" => "Matches all pods that do not have resource requirements set. These pods have a best effort quality of service.",
            "NotBestEffort" => {
                "Matches all pods that have at least one resource requirement set. These pods have a burstable or guaranteed quality of service."
            }
            _ => continue,
        };
        w.write(level, &format!("* {help}\n"));
    }
}

/// Each limited resource with its use and its limit.
fn usage(quota: &ResourceQuota) -> Vec<(String, String, String)> {
    let status = quota.status.clone().unwrap_or_default();
    let text =
        |amounts: &Option<BTreeMap<String, Quantity>>, name: &str| amounts.as_ref().and_then(|a| a.get(name)).map_or_else(|| "0".into(), quantity);
    status.hard.iter().flatten().map(|(name, hard)| (name.clone(), text(&status.used, name), quantity(hard))).collect()
}

pub(super) fn quota(mut w: Writer, quota: &ResourceQuota) -> String {
    w.field(0, "Name", quota.metadata.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", quota.metadata.namespace.as_deref().unwrap_or_default());
    scopes(&mut w, quota, 0);
    w.write(0, "Resource\tUsed\tHard\n");
    w.write(0, "--------\t----\t----\n");
    for (resource, used, hard) in usage(quota) {
        w.write(0, &format!("{resource}\t{used}\t{hard}\n"));
    }
    w.finish()
}

pub(super) fn limit_range(mut w: Writer, range: &LimitRange) -> String {
    w.field(0, "Name", range.metadata.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", range.metadata.namespace.as_deref().unwrap_or_default());
    w.write(0, "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio\n");
    w.write(0, "----\t--------\t---\t---\t---------------\t-------------\t-----------------------\n");
    limit_rows(&mut w, range, "");
    w.finish()
}

fn limit_rows(w: &mut Writer, range: &LimitRange, prefix: &str) {
    for limit in range.spec.iter().flat_map(|s| &s.limits) {
        let maps = [&limit.min, &limit.max, &limit.default_request, &limit.default, &limit.max_limit_request_ratio];
        let resources: BTreeSet<&String> = maps.iter().flat_map(|m| m.iter().flat_map(|m| m.keys())).collect();
        for resource in resources {
            let cells: Vec<String> = maps.iter().map(|m| m.as_ref().and_then(|m| m.get(resource)).map_or_else(|| "-".into(), quantity)).collect();
            w.write(0, &format!("{prefix}{}\t{resource}\t{}\n", limit.type_, cells.join("\t")));
        }
    }
}

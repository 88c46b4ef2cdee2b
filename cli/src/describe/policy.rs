//! Roles, bindings, autoscalers, disruption budgets and priority classes.

use k8s_openapi::api::autoscaling::v2::{HorizontalPodAutoscaler, MetricSpec, MetricStatus};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;

use super::Writer;
use super::format::{int_or_string, quantity, rfc1123, selector};

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(ToOwned::to_owned)).collect()
}

pub(super) fn role(mut w: Writer, role: &Value) -> String {
    let map = |field: &str| -> Option<std::collections::BTreeMap<String, String>> { serde_json::from_value(role["metadata"][field].clone()).ok() };
    w.field(0, "Name", role["metadata"]["name"].as_str().unwrap_or_default());
    w.labels("Labels", map("labels").as_ref());
    w.annotations("Annotations", map("annotations").as_ref());
    w.write(0, "PolicyRule:\n");
    w.write(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs\n");
    w.write(1, "---------\t-----------------\t--------------\t-----\n");
    rule_lines(role).iter().for_each(|line| w.write(1, line));
    w.finish()
}

/// A role's rules as lines of `resource, URLs, names, verbs`.
pub fn rule_lines(role: &Value) -> Vec<String> {
    let line = |rule: OneRule| {
        let resource = match (rule.group.is_empty(), rule.resource.split_once('/')) {
            (true, _) => rule.resource.clone(),
            (false, Some((base, sub))) => format!("{base}.{}/{sub}", rule.group),
            (false, None) => format!("{}.{}", rule.resource, rule.group),
        };
        format!("{resource}\t[{}]\t[{}]\t[{}]\n", rule.url, rule.name, rule.verbs.join(" "))
    };
    compacted(role).into_iter().map(line).collect()
}

/// A rule about one resource or one URL.
#[derive(Default)]
struct OneRule {
    group: String,
    resource: String,
    name: String,
    url: String,
    verbs: Vec<String>,
}

impl OneRule {
    /// Upstream sorts rules by their printed form: verbs, groups, resources, names, URLs.
    fn key(&self) -> String {
        format!(
            "Verbs:[{}],APIGroups:[{}],Resources:[{}],ResourceNames:[{}],NonResourceURLs:[{}],",
            self.verbs.join(" "),
            self.group,
            self.resource,
            self.name,
            self.url
        )
    }
}

/// Rules broken down to single resources, those about the same one joined (`pkg/apis/rbac/v1/evaluation_helpers.go`).
fn compacted(role: &Value) -> Vec<OneRule> {
    let mut rules: Vec<OneRule> = Vec::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        let verbs = strings(&rule["verbs"]);
        let names = strings(&rule["resourceNames"]);
        let names = if names.is_empty() { vec![String::new()] } else { names };
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for name in &names {
                    match rules.iter_mut().find(|r| r.url.is_empty() && r.group == group && r.resource == resource && r.name == *name) {
                        Some(known) => known.verbs.extend(verbs.iter().cloned()),
                        None => rules.push(OneRule {
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                            verbs: verbs.clone(),
                            ..OneRule::default()
                        }),
                    }
                }
            }
        }
        for url in strings(&rule["nonResourceURLs"]) {
            rules.push(OneRule { url, verbs: verbs.clone(), ..OneRule::default() });
        }
    }
    rules.sort_by_key(OneRule::key);
    rules
}

pub(super) fn binding(mut w: Writer, binding: &Value) -> String {
    let map = |field: &str| -> Option<std::collections::BTreeMap<String, String>> { serde_json::from_value(binding["metadata"][field].clone()).ok() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    w.field(0, "Name", text(&binding["metadata"]["name"]));
    w.labels("Labels", map("labels").as_ref());
    w.annotations("Annotations", map("annotations").as_ref());
    w.write(0, "Role:\n");
    w.field(1, "Kind", text(&binding["roleRef"]["kind"]));
    w.field(1, "Name", text(&binding["roleRef"]["name"]));
    w.write(0, "Subjects:\n");
    w.write(1, "Kind\tName\tNamespace\n");
    w.write(1, "----\t----\t---------\n");
    for subject in binding["subjects"].as_array().into_iter().flatten() {
        w.write(1, &format!("{}\t{}\t{}\n", text(&subject["kind"]), text(&subject["name"]), text(&subject["namespace"])));
    }
    w.finish()
}

pub(super) fn autoscaler(w: &mut Writer, hpa: &HorizontalPodAutoscaler) {
    let (meta, spec, status) = (&hpa.metadata, hpa.spec.clone(), hpa.status.clone().unwrap_or_default());
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    w.field(0, "CreationTimestamp", meta.creation_timestamp.as_ref().map_or_else(String::new, rfc1123));
    w.field(0, "Reference", format!("{}/{}", spec.scale_target_ref.kind, spec.scale_target_ref.name));
    w.write(0, "Metrics:\t( current / target )\n");
    let current = status.current_metrics.unwrap_or_default();
    for (index, metric) in spec.metrics.iter().flatten().enumerate() {
        w.write(1, &format!("{}\n", metric_line(metric, current.get(index))));
    }
    w.field(0, "Min replicas", spec.min_replicas.map_or_else(|| "<unset>".into(), |m| m.to_string()));
    w.field(0, "Max replicas", spec.max_replicas);
    w.write(0, &format!("{} pods:\t", spec.scale_target_ref.kind));
    w.write(0, &format!("{} current / {} desired\n", status.current_replicas.unwrap_or(0), status.desired_replicas));
    if let Some(conditions) = status.conditions.as_ref().filter(|c| !c.is_empty()) {
        w.write(0, "Conditions:\n");
        w.write(1, "Type\tStatus\tReason\tMessage\n");
        w.write(1, "----\t------\t------\t-------\n");
        for c in conditions {
            w.write(
                1,
                &format!("{}\t{}\t{}\t{}\n", c.type_, c.status, c.reason.as_deref().unwrap_or_default(), c.message.as_deref().unwrap_or_default()),
            );
        }
    }
}

fn metric_line(metric: &MetricSpec, current: Option<&MetricStatus>) -> String {
    let Some(resource) = &metric.resource else { return format!("<{} metric>", metric.type_) };
    let now = current.and_then(|c| c.resource.as_ref()).map(|r| &r.current);
    if let Some(target) = &resource.target.average_value {
        let now = now.and_then(|n| n.average_value.as_ref()).map_or_else(|| "<unknown>".into(), quantity);
        return format!("resource {} on pods:\t{now} / {}", resource.name, quantity(target));
    }
    let have = now.and_then(|n| n.average_utilization.map(|u| format!("{u}% ({})", n.average_value.as_ref().map_or_else(|| "0".into(), quantity))));
    let want = resource.target.average_utilization.map_or_else(|| "<auto>".into(), |u| format!("{u}%"));
    format!("resource {} on pods  (as a percentage of request):\t{} / {want}", resource.name, have.unwrap_or_else(|| "<unknown>".into()))
}

pub(super) fn disruption_budget(w: &mut Writer, budget: &PodDisruptionBudget) {
    let (meta, spec, status) = (&budget.metadata, budget.spec.clone().unwrap_or_default(), budget.status.clone().unwrap_or_default());
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    if let Some(min) = &spec.min_available {
        w.field(0, "Min available", int_or_string(min));
    } else if let Some(max) = &spec.max_unavailable {
        w.field(0, "Max unavailable", int_or_string(max));
    }
    w.field(0, "Selector", selector(spec.selector.as_ref()));
    w.write(0, "Status:\n");
    w.field(2, "Allowed disruptions", status.disruptions_allowed.unwrap_or(0));
    w.field(2, "Current", status.current_healthy.unwrap_or(0));
    w.field(2, "Desired", status.desired_healthy.unwrap_or(0));
    w.field(2, "Total", status.expected_pods.unwrap_or(0));
}

pub(super) fn priority_class(w: &mut Writer, class: &PriorityClass) {
    let meta = &class.metadata;
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Value", class.value.unwrap_or(0));
    w.field(0, "GlobalDefault", class.global_default.unwrap_or(false));
    w.field(0, "PreemptionPolicy", class.preemption_policy.as_deref().unwrap_or("PreemptLowerPriority"));
    w.field(0, "Description", class.description.as_deref().unwrap_or_default());
    w.field(0, "Annotations", super::format::labels(meta.annotations.as_ref()));
}

//! RBAC rules as pure functions: whether a rule allows something, whether rules cover other rules, and how they are printed
//! (`pkg/apis/rbac/v1/evaluation_helpers.go`, `k8s.io/component-helpers/auth/rbac/validation/policy_comparator.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::Access;

const ALL: &str = "*";

fn list(field: &Option<Vec<String>>) -> &[String] {
    field.as_deref().unwrap_or_default()
}

fn has(set: &[String], value: &str) -> bool {
    set.iter().any(|s| s == value)
}

fn has_or_all(set: &[String], value: &str) -> bool {
    set.iter().any(|s| s == value || s == ALL)
}

/// Whether a rule's resource names this resource and subresource: `*`, `pods`, `pods/log` or `*/scale`.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == ALL {
        return true;
    }
    if subresource.is_empty() {
        return pattern == resource;
    }
    pattern.split_once('/').is_some_and(|(r, s)| s == subresource && (r == resource || r == ALL))
}

/// Whether a non-resource URL pattern names a path: exact, or a prefix where it ends in `*`.
fn url_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

/// Whether one rule allows something.
pub fn allows(rule: &PolicyRule, access: &Access<'_>) -> bool {
    if !has_or_all(&rule.verbs, access.verb) {
        return false;
    }
    if access.resource.is_empty() {
        return list(&rule.non_resource_urls).iter().any(|p| url_matches(p, access.path));
    }
    let names = list(&rule.resource_names);
    has_or_all(list(&rule.api_groups), access.group)
        && list(&rule.resources).iter().any(|r| resource_matches(r, access.resource, access.subresource))
        && (names.is_empty() || has(names, access.name))
}

/// The rules of `wanted` that `held` does not cover, each broken down to one verb and one resource, or one URL.
pub fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut missing = Vec::new();
    for rule in wanted.iter().filter(|rule| !held.iter().any(|held| covers(held, rule))) {
        if parts(rule) > MOST_PARTS {
            missing.push(rule.clone());
            continue;
        }
        missing.extend(break_down(rule).into_iter().filter(|part| !held.iter().any(|rule| covers(rule, part))));
    }
    missing
}

/// A rule that comes to more parts than this is not broken down: one held rule covers it whole, or it is missing.
const MOST_PARTS: usize = 10_000;

/// How many parts [`break_down`] makes.
fn parts(rule: &PolicyRule) -> usize {
    let names = list(&rule.resource_names).len().max(1);
    let resources = list(&rule.api_groups).len().saturating_mul(list(&rule.resources).len()).saturating_mul(names);
    rule.verbs.len().saturating_mul(resources.saturating_add(list(&rule.non_resource_urls).len()))
}

fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let base = PolicyRule {
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    verbs: vec![verb.clone()],
                    ..PolicyRule::default()
                };
                match list(&rule.resource_names) {
                    [] => parts.push(base),
                    names => parts.extend(names.iter().map(|n| PolicyRule { resource_names: Some(vec![n.clone()]), ..base.clone() })),
                }
            }
        }
    }
    for url in list(&rule.non_resource_urls) {
        parts.extend(rule.verbs.iter().map(|verb| PolicyRule {
            non_resource_urls: Some(vec![url.clone()]),
            verbs: vec![verb.clone()],
            ..PolicyRule::default()
        }));
    }
    parts
}

/// Whether a rule covers another one by itself: always right for a part that [`break_down`] made.
fn covers(held: &PolicyRule, part: &PolicyRule) -> bool {
    if !has(&held.verbs, ALL) && !part.verbs.iter().all(|v| has(&held.verbs, v)) {
        return false;
    }
    let held_resources = list(&held.resources);
    let resource_covered = |wanted: &String| {
        has_or_all(held_resources, wanted)
            || wanted.split_once('/').is_some_and(|(_, sub)| held_resources.iter().any(|h| h.strip_prefix("*/").is_some_and(|s| s == sub)))
    };
    let names = list(&held.resource_names);
    let wanted_names = list(&part.resource_names);
    list(&part.api_groups).iter().all(|g| has_or_all(list(&held.api_groups), g))
        && list(&part.resources).iter().all(resource_covered)
        && (names.is_empty() || (!wanted_names.is_empty() && wanted_names.iter().all(|n| has(names, n))))
        && list(&part.non_resource_urls).iter().all(|url| list(&held.non_resource_urls).iter().any(|h| h == url || url_covers(h, url)))
}

fn url_covers(held: &str, wanted: &str) -> bool {
    held.strip_suffix('*').is_some_and(|prefix| wanted.trim_end_matches('*').starts_with(prefix))
}

/// Joins parts that differ only in their verb, keeping the order of first appearance.
pub fn compact(parts: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut joined: Vec<PolicyRule> = Vec::new();
    for part in parts {
        let simple = part.non_resource_urls.is_none();
        let same = |r: &&mut PolicyRule| r.api_groups == part.api_groups && r.resources == part.resources && r.resource_names == part.resource_names;
        match joined.iter_mut().find(same).filter(|_| simple) {
            Some(found) => found.verbs.extend(part.verbs),
            None => joined.push(part),
        }
    }
    joined
}

/// Upstream's one-line form: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
pub fn compact_string(rule: &PolicyRule) -> String {
    let shown = |name: &str, values: &[String]| {
        (!values.is_empty()).then(|| format!("{name}:[{}]", values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(" ")))
    };
    let fields = [
        shown("APIGroups", list(&rule.api_groups)),
        shown("Resources", list(&rule.resources)),
        shown("NonResourceURLs", list(&rule.non_resource_urls)),
        shown("ResourceNames", list(&rule.resource_names)),
        shown("Verbs", &rule.verbs),
    ];
    format!("{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// The missing rights as upstream lists them: compacted, sorted, one a line.
pub fn describe_missing(parts: Vec<PolicyRule>) -> String {
    let lines: BTreeSet<String> = compact(parts).iter().map(compact_string).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

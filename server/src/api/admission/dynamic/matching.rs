//! Whether a write is one that a webhook or policy asked for (`k8s.io/apiserver/pkg/admission/plugin/webhook/predicates`).
//!
//! Pure but for the look-up of a namespace's labels.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations, RuleWithOperations};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use shared::selector::Selector;
use shared::status::{ApiError, GroupResource};

use crate::api::admission::{Attributes, Context};
use crate::registry::admit::Operation;
use crate::registry::{RESOURCES, Resource};

/// Kinds that configure dynamic admission: were they subject to it, a bad one could never be taken away.
const EXEMPT: &[&str] = &[
    "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// Whether dynamic admission has no part in a write.
pub(in crate::api::admission) fn exempt(attributes: &Attributes<'_>) -> bool {
    attributes.resource.group == "admissionregistration.k8s.io" && EXEMPT.contains(&attributes.resource.plural)
}

/// What rules look at.
#[derive(Clone)]
pub(in crate::api::admission) struct Target<'a> {
    pub(in crate::api::admission) operation: &'static str,
    pub(in crate::api::admission) resource: &'static Resource,
    pub(in crate::api::admission) subresource: &'a str,
    /// A Namespace's own name counts as its namespace.
    pub(in crate::api::admission) namespace: &'a str,
    pub(in crate::api::admission) name: &'a str,
}

impl<'a> Target<'a> {
    pub(in crate::api::admission) fn of(attributes: &Attributes<'a>) -> Self {
        let operation = match (attributes.operation, attributes.subresource) {
            // A binding is created, though what is stored is an update of the pod.
            (Operation::Create, _) | (Operation::Update, "binding") => "CREATE",
            (Operation::Update, _) => "UPDATE",
            (Operation::Delete, _) => "DELETE",
            (Operation::Connect, _) => "CONNECT",
        };
        let namespace = if is_namespace(attributes.resource) { attributes.name } else { attributes.namespace };
        let (resource, subresource, name) = (attributes.resource, attributes.subresource, attributes.name);
        Target { operation, resource, subresource, namespace, name }
    }
}

fn is_namespace(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "namespaces"
}

/// The parts of a rule, whatever it is a rule of.
#[derive(Clone, Copy)]
pub(in crate::api::admission) struct Rule<'a> {
    operations: &'a [String],
    groups: &'a [String],
    versions: &'a [String],
    resources: &'a [String],
    scope: Option<&'a str>,
    names: &'a [String],
}

fn list(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

impl<'a> From<&'a RuleWithOperations> for Rule<'a> {
    fn from(rule: &'a RuleWithOperations) -> Self {
        Rule {
            operations: list(&rule.operations),
            groups: list(&rule.api_groups),
            versions: list(&rule.api_versions),
            resources: list(&rule.resources),
            scope: rule.scope.as_deref(),
            names: &[],
        }
    }
}

impl<'a> From<&'a NamedRuleWithOperations> for Rule<'a> {
    fn from(rule: &'a NamedRuleWithOperations) -> Self {
        Rule {
            operations: list(&rule.operations),
            groups: list(&rule.api_groups),
            versions: list(&rule.api_versions),
            resources: list(&rule.resources),
            scope: rule.scope.as_deref(),
            names: list(&rule.resource_names),
        }
    }
}

/// A list has the item or a star.
fn has(list: &[String], item: &str) -> bool {
    list.iter().any(|l| l == "*" || l == item)
}

impl Rule<'_> {
    /// Whether the rule covers a target as a certain kind.
    fn covers(&self, target: &Target<'_>, row: &Resource) -> bool {
        has(self.groups, row.group)
            && has(self.versions, row.version)
            && has(self.operations, target.operation)
            && self.resource(row.plural, target.subresource)
            && self.scope(target)
            && (self.names.is_empty() || self.names.iter().any(|n| n == target.name))
    }

    fn resource(&self, plural: &str, subresource: &str) -> bool {
        self.resources.iter().any(|wanted| {
            let (resource, part) = wanted.split_once('/').unwrap_or((wanted, ""));
            (resource == "*" || resource == plural) && (part == "*" || part == subresource)
        })
    }

    /// A Namespace itself counts as cluster-scoped.
    fn scope(&self, target: &Target<'_>) -> bool {
        let cluster = target.namespace.is_empty() || (is_namespace(target.resource) && target.subresource.is_empty());
        match self.scope {
            Some("Namespaced") => !cluster,
            Some("Cluster") => cluster,
            _ => true,
        }
    }
}

/// The kind that a write matches as: the written one, or with `Equivalent` another version of it.
pub(in crate::api::admission) fn matching_kind<'r>(
    target: &Target<'_>,
    rules: impl Iterator<Item = Rule<'r>> + Clone,
    policy: Option<&str>,
) -> Option<&'static Resource> {
    if rules.clone().any(|r| r.covers(target, target.resource)) {
        return Some(target.resource);
    }
    if policy == Some("Exact") {
        return None;
    }
    let same = |row: &&'static Resource| {
        row.group == target.resource.group && row.plural == target.resource.plural && row.version != target.resource.version
    };
    let rows: &'static crate::registry::Registry = &RESOURCES;
    // Another version that differs in more than its name would have to be asked for first.
    let plain = |row: &&'static Resource| row.custom.as_ref().is_none_or(|slot| slot.current().conversion.is_none());
    let mut rows = rows.iter().chain(RESOURCES.custom()).filter(same).filter(plain);
    rows.find(|row| rules.clone().any(|r| r.covers(target, row)))
}

/// Whether a namespace selector lets a write through.
///
/// # Errors
/// 404 when the namespace is gone; 500 when it cannot be read.
pub(in crate::api::admission) async fn namespace_matches(
    context: &Context,
    attributes: &Attributes<'_>,
    target: &Target<'_>,
    selector: Option<&LabelSelector>,
) -> Result<bool, ApiError> {
    // A nil selector would select nothing, but none comes past defaulting.
    let Some(selector) = selector else { return Ok(true) };
    let selector = Selector::from_label_selector(Some(selector)).map_err(ApiError::internal)?;
    if target.namespace.is_empty() || selector.is_everything() {
        return Ok(true);
    }
    if is_namespace(target.resource)
        && matches!(attributes.operation, Operation::Create | Operation::Update)
        && target.subresource.is_empty()
        && let Some(object) = attributes.object.as_deref()
    {
        return Ok(selector.matches(&object.meta().labels));
    }
    let Some(namespace) = context.reader.get_fresh::<Namespace>("", target.namespace).await? else {
        return Err(ApiError::not_found(GroupResource { group: "", resource: "namespaces" }, target.namespace));
    };
    Ok(selector.matches(&namespace.metadata.labels))
}

/// Whether an object selector lets a write through: the new or the old object has the labels.
///
/// # Errors
/// 500 for a selector that cannot be read.
pub(in crate::api::admission) fn object_matches(attributes: &Attributes<'_>, selector: Option<&LabelSelector>) -> Result<bool, ApiError> {
    let Some(selector) = selector else { return Ok(true) };
    let selector = Selector::from_label_selector(Some(selector)).map_err(ApiError::internal)?;
    if selector.is_everything() {
        return Ok(true);
    }
    let labels = |labels: &Option<BTreeMap<String, String>>| selector.matches(labels);
    let new = attributes.object.as_deref().is_some_and(|o| labels(&o.meta().labels));
    Ok(new || attributes.old.is_some_and(|o| labels(&o.meta().labels)))
}

/// Whether a policy's or binding's resources cover a write, and as which kind. Rules that exclude come first.
///
/// # Errors
/// As [`namespace_matches`].
pub(in crate::api::admission) async fn resources_match(
    context: &Context,
    attributes: &Attributes<'_>,
    target: &Target<'_>,
    resources: &MatchResources,
) -> Result<Option<&'static Resource>, ApiError> {
    if !namespace_matches(context, attributes, target, resources.namespace_selector.as_ref()).await?
        || !object_matches(attributes, resources.object_selector.as_ref())?
    {
        return Ok(None);
    }
    let policy = resources.match_policy.as_deref();
    let excluded = resources.exclude_resource_rules.iter().flatten().map(Rule::from);
    if matching_kind(target, excluded, policy).is_some() {
        return Ok(None);
    }
    if resources.resource_rules.iter().flatten().next().is_none() {
        return Ok(Some(target.resource));
    }
    Ok(matching_kind(target, resources.resource_rules.iter().flatten().map(Rule::from), policy))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::ApiObject;

    fn covers(rule: Value, target: &Target<'_>) -> bool {
        let rule: NamedRuleWithOperations = serde_json::from_value(rule).unwrap();
        matching_kind(target, [Rule::from(&rule)].into_iter(), None).is_some()
    }

    fn target<T: ApiObject>(operation: &'static str, subresource: &'static str, namespace: &'static str) -> Target<'static> {
        Target { operation, resource: RESOURCES.of::<T>().unwrap(), subresource, namespace, name: "x" }
    }

    fn rule(resources: &[&str], patch: Value) -> Value {
        let mut rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": resources});
        for (key, value) in patch.as_object().unwrap() {
            rule[key] = value.clone();
        }
        rule
    }

    #[test]
    fn rules_name_resources_and_their_parts() {
        let (pod, exec) = (target::<Pod>("CREATE", "", "n"), target::<Pod>("CREATE", "exec", "n"));
        for (resources, whole, part) in [
            (&["pods"][..], true, false),
            (&["pods/exec"], false, true),
            (&["pods/*"], true, true),
            (&["*"], true, false),
            (&["*/*"], true, true),
            (&["*/exec"], false, true),
            (&["services", "pods/log"], false, false),
        ] {
            assert_eq!((covers(rule(resources, json!({})), &pod), covers(rule(resources, json!({})), &exec)), (whole, part), "{resources:?}");
        }
    }

    #[test]
    fn rules_name_operations_groups_versions_scopes_and_names() {
        let (pod, node) = (target::<Pod>("UPDATE", "", "n"), target::<Node>("UPDATE", "", ""));
        for (patch, on_pod, on_node) in [
            (json!({}), false, false),
            (json!({"operations": ["*"]}), true, true),
            (json!({"operations": ["UPDATE"], "scope": "Namespaced"}), true, false),
            (json!({"operations": ["UPDATE"], "scope": "Cluster"}), false, true),
            (json!({"operations": ["UPDATE"], "apiGroups": ["apps"]}), false, false),
            (json!({"operations": ["UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"]}), true, true),
            (json!({"operations": ["UPDATE"], "apiVersions": ["v2"]}), false, false),
            (json!({"operations": ["UPDATE"], "resourceNames": ["x"]}), true, true),
            (json!({"operations": ["UPDATE"], "resourceNames": ["y"]}), false, false),
        ] {
            let rule = rule(&["*"], patch.clone());
            assert_eq!((covers(rule.clone(), &pod), covers(rule, &node)), (on_pod, on_node), "{patch}");
        }
    }

    #[test]
    fn a_namespace_is_cluster_scoped_itself() {
        let namespace = target::<Namespace>("CREATE", "", "x");
        assert!(covers(rule(&["namespaces"], json!({"scope": "Cluster"})), &namespace));
        assert!(!covers(rule(&["namespaces"], json!({"scope": "Namespaced"})), &namespace));
    }
}

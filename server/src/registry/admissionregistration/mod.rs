//! The admission registration group (`admissionregistration.k8s.io/v1`): webhooks and policies, one file a sort.

mod conditions;
pub mod policies;
pub mod webhooks;

use k8s_openapi::api::admissionregistration::v1::MatchResources;

/// Selectors, match policy and scopes of rules (`SetDefaults_MatchResources`).
fn default_match(resources: &mut MatchResources) {
    resources.match_policy.get_or_insert_with(|| "Equivalent".into());
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    let rules = resources.resource_rules.iter_mut().chain(&mut resources.exclude_resource_rules).flatten();
    for rule in rules {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}
